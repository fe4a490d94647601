//! Keys that tests make for themselves, so that none is ever committed.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};

use super::KeyConfig;

/// 32 bytes, the shortest secret that is allowed.
pub(crate) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A key pair in PEM.
pub(crate) struct TestKey {
    pub(crate) private_pem: Vec<u8>,
    pub(crate) public_pem: Vec<u8>,
}

impl TestKey {
    pub(crate) fn rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self::from_der(private.as_ref(), public.as_ref())
    }

    pub(crate) fn p256() -> Self {
        Self::ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    pub(crate) fn p384() -> Self {
        Self::ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING)
    }

    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> Self {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let private = pair.to_pkcs8v1().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self::from_der(private.as_ref(), public.as_ref())
    }

    pub(crate) fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self::from_der(private.as_ref(), public.as_ref())
    }

    fn from_der(private: &[u8], public: &[u8]) -> Self {
        Self { private_pem: pem("PRIVATE KEY", private), public_pem: pem("PUBLIC KEY", public) }
    }

    pub(crate) fn verifying(&self) -> KeyConfig {
        KeyConfig::Pem(self.public_pem.clone())
    }

    pub(crate) fn signing(&self) -> KeyConfig {
        KeyConfig::Pem(self.private_pem.clone())
    }
}

/// As an issuer publishes it.
impl TestKey {
    pub(crate) fn jwk(&self, kid: &str) -> serde_json::Value {
        let (algorithm, key) = self.encoding();
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        jwk["kid"] = kid.into();
        jwk
    }

    /// A token with this header and these claims.
    pub(crate) fn sign(&self, kid: Option<&str>, claims: &serde_json::Value) -> String {
        let (algorithm, key) = self.encoding();
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }

    fn encoding(&self) -> (Algorithm, EncodingKey) {
        let key = EncodingKey::from_rsa_pem(&self.private_pem)
            .or_else(|_| EncodingKey::from_ec_pem(&self.private_pem))
            .or_else(|_| EncodingKey::from_ed_pem(&self.private_pem))
            .unwrap();
        let algorithm = match key.family() {
            AlgorithmFamily::Rsa => Algorithm::RS256,
            AlgorithmFamily::Ec => Algorithm::ES256,
            _ => Algorithm::EdDSA,
        };
        (algorithm, key)
    }
}

/// DER in the clothes of a PEM file.
pub(crate) fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes()
}

/// A key set with these, each under its name.
pub(crate) fn jwks(keys: &[(&str, &TestKey)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
    serde_json::json!({ "keys": keys }).to_string()
}
