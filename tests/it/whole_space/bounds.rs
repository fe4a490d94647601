//! What one user may hold of exports, imports and replacements.

use std::fmt::Write;
use std::time::Duration;

use serde_json::json;
use syncline::clock::Clock;
use syncline::rpc::proto::replace_all_request::Part;
use syncline::rpc::proto::{
    ExportSpaceRequest, GetRecordRequest, ReplaceAllBegin, ReplaceAllEnd, ReplaceAllRequest,
};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use super::{House, exported_text, import, write};
use crate::bad_inputs::with;
use crate::support::{Client, Database, TestServer, describe, key, mint_granted, put, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn members_are_imported_only_as_they_may_be() {
    let house = House::new().await;
    let text = exported_text(&house.canary, &house.space).await.unwrap();
    let some = |count: usize| {
        let mut names = String::new();
        (0..count).for_each(|number| write!(names, "\"c{number}\",").unwrap());
        format!("\"collections\":[{}]", names.trim_end_matches(','))
    };
    let all = "\"collections\" : null";
    assert!(text.contains(all), "{text}");
    let of_bob = |collections: &str, role: &str| {
        let lines = text.lines().map(|line| match line.contains("\"bob\"") {
            true => line.replace(all, collections).replace("\"admin\"", role),
            false => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    for broken in [
        of_bob(&some(101), "\"writer\""),
        of_bob(&some(1), "\"admin\""),
        of_bob("\"collections\":[]", "\"writer\""),
    ] {
        let status = import(&house.canary, (&house.space, "i"), &broken).await.unwrap_err();
        let described = describe(&status);
        assert!(described.starts_with("InvalidArgument VALIDATION_ERROR lines["), "{described}");
    }
    let good = of_bob(&some(100), "\"writer\"");
    let imported = import(&house.canary, (&house.space, "i"), &good).await.unwrap();
    assert_eq!(imported.members, 1);
    house.server.stop().await;
}

/// More than is on its way at a time.
async fn fill(client: &Client) {
    let document = format!("{{\"text\":\"{}\"}}", "x".repeat(200 << 10));
    for number in 0..20 {
        let id = format!("m{number}");
        write(client, "", "", vec![put(&id, &id, &document)]).await;
    }
}

/// Whoever does not read their exports holds up themselves.
#[tokio::test(flavor = "multi_thread")]
async fn each_user_has_one_export_at_a_time() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    fill(&alice).await;
    let request = ExportSpaceRequest::default();
    let mut unread = alice.spaces.clone().export_space(request.clone()).await.unwrap().into_inner();
    assert!(unread.message().await.unwrap().is_some());
    let status = alice.spaces.clone().export_space(request.clone()).await.unwrap_err();
    assert_eq!(describe(&status), "ResourceExhausted OVERLOADED retry after 500ms");
    assert!(!exported_text(&bob, "").await.unwrap().is_empty());
    drop(unread);
    wait_for("the place to be free", async || exported_text(&alice, "").await.ok()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_with_its_token() {
    let database = Database::create().await;
    let clock = Clock::manual(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
    let server = TestServer::start_with(&database, clock.clone(), |_config| {}).await;
    let token = mint_granted("alice", &[], Duration::from_mins(1), &clock);
    let alice = Client::connect(server.address(), &token).await;
    fill(&alice).await;
    let request = ExportSpaceRequest::default();
    let mut parts = alice.spaces.clone().export_space(request).await.unwrap().into_inner();
    assert!(parts.message().await.unwrap().is_some());
    clock.advance(Duration::from_mins(2));
    let status = loop {
        match parts.message().await {
            Ok(part) => assert!(part.is_some(), "it ends as if nothing were"),
            Err(status) => break status,
        }
    };
    assert_eq!(describe(&status), "Unauthenticated UNAUTHENTICATED class=expired");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bound_token_imports_is_of_its_device() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    write(&alice, "", "desk", vec![put("m", "1", "{}")]).await;
    let text = exported_text(&alice, "").await.unwrap().replace("{}", "{\"n\":1}");
    let bound = Client::connect(server.address(), &with(&json!({ "device": "phone" }))).await;
    import(&bound, ("", "i"), &text).await.unwrap();
    let get = GetRecordRequest { key: Some(key("1")), ..Default::default() };
    let record = alice.stub.clone().get_record(get).await.unwrap().into_inner().record.unwrap();
    assert_eq!((record.revision, record.device.as_str()), (2, "phone"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_begins_many_replacements_holds_up_themselves() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let begin = |id: &str| ReplaceAllRequest {
        part: Some(Part::Begin(ReplaceAllBegin { id: id.into(), ..Default::default() })),
    };
    // They begin, and send nothing more.
    let mut begun = JoinSet::new();
    let mut held = Vec::new();
    for id in ["r1", "r2"] {
        let (parts, queue) = mpsc::channel(1);
        parts.send(begin(id)).await.unwrap();
        held.push(parts);
        let mut stub = alice.stub.clone();
        begun.spawn(async move { stub.replace_all(ReceiverStream::new(queue)).await });
    }
    let mut connection = database.connect().await;
    wait_for("one to have begun", async || {
        let sql = "select count(*) from pg_stat_activity where datname = current_database()
            and query like '%staged%'";
        let staging: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        (staging > 0).then_some(())
    })
    .await;
    let end = ReplaceAllRequest { part: Some(Part::End(ReplaceAllEnd { records: 0 })) };
    let parts = tokio_stream::iter([begin("r"), end]);
    bob.stub.clone().replace_all(parts).await.unwrap();
    // The second of hers has waited for the first.
    let second = begun.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(describe(&second), "ResourceExhausted OVERLOADED retry after 500ms");
    begun.shutdown().await;
    server.stop().await;
}
