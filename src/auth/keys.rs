//! Keys as the operator gives them, and the one algorithm that belongs to each. Knows PEM; must not
//! know where a key came from or what a token says. No error or `Debug` shows key material.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};

/// A secret shorter than HS256's own output is easier to guess than the signature (RFC 7518, 3.2).
pub const SECRET_SIZE_MIN_BYTES: usize = 32;

pub(super) const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// What precedes the point in the DER of every uncompressed P-256 public key. The curve must be
/// read from here: the library tells curves apart by length, and secp256k1 has the same.
const P256_DER_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key as it was given; which half of a pair it must be, the one who uses it decides.
#[derive(Clone)]
pub enum KeyConfig {
    /// A secret shared with the issuer: HS256.
    Secret(Vec<u8>),
    /// One PEM block: RS256, ES256 or EdDSA, as the key demands.
    Pem(Vec<u8>),
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Too easy to guess.
    #[error("the secret has {found} bytes, HS256 needs at least {}", SECRET_SIZE_MIN_BYTES)]
    SecretTooShort {
        /// Its size in bytes.
        found: usize,
    },
    /// No PEM block, or several: which one would count must not depend on their order.
    #[error("expected exactly one PEM block that holds one key")]
    NotOneKey,
    /// A certificate, a private key in place of a public one, or the like.
    #[error("found a PEM block `{found}`, expected {expected}")]
    WrongBlock {
        /// The label of the block.
        found: String,
        /// The labels that are fine here.
        expected: &'static str,
    },
    /// Another kind of key, a weak one, or a broken one.
    #[error("the key is none of RSA (2048 to 8192 bits), P-256 and Ed25519")]
    Unsupported,
    /// The library refused to sign.
    #[error("the key does not sign")]
    Signing(#[source] jsonwebtoken::errors::Error),
}

/// A key that signatures are checked with.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    /// What tokens call it. A key without a name may have signed any.
    pub(super) id: Option<Box<str>>,
    pub(super) key: DecodingKey,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.algorithm, self.id)
    }
}

pub(super) fn verifying(key: &KeyConfig) -> Result<Key, KeyError> {
    let (algorithm, key) = match key {
        KeyConfig::Secret(secret) => {
            check_secret(secret)?;
            (Algorithm::HS256, DecodingKey::from_secret(secret))
        }
        KeyConfig::Pem(pem) => public_key(pem)?,
    };
    Ok(Key { algorithm, id: None, key })
}

pub(super) fn signing(key: &KeyConfig) -> Result<(Algorithm, EncodingKey), KeyError> {
    let (algorithm, key) = match key {
        KeyConfig::Secret(secret) => {
            check_secret(secret)?;
            (Algorithm::HS256, EncodingKey::from_secret(secret))
        }
        KeyConfig::Pem(pem) => private_key(pem)?,
    };
    // The library parses private keys only when it signs; a bad one should show at start.
    jsonwebtoken::crypto::sign(b"", &key, algorithm).map_err(KeyError::Signing)?;
    Ok((algorithm, key))
}

fn check_secret(secret: &[u8]) -> Result<(), KeyError> {
    if secret.len() < SECRET_SIZE_MIN_BYTES {
        return Err(KeyError::SecretTooShort { found: secret.len() });
    }
    Ok(())
}

fn public_key(pem: &[u8]) -> Result<(Algorithm, DecodingKey), KeyError> {
    let (label, der) = pem_block(pem)?;
    // The library would take the key out of a certificate unchecked, and a private RSA key as its
    // public half: neither belongs on this machine.
    if !["PUBLIC KEY", "RSA PUBLIC KEY"].contains(&label) {
        let expected = "`PUBLIC KEY` (`openssl x509 -pubkey` and `openssl pkey -pubout` print it)";
        return Err(KeyError::WrongBlock { found: label.to_owned(), expected });
    }
    let key = DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .map_err(|_| KeyError::Unsupported)?;
    let jwk = Jwk::from_decoding_key(&key, None).map_err(|_| KeyError::Unsupported)?;
    let algorithm = match jwk.algorithm {
        // `n` is base64url: four characters for three bytes.
        AlgorithmParameters::RSA(rsa) if RSA_BITS.contains(&(rsa.n.len() * 3 / 4 * 8)) => {
            Algorithm::RS256
        }
        AlgorithmParameters::EllipticCurve(_) if der.starts_with(P256_DER_PREFIX) => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
        _ => return Err(KeyError::Unsupported),
    };
    Ok((algorithm, key))
}

fn private_key(pem: &[u8]) -> Result<(Algorithm, EncodingKey), KeyError> {
    let (label, _) = pem_block(pem)?;
    if !["PRIVATE KEY", "RSA PRIVATE KEY"].contains(&label) {
        let expected = "`PRIVATE KEY` (`openssl pkcs8 -topk8 -nocrypt` converts to it)";
        return Err(KeyError::WrongBlock { found: label.to_owned(), expected });
    }
    let key = EncodingKey::from_rsa_pem(pem)
        .or_else(|_| EncodingKey::from_ec_pem(pem))
        .or_else(|_| EncodingKey::from_ed_pem(pem))
        .map_err(|_| KeyError::Unsupported)?;
    let algorithm = match key.family() {
        AlgorithmFamily::Rsa => Algorithm::RS256,
        AlgorithmFamily::Ec => Algorithm::ES256,
        AlgorithmFamily::Ed => Algorithm::EdDSA,
        AlgorithmFamily::Hmac => return Err(KeyError::Unsupported),
    };
    Ok((algorithm, key))
}

/// The label and the content of the only PEM block.
fn pem_block(pem: &[u8]) -> Result<(&str, Vec<u8>), KeyError> {
    let text = str::from_utf8(pem).map_err(|_| KeyError::NotOneKey)?;
    let mut blocks = text.split("-----BEGIN ").skip(1);
    let (Some(block), None) = (blocks.next(), blocks.next()) else {
        return Err(KeyError::NotOneKey);
    };
    let (label, rest) = block.split_once("-----").ok_or(KeyError::NotOneKey)?;
    let (body, _) = rest.split_once("-----END ").ok_or(KeyError::NotOneKey)?;
    let body: String = body.split_ascii_whitespace().collect();
    // Old private keys carry header lines, which are not base64; their label refuses them anyway.
    Ok((label, STANDARD.decode(body).unwrap_or_default()))
}

impl fmt::Debug for KeyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret([redacted])",
            Self::Pem(_) => "Pem([redacted])",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::test_keys::{SECRET, TestKey, pem};
    use crate::auth::{Minter, Verifier};

    #[test]
    fn keys_that_cannot_be_trusted_are_refused_at_start() {
        let error =
            |key: KeyConfig| Verifier::new(&key, "issuer", "audience").unwrap_err().to_string();
        let of_pem = |pem: &[u8]| error(KeyConfig::Pem(pem.to_vec()));
        assert_eq!(
            error(KeyConfig::Secret(b"short".to_vec())),
            "the secret has 5 bytes, HS256 needs at least 32"
        );
        let rsa = TestKey::rsa();
        let one = "expected exactly one PEM block that holds one key";
        assert_eq!(of_pem(b""), one);
        assert_eq!(of_pem(b"\xff\xfe"), one);
        assert_eq!(of_pem(&[rsa.public_pem.clone(), rsa.public_pem.clone()].concat()), one);
        assert!(of_pem(&rsa.private_pem).starts_with("found a PEM block `PRIVATE KEY`"));
        assert!(of_pem(&pem("CERTIFICATE", b"x")).starts_with("found a PEM block `CERTIFICATE`"));
        let unsupported = "the key is none of RSA (2048 to 8192 bits), P-256 and Ed25519";
        assert_eq!(of_pem(&TestKey::p384().public_pem), unsupported);
        assert_eq!(of_pem(&pem("PUBLIC KEY", b"no key")), unsupported);
        assert_eq!(of_pem(&pem("RSA PUBLIC KEY", b"no key")), unsupported);
        let modulus_of_1024_bits = [0xc5; 128];
        let mut weak = vec![0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00];
        weak.extend(modulus_of_1024_bits);
        weak.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
        assert_eq!(of_pem(&pem("RSA PUBLIC KEY", &weak)), unsupported);
        // The prefix of a P-256 key with another curve's name in it: 1.3.132.0.10, secp256k1.
        let mut foreign_curve = STANDARD.decode("MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAE").unwrap();
        foreign_curve.extend([7; 64]);
        assert_eq!(of_pem(&pem("PUBLIC KEY", &foreign_curve)), unsupported);

        let error = |key: KeyConfig| Minter::new(&key).unwrap_err().to_string();
        let of_pem = |pem: &[u8]| error(KeyConfig::Pem(pem.to_vec()));
        assert!(of_pem(&rsa.public_pem).starts_with("found a PEM block `PUBLIC KEY`"));
        assert!(of_pem(&pem("EC PRIVATE KEY", b"x")).contains("openssl pkcs8 -topk8"));
        assert_eq!(of_pem(&TestKey::p384().private_pem), "the key does not sign");
        assert_eq!(of_pem(&pem("PRIVATE KEY", b"no key")), unsupported);
    }

    #[test]
    fn debug_shows_no_key() {
        let secret = str::from_utf8(SECRET).unwrap();
        let shown = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            KeyConfig::Secret(SECRET.to_vec()),
            KeyConfig::Secret(SECRET.to_vec()),
            Verifier::new(&KeyConfig::Secret(SECRET.to_vec()), "issuer", "audience").unwrap(),
            Minter::new(&KeyConfig::Secret(SECRET.to_vec())).unwrap(),
            KeyConfig::Pem(SECRET.to_vec()),
        );
        assert!(!shown.contains(secret) && !shown.contains("48, 49"), "{shown}");
    }
}
