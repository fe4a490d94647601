//! What a token's header and claims may say. Strict where the library is lax: a claim of the wrong
//! type is refused, not absent, and no name may occur twice. Must not know keys or the time.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Grant, May, NUMERIC_DATE_MAX, TokenError};
use crate::domain::{Caller, OpenSpace, UserId};

const KEY_ID_SIZE_MAX_BYTES: usize = 128;

/// The claims of a token that is meant for us.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) caller: Caller,
    pub(super) may: May,
    pub(super) expires_at: i64,
    /// 0 where the token does not say.
    pub(super) not_before: i64,
}

/// Refuses every header that we do not know how to honour.
pub(super) fn check_header(segment: &str, algorithm: Algorithm) -> Result<(), TokenError> {
    let header = Object::from_segment(segment)?;
    let expected = format!("{algorithm:?}");
    if header.text("alg") != Some(&expected) {
        return Err(TokenError::Header("alg"));
    }
    // Whatever must be understood is not: none of the extensions is.
    if header.get("crit").is_some() {
        return Err(TokenError::Header("crit"));
    }
    // An ID token or another kind of JWT of the same issuer is no access token (RFC 8725, 3.11).
    let is_access_token =
        |typ: &str| typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt");
    if header.get("typ").is_some() && !header.text("typ").is_some_and(is_access_token) {
        return Err(TokenError::Header("typ"));
    }
    if header.get("kid").is_some() && !header.text("kid").is_some_and(is_key_id) {
        return Err(TokenError::Header("kid"));
    }
    Ok(())
}

/// Plain names, UUIDs, thumbprints, base64, and URLs; never a way up a directory or a quote.
fn is_key_id(text: &str) -> bool {
    (1..=KEY_ID_SIZE_MAX_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=:#@".contains(&byte))
        && !text.contains("..")
}

/// The claims, if they are complete, well-typed and for this issuer and audience.
pub(super) fn read(segment: &str, issuer: &str, audience: &str) -> Result<Claims, TokenError> {
    let claims = Object::from_segment(segment)?;
    if claims.text("iss") != Some(issuer) {
        return Err(TokenError::Claim("iss"));
    }
    let names_us = match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(many)) => {
            many.iter().all(Value::is_string) && many.iter().any(|one| one == audience)
        }
        _ => false,
    };
    if !names_us {
        return Err(TokenError::Claim("aud"));
    }
    // Refused where it is not in normal form: two subjects must never become one user.
    let user = claims.text("sub").and_then(|sub| UserId::parse(sub).ok());
    let user = user.ok_or(TokenError::Claim("sub"))?;
    claims.date("iat")?;
    let grants = claims.grants()?;
    let (open, may) = granted(grants);
    Ok(Claims {
        caller: Caller { user, open: open.into(), actor: None },
        may,
        expires_at: claims.date("exp")?.ok_or(TokenError::Claim("exp"))?,
        not_before: claims.date("nbf")?.unwrap_or(0),
    })
}

/// The spaces that grants open, and what else they are for.
fn granted(grants: Vec<Grant>) -> (Vec<OpenSpace>, May) {
    let (mut open, mut act_for, mut may) = (Vec::new(), Vec::new(), May::default());
    for grant in grants {
        match grant {
            Grant::Policies => may.set_policies = true,
            Grant::Audit => may.read_audit = true,
            Grant::ActFor(user) => act_for.push(user),
            Grant::Space(space) => open.push(space),
        }
    }
    may.act_for = act_for.into();
    (open, may)
}

/// A JSON object in which no name occurs twice, so that no two readers can disagree about it.
struct Object(serde_json::Map<String, Value>);

impl Object {
    /// Decodes base64url without padding; serde_json itself refuses what is nested too deep.
    fn from_segment(segment: &str) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(segment).map_err(|_| TokenError::Malformed)?;
        serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// The grants that are ours; others may be somebody else's.
    fn grants(&self) -> Result<Vec<Grant>, TokenError> {
        let wrong = TokenError::Claim("grants");
        let Some(value) = self.get("grants") else { return Ok(Vec::new()) };
        let names = value.as_array().ok_or(wrong)?.iter().map(Value::as_str);
        let names = names.collect::<Option<Vec<_>>>().ok_or(wrong)?;
        Ok(names.into_iter().filter_map(Grant::parse).collect())
    }

    /// Seconds since 1970, whole or not, if the claim is there.
    fn date(&self, name: &'static str) -> Result<Option<i64>, TokenError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let fraction = || value.as_f64().and_then(whole_seconds);
        match value.as_i64().or_else(fraction) {
            Some(seconds) if (0..=NUMERIC_DATE_MAX).contains(&seconds) => Ok(Some(seconds)),
            _ => Err(TokenError::Claim(name)),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the range is checked first, and both ends are exact in a double"
)]
fn whole_seconds(seconds: f64) -> Option<i64> {
    (0.0..=NUMERIC_DATE_MAX as f64).contains(&seconds).then_some(seconds as i64)
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EachNameOnce;

        impl<'de> Visitor<'de> for EachNameOnce {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
                let mut object = serde_json::Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if object.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name occurs twice"));
                    }
                }
                Ok(Object(object))
            }
        }

        deserializer.deserialize_map(EachNameOnce)
    }
}
