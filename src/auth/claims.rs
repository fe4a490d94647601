//! What a token's header and claims may say. Strict where the library is lax: a claim of the wrong
//! type is refused, not absent, and no name may occur twice. Must not know keys or the time; what
//! the issuer calls its claims is in `names`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::Value;

use super::names::{ClaimName, ClaimNames};
use super::strict::Strict;
use super::{Grant, May, NUMERIC_DATE_MAX, TokenError};
use crate::domain::{Caller, DeviceId, OpenSpace, UserId};

const KEY_ID_SIZE_MAX_BYTES: usize = 128;

/// The claims of a token that is meant for us.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) caller: Caller,
    pub(super) device: Option<DeviceId>,
    pub(super) may: May,
    pub(super) expires_at: i64,
    /// 0 where the token does not say.
    pub(super) not_before: i64,
}

/// What a token says about how it was signed.
pub(super) struct Header {
    /// To be confirmed by a key, never to choose how one is used.
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
}

/// Refuses every header that we do not know how to honour. What it says of where keys may be
/// fetched (`jku`, `x5u`) or what they are (`jwk`, `x5c`) is not even looked at.
pub(super) fn header(segment: &str) -> Result<Header, TokenError> {
    let header = Object::from_segment(segment)?;
    let algorithm = match header.text("alg") {
        Some("HS256") => Algorithm::HS256,
        Some("RS256") => Algorithm::RS256,
        Some("ES256") => Algorithm::ES256,
        Some("EdDSA") => Algorithm::EdDSA,
        _ => return Err(TokenError::Header("alg")),
    };
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
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) if is_key_id(id) => Some(id.clone()),
        Some(_) => return Err(TokenError::Header("kid")),
    };
    Ok(Header { algorithm, key_id })
}

/// Plain names, UUIDs, thumbprints, base64, and URLs; never a way up a directory or a quote.
pub(super) fn is_key_id(text: &str) -> bool {
    (1..=KEY_ID_SIZE_MAX_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+/=:#@".contains(&byte))
        && !text.contains("..")
}

/// The claims, if they are complete, well-typed and for this issuer and audience.
pub(super) fn read(
    segment: &str,
    issuer: &str,
    audience: &str,
    names: &ClaimNames,
) -> Result<Claims, TokenError> {
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
    let user = claims.find(&names.user).and_then(Value::as_str);
    let user = user.and_then(|user| UserId::parse(user).ok()).ok_or(TokenError::Claim("user"))?;
    let device = claims.device(&names.device)?;
    claims.date("iat")?;
    let grants = claims.grants(&names.grants)?;
    let (open, may) = granted(grants);
    Ok(Claims {
        caller: Caller { user, open: open.into(), actor: None },
        device,
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
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        let read = Strict::deserialize(&mut reader).and_then(|read| reader.end().map(|()| read));
        match read {
            Ok(Strict(Value::Object(object))) => Ok(Self(object)),
            _ => Err(TokenError::Malformed),
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    fn find(&self, name: &ClaimName) -> Option<&Value> {
        name.find(&self.0)
    }

    /// The device that the token is bound to.
    fn device(&self, name: &ClaimName) -> Result<Option<DeviceId>, TokenError> {
        let Some(value) = self.find(name) else { return Ok(None) };
        let device = value.as_str().and_then(|device| DeviceId::parse(device).ok());
        device.map(Some).ok_or(TokenError::Claim("device"))
    }

    /// The grants that are ours; others may be somebody else's.
    fn grants(&self, name: &ClaimName) -> Result<Vec<Grant>, TokenError> {
        let wrong = TokenError::Claim("grants");
        let names: Vec<&str> = match self.find(name) {
            None => return Ok(Vec::new()),
            // As OAuth writes a `scope`.
            Some(Value::String(names)) => names.split(' ').collect(),
            Some(Value::Array(names)) => {
                names.iter().map(Value::as_str).collect::<Option<_>>().ok_or(wrong)?
            }
            Some(_) => return Err(wrong),
        };
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
