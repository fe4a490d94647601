//! Rows 30, 42 to 58 and 78: what tokens say in their headers, who may not do what, and that
//! nothing of it gets into logs or answers.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use prost::Message;
use serde_json::{Value, json};
use syncline::clock::Clock;
use syncline::rpc::proto::{
    BatchMutateRequest, CreateSpaceRequest, EraseSpaceRequest, ExportSpaceRequest,
    GetRecordRequest, ListAuditEntriesRequest, MutateRequest, Role, SetMemberRequest,
};

use super::House;
use crate::support::generic::Generic;
use crate::support::raw::{End, Http2, bare, message, mutate_bytes};
use crate::support::{
    AUDIENCE, Client, Database, ISSUER, SECRET, ServerProcess, TestServer, describe, key, put,
    wait_for,
};

/// A token of alice's with this header, signed well.
fn with_header(header: &Value, more: &Value) -> String {
    let now = Clock::system().unix_seconds();
    let mut claims = json!({
        "sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600,
    });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    signed(&header.to_string(), &claims.to_string())
}

fn signed(header: &str, claims: &str) -> String {
    let [header, claims] = [header, claims].map(|it| URL_SAFE_NO_PAD.encode(it));
    let text = format!("{header}.{claims}");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{text}.{signature}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_an_odd_header_or_claims_opens_nothing() {
    let house = House::new().await;
    let client = Http2::connect(house.server.address()).await;
    let call = async |token: &str| {
        let request = bare("Mutate").header("content-type", "application/grpc");
        let request = request.header("te", "trailers");
        let request = request.header("authorization", format!("Bearer {token}"));
        let body = message(&mutate_bytes(put("m", "1", "{}")));
        client.call(request, body, End::Said).await.unwrap().words()
    };
    let none = json!({});
    let header = |more: Value| {
        let mut header = json!({ "alg": "HS256", "typ": "JWT" });
        for (name, value) in more.as_object().unwrap() {
            header[name] = value.clone();
        }
        with_header(&header, &none)
    };
    let now = Clock::system().unix_seconds();
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let twice = format!(
        r#"{{"sub":"bob","sub":"alice","iss":"{ISSUER}","aud":"{AUDIENCE}","exp":{}}}"#,
        now + 600
    );
    for (row, token) in [
        ("42 an ID token", header(json!({ "typ": "id+jwt" }))),
        ("42 typ that is no text", header(json!({ "typ": 7 }))),
        ("43 unknown crit", header(json!({ "crit": ["exp"], "exp": 1 }))),
        ("44 kid that goes up", header(json!({ "kid": "../../etc/passwd" }))),
        ("44 kid of SQL", header(json!({ "kid": "' or 1=1 --" }))),
        ("44 kid of 10 KB", header(json!({ "kid": "k".repeat(10_000) }))),
        ("44 kid that is no text", header(json!({ "kid": {} }))),
        ("47 claims twice", signed(r#"{"alg":"HS256"}"#, &twice)),
        ("47 claims 5,000 deep", signed(r#"{"alg":"HS256"}"#, &deep)),
        (
            "48 grants that are no list",
            with_header(&json!({ "alg": "HS256" }), &json!({ "grants": { "admin:*": true } })),
        ),
    ] {
        let expected = "Unauthenticated UNAUTHENTICATED class=invalid";
        house.check(row, &call(&token).await, expected).await;
    }
    // A grant that is not ours opens nothing, and keeps nobody out.
    let other = with_header(&json!({ "alg": "HS256" }), &json!({ "grants": ["admin:**", "x:y"] }));
    assert_eq!(call(&other).await, "Ok");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lacks_a_right_is_refused_and_touches_nothing() {
    let house = House::new().await;
    let create =
        CreateSpaceRequest { request_id: "r".into(), title: "Team".into(), ..Default::default() };
    let space = house.alice.spaces.clone().create_space(create).await.unwrap().into_inner();
    let space = space.space.unwrap().space;
    let set = SetMemberRequest {
        space: space.clone(),
        user: "bob".into(),
        role: Role::Reader.into(),
        collections: Vec::new(),
    };
    house.alice.spaces.clone().set_member(set.clone()).await.unwrap();
    let bob = house.server.client("bob").await;
    let refused = |right: &str| format!("PermissionDenied PERMISSION_DENIED right={right}");
    let mutate = MutateRequest {
        space: space.clone(),
        mutation: Some(put("m", "1", "{}")),
        ..Default::default()
    };
    let status = bob.stub.clone().mutate(mutate).await.unwrap_err();
    house.check("55 a reader writes", &describe(&status), &refused("write")).await;
    let mut stub = bob.spaces.clone();
    let erase = EraseSpaceRequest { space: space.clone(), confirm: space.clone() };
    for (row, status) in [
        ("58 erase", stub.erase_space(erase).await.unwrap_err()),
        (
            "58 audit",
            stub.list_audit_entries(ListAuditEntriesRequest {
                space: space.clone(),
                ..Default::default()
            })
            .await
            .unwrap_err(),
        ),
        (
            "58 export",
            stub.export_space(ExportSpaceRequest { space: space.clone() })
                .await
                .map(drop)
                .unwrap_err(),
        ),
        ("58 members", stub.set_member(set).await.unwrap_err()),
    ] {
        house.check(row, &describe(&status), &refused("admin")).await;
    }
    // 57: a batch has one space, which all its mutations are of.
    let foreign = BatchMutateRequest {
        space: "users/carol".into(),
        mutations: vec![put("a", "1", "{}"), put("b", "2", "{}")],
        ..Default::default()
    };
    let status = bob.stub.clone().batch_mutate(foreign).await.unwrap_err();
    house
        .check("57 a batch for a foreign space", &describe(&status), "NotFound SPACE_NOT_FOUND")
        .await;
    let mut connection = house.database.connect().await;
    let sql = "select count(*) from changes where author = 'bob'";
    let written: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    assert_eq!(written, 0);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_can_be_off() {
    let database = Database::create().await;
    let off = |it: &mut syncline::config::ServerConfig| it.reflection = false;
    let server = TestServer::start_with(&database, Clock::system(), off).await;
    let call = Generic::connect(server.address()).await;
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let status = call.call(path, &[], vec![Vec::new()]).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented, "row 30");
    server.stop().await;
}

/// What a client sends stands in no log, however much is logged, and in no message.
#[tokio::test(flavor = "multi_thread")]
async fn logs_and_messages_have_nothing_of_what_clients_send() {
    let database = Database::create().await;
    let process = ServerProcess::start_with(&database.url, &["--log", "info,syncline=trace"]);
    let call = Generic::connect(process.address).await;
    let canary = "canary5canary";
    let good = with_header(&json!({ "alg": "HS256" }), &json!({ "sub": "alice" }));
    let bad = format!("{canary}.{canary}.{canary}");
    let signature = good.rsplit_once('.').unwrap().1.to_owned();
    let document = format!(r#"{{"text":"{canary}"}}"#);
    let mut said = String::new();
    for bearer in [&good, &bad] {
        let bearer = format!("Bearer {bearer}");
        for messages in [
            MutateRequest { mutation: Some(put(canary, canary, &document)), ..Default::default() }
                .encode_to_vec(),
            // Broken documents, and bytes that are no message.
            MutateRequest {
                // The path to what is broken is told, and not what is there.
                mutation: Some(put("m2", "1", &format!("{{\"a\":\"{canary}"))),
                ..Default::default()
            }
            .encode_to_vec(),
            canary.as_bytes().to_vec(),
        ] {
            let metadata = [("authorization", bearer.as_str()), ("x-canary", canary)];
            let path = "/syncline.v1.SyncService/Mutate";
            if let Err(status) = call.call(path, &metadata, vec![messages]).await {
                said.push_str(status.message());
            }
        }
    }
    let alice = Client::connect(process.address, &good).await;
    let get = GetRecordRequest { key: Some(key("unknown")), ..Default::default() };
    alice.stub.clone().get_record(get).await.unwrap_err();
    // What is broken in the database is an error of ours, which is logged.
    let mut connection = database.connect().await;
    let sql = "update changes set others = 'nonsense' where mutation_id = $1";
    sqlx::query(sql).bind(canary).execute(&mut connection).await.unwrap();
    let get = GetRecordRequest { key: Some(key(canary)), ..Default::default() };
    let broken = alice.stub.clone().get_record(get).await.unwrap_err();
    said.push_str(broken.message());
    assert_eq!(broken.code(), tonic::Code::Internal);
    let log = wait_for("the log", async || {
        Some(process.log()).filter(|log| log.contains("internal error"))
    })
    .await;
    assert!(log.contains("answered"), "calls are logged: {log}");
    for secret in [canary, &signature, SECRET] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
        assert!(!said.contains(secret), "{secret} is in a message: {said}");
    }
    for inner in ["sqlx", "select ", "tokio", ".rs:", "panicked"] {
        assert!(!said.contains(inner), "{inner} is in a message: {said}");
    }
    process.stop();
}
