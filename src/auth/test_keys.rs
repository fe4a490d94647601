//! Keys that tests make for themselves, so that none is ever committed.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

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

/// DER in the clothes of a PEM file.
pub(crate) fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n")).into_bytes()
}
