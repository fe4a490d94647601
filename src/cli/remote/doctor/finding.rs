//! What is made of what was found out: well, or not, and what to do. Pure; must not know how it was
//! found out.

use time::{Duration, OffsetDateTime};

use super::tls::Certificate;
use crate::cli::remote::output::safe;
use crate::cli::remote::{shown, token};
use crate::exit::Exit;

/// Somebody should see to a certificate that ends by then.
const CERTIFICATE_NEAR: Duration = Duration::days(14);
/// Many issuers give tokens for an hour, which is no reason to warn of each.
const TOKEN_NEAR: Duration = Duration::minutes(5);
/// Clocks that differ by more confuse the times of tokens. The server tells whole seconds.
const SKEW_MAX: Duration = Duration::seconds(5);
/// Of a space's quota, in percent, from which on its end is near.
const ROOM_NEAR_PERCENT: i64 = 90;

/// A verdict, with what was found, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Ok(String),
    Warn(String, String),
    Fail(Exit, String, String),
}

pub(super) fn certificate(found: &Certificate, now: OffsetDateTime) -> Finding {
    let until = shown::when(Some(found.good_until));
    let said = format!("a certificate for {}, good until {until}", safe(&found.names.join(", ")));
    if now < found.good_from || found.good_until < now {
        let hint = "give the server a new certificate, or check this machine's clock";
        return Finding::Fail(Exit::Unreachable, format!("{said}, which is not now"), hint.into());
    }
    match found.good_until - now < CERTIFICATE_NEAR {
        true => {
            Finding::Warn(said, "renew it; the server takes a new one without a restart".into())
        }
        false => Finding::Ok(said),
    }
}

pub(super) fn token(claims: &token::Claims, now: OffsetDateTime) -> Finding {
    let until = claims.expires_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    let said = format!(
        "of {}, from {}, good until {}",
        safe(&claims.subject),
        safe(&claims.issuer),
        until.map_or_else(|| "nobody knows".to_owned(), |at| shown::when(Some(at)))
    );
    match until.map(|until| until - now) {
        Some(left) if left <= Duration::ZERO => {
            Finding::Fail(Exit::Token, format!("{said}, which is over"), "get a new token".into())
        }
        Some(left) if left < TOKEN_NEAR => {
            Finding::Warn(said, "it ends within minutes: get a new one in time".into())
        }
        _ => Finding::Ok(said),
    }
}

/// Of a clock that is so far ahead of ours.
pub(super) fn skew(ahead: Option<Duration>) -> Finding {
    let Some(ahead) = ahead else {
        let hint = "something between us and the server leaves out the time";
        return Finding::Warn("the server does not tell its time".into(), hint.into());
    };
    let said = format!("the server's is {:+.1} s from ours", ahead.as_seconds_f64());
    match ahead.abs() > SKEW_MAX {
        true => Finding::Warn(said, "let both machines follow a time server (NTP)".into()),
        false => Finding::Ok(said),
    }
}

/// Of what there is and what there may be; 0 = any number.
pub(super) fn room(kinds: [(&str, i64, i64); 2]) -> Finding {
    let limited = kinds.iter().filter(|(_, _, max)| *max > 0);
    let said: Vec<_> =
        limited.clone().map(|(kind, number, max)| format!("{number} of {max} {kind}")).collect();
    let is_near = |(_, number, max): &(&str, i64, i64)| {
        i128::from(*number) * 100 >= i128::from(*max) * i128::from(ROOM_NEAR_PERCENT)
    };
    match limited.clone().any(is_near) {
        _ if said.is_empty() => Finding::Ok("the space has no quota".into()),
        true => Finding::Warn(
            said.join(", "),
            "make room in the space, or ask its operator for a larger quota".into(),
        ),
        false => Finding::Ok(said.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn a_certificate_is_for_now_and_some_time_to_come() {
        let of = |from: i64, until: i64| {
            let (good_from, good_until) = (NOW + Duration::days(from), NOW + Duration::days(until));
            certificate(&Certificate { names: vec!["a".into()], good_from, good_until }, NOW)
        };
        assert!(matches!(of(-1, 15), Finding::Ok(said) if said.contains("for a, good until 1970")));
        assert!(matches!(of(-1, 13), Finding::Warn(..)));
        assert!(matches!(of(-2, -1), Finding::Fail(Exit::Unreachable, ..)));
        assert!(matches!(of(1, 30), Finding::Fail(Exit::Unreachable, ..)));
    }

    #[test]
    fn a_token_ends() {
        let of = |expires_at| {
            let (subject, issuer) = ("alice".to_owned(), "me".to_owned());
            token(&token::Claims { subject, issuer, expires_at }, NOW)
        };
        assert!(matches!(of(None), Finding::Ok(said) if said.contains("nobody knows")));
        assert!(matches!(of(Some(301)), Finding::Ok(_)));
        assert!(matches!(of(Some(299)), Finding::Warn(..)));
        assert!(matches!(of(Some(0)), Finding::Fail(Exit::Token, ..)));
    }

    #[test]
    fn clocks_are_near_each_other() {
        let of = |seconds| skew(Some(Duration::seconds(seconds)));
        assert_eq!(of(-5), Finding::Ok("the server's is -5.0 s from ours".into()));
        assert!(matches!((of(6), of(-6)), (Finding::Warn(..), Finding::Warn(..))));
        assert!(matches!(skew(None), Finding::Warn(..)));
    }

    #[test]
    fn a_space_that_is_nearly_full_is_told_in_time() {
        let of = |records, bytes| room([("records", records, 100), ("bytes", bytes, i64::MAX)]);
        let said = format!("89 of 100 records, 7 of {} bytes", i64::MAX);
        assert_eq!(of(89, 7), Finding::Ok(said));
        assert!(matches!((of(90, 0), of(0, i64::MAX)), (Finding::Warn(..), Finding::Warn(..))));
        let free = room([("records", 9, 0), ("bytes", 9, 0)]);
        assert!(matches!(free, Finding::Ok(said) if said.contains("no quota")));
    }
}
