//! What tokens are checked with.

use serde_json::json;

use super::{DATABASE, NAMES, TestKey, World, secret};
use crate::auth::test_keys::jwks;

fn line(more: &str) -> String {
    format!("{DATABASE} {NAMES} {more}")
}

#[test]
fn all_keys_of_the_highest_layer_count() {
    let world = World::new();
    world.file("secret", format!("{}\r\n", secret()));
    world.file("key.pem", TestKey::ed25519().public_pem);
    world.file("other.pem", TestKey::p256().public_pem);
    world.file("jwks.json", jwks(&[("a", &TestKey::ed25519())]));
    let keys = |world: &World, more: &str| {
        let shown = format!("{:?}", world.serve(&line(more)).verifier);
        let (_, keys) = shown.split_once("keys: [").unwrap();
        keys.split_once(']').unwrap().0.to_owned()
    };
    assert_eq!(keys(&world, "--jwt-secret-file DIR/secret"), "HS256 None");
    assert_eq!(keys(&world, "--jwt-public-key DIR/key.pem"), "EdDSA None");
    for both in [
        "--jwt-public-key DIR/key.pem,DIR/other.pem",
        "--jwt-public-key DIR/key.pem --jwt-public-key DIR/other.pem",
    ] {
        assert_eq!(keys(&world, both), "EdDSA None, ES256 None");
    }
    let all = "--jwks DIR/jwks.json --jwt-public-key DIR/key.pem --jwt-secret-file DIR/secret";
    assert_eq!(keys(&world, all), "HS256 None, EdDSA None, EdDSA Some(\"a\")");
    let url = "--jwks https://issuer.example/jwks.json";
    assert_eq!(keys(&world, url), "", "until it has been fetched");

    let world = world.variable("SYNCLINE_JWT_SECRET", secret());
    assert_eq!(keys(&world, ""), "HS256 None");
    let alone = "a forgotten variable adds no key";
    assert_eq!(keys(&world, "--jwt-public-key DIR/key.pem"), "EdDSA None", "{alone}");
    assert_eq!(keys(&world, "--jwks DIR/jwks.json"), "EdDSA Some(\"a\")", "{alone}");
    let world = world.variable("SYNCLINE_JWT_SECRET_FILE", "x");
    assert!(world.error(&format!("serve {}", line(""))).contains("cannot be used with"));
}

#[test]
fn a_key_set_must_be_one_and_come_by_a_safe_way() {
    let world = World::new();
    let error = |jwks: &str| world.error(&format!("serve {}", line(&format!("--jwks {jwks}"))));
    for (jwks, expected) in [
        ("http://issuer.example/x", "must be https, or http to this machine"),
        ("ftp://localhost/x", "must be https, or http to this machine"),
        ("http://127.0.0.1.example.com/x", "must be https, or http to this machine"),
        ("https://me:hunter2@issuer.example/x", "a URL with a password would show it"),
        ("https://", "no URL: "),
    ] {
        assert!(error(jwks).contains(expected), "{jwks}: {}", error(jwks));
    }
    for good in ["http://127.0.0.1:1/x", "http://[::1]:1/x", "http://localhost/x"] {
        world.serve(&line(&format!("--jwks {good}")));
    }
    let missing = error("DIR/none.json");
    let expected = "--jwks: DIR/none.json: cannot read the key set: No such file";
    assert!(missing.starts_with(expected), "{missing}");
    world.file("bad.json", "[]");
    let malformed = error("DIR/bad.json");
    assert!(malformed.contains("the key set is not JSON with a list `keys`"), "{malformed}");
}

#[test]
fn the_issuer_names_its_claims() {
    let world = World::new();
    let key = TestKey::ed25519();
    let token = key.sign(
        None,
        &json!({
            "iss": "me", "aud": "you", "exp": 1_800_000_060,
            "email": "a@b.c", "device": {"id": "d1"}, "scope": "openid policies",
        }),
    );
    world.file("key.pem", &key.public_pem);
    let key = "--jwt-public-key DIR/key.pem";
    let more = "--jwt-user-claim email --jwt-device-claim /device/id --jwt-grants-claim scope";
    let verifier = world.serve(&line(&format!("{key} {more}"))).verifier;
    let principal = verifier.verify(&token, 1_800_000_000).unwrap();
    assert_eq!(principal.caller.user.as_str(), "a@b.c");
    assert_eq!(principal.device.unwrap().as_str(), "d1");
    assert!(world.error(&format!("serve {} --jwt-user-claim /a~", line(key))).contains("~0"));
}
