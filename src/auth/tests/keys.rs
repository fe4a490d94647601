//! Several keys, their names, and what a published set may hold.

use std::sync::Arc;

use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::{AUDIENCE, ISSUER, NOW, RSA};
use crate::auth::jwks::{Jwks, JwksError};
use crate::auth::test_keys::{SECRET, TestKey, jwks};
use crate::auth::{
    ClaimName, ClaimNames, Grant, JwksSource, KeyConfig, Pace, Principal, TokenError, Verifier,
};

fn claims(more: &Value) -> Value {
    let mut claims = json!({"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 60});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

fn token(key: &TestKey, kid: Option<&str>) -> String {
    key.sign(kid, &claims(&json!({})))
}

/// A verifier that has these keys by a set, and perhaps one that was given.
fn published(keys: &[(&str, &TestKey)], given: Option<&TestKey>) -> Verifier {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, jwks(keys)).unwrap();
    let mut verifier = Verifier::without_keys(ISSUER, AUDIENCE);
    if let Some(key) = given {
        verifier = verifier.with_key(&key.verifying()).unwrap();
    }
    let source = JwksSource::parse(path.to_str().unwrap()).unwrap();
    verifier.with_jwks(source, Pace::default()).unwrap()
}

fn why(verifier: &Verifier, token: &str) -> Result<(), TokenError> {
    verifier.verify(token, NOW).map(|_| ())
}

#[test]
fn a_token_is_tried_with_the_keys_of_its_name_and_those_without() {
    let (a, b, given, other) =
        (TestKey::p256(), TestKey::p256(), TestKey::p256(), TestKey::ed25519());
    let verifier = published(&[("a", &a), ("b", &b), ("c", &other), ("r", &RSA)], Some(&given));
    for (good, kid) in [
        (&a, Some("a")),
        (&b, Some("b")),
        (&other, Some("c")),
        (&*RSA, Some("r")),
        (&a, None),
        (&b, None),
        (&other, None),
        (&given, None),
        (&given, Some("a")),
        (&given, Some("never-heard-of")),
    ] {
        assert_eq!(why(&verifier, &token(good, kid)), Ok(()), "{kid:?}");
    }
    assert_eq!(why(&verifier, &token(&a, Some("b"))), Err(TokenError::Signature));
    assert_eq!(why(&verifier, &token(&a, Some("x"))), Err(TokenError::UnknownKey));
    assert_eq!(why(&verifier, &token(&TestKey::p256(), None)), Err(TokenError::Signature));
    // The name is that of a key of another kind: the algorithm is the key's own.
    assert_eq!(why(&verifier, &token(&a, Some("c"))), Err(TokenError::Signature));
    let secret = KeyConfig::Secret(SECRET.to_vec());
    let verifier = Verifier::new(&secret, ISSUER, AUDIENCE).unwrap();
    assert_eq!(why(&verifier, &token(&a, Some("a"))), Err(TokenError::Header("alg")));
}

#[test]
fn several_keys_may_be_given() {
    let (a, b) = (TestKey::ed25519(), TestKey::ed25519());
    let verifier = Verifier::new(&a.verifying(), ISSUER, AUDIENCE).unwrap();
    let verifier = verifier.with_key(&b.verifying()).unwrap();
    let verifier = verifier.with_key(&KeyConfig::Secret(SECRET.to_vec())).unwrap();
    assert_eq!(why(&verifier, &token(&a, None)), Ok(()));
    assert_eq!(why(&verifier, &token(&b, Some("any"))), Ok(()));
    assert_eq!(why(&verifier, &super::with_claims(json!({}))), Ok(()));
    assert_eq!(why(&verifier, &token(&TestKey::ed25519(), None)), Err(TokenError::Signature));
}

#[test]
fn a_token_without_a_name_is_tried_with_some_keys_and_not_with_all() {
    let keys: Vec<(String, TestKey)> =
        (0..17).map(|n| (format!("k{n}"), TestKey::ed25519())).collect();
    let set: Vec<(&str, &TestKey)> = keys.iter().map(|(kid, key)| (kid.as_str(), key)).collect();
    let verifier = published(&set, None);
    assert_eq!(why(&verifier, &token(&keys[15].1, None)), Ok(()));
    assert_eq!(why(&verifier, &token(&keys[16].1, None)), Err(TokenError::Signature));
    assert_eq!(why(&verifier, &token(&keys[16].1, Some("k16"))), Ok(()));
}

#[test]
fn what_was_proven_with_a_key_is_forgotten_with_it() {
    let (old, new) = (TestKey::ed25519(), TestKey::ed25519());
    let verifier = published(&[("old", &old)], None);
    let (of_old, of_new) = (token(&old, Some("old")), token(&new, Some("new")));
    assert_eq!(why(&verifier, &of_old), Ok(()));
    let set = |keys: &[(&str, &TestKey)]| Jwks::parse(jwks(keys).as_bytes()).unwrap().keys;
    verifier.learn(set(&[("old", &old), ("new", &new)]));
    assert_eq!((why(&verifier, &of_old), why(&verifier, &of_new)), (Ok(()), Ok(())));
    verifier.learn(set(&[("new", &new)]));
    assert_eq!(why(&verifier, &of_old), Err(TokenError::UnknownKey));
    assert_eq!(why(&verifier, &of_new), Ok(()));
    verifier.learn(set(&[]));
    assert_eq!(why(&verifier, &of_new), Err(TokenError::UnknownKey));
}

#[test]
fn a_token_that_is_being_proven_while_its_key_goes_is_not_remembered() {
    let key = TestKey::ed25519();
    let verifier = Arc::new(published(&[("a", &key)], None));
    let keys = Jwks::parse(jwks(&[("a", &key)]).as_bytes()).unwrap().keys;
    // Proven and withdrawn by turns: whatever falls between, in the end it is refused.
    std::thread::scope(|scope| {
        let proving = Arc::clone(&verifier);
        let key = &key;
        scope.spawn(move || {
            for n in 0..200 {
                let token = key.sign(Some("a"), &claims(&json!({ "n": n })));
                proving.verify(&token, NOW).ok();
            }
        });
        for _ in 0..200 {
            verifier.learn(keys.clone());
            verifier.learn(Vec::new());
        }
    });
    verifier.learn(Vec::new());
    for n in 0..200 {
        let token = key.sign(Some("a"), &claims(&json!({ "n": n })));
        assert_eq!(why(&verifier, &token), Err(TokenError::UnknownKey));
    }
}

#[test]
fn of_a_set_only_good_signing_keys_are_taken() {
    let (ec, ed) = (TestKey::p256(), TestKey::ed25519());
    let changed = |key: &TestKey, changes: Value| {
        let mut jwk = key.jwk("k");
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => jwk.as_object_mut().unwrap().remove(name),
                value => jwk.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        jwk
    };
    let n_of = |bits: usize| {
        use base64::Engine;
        let mut n = vec![0xff; bits.div_ceil(8)];
        n[0] >>= (8 - bits % 8) % 8;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(n)
    };
    let n2048 = RSA.jwk("k")["n"].as_str().unwrap().to_owned();
    let rows = [
        ("RSA", changed(&RSA, json!({})), true),
        ("P-256", changed(&ec, json!({})), true),
        ("Ed25519", changed(&ed, json!({})), true),
        ("without alg, use and kid", changed(&ed, json!({"alg": null, "kid": null})), true),
        ("use sig, ops verify", changed(&ed, json!({"use": "sig", "key_ops": ["verify"]})), true),
        ("unknown members", changed(&ed, json!({"x5c": ["x"], "x5u": "http://[::1]:1"})), true),
        ("use enc", changed(&ed, json!({"use": "enc"})), false),
        ("ops encrypt", changed(&ed, json!({"key_ops": ["encrypt"]})), false),
        ("alg RS512", changed(&RSA, json!({"alg": "RS512"})), false),
        ("alg PS256", changed(&RSA, json!({"alg": "PS256"})), false),
        ("alg of another kind", changed(&ec, json!({"alg": "RS256"})), false),
        ("alg HS256", changed(&ed, json!({"alg": "HS256"})), false),
        ("RSA of 2047 bits", changed(&RSA, json!({"n": n_of(2_047)})), false),
        ("RSA of 2048 bits", changed(&RSA, json!({"n": n_of(2_048)})), true),
        ("RSA of 8192 bits", changed(&RSA, json!({"n": n_of(8_192)})), true),
        ("RSA of 8193 bits", changed(&RSA, json!({"n": n_of(8_193)})), false),
        ("RSA with zeros in front", changed(&RSA, json!({"n": format!("AAAA{n2048}")})), true),
        ("RSA without e", changed(&RSA, json!({"e": null})), false),
        ("RSA with a long e", changed(&RSA, json!({"e": "AQABAQAB"})), false),
        ("P-384", json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}), false),
        ("secp256k1", changed(&ec, json!({"crv": "secp256k1"})), false),
        ("P-256 without y", changed(&ec, json!({"y": null})), false),
        ("P-256 with a short x", changed(&ec, json!({"x": "AAAA"})), false),
        ("X25519", changed(&ed, json!({"crv": "X25519"})), false),
        ("padded", changed(&ed, json!({"x": "AAA="})), false),
        ("oct", json!({"kty": "oct", "k": "c2VjcmV0", "kid": "k"}), false),
        ("a private key", changed(&ed, json!({"d": "AAAA"})), false),
        ("kid ../../x", changed(&ed, json!({"kid": "../../x"})), false),
        ("kid is a number", changed(&ed, json!({"kid": 5})), false),
        ("no object", json!("key"), false),
        ("kty of the future", json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}), false),
    ];
    for (row, jwk, taken) in rows {
        let set = json!({"keys": [jwk, ec.jwk("other")], "more": 1}).to_string();
        let keys = Jwks::parse(set.as_bytes()).unwrap().keys;
        assert_eq!(keys.len(), 1 + usize::from(taken), "{row}");
    }
}

#[test]
fn a_set_is_bounded() {
    let key = TestKey::ed25519();
    let set = |count: usize| json!({"keys": vec![key.jwk("k"); count]}).to_string();
    assert_eq!(Jwks::parse(set(64).as_bytes()).unwrap().keys.len(), 64);
    assert!(matches!(Jwks::parse(set(65).as_bytes()), Err(JwksError::TooMany(65))));
    for bad in ["", "{}", "[]", "null", r#"{"keys":{}}"#, r#"{"keys":[]}{}"#] {
        assert!(matches!(Jwks::parse(bad.as_bytes()), Err(JwksError::Malformed(_))), "{bad}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.json");
    std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
    let source = JwksSource::parse(path.to_str().unwrap()).unwrap();
    let read = Verifier::without_keys(ISSUER, AUDIENCE).with_jwks(source, Pace::default());
    assert!(matches!(read, Err(JwksError::TooLarge)));
}

/// A verifier for an issuer with names of its own.
fn named(user: &str, device: &str, grants: &str) -> Verifier {
    let name = |text: &str| ClaimName::parse(text).unwrap();
    let names = ClaimNames { user: name(user), device: name(device), grants: name(grants) };
    let key = KeyConfig::Secret(SECRET.to_vec());
    Verifier::new(&key, ISSUER, AUDIENCE).unwrap().with_names(names)
}

fn says(verifier: &Verifier, changes: Value) -> Result<Principal, TokenError> {
    verifier.verify(&super::with_claims(changes), NOW)
}

#[test]
fn claims_are_where_the_issuer_has_them() {
    let verifier = named("/identity/name", "/identity/device", "/realm/roles");
    let identity = |identity: Value| json!({"sub": null, "identity": identity});
    let principal = says(&verifier, identity(json!({"name": "bob", "device": "d"}))).unwrap();
    assert_eq!(principal.caller.user.as_str(), "bob");
    assert_eq!(principal.device.unwrap().as_str(), "d");
    // `sub` is of no interest any longer, whatever it is.
    let odd = says(&verifier, json!({"sub": 5, "identity": {"name": "bob"}})).unwrap();
    assert_eq!((odd.caller.user.as_str(), odd.device), ("bob", None));
    for wrong in [json!({}), json!("bob"), json!({"name": 5}), json!({"name": ""})] {
        assert_eq!(says(&verifier, identity(wrong)), Err(TokenError::Claim("user")));
    }
    assert_eq!(says(&verifier, json!({})), Err(TokenError::Claim("user")), "sub is no stand-in");
}

#[test]
fn a_device_claim_binds_or_refuses() {
    let verifier = named("sub", "device", "grants");
    let device = |device: Value| says(&verifier, json!({ "device": device }));
    assert_eq!(says(&verifier, json!({})).unwrap().device, None);
    assert_eq!(device(json!("phone")).unwrap().device.unwrap().as_str(), "phone");
    for wrong in [json!(5), json!(""), json!("x".repeat(129)), json!(["phone"]), json!({})] {
        assert_eq!(device(wrong.clone()), Err(TokenError::Claim("device")), "{wrong}");
    }
    let null = super::twice(r#""device":null"#);
    assert_eq!(verifier.verify(&null, NOW), Err(TokenError::Claim("device")), "no half claims");
}

#[test]
fn grants_are_a_list_or_separated_by_spaces() {
    let verifier = named("sub", "device", "scope");
    let scope = |scope: Value| says(&verifier, json!({ "scope": scope }));
    let both = scope(json!(["policies", "read:users/bob"])).unwrap();
    assert_eq!(scope(json!("openid policies read:users/bob")).unwrap(), both);
    assert!(both.caller.open.len() == 1 && Grant::parse("read:users/bob").is_some());
    let none = says(&verifier, json!({"grants": ["policies"]})).unwrap();
    assert_eq!(scope(json!("")).unwrap(), none);
    assert_eq!(scope(json!(" email\tpolicies ")).unwrap(), none, "only spaces separate");
    assert_ne!(both, none);
    for wrong in [json!(5), json!(["policies", 5]), json!({"policies": true})] {
        assert_eq!(scope(wrong), Err(TokenError::Claim("grants")));
    }
}
