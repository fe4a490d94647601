//! Who is calling: turns a bearer token into a [`Principal`], and mints tokens for development and
//! tests. Knows JWT and keys; must not know tonic, HTTP or spaces.
//!
//! The algorithm belongs to the key and is fixed when the key is loaded; a token only confirms it.
//! The library checks signatures and nothing else: its own checks of claims take a missing or
//! mistyped `iss` or `aud` as fine and read a clock of their own, so those are made here
//! (`auth/claims.rs`). No error shows any text of a token.

mod claims;
mod keys;
#[cfg(test)]
pub(crate) mod test_keys;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use parking_lot::Mutex;
use serde_json::json;

use self::claims::Claims;
pub use self::keys::{KeyConfig, KeyError, SECRET_SIZE_MIN_BYTES};
use crate::domain::{Caller, OpenSpace, Right, Space, Spaces, UserId};

/// Longer tokens are refused before anything in them is decoded.
pub const TOKEN_SIZE_MAX_BYTES: usize = 8 * 1024;
/// How far the issuer's clock and ours may differ.
pub const LEEWAY_SECONDS: i64 = 5;
/// Tokens that were proven lately: a signature costs more than many a request.
const REMEMBERED_MAX: usize = 4_096;
/// Larger tokens are proven each time.
const REMEMBERED_SIZE_MAX_BYTES: usize = 2 * 1024;
/// The last second of the year 9999: a later `exp` is a mistake, usually milliseconds.
const NUMERIC_DATE_MAX: i64 = 253_402_300_799;

/// A caller whose token was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who calls, and which spaces are open to them.
    pub caller: Caller,
    /// When their token ends, without leeway, in seconds since 1970.
    pub expires_at: i64,
    /// What else they may.
    pub may: May,
}

/// What a caller may that concerns no single space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct May {
    /// Set and delete policies.
    pub set_policies: bool,
    /// Read the audit log of the server as a whole.
    pub read_audit: bool,
    /// Act for these users; None = for whomever.
    pub act_for: Arc<[Option<UserId>]>,
}

impl Principal {
    /// The same as somebody for whom they act, with all that these may and nothing else;
    /// None if they may not.
    #[must_use]
    pub fn acting_for(&self, user: &UserId) -> Option<Self> {
        let mut may = self.may.act_for.iter();
        if !may.any(|of| of.as_ref().is_none_or(|of| of == user)) {
            return None;
        }
        let actor = Some(self.caller.user.clone());
        let caller = Caller { actor, ..Caller::of(user.clone()) };
        Some(Self { caller, expires_at: self.expires_at, may: May::default() })
    }
}

/// Something that a token may allow its bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// To set and delete policies.
    Policies,
    /// To read the audit log of the server as a whole.
    Audit,
    /// To act for a user; None = for whomever.
    ActFor(Option<UserId>),
    /// To enter another's space, or all of them.
    Space(OpenSpace),
}

/// Stands for all users, or spaces.
const ALL: &str = "*";

impl Grant {
    /// The grant of this name.
    pub fn parse(name: &str) -> Option<Self> {
        let (right, spaces) = match name.split_once(':') {
            None if name == "policies" => return Some(Self::Policies),
            None if name == "audit" => return Some(Self::Audit),
            None => return None,
            Some(("act_for", ALL)) => return Some(Self::ActFor(None)),
            Some(("act_for", user)) => {
                return Some(Self::ActFor(Some(UserId::parse(user).ok()?)));
            }
            Some(("read", spaces)) => (Right::Read, spaces),
            Some(("write", spaces)) => (Right::Write, spaces),
            Some(("admin", spaces)) => (Right::Admin, spaces),
            Some(_) => return None,
        };
        let spaces = match spaces {
            ALL => Spaces::All,
            name => Spaces::One(Space::named(name).ok()?),
        };
        Some(Self::Space(OpenSpace { spaces, right }))
    }
}

/// Its name in tokens.
impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policies => f.write_str("policies"),
            Self::Audit => f.write_str("audit"),
            Self::ActFor(None) => write!(f, "act_for:{ALL}"),
            Self::ActFor(Some(user)) => write!(f, "act_for:{user}"),
            Self::Space(OpenSpace { spaces: Spaces::All, right }) => write!(f, "{right}:{ALL}"),
            Self::Space(OpenSpace { spaces: Spaces::One(space), right }) => {
                write!(f, "{right}:{}", space.name())
            }
        }
    }
}

/// Why a token is refused: for logs and tests. The wire learns [`TokenError::class`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Larger than any token of ours.
    #[error("token is longer than {} bytes", TOKEN_SIZE_MAX_BYTES)]
    TooLong,
    /// Not the compact form of a signed JWT.
    #[error("token is not three segments of unpadded base64url that hold JSON objects")]
    Malformed,
    /// A header that we cannot accept.
    #[error("token header `{0}` is missing or not acceptable")]
    Header(&'static str),
    /// Signed by somebody else, or altered.
    #[error("token signature does not match")]
    Signature,
    /// A claim that is missing, mistyped or meant for others.
    #[error("token claim `{0}` is missing or not acceptable")]
    Claim(&'static str),
    /// `nbf` lies ahead.
    #[error("token is not valid yet")]
    NotYetValid,
    /// `exp` has passed.
    #[error("token has expired")]
    Expired,
}

/// All that a refused caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalClass {
    /// There was no token.
    Missing,
    /// Get another token; which check failed is nobody's business.
    Invalid,
    /// The token was good; refresh it.
    Expired,
}

impl RefusalClass {
    /// The class as the wire shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
        }
    }
}

impl TokenError {
    /// What the caller is told.
    pub fn class(self) -> RefusalClass {
        match self {
            Self::Expired => RefusalClass::Expired,
            Self::TooLong
            | Self::Malformed
            | Self::Header(_)
            | Self::Signature
            | Self::Claim(_)
            | Self::NotYetValid => RefusalClass::Invalid,
        }
    }
}

/// Checks tokens of one issuer for one audience with one key.
pub struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
    issuer: String,
    audience: String,
    proven: Mutex<HashMap<Box<str>, Arc<Claims>>>,
}

impl Verifier {
    /// A verifier for tokens that `issuer` signs for `audience`; of a pair it takes the public key.
    pub fn new(
        key: &KeyConfig,
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Result<Self, KeyError> {
        let (algorithm, key) = keys::verifying(key)?;
        let (issuer, audience) = (issuer.into(), audience.into());
        Ok(Self { algorithm, key, issuer, audience, proven: Mutex::default() })
    }

    /// The principal that the token proves at the given time, or why it proves none.
    pub fn verify(&self, token: &str, now_unix_seconds: i64) -> Result<Principal, TokenError> {
        let known = self.proven.lock().get(token).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(self.prove(token)?);
                self.remember(token, &claims);
                claims
            }
        };
        if now_unix_seconds >= claims.expires_at.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::Expired);
        }
        if claims.not_before > now_unix_seconds.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::NotYetValid);
        }
        let Claims { caller, may, expires_at, .. } = claims.as_ref();
        Ok(Principal { caller: caller.clone(), expires_at: *expires_at, may: may.clone() })
    }

    /// What the token says, if it is ours; all but the times is checked.
    fn prove(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_SIZE_MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        claims::check_header(header, self.algorithm)?;
        let signed =
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm);
        if !matches!(signed, Ok(true)) {
            return Err(TokenError::Signature);
        }
        // Only now is it worth knowing what the token says.
        claims::read(payload, &self.issuer, &self.audience)
    }

    fn remember(&self, token: &str, claims: &Arc<Claims>) {
        if token.len() <= REMEMBERED_SIZE_MAX_BYTES {
            let mut proven = self.proven.lock();
            if proven.len() >= REMEMBERED_MAX {
                proven.clear();
            }
            proven.insert(token.into(), Arc::clone(claims));
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("algorithm", &self.algorithm)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// Signs tokens: for `syncline token`, the bench and tests.
pub struct Minter {
    algorithm: Algorithm,
    key: EncodingKey,
    grants: Vec<Grant>,
}

impl Minter {
    /// A minter whose key has been tried out; of a pair it takes the private key.
    pub fn new(key: &KeyConfig) -> Result<Self, KeyError> {
        let (algorithm, key) = keys::signing(key)?;
        Ok(Self { algorithm, key, grants: Vec::new() })
    }

    /// The same, for tokens with these grants.
    #[must_use]
    pub fn with_grants(self, grants: Vec<Grant>) -> Self {
        Self { grants, ..self }
    }

    /// A token for the user that is good for `ttl` from now on.
    pub fn mint(
        &self,
        user: &UserId,
        ttl: Duration,
        now_unix_seconds: i64,
        issuer: &str,
        audience: &str,
    ) -> Result<String, KeyError> {
        let ttl_seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let expires_at = now_unix_seconds.saturating_add(ttl_seconds).min(NUMERIC_DATE_MAX);
        let grants: Vec<_> = self.grants.iter().map(Grant::to_string).collect();
        let claims = json!({
            "sub": user.as_str(),
            "iss": issuer,
            "aud": audience,
            "iat": now_unix_seconds,
            "exp": expires_at,
            "grants": grants,
        });
        let header = jsonwebtoken::Header::new(self.algorithm);
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(KeyError::Signing)
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minter").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
