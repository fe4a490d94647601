//! Where subscriptions begin, what they leave out, and in which form they get the rest.

use std::time::Duration;

use syncline::clock::Clock;
use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::{
    Cursor, DeleteOperation, EchoMode, PatchOperation, RecordKey, Start, SubscribeFrame,
};

use super::{Session, named, of};
use crate::support::{Client, Database, TestServer, json, key, mint_granted, mutation, put};

fn from_snapshot(id: &str) -> SubscribeFrame {
    SubscribeFrame { start: Start::Snapshot.into(), ..named(id) }
}

fn from_now(id: &str) -> SubscribeFrame {
    SubscribeFrame { start: Start::Now.into(), ..named(id) }
}

fn note_key(id: &str) -> RecordKey {
    RecordKey { collection: "note".into(), ..key(id) }
}

async fn house() -> (Database, TestServer, Session) {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let mut session = Session::open(server.client("alice").await).await;
    session.write("desk", put("m1", "1", r#"{"n":1}"#)).await;
    session.write("desk", of("note", put("m2", "1", r#"{"n":2}"#))).await;
    session.write("desk", put("m3", "2", r#"{"n":3}"#)).await;
    session.write("desk", put("m4", "1", r#"{"n":4}"#)).await;
    session.write("desk", mutation("m5", "2", Operation::Delete(DeleteOperation {}))).await;
    (database, server, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_begins_where_it_wants() {
    let (_database, server, mut session) = house().await;
    session.subscribe("from a snapshot", from_snapshot("all")).await;
    session.expect(3).await;
    session.write("desk", put("m6", "3", r#"{"n":6}"#)).await;
    session.expect(1).await;
    let collections = vec!["note".to_owned()];
    let notes = SubscribeFrame { collections, ..from_snapshot("notes") };
    session.subscribe("from a snapshot of the notes", notes).await;
    session.expect(3).await;
    session.subscribe("from now", from_now("now")).await;
    session.expect(2).await;
    let keys = vec![key("1"), note_key("7")];
    let some = SubscribeFrame { keys: keys.clone(), ..named("some") };
    session.subscribe("task/1 and note/7, from the beginning", some).await;
    session.expect(3).await;
    let some = SubscribeFrame { keys, ..from_snapshot("same") };
    session.subscribe("the same from a snapshot", some).await;
    session.expect(3).await;
    session.note("# each gets what passes its filter; those that follow alike get one frame");
    session.write("desk", of("note", put("m7", "7", r#"{"n":7}"#))).await;
    session.expect(3).await;
    insta::assert_snapshot!("starts", session.log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_beginning_ends_the_subscription() {
    let (_database, server, mut session) = house().await;
    let cursor = || Some(Cursor { epoch: session.epoch.clone(), revision: 1 });
    let token = "Zm9yZ2Vk".to_owned();
    let rows = [
        ("a cursor and a start", SubscribeFrame { cursor: cursor(), ..from_now("a") }),
        ("a token and no start", SubscribeFrame { snapshot_token: token.clone(), ..named("b") }),
        ("a forged token", SubscribeFrame { snapshot_token: token, ..from_snapshot("c") }),
        ("an unknown start", SubscribeFrame { start: 77, ..named("d") }),
        ("an unknown echo", SubscribeFrame { echo: 77, ..named("e") }),
        (
            "keys and collections",
            SubscribeFrame { keys: vec![key("1")], collections: vec!["note".into()], ..named("f") },
        ),
        (
            "keys that are none",
            SubscribeFrame { keys: vec![key(""), key("1"), note_key("a\nb")], ..named("g") },
        ),
        ("too many keys", SubscribeFrame { keys: vec![key("1"); 1_001], ..named("h") }),
        (
            "everything at once",
            SubscribeFrame { start: 77, echo: 77, device: " ".into(), ..named("i") },
        ),
    ];
    for (what, frame) in rows {
        session.subscribe(what, frame).await;
        session.expect(1).await;
    }
    insta::assert_snapshot!("bad_starts", session.log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_as_differences_and_own_ones_as_marks() {
    let (_database, server, mut session) = house().await;
    let pad = "x".repeat(40);
    session.subscribe("differences", SubscribeFrame { delta: true, ..from_now("delta") }).await;
    session.expect(2).await;
    let before = format!(r#"{{"a":{{"b":1,"c":2}},"pad":"{pad}"}}"#);
    session.write("desk", put("m6", "3", &before)).await;
    session.expect(1).await;
    let after = format!(r#"{{"a":{{"b":1,"d":3}},"pad":"{pad}"}}"#);
    session.write("desk", put("m7", "3", &after)).await;
    session.expect(1).await;
    let patch = PatchOperation { set: json(r#"{"a":{"b":null}}"#), ..<_>::default() };
    session.write("desk", mutation("m8", "3", Operation::Patch(patch))).await;
    session.expect(1).await;
    session.note("# what is not smaller comes whole");
    session.write("desk", put("m9", "3", r#"{"e":5}"#)).await;
    session.expect(1).await;
    session.write("desk", mutation("m10", "3", Operation::Delete(DeleteOperation {}))).await;
    session.expect(1).await;
    session.note("# a device's own changes");
    for (id, echo) in
        [("out", EchoMode::Unspecified), ("all", EchoMode::All), ("mark", EchoMode::Mark)]
    {
        let frame = SubscribeFrame { device: "phone".into(), echo: echo.into(), ..from_now(id) };
        session.subscribe(echo.as_str_name(), frame).await;
        session.expect(2).await;
    }
    session.write("phone", put("m11", "4", r#"{"n":11}"#)).await;
    session.expect(3).await;
    session.write("desk", put("m12", "4", r#"{"n":12}"#)).await;
    session.expect(4).await;
    insta::assert_snapshot!("forms", session.log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_atomic_batch_says_where_it_ends() {
    let (_database, server, mut session) = house().await;
    session.subscribe("from now", from_now("all")).await;
    let collections = vec!["note".to_owned()];
    session.subscribe("notes", SubscribeFrame { collections, ..from_now("notes") }).await;
    session.expect(4).await;
    let batch = || {
        vec![
            put("b1", "1", r#"{"b":1}"#),
            of("note", put("b2", "1", r#"{"b":2}"#)),
            put("b3", "2", r#"{"b":3}"#),
        ]
    };
    session.client.batch(batch(), true).await.unwrap();
    session.expect(2).await;
    let cursor = |revision| Some(Cursor { epoch: session.epoch.clone(), revision });
    let middle = SubscribeFrame { cursor: cursor(6), ..named("middle") };
    session.subscribe("from its middle", middle).await;
    session.expect(3).await;
    insta::assert_snapshot!("batches", session.log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_follows_the_spaces_that_its_token_opens() {
    let (_database, server, _) = house().await;
    let bob = server.client("bob").await;
    bob.mutate(put("b1", "1", r#"{"of":"bob"}"#)).await.unwrap();
    let hour = Duration::from_secs(3_600);
    let token = mint_granted("alice", &["read:users/bob"], hour, &Clock::system());
    let mut session = Session::open(Client::connect(server.address(), &token).await).await;
    session.subscribe("her own space", named("own")).await;
    session.expect(3).await;
    let theirs = |name: &str| SubscribeFrame { space: format!("users/{name}"), ..named(name) };
    session.subscribe("bob's", theirs("bob")).await;
    for _ in 0..3 {
        let frame = super::show(session.stream.frame().await);
        // Another space has another epoch.
        let words: Vec<_> = frame.split(' ').filter(|it| it.len() != 36).collect();
        session.note(&format!("< {}", words.join(" ")));
    }
    session.subscribe("carol's", theirs("carol")).await;
    session.expect(1).await;
    bob.mutate(put("b2", "1", r#"{"of":"bob"}"#)).await.unwrap();
    session.expect(1).await;
    session.write("desk", put("m6", "1", r#"{"of":"alice"}"#)).await;
    session.expect(1).await;
    insta::assert_snapshot!("spaces", session.log);
    server.stop().await;
}
