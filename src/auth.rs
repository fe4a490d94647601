//! Who is calling: turns a bearer token into a [`Principal`], and mints tokens for development and
//! tests. Knows JWT and keys; must not know tonic, HTTP or spaces.
//!
//! An algorithm belongs to its key and is fixed when the key is loaded; a token only confirms it.
//! The library checks signatures and nothing else: its own checks of claims take a missing or
//! mistyped `iss` or `aud` as fine and read a clock of their own, so those are made here
//! (`auth/claims.rs`). No error shows any text of a token.

mod claims;
mod follower;
mod jwks;
mod keys;
mod names;
mod strict;
#[cfg(test)]
pub(crate) mod test_keys;
#[cfg(test)]
mod tests;
mod verifier;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

pub use self::follower::Pace;
pub use self::jwks::{JwksError, JwksSource};
pub use self::keys::{KeyConfig, KeyError, SECRET_SIZE_MIN_BYTES};
pub use self::names::{ClaimName, ClaimNames};
pub use self::verifier::Verifier;
use crate::domain::{Caller, DeviceId, OpenSpace, Right, Space, Spaces, UserId};

/// Longer tokens are refused before anything in them is decoded.
pub const TOKEN_SIZE_MAX_BYTES: usize = 8 * 1024;
/// How far the issuer's clock and ours may differ.
pub const LEEWAY_SECONDS: i64 = 5;
/// The last second of the year 9999: a later `exp` is a mistake, usually milliseconds.
const NUMERIC_DATE_MAX: i64 = 253_402_300_799;

/// A caller whose token was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who calls, and which spaces are open to them.
    pub caller: Caller,
    /// The device that their token is bound to, if it is.
    pub device: Option<DeviceId>,
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
    /// The device that a call is from, which names one or none; Err is the one that the
    /// token is bound to, if that is another.
    pub fn device(&self, named: Option<DeviceId>) -> Result<Option<DeviceId>, DeviceId> {
        match &self.device {
            None => Ok(named),
            Some(bound) if named.as_ref().is_none_or(|named| named == bound) => {
                Ok(Some(bound.clone()))
            }
            Some(bound) => Err(bound.clone()),
        }
    }

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
        let (device, expires_at) = (self.device.clone(), self.expires_at);
        Some(Self { caller, device, expires_at, may: May::default() })
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
    /// Signed with a key that its issuer may have, and we do not.
    #[error("token names a key that is not known")]
    UnknownKey,
    /// Signed by somebody else, or altered.
    #[error("token signature does not match")]
    Signature,
    /// A claim that is missing, mistyped or meant for others; one with a name of the issuer's
    /// choice is called by what it is for.
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
            | Self::UnknownKey
            | Self::Signature
            | Self::Claim(_)
            | Self::NotYetValid => RefusalClass::Invalid,
        }
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
