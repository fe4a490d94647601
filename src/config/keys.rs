//! What tokens are checked with, as flags, and the verifier that they make.

use std::path::PathBuf;

use clap::Args;

use super::args::TokenNameArgs;
use super::values::Secret;
use super::{Error, read, read_secret, required_name, wrong};
use crate::auth::{ClaimName, ClaimNames, JwksSource, KeyConfig, Pace, Verifier};

/// The keys that tokens are checked with: all that are given count.
#[derive(Debug, Args)]
pub(super) struct VerifyingKeyArgs {
    /// Secret that tokens are signed with (HS256); other users of the machine see flags, so rather
    /// use the file or the environment.
    #[arg(long, value_name = "SECRET")]
    pub(super) jwt_secret: Option<Secret>,
    /// File with that secret.
    #[arg(long, value_name = "FILE", conflicts_with = "jwt_secret")]
    pub(super) jwt_secret_file: Option<PathBuf>,
    /// Files with public keys of the issuer in PEM, one in each: RSA (RS256), P-256 (ES256) or
    /// Ed25519 (EdDSA).
    #[arg(long, value_name = "FILE,..", value_delimiter = ',')]
    pub(super) jwt_public_key: Vec<PathBuf>,
    /// The issuer's key set (JWKS): an https URL or a file. It is read again every minute, and when
    /// a token names a key that is not in it, but for that every 30 s at most.
    #[arg(long, value_name = "FILE|URL", value_parser = JwksSource::parse)]
    pub(super) jwks: Option<JwksSource>,
}

/// What the issuer calls its claims.
#[derive(Debug, Args)]
pub(super) struct ClaimArgs {
    /// Claim that names the user: a name, or a JSON pointer such as /identity/name.
    #[arg(long, value_name = "CLAIM", default_value = "sub", value_parser = ClaimName::parse)]
    pub(super) jwt_user_claim: ClaimName,
    /// Claim that names the only device that may use the token; it need not be there.
    #[arg(long, value_name = "CLAIM", default_value = "device", value_parser = ClaimName::parse)]
    pub(super) jwt_device_claim: ClaimName,
    /// Claim with what the bearer may do, as a list or separated by spaces; others' names in it are
    /// ignored.
    #[arg(long, value_name = "CLAIM", default_value = "grants", value_parser = ClaimName::parse)]
    pub(super) jwt_grants_claim: ClaimName,
}

/// Checks tokens of the configured issuer with all configured keys.
pub(super) fn verifier(
    keys: VerifyingKeyArgs,
    names: TokenNameArgs,
    claims: ClaimArgs,
) -> Result<Verifier, Error> {
    let given = given(&keys)?;
    if given.is_empty() && keys.jwks.is_none() {
        let reason = "missing: tokens need a key, give this one, --jwks, --jwt-secret-file or \
                      --jwt-secret";
        return Err(wrong("--jwt-public-key", reason));
    }
    let issuer = required_name("--jwt-issuer", names.jwt_issuer)?;
    let audience = required_name("--jwt-audience", names.jwt_audience)?;
    let ClaimArgs { jwt_user_claim: user, jwt_device_claim, jwt_grants_claim: grants } = claims;
    let names = ClaimNames { user, device: jwt_device_claim, grants };
    let mut verifier = Verifier::without_keys(issuer, audience).with_names(names);
    for (setting, key) in given {
        verifier = verifier.with_key(&key).map_err(|source| Error::Key { setting, source })?;
    }
    if let Some(jwks) = keys.jwks {
        let source = jwks.to_string();
        verifier = verifier
            .with_jwks(jwks, Pace::default())
            .map_err(|error| Error::Jwks { jwks: source, source: error })?;
    }
    Ok(verifier)
}

/// The keys that were given, and the flags that gave them.
fn given(args: &VerifyingKeyArgs) -> Result<Vec<(&'static str, KeyConfig)>, Error> {
    let mut keys = Vec::new();
    if let Some(secret) = &args.jwt_secret {
        keys.push(("--jwt-secret", KeyConfig::Secret(secret.expose().into())));
    }
    if let Some(path) = &args.jwt_secret_file {
        keys.push(("--jwt-secret-file", KeyConfig::Secret(read_secret(path)?)));
    }
    for path in &args.jwt_public_key {
        keys.push(("--jwt-public-key", KeyConfig::Pem(read(path)?)));
    }
    Ok(keys)
}
