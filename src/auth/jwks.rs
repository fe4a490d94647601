//! The public keys of an issuer as it publishes them (RFC 7517): where they are, and which of them
//! we take. Owns the only HTTP client. Nothing that a token says decides what is fetched.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::redirect;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use super::claims::is_key_id;
use super::keys::{Key, RSA_BITS};

const SIZE_MAX_BYTES: usize = 1 << 20;
const KEYS_MAX: usize = 64;
/// For the whole of a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const P256_COORDINATE_BYTES: usize = 32;
const ED25519_BYTES: usize = 32;
/// Larger ones make each signature expensive, and nobody has them.
const RSA_EXPONENT_BYTES: std::ops::RangeInclusive<usize> = 1..=4;

/// Where a JWKS is.
#[derive(Clone, PartialEq, Eq)]
pub struct JwksSource(Place);

#[derive(Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Url(Box<Url>),
}

impl JwksSource {
    /// A file, or a URL, or why it is no good one.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            let file = if text.is_empty() { None } else { Some(Place::File(text.into())) };
            return file.map(Self).ok_or_else(|| "expected a file or an https URL".to_owned());
        }
        let url = Url::parse(text).map_err(|error| format!("no URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL with a password would show it: public keys need none".to_owned());
        }
        match url.scheme() {
            "https" => Ok(Self(Place::Url(Box::new(url)))),
            // Whoever is on the way could put their own keys in.
            "http" if is_loopback(&url) => Ok(Self(Place::Url(Box::new(url)))),
            _ => Err("must be https, or http to this machine".to_owned()),
        }
    }

    /// Whether it can be read without a network.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.0, Place::File(_))
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

impl fmt::Display for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Url(url) => write!(f, "{url}"),
        }
    }
}

impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file is not there, or not ours.
    #[error("cannot read the key set")]
    Read(#[source] io::Error),
    /// The issuer cannot be reached, or does not answer in time.
    #[error("cannot fetch the key set")]
    Fetch(#[source] reqwest::Error),
    /// The issuer answers something else; redirects are not followed.
    #[error("the issuer answers {0} in place of the key set")]
    Status(StatusCode),
    /// More than anybody's keys take.
    #[error("the key set is larger than {} bytes", SIZE_MAX_BYTES)]
    TooLarge,
    /// Not what RFC 7517 describes.
    #[error("the key set is not JSON with a list `keys`")]
    Malformed(#[source] serde_json::Error),
    /// More keys than anybody has.
    #[error("the key set has {0} keys, at most {max} are allowed", max = KEYS_MAX)]
    TooMany(usize),
}

/// Reads what is at a source.
#[derive(Debug)]
pub(super) struct Reader {
    source: JwksSource,
    /// For a URL.
    client: Option<Client>,
}

impl Reader {
    /// Fails if there is nothing to check an issuer's certificate with.
    pub(super) fn new(source: JwksSource) -> Result<Self, JwksError> {
        let client = match &source.0 {
            Place::File(_) => None,
            Place::Url(url) => {
                let client = Client::builder()
                    .redirect(redirect::Policy::none())
                    .timeout(FETCH_TIMEOUT)
                    .user_agent(concat!("syncline/", env!("CARGO_PKG_VERSION")));
                let client = match url.scheme() {
                    // To this machine: no certificates, and no proxy that leads elsewhere.
                    "http" => client.no_proxy().tls_certs_only([]),
                    _ => client.https_only(true),
                };
                Some(client.build().map_err(JwksError::Fetch)?)
            }
        };
        Ok(Self { source, client })
    }

    pub(super) fn source(&self) -> &JwksSource {
        &self.source
    }

    /// The text that is there now.
    pub(super) async fn read(&self) -> Result<Vec<u8>, JwksError> {
        match (&self.source.0, &self.client) {
            (Place::Url(url), Some(client)) => fetch(client, url).await,
            (Place::Url(_), None) => Err(JwksError::Read(io::ErrorKind::Unsupported.into())),
            (Place::File(path), _) => {
                let path = path.clone();
                let reading = tokio::task::spawn_blocking(move || read_file(&path));
                reading.await.unwrap_or_else(|panic| Err(JwksError::Read(panic.into())))
            }
        }
    }

    /// The same for a file, at once.
    pub(super) fn read_now(&self) -> Result<Vec<u8>, JwksError> {
        match &self.source.0 {
            Place::File(path) => read_file(path),
            Place::Url(_) => Err(JwksError::Read(io::ErrorKind::Unsupported.into())),
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, JwksError> {
    let mut text = Vec::new();
    let bound = u64::try_from(SIZE_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let file = File::open(path).map_err(JwksError::Read)?;
    file.take(bound).read_to_end(&mut text).map_err(JwksError::Read)?;
    if text.len() > SIZE_MAX_BYTES { Err(JwksError::TooLarge) } else { Ok(text) }
}

async fn fetch(client: &Client, url: &Url) -> Result<Vec<u8>, JwksError> {
    let mut answer = client.get(url.clone()).send().await.map_err(JwksError::Fetch)?;
    if answer.status() != StatusCode::OK {
        return Err(JwksError::Status(answer.status()));
    }
    let mut text = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(JwksError::Fetch)? {
        if text.len() + piece.len() > SIZE_MAX_BYTES {
            return Err(JwksError::TooLarge);
        }
        text.extend_from_slice(&piece);
    }
    Ok(text)
}

/// The keys of a set that tokens can be checked with.
#[derive(Debug)]
pub(super) struct Jwks {
    pub(super) keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// What is of interest of a key; a part of the wrong type makes it one that we do not know.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// There is one in private keys.
    d: Option<Value>,
}

impl Jwks {
    /// Takes what we know how to use; what we do not is skipped, with a warning.
    pub(super) fn parse(text: &[u8]) -> Result<Self, JwksError> {
        let Set { keys: listed } = serde_json::from_slice(text).map_err(JwksError::Malformed)?;
        if listed.len() > KEYS_MAX {
            return Err(JwksError::TooMany(listed.len()));
        }
        let mut keys = Vec::new();
        for (place, value) in listed.into_iter().enumerate() {
            let jwk = Jwk::deserialize(value);
            match jwk.map_err(|_| "is no key that we know").and_then(|jwk| jwk.key()) {
                Ok(key) => keys.push(key),
                Err(reason) => warn!(place, reason, "a key of the issuer's set is skipped"),
            }
        }
        if keys.is_empty() {
            warn!("the issuer's set has no key that tokens could be checked with");
        }
        Ok(Self { keys })
    }
}

impl Jwk {
    fn key(self) -> Result<Key, &'static str> {
        if self.usage.is_some_and(|usage| usage != "sig") {
            return Err("is not for signatures");
        }
        if self.key_ops.is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err("is not for checking signatures");
        }
        if self.d.is_some() {
            return Err("is a private key, which should not be published");
        }
        if self.kid.as_deref().is_some_and(|kid| !is_key_id(kid)) {
            return Err("has a `kid` that no token may name");
        }
        let (n, e) = (self.n.unwrap_or_default(), self.e.unwrap_or_default());
        let (x, y) = (self.x.unwrap_or_default(), self.y.unwrap_or_default());
        let (algorithm, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, rsa(&n, &e)?),
            ("EC", Some("P-256")) => (Algorithm::ES256, p256(&x, &y)?),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, ed25519(&x)?),
            _ => return Err("is none of RSA, P-256 and Ed25519"),
        };
        if self.alg.is_some_and(|alg| alg != format!("{algorithm:?}")) {
            return Err("is for another algorithm than RS256, ES256 or EdDSA");
        }
        Ok(Key { algorithm, id: self.kid.map(Into::into), key })
    }
}

fn rsa(n: &str, e: &str) -> Result<DecodingKey, &'static str> {
    let (n, e) = (number(n)?, number(e)?);
    let first_bits = n.first().map_or(0, |byte| byte.leading_zeros());
    let bits = (n.len() * 8).saturating_sub(first_bits.try_into().unwrap_or_default());
    if !RSA_BITS.contains(&bits) || !RSA_EXPONENT_BYTES.contains(&e.len()) {
        return Err("is RSA, but not of 2048 to 8192 bits");
    }
    Ok(DecodingKey::from_rsa_raw_components(&n, &e))
}

/// A number without leading zeros.
fn number(text: &str) -> Result<Vec<u8>, &'static str> {
    let bytes = decoded(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes.into_iter().skip(zeros).collect())
}

fn p256(x: &str, y: &str) -> Result<DecodingKey, &'static str> {
    let of_size = |text| decoded(text).map(|bytes| bytes.len() == P256_COORDINATE_BYTES);
    if !(of_size(x)? && of_size(y)?) {
        return Err("is P-256, but not complete");
    }
    DecodingKey::from_ec_components(x, y).map_err(|_| "is not a point")
}

fn ed25519(x: &str) -> Result<DecodingKey, &'static str> {
    if decoded(x)?.len() != ED25519_BYTES {
        return Err("is Ed25519, but not complete");
    }
    DecodingKey::from_ed_components(x).map_err(|_| "is not a point")
}

fn decoded(text: &str) -> Result<Vec<u8>, &'static str> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "has a part that is no base64url")
}
