//! Rows 31 to 44, a handful: tokens over the wire. All of them are matters of
//! unit tests too; here it counts that no path leads around the door.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use syncline::clock::Clock;

use super::House;
use crate::support::raw::{End, Http2, bare, message, mutate_bytes};
use crate::support::{AUDIENCE, ISSUER, SECRET, mint, put};

/// A token of alice with these claims changed; null takes a claim out.
fn token(changes: &Value, secret: &str, algorithm: Algorithm) -> String {
    let now = Clock::system().unix_seconds();
    let mut claims = json!({
        "sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600,
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap()
}

/// A good token of alice's with these claims changed.
pub fn with(changes: &Value) -> String {
    token(changes, SECRET, Algorithm::HS256)
}

/// A token whose time has passed.
pub fn expired_token() -> String {
    with(&json!({ "exp": Clock::system().unix_seconds() - 30 }))
}

fn unsigned() -> String {
    let good = with(&json!({}));
    let payload = good.split('.').nth(1).unwrap();
    // {"alg":"none","typ":"JWT"}
    format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.")
}

fn rows() -> Vec<(&'static str, String, &'static str)> {
    let now = Clock::system().unix_seconds();
    let good = mint("alice");
    let stripped = good.rsplit_once('.').unwrap().0.to_owned() + ".";
    let other = "another secret, just as long as the good one";
    vec![
        ("32 alg none", unsigned(), "invalid"),
        ("33 HS256 with another key", token(&json!({}), other, Algorithm::HS256), "invalid"),
        ("34 HS512 with the good key", token(&json!({}), SECRET, Algorithm::HS512), "invalid"),
        ("35 signature stripped", stripped, "invalid"),
        ("35 four segments", format!("{good}.x"), "invalid"),
        ("35 token of 9 KiB", with(&json!({ "fill": "x".repeat(9 << 10) })), "invalid"),
        ("36 no exp", with(&json!({ "exp": null })), "invalid"),
        ("36 exp is a string", with(&json!({ "exp": "soon" })), "invalid"),
        ("37 expired 30 s ago", expired_token(), "expired"),
        ("37 expired 120 s ago", with(&json!({ "exp": now - 120 })), "expired"),
        ("38 nbf in an hour", with(&json!({ "nbf": now + 3_600 })), "invalid"),
        ("39 no aud", with(&json!({ "aud": null })), "invalid"),
        ("39 other aud", with(&json!({ "aud": "others" })), "invalid"),
        ("40 no iss", with(&json!({ "iss": null })), "invalid"),
        ("40 other iss", with(&json!({ "iss": "others" })), "invalid"),
        ("41 no sub", with(&json!({ "sub": null })), "invalid"),
        ("41 empty sub", with(&json!({ "sub": "" })), "invalid"),
        ("41 sub with a control character", with(&json!({ "sub": "a\nb" })), "invalid"),
        ("41 sub that names another space", with(&json!({ "sub": "é".repeat(65) })), "invalid"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_opens_nothing_and_learns_only_its_class() {
    let house = House::new().await;
    let client = Http2::connect(house.server.address()).await;
    let valid = message(&mutate_bytes(put("m", "1", "{}")));
    let call = async |headers: &[String], path: &str| {
        let mut request =
            bare(path).header("content-type", "application/grpc").header("te", "trailers");
        for value in headers {
            request = request.header("authorization", value);
        }
        client.call(request, valid.clone(), End::Said).await.unwrap().words()
    };
    let refused = |class: &str| format!("Unauthenticated UNAUTHENTICATED class={class}");
    let good = format!("Bearer {}", mint("alice"));
    for (row, headers, class) in [
        ("31 none", vec![], "missing"),
        ("31 empty", vec![String::new()], "invalid"),
        ("31 not Bearer", vec![good.replace("Bearer", "Basic")], "invalid"),
        ("31 two headers", vec![good.clone(), good.clone()], "invalid"),
        ("31 two headers, one bad", vec![good.clone(), "Bearer x".into()], "invalid"),
    ] {
        house.check(row, &call(&headers, "Mutate").await, &refused(class)).await;
    }
    let in_query = format!("Mutate?access_token={}", mint("alice"));
    house.check("31 in the query", &call(&[], &in_query).await, &refused("missing")).await;
    for (row, token, class) in rows() {
        let seen = call(&[format!("Bearer {token}")], "Mutate").await;
        house.check(row, &seen, &refused(class)).await;
    }
    house.unchanged("31 to 44").await;
    assert_eq!(call(&[good], "Mutate").await, "Ok");
    house.end().await;
}
