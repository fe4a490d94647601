//! Checks tokens of one issuer with a set of keys: those that were given, and those that a JWKS
//! has at the moment. Which keys can count is decided by a token's `kid`; how each is used never.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::claims::{self, Claims};
use super::follower::{Follower, Pace};
use super::jwks::{Jwks, JwksError, JwksSource};
use super::keys::{self, Key};
use super::{
    ClaimNames, KeyConfig, KeyError, LEEWAY_SECONDS, Principal, TOKEN_SIZE_MAX_BYTES, TokenError,
};

/// Tokens that were proven lately: a signature costs more than many a request.
const REMEMBERED_MAX: usize = 4_096;
/// Larger tokens are proven each time.
const REMEMBERED_SIZE_MAX_BYTES: usize = 2 * 1024;
/// Keys that are tried on one token: whoever sends rubbish shall not make us try all.
const TRIED_MAX: usize = 16;

/// Checks tokens of one issuer for one audience.
pub struct Verifier {
    issuer: String,
    audience: String,
    names: ClaimNames,
    /// Those that were given; they stay.
    given: Vec<Key>,
    known: Mutex<Known>,
    pub(super) follower: Option<Follower>,
}

/// The keys, and what was proven with just these.
struct Known {
    keys: Arc<[Key]>,
    proven: HashMap<Box<str>, Arc<Claims>>,
}

impl Verifier {
    /// A verifier for tokens that `issuer` signs for `audience`; of a pair it takes the public key.
    pub fn new(
        key: &KeyConfig,
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Result<Self, KeyError> {
        Self::without_keys(issuer, audience).with_key(key)
    }

    /// A verifier that refuses every token until it has keys.
    pub fn without_keys(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        let known = Known { keys: Arc::from([]), proven: HashMap::new() };
        Self {
            issuer: issuer.into(),
            audience: audience.into(),
            names: ClaimNames::default(),
            given: Vec::new(),
            known: Mutex::new(known),
            follower: None,
        }
    }

    /// The same, with one more key.
    pub fn with_key(mut self, key: &KeyConfig) -> Result<Self, KeyError> {
        self.given.push(keys::verifying(key)?);
        self.learn(Vec::new());
        Ok(self)
    }

    /// The same, with the keys of a JWKS as well. A file is read at once, so that a bad one shows
    /// before anything starts; what is behind a URL by [`Verifier::first_refresh`]. Whoever serves
    /// runs [`Verifier::follow`].
    pub fn with_jwks(mut self, source: JwksSource, pace: Pace) -> Result<Self, JwksError> {
        let (follower, found) = Follower::new(source, pace)?;
        self.follower = Some(follower);
        if let Some(Jwks { keys }) = found {
            self.learn(keys);
        }
        Ok(self)
    }

    /// The same, for an issuer with other names for its claims.
    #[must_use]
    pub fn with_names(self, names: ClaimNames) -> Self {
        Self { names, ..self }
    }

    /// From now on the keys are those that were given and these. What was proven before is not
    /// proven any longer.
    pub(super) fn learn(&self, learned: Vec<Key>) {
        let keys = self.given.iter().cloned().chain(learned).collect();
        *self.known.lock() = Known { keys, proven: HashMap::new() };
    }

    /// The principal that the token proves at the given time, or why it proves none.
    pub fn verify(&self, token: &str, now_unix_seconds: i64) -> Result<Principal, TokenError> {
        let claims = self.claims(token)?;
        if now_unix_seconds >= claims.expires_at.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::Expired);
        }
        if claims.not_before > now_unix_seconds.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::NotYetValid);
        }
        let Claims { caller, device, may, expires_at, .. } = claims.as_ref();
        let (caller, device, may) = (caller.clone(), device.clone(), may.clone());
        Ok(Principal { caller, device, expires_at: *expires_at, may })
    }

    fn claims(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        let keys = {
            let known = self.known.lock();
            if let Some(claims) = known.proven.get(token) {
                return Ok(Arc::clone(claims));
            }
            Arc::clone(&known.keys)
        };
        let claims = Arc::new(self.prove(token, &keys)?);
        if token.len() <= REMEMBERED_SIZE_MAX_BYTES {
            let Known { keys: now, proven } = &mut *self.known.lock();
            // The keys may have changed meanwhile, and this may be the token of one that is gone.
            if Arc::ptr_eq(now, &keys) {
                if proven.len() >= REMEMBERED_MAX {
                    proven.clear();
                }
                proven.insert(token.into(), Arc::clone(&claims));
            }
        }
        Ok(claims)
    }

    /// What the token says, if it is ours; all but the times is checked.
    fn prove(&self, token: &str, keys: &[Key]) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_SIZE_MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header = claims::header(header)?;
        let named = header.key_id.as_deref();
        let may_have_signed = |key: &&Key| {
            key.algorithm == header.algorithm
                && (named.is_none() || key.id.is_none() || key.id.as_deref() == named)
        };
        for key in keys.iter().filter(may_have_signed).take(TRIED_MAX) {
            let message = message.as_bytes();
            let signed = jsonwebtoken::crypto::verify(signature, message, &key.key, key.algorithm);
            if matches!(signed, Ok(true)) {
                // Only now is it worth knowing what the token says.
                return claims::read(payload, &self.issuer, &self.audience, &self.names);
            }
        }
        let is_known = match named {
            Some(named) => keys.iter().any(|key| key.id.as_deref() == Some(named)),
            None => !keys.is_empty(),
        };
        if let Some(follower) = self.follower.as_ref().filter(|_| !is_known) {
            follower.wish();
            return Err(TokenError::UnknownKey);
        }
        if keys.iter().any(|key| key.algorithm == header.algorithm) {
            return Err(TokenError::Signature);
        }
        Err(TokenError::Header("alg"))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("keys", &self.known.lock().keys)
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("jwks", &self.follower)
            .finish_non_exhaustive()
    }
}
