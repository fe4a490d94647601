//! What a token says of itself. Nobody has checked it: the server will. Must not show the token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// Claims that tell people whose token it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) subject: String,
    pub(super) issuer: String,
    /// Seconds since 1970; None if it does not say.
    pub(super) expires_at: Option<i64>,
}

/// The claims in the token; what is wrong with it otherwise.
pub(super) fn claims(token: &str) -> Result<Claims, &'static str> {
    let mut parts = token.trim().split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("it is no JWT: that has three parts with dots between");
    };
    let bytes = URL_SAFE_NO_PAD.decode(payload).map_err(|_| "its payload is no base64url")?;
    let claims: Value = serde_json::from_slice(&bytes).map_err(|_| "its payload is no JSON")?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let expires_at = claims.get("exp").and_then(Value::as_i64);
    Ok(Claims { subject: text("sub"), issuer: text("iss"), expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_without_a_key() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"alice","iss":"me","exp":7}"#);
        let expected = Claims { subject: "alice".into(), issuer: "me".into(), expires_at: Some(7) };
        assert_eq!(claims(&format!("h.{payload}.s\n")), Ok(expected));
        for bad in ["", "a.b", "a.b.c.d", "a.!.c", "a.YQ.c"] {
            assert!(claims(bad).is_err(), "{bad}");
        }
    }
}
