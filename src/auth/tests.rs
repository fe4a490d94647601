//! The catalogue of bad tokens, each with the class that the caller is told.

mod keys;

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use serde_json::Value;

use super::test_keys::{SECRET, TestKey};
use super::*;

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "syncline";

static RSA: LazyLock<TestKey> = LazyLock::new(TestKey::rsa);

fn secret_verifier() -> Verifier {
    Verifier::new(&KeyConfig::Secret(SECRET.to_vec()), ISSUER, AUDIENCE).unwrap()
}

fn rsa_verifier() -> Verifier {
    Verifier::new(&RSA.verifying(), ISSUER, AUDIENCE).unwrap()
}

/// Any header over any claims, signed well: only the content can be at fault.
fn signed(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn hs256(header: &str, claims: &str) -> String {
    signed(header, claims, &EncodingKey::from_secret(SECRET), Algorithm::HS256)
}

fn with_header(header: &str) -> String {
    hs256(header, &claims(json!({})))
}

fn with_claims(changes: Value) -> String {
    hs256(r#"{"alg":"HS256"}"#, &claims(changes))
}

/// Good claims with these in their place; a null takes one away.
fn claims(changes: Value) -> String {
    let mut claims = json!({
        "sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 60, "iat": NOW,
    });
    let Value::Object(changes) = changes else { panic!("claims are an object") };
    let object = claims.as_object_mut().unwrap();
    for (name, value) in changes {
        match value {
            Value::Null => object.remove(&name),
            value => object.insert(name, value),
        };
    }
    claims.to_string()
}

/// One row: what it is, the token, and the class it is refused with, or `None` when it is good.
type Row = (&'static str, String, Option<RefusalClass>);
const GOOD: Option<RefusalClass> = None;
const INVALID: Option<RefusalClass> = Some(RefusalClass::Invalid);
const EXPIRED: Option<RefusalClass> = Some(RefusalClass::Expired);

#[track_caller]
fn check(verifier: &Verifier, rows: Vec<Row>) {
    for (row, token, expected) in rows {
        let result = verifier.verify(&token, NOW);
        let class = result.as_ref().err().map(|error| error.class());
        assert_eq!(class, expected, "row {row}: {result:?}");
    }
}

#[test]
fn every_kind_of_key_accepts_what_it_signs_and_nothing_of_the_others() {
    let keys = [
        (KeyConfig::Secret(SECRET.to_vec()), KeyConfig::Secret(SECRET.to_vec())),
        (RSA.verifying(), RSA.signing()),
        {
            let key = TestKey::p256();
            (key.verifying(), key.signing())
        },
        {
            let key = TestKey::ed25519();
            (key.verifying(), key.signing())
        },
    ];
    let user = UserId::parse("alice").unwrap();
    let minted: Vec<String> = keys
        .iter()
        .map(|(_, key)| Minter::new(key).unwrap())
        .map(|key| key.mint(&user, Duration::from_secs(60), NOW, ISSUER, AUDIENCE).unwrap())
        .collect();
    for (at, (key, _)) in keys.iter().enumerate() {
        let verifier = Verifier::new(key, ISSUER, AUDIENCE).unwrap();
        for (of, token) in minted.iter().enumerate() {
            let expected = if at == of {
                Ok(Principal {
                    caller: Caller::of(user.clone()),
                    device: None,
                    expires_at: NOW + 60,
                    may: May::default(),
                })
            } else {
                Err(TokenError::Header("alg"))
            };
            assert_eq!(verifier.verify(token, NOW), expected, "key {at}, token {of}");
        }
    }
}

#[test]
fn another_key_of_the_same_kind_is_refused() {
    let rows = [
        (TestKey::rsa(), RSA.verifying()),
        (TestKey::p256(), TestKey::p256().verifying()),
        (TestKey::ed25519(), TestKey::ed25519().verifying()),
    ];
    for (signer, verifier) in rows {
        let token = Minter::new(&signer.signing()).unwrap();
        let user = UserId::parse("alice").unwrap();
        let token = token.mint(&user, Duration::from_secs(60), NOW, ISSUER, AUDIENCE).unwrap();
        let verifier = Verifier::new(&verifier, ISSUER, AUDIENCE).unwrap();
        assert_eq!(verifier.verify(&token, NOW), Err(TokenError::Signature));
    }
}

#[test]
fn algorithms_are_the_keys_own() {
    let none = |alg: &str| {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#));
        format!("{header}.{}.", URL_SAFE_NO_PAD.encode(claims(json!({}))))
    };
    let hs512 = EncodingKey::from_secret(SECRET);
    check(
        &secret_verifier(),
        vec![
            ("32 alg none", none("none"), INVALID),
            ("32 alg NONE", none("NONE"), INVALID),
            ("32 right alg, no signature", none("HS256"), INVALID),
            ("32 no alg", with_header(r#"{"typ":"JWT"}"#), INVALID),
            ("32 alg is no text", with_header(r#"{"alg":["HS256"]}"#), INVALID),
            ("32 alg in lower case", with_header(r#"{"alg":"hs256"}"#), INVALID),
            (
                "34 HS512 where HS256 is meant",
                signed(r#"{"alg":"HS512"}"#, &claims(json!({})), &hs512, Algorithm::HS512),
                INVALID,
            ),
        ],
    );
    let public = EncodingKey::from_secret(&RSA.public_pem);
    let private = EncodingKey::from_rsa_pem(&RSA.private_pem).unwrap();
    let claims = claims(json!({}));
    let by = |header, key, algorithm| signed(header, &claims, key, algorithm);
    check(
        &rsa_verifier(),
        vec![
            ("good RS256", by(r#"{"alg":"RS256"}"#, &private, Algorithm::RS256), GOOD),
            (
                "33 HS256 signed with the public key",
                by(r#"{"alg":"HS256"}"#, &public, Algorithm::HS256),
                INVALID,
            ),
            (
                "33 the same, called RS256",
                by(r#"{"alg":"RS256"}"#, &public, Algorithm::HS256),
                INVALID,
            ),
            (
                "34 RS512 where RS256 is meant",
                by(r#"{"alg":"RS512"}"#, &private, Algorithm::RS512),
                INVALID,
            ),
            (
                "34 RS512, called RS256",
                by(r#"{"alg":"RS256"}"#, &private, Algorithm::RS512),
                INVALID,
            ),
            (
                "34 PS256 where RS256 is meant",
                by(r#"{"alg":"PS256"}"#, &private, Algorithm::PS256),
                INVALID,
            ),
        ],
    );
}

#[test]
fn the_shape_is_exact() {
    let good = with_claims(json!({}));
    let segments: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = segments[..] else { panic!("three segments") };
    let other = URL_SAFE_NO_PAD.encode(claims(json!({"sub": "mallory"})));
    let padded = URL_SAFE.encode(claims(json!({"sub": "a"})) + " ");
    assert!(padded.ends_with('='), "the padded row must have padding");
    let size = |sub_bytes: usize| with_claims(json!({ "pad": "x".repeat(sub_bytes) }));
    check(
        &secret_verifier(),
        vec![
            ("good", good.clone(), GOOD),
            ("31 empty", String::new(), INVALID),
            ("35 signature stripped", format!("{header}.{payload}."), INVALID),
            ("35 two segments", format!("{header}.{payload}"), INVALID),
            ("35 payload altered", format!("{header}.{other}.{signature}"), INVALID),
            ("35 four segments", format!("{good}.{signature}"), INVALID),
            ("35 five segments (JWE)", format!("{good}.a.b"), INVALID),
            ("35 leading dot", format!(".{good}"), INVALID),
            ("35 padded signature", format!("{good}="), INVALID),
            ("35 padded payload", sign_message(&format!("{header}.{padded}")), INVALID),
            ("35 standard base64", sign_message(&format!("{header}.{}", "+/+/")), INVALID),
            ("35 surrounded by spaces", format!(" {good} "), INVALID),
            ("35 just below 8 KiB", size(5_800), GOOD),
            ("35 over 8 KiB", size(6_200), INVALID),
            ("35 1 MiB", "x".repeat(1 << 20), INVALID),
            ("35 payload is no JSON", hs256(r#"{"alg":"HS256"}"#, "hello"), INVALID),
            ("35 payload is an array", hs256(r#"{"alg":"HS256"}"#, "[]"), INVALID),
            ("35 trailing data", hs256(r#"{"alg":"HS256"}"#, &(claims(json!({})) + "{}")), INVALID),
            ("47 claims nested 5,000 deep", nested(5_000), INVALID),
            ("47 claims nested 500 deep", nested(500), INVALID),
            ("47 sub twice", twice(r#""sub":"alice""#), INVALID),
            ("47 exp twice", twice(r#""exp":1900000000"#), INVALID),
            ("47 a claim of others twice", twice(r#""x":1,"x":2"#), INVALID),
            ("47 a claim twice, deep inside", twice(r#""a":[{"b":1,"b":2}]"#), INVALID),
            ("47 alg twice", with_header(r#"{"alg":"none","alg":"HS256"}"#), INVALID),
        ],
    );
}

/// Signs a message whose segments are given as they stand.
fn sign_message(message: &str) -> String {
    let key = EncodingKey::from_secret(SECRET);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

fn nested(depth: usize) -> String {
    let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let claims = claims(json!({})).replacen('{', &format!("{{\"deep\":{deep},"), 1);
    hs256(r#"{"alg":"HS256"}"#, &claims)
}

fn twice(more: &str) -> String {
    let claims = claims(json!({})).replacen('{', &format!("{{{more},"), 1);
    hs256(r#"{"alg":"HS256"}"#, &claims)
}

#[test]
fn headers_that_cannot_be_honoured_are_refused() {
    let kid = |kid: &str| with_header(&json!({"alg": "HS256", "kid": kid}).to_string());
    let header = |rest: &str| with_header(&format!(r#"{{"alg":"HS256",{rest}}}"#));
    check(
        &secret_verifier(),
        vec![
            ("good: typ JWT", header(r#""typ":"JWT""#), GOOD),
            ("good: typ jwt", header(r#""typ":"jwt""#), GOOD),
            ("good: typ at+jwt", header(r#""typ":"at+jwt""#), GOOD),
            ("42 typ of an ID token", header(r#""typ":"id+jwt""#), INVALID),
            ("42 typ secevent+jwt", header(r#""typ":"secevent+jwt""#), INVALID),
            ("42 typ is no text", header(r#""typ":5"#), INVALID),
            ("42 typ null", header(r#""typ":null"#), INVALID),
            ("43 unknown crit", header(r#""crit":["exp"],"exp":1"#), INVALID),
            ("43 empty crit", header(r#""crit":[]"#), INVALID),
            ("43 crit null", header(r#""crit":null"#), INVALID),
            ("good: kid", kid("2026-01_a.b:c/d+e="), GOOD),
            ("good: kid of 128 bytes", kid(&"k".repeat(128)), GOOD),
            ("44 kid ../../x", kid("../../x"), INVALID),
            ("44 kid SQL", kid("' OR 1=1 --"), INVALID),
            ("44 kid with a control character", kid("a\0b"), INVALID),
            ("44 kid not ASCII", kid("ключ"), INVALID),
            ("44 kid empty", kid(""), INVALID),
            ("44 kid of 129 bytes", kid(&"k".repeat(129)), INVALID),
            ("44 kid of 10 KB", kid(&"k".repeat(10_000)), INVALID),
            ("44 kid is no text", header(r#""kid":1"#), INVALID),
            ("44 jku and x5u are never followed", header(r#""jku":"http://[::1]:1/""#), GOOD),
        ],
    );
}

#[test]
fn times_are_checked_with_little_leeway() {
    let exp = |value: Value| with_claims(json!({ "exp": value }));
    let nbf = |value: Value| with_claims(json!({ "nbf": value }));
    let huge = |exp: &str| {
        let claims = claims(json!({"exp": null})).replacen('{', &format!("{{\"exp\":{exp},"), 1);
        hs256(r#"{"alg":"HS256"}"#, &claims)
    };
    check(
        &secret_verifier(),
        vec![
            ("36 no exp", exp(Value::Null), INVALID),
            ("36 exp null", huge("null"), INVALID),
            ("36 exp string", exp(json!("1900000000")), INVALID),
            ("36 exp negative", exp(json!(-1)), INVALID),
            ("36 exp 1e300", huge("1e300"), INVALID),
            ("36 exp 1e999", huge("1e999"), INVALID),
            ("36 exp beyond 64 bits", huge("99999999999999999999999"), INVALID),
            ("36 exp in milliseconds", exp(json!((NOW + 60) * 1_000_000)), INVALID),
            ("36 exp true", exp(json!(true)), INVALID),
            ("good: exp with a fraction", huge("1800000060.75"), GOOD),
            ("37 expired 30 s ago", exp(json!(NOW - 30)), EXPIRED),
            ("37 expired 120 s ago", exp(json!(NOW - 120)), EXPIRED),
            ("37 expired 5 s ago", exp(json!(NOW - 5)), EXPIRED),
            ("good: expired 4 s ago", exp(json!(NOW - 4)), GOOD),
            ("37 expired in 1970", exp(json!(0)), EXPIRED),
            ("38 nbf in 1 h", nbf(json!(NOW + 3_600)), INVALID),
            ("38 nbf in 6 s", nbf(json!(NOW + 6)), INVALID),
            ("good: nbf in 5 s", nbf(json!(NOW + 5)), GOOD),
            ("38 nbf string", nbf(json!("1700000000")), INVALID),
            ("38 nbf object", nbf(json!({})), INVALID),
            ("38 nbf negative", nbf(json!(-5)), INVALID),
            ("iat string", with_claims(json!({"iat": "now"})), INVALID),
        ],
    );
}

#[test]
fn claims_name_this_service_and_a_user() {
    let aud = |value: Value| with_claims(json!({ "aud": value }));
    let iss = |value: Value| with_claims(json!({ "iss": value }));
    let sub = |value: Value| with_claims(json!({ "sub": value }));
    check(
        &secret_verifier(),
        vec![
            ("39 no aud", aud(Value::Null), INVALID),
            ("39 aud 5", aud(json!(5)), INVALID),
            ("39 other aud", aud(json!("other")), INVALID),
            ("39 aud with a suffix", aud(json!("syncline ")), INVALID),
            ("39 aud list without us", aud(json!(["a", "b"])), INVALID),
            ("39 aud list empty", aud(json!([])), INVALID),
            ("39 aud list of mixed types", aud(json!(["syncline", 5])), INVALID),
            ("39 aud object", aud(json!({"syncline": true})), INVALID),
            ("good: aud list with us", aud(json!(["other", "syncline"])), GOOD),
            ("40 no iss", iss(Value::Null), INVALID),
            ("40 iss 7", iss(json!(7)), INVALID),
            ("40 iss object", iss(json!({"iss": ISSUER})), INVALID),
            ("40 iss list", iss(json!([ISSUER])), INVALID),
            ("40 other iss", iss(json!("https://other.example")), INVALID),
            ("40 iss with a slash more", iss(json!(format!("{ISSUER}/"))), INVALID),
            ("41 no sub", sub(Value::Null), INVALID),
            ("41 empty sub", sub(json!("")), INVALID),
            ("41 sub is a number", sub(json!(42)), INVALID),
            ("48 sub is a list: no default user", sub(json!(["alice"])), INVALID),
            ("48 sub with a control character", sub(json!("a\u{0}b")), INVALID),
            ("48 sub not NFC", sub(json!("e\u{301}")), INVALID),
            ("48 sub of 129 bytes", sub(json!("s".repeat(129))), INVALID),
            ("good: sub of 128 bytes", sub(json!("s".repeat(128))), GOOD),
            ("good: sub in NFC", sub(json!("\u{e9}")), GOOD),
            ("good: sub like Auth0's", sub(json!("auth0|507f1f77bcf86cd799439020")), GOOD),
        ],
    );
}

#[test]
fn a_foreign_token_does_not_learn_that_it_has_expired() {
    let claims = claims(json!({"exp": NOW - 60}));
    let other = EncodingKey::from_secret(b"another secret of 32 bytes, yes!");
    let token = signed(r#"{"alg":"HS256"}"#, &claims, &other, Algorithm::HS256);
    assert_eq!(secret_verifier().verify(&token, NOW), Err(TokenError::Signature));
}

proptest! {
    #[test]
    fn no_text_panics_or_passes(
        token in "\\PC{0,200}|[A-Za-z0-9_-]{0,40}(\\.[A-Za-z0-9_-]{0,60}){1,4}",
    ) {
        let error = secret_verifier().verify(&token, NOW).unwrap_err();
        prop_assert_eq!(error.class(), RefusalClass::Invalid);
    }

    #[test]
    fn no_single_altered_byte_passes(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_.-]") {
        let good = with_claims(json!({}));
        let at = at.index(good.len());
        let mut altered = good.clone();
        altered.replace_range(at..=at, &to);
        prop_assume!(altered != good);
        prop_assert!(secret_verifier().verify(&altered, NOW).is_err());
    }
}
