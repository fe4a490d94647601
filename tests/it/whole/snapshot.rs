//! Snapshot: a space as it was at one revision, page by page, while others write.

use prost::Message;
use sqlx::Executor;
use syncline::rpc::proto::{ChangesSinceRequest, DocumentForm, ExchangeRequest, SnapshotRequest};
use tokio::task::JoinSet;

use super::{Copy, Writers, exchange, proven, random_write, snapshot};
use crate::support::{Client, Database, Random, TestServer, error_reason, put, scale, seed};

async fn fill(client: &Client, count: usize, bytes: usize) {
    let text = format!("{{\"text\":\"{}\"}}", "x".repeat(bytes));
    for first in (0..count).step_by(100) {
        let numbers = first..(first + 100).min(count);
        let writes = numbers.map(|it| put(&format!("f{it}"), &format!("{it:06}"), &text));
        client.batch(writes.collect(), false).await.unwrap();
    }
}

fn request(resume_token: &str) -> SnapshotRequest {
    let (resume_token, document_form) = (resume_token.to_owned(), DocumentForm::Json.into());
    SnapshotRequest { resume_token, document_form, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_in_pages_and_can_be_taken_up_anywhere() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    assert_eq!(snapshot(&alice, &[]).await.unwrap().0.records.len(), 0);
    fill(&alice, 2_500, 500).await;
    let (whole, responses) = snapshot(&alice, &[]).await.unwrap();
    assert!(whole.records.len() == 2_500 && responses >= 3, "{responses} responses");
    whole.check(proven(&alice).await.digest.as_ref().unwrap());

    // Broken off after each response, and gone on with while somebody writes.
    let (mut copy, mut token, mut calls) = (Copy::default(), String::new(), 0);
    loop {
        calls += 1;
        let mut stream = alice.stub.clone().snapshot(request(&token)).await.unwrap().into_inner();
        let response = stream.message().await.unwrap().unwrap();
        assert!(response.encoded_len() <= 3 << 20);
        token.clone_from(&response.next_token);
        let last = copy.load(response);
        alice.mutate(put(&format!("w{calls}"), "000001", "{\"n\":1}")).await.unwrap();
        alice.mutate(put(&format!("v{calls}"), &format!("9-{calls}"), "{}")).await.unwrap();
        if last {
            break;
        }
    }
    assert_eq!(copy, whole);
    assert!(calls >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_of_a_part() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    let mut random = Random(seed());
    for number in 0..60 {
        alice.mutate(random_write(&mut random, number)).await.unwrap();
    }
    let (whole, _) = snapshot(&alice, &[]).await.unwrap();
    let (notes, _) = snapshot(&alice, &["note", "none"]).await.unwrap();
    let mut expected = whole.clone();
    expected.records.retain(|(collection, _), _| collection == "note");
    assert_eq!(notes, expected);
    let keys = vec![crate::support::key("1"), crate::support::key("never")];
    let some = SnapshotRequest { keys, ..request("") };
    let mut stream = alice.stub.clone().snapshot(some).await.unwrap().into_inner();
    let mut copy = Copy::default();
    while !copy.load(stream.message().await.unwrap().unwrap()) {}
    expected = whole;
    expected.records.retain(|key, _| *key == ("task".into(), "1".into()));
    assert_eq!(copy, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_begin_is_told() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    fill(&alice, 1_001, 10).await;
    let open = async |request: SnapshotRequest| {
        alice.stub.clone().snapshot(request).await.map(|_stream| ())
    };
    let reason = async |request| error_reason(&open(request).await.unwrap_err());
    assert_eq!(reason(request("forged")).await, "VALIDATION_ERROR");
    let foreign = SnapshotRequest { space: "users/bob".into(), ..request("") };
    assert_eq!(reason(foreign).await, "SPACE_NOT_FOUND");
    let both = SnapshotRequest { collections: vec!["task".into()], ..request("") };
    let both = SnapshotRequest { keys: vec![crate::support::key("1")], ..both };
    assert_eq!(reason(both).await, "VALIDATION_ERROR");

    let mut stream = alice.stub.clone().snapshot(request("")).await.unwrap().into_inner();
    let token = stream.message().await.unwrap().unwrap().next_token;
    drop(stream);
    alice.mutate(put("later", "1", "{}")).await.unwrap();
    let sql = "update spaces set floor = head";
    database.connect().await.execute(sql).await.unwrap();
    assert_eq!(reason(request(&token)).await, "CURSOR_EXPIRED");
    let sql = "update spaces set epoch = gen_random_uuid()";
    database.connect().await.execute(sql).await.unwrap();
    assert_eq!(reason(request(&token)).await, "EPOCH_CHANGED");
}

/// A reader that does not read holds up nobody, and the server does not read on for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_it_with_a_status() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let token = crate::support::mint("alice");
    let alice = Client::narrow(server.address(), &token);
    fill(&alice, 400, 20 << 10).await;
    let mut stream = alice.stub.clone().snapshot(request("")).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(!first.last);
    let mut stopping = JoinSet::new();
    stopping.spawn(server.stop());
    let end = loop {
        match stream.message().await {
            Ok(Some(response)) => assert!(!response.last, "the server read on for nobody"),
            Ok(None) => panic!("a snapshot that is not whole ended as if it were"),
            Err(status) => break status,
        }
    };
    assert_eq!(error_reason(&end), "SYNC_FAILED");
    stopping.join_all().await;
}

/// Fold equality: a snapshot and the changes after it are the state at every later
/// revision, whoever writes meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_what_follows_is_every_later_state() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    let mut random = Random(seed());
    let writers = Writers::start([alice.clone()], &mut random);
    let (mut copies, mut states) = (Vec::new(), Vec::new());
    for _ in 0..10 * scale() {
        let (copy, _) = snapshot(&alice, &[]).await.unwrap();
        states.push(copy.clone());
        copies.push(copy);
        // All of them go on, with pages of any size, to wherever the head is by then.
        for copy in &mut copies {
            let page_size = 1 + i32::try_from(random.below(50)).unwrap();
            while !go_on(&alice, copy, page_size).await {}
            states.push(copy.clone());
        }
    }
    writers.stop().await;
    let mut log = Vec::new();
    let mut cursor = None;
    loop {
        let request = ChangesSinceRequest { cursor, every_step: true, ..Default::default() };
        let request = ChangesSinceRequest { page_size: 1_000, document_form: 2, ..request };
        let page = alice.stub.clone().changes_since(request).await.unwrap().into_inner();
        (cursor, log) = (page.cursor, [log, page.changes].concat());
        if !page.has_more {
            break;
        }
    }
    // Each of them is what the steps up to there add up to.
    for state in states {
        let upto = log.iter().take_while(|change| change.revision <= state.revision());
        let steps: Vec<_> = upto.cloned().collect();
        let mut fold = Copy::default();
        fold.apply(&steps, state.cursor.clone());
        assert_eq!(state, fold, "at {}", state.revision());
    }
    let (last, _) = snapshot(&alice, &[]).await.unwrap();
    last.check(proven(&alice).await.digest.as_ref().unwrap());
}

/// Goes a page on; whether it is at the head.
async fn go_on(alice: &Client, copy: &mut Copy, page_size: i32) -> bool {
    let cursor = copy.cursor.clone();
    let request = ExchangeRequest { cursor, page_size, ..Default::default() };
    let answer = exchange(alice, request).await.unwrap();
    copy.apply(&answer.changes, answer.cursor);
    !answer.has_more
}
