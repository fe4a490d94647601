//! Digests: what the server tells is what a client finds by itself, after whatever has
//! happened.

use sqlx::Executor;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{ExchangeRequest, GetStatusRequest, Start};

use super::{Copy, Writers, exchange, proven, random_write, snapshot};
use crate::support::{
    Database, Random, Stream, TestServer, error_reason, put, scale, seed, subscribe_frame, wait_for,
};

#[tokio::test(flavor = "multi_thread")]
async fn after_random_histories_the_digest_is_that_of_the_records() {
    let database = Database::create().await;
    let servers = [TestServer::start(&database).await, TestServer::start(&database).await];
    let alice = [servers[0].client("alice").await, servers[1].client("alice").await];
    let mut random = Random(seed());
    let mut number = 0;
    for _ in 0..20 * scale() {
        for client in &alice {
            let count = 1 + random.below(8);
            let batch = (0..count).map(|at| random_write(&mut random, number + at)).collect();
            number += count;
            client.batch(batch, random.below(2) == 0).await.unwrap();
        }
        let (copy, _) = snapshot(&alice[0], &[]).await.unwrap();
        let status = proven(&alice[1]).await;
        copy.check(status.digest.as_ref().unwrap());
        copy.check_records(&alice[1]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_tells_of_some_collections() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    let mut note = put("m2", "1", "{}");
    note.key.as_mut().unwrap().collection = "note".into();
    alice.batch(vec![put("m1", "1", "{}"), note], true).await.unwrap();
    let status = async |digest, names: &[&str]| {
        let digest_collections = names.iter().map(ToString::to_string).collect();
        let request = GetStatusRequest { digest, digest_collections, ..Default::default() };
        alice.stub.clone().get_status(request).await
    };
    let told = status(true, &["note", "none"]).await.unwrap().into_inner().digest.unwrap();
    let names: Vec<_> = told.collections.iter().map(|it| it.collection.as_str()).collect();
    assert_eq!((names, told.records, told.revision), (vec!["note"], 1, 2));
    assert_eq!(told.digest, told.collections[0].digest);
    assert_eq!(status(false, &[]).await.unwrap().into_inner().digest, None);
    let refused = status(false, &["note"]).await.unwrap_err();
    assert_eq!(error_reason(&refused), "VALIDATION_ERROR");
    // Nobody has written in bob's.
    let bob = server.client("bob").await;
    Copy::default().check(proven(&bob).await.digest.as_ref().unwrap());
}

/// While others write as fast as they can, each `caught_up` carries the digest of exactly
/// the state that it tells of.
#[tokio::test(flavor = "multi_thread")]
async fn caught_up_proves_the_state_while_others_write() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    let mut random = Random(seed());
    let writers = Writers::start([alice.clone()], &mut random);
    wait_for("the writer", async || (alice.head().await > 20).then_some(())).await;
    let mut proofs_behind_writes = 0;
    for round in 0..10 * scale() {
        let mut stream = Stream::open(&alice).await.unwrap();
        let mut frame = subscribe_frame("s", None);
        (frame.digest, frame.document_form) = (true, 2);
        if round % 2 == 0 {
            frame.collections = vec!["task".into()];
        }
        if round % 3 == 0 {
            frame.start = Start::Snapshot.into();
        }
        stream.subscribe(frame).await;
        let mut copy = Copy::default();
        let told = loop {
            match stream.frame().await {
                Frame::Subscribed(it) => {
                    copy.cursor =
                        Some(syncline::rpc::proto::Cursor { epoch: it.epoch, revision: 0 });
                }
                Frame::Snapshot(it) => copy.show(it),
                Frame::Changes(it) => {
                    let epoch = copy.cursor.clone().unwrap().epoch;
                    let cursor = syncline::rpc::proto::Cursor { epoch, revision: it.up_to };
                    copy.apply(&it.changes, Some(cursor));
                }
                Frame::CaughtUp(it) => break it,
                other => panic!("{other:?}"),
            }
        };
        copy.cursor.as_mut().unwrap().revision = told.up_to;
        copy.check(told.digest.as_ref().unwrap());
        // What follows is not held up.
        let next = match stream.frame().await {
            Frame::Changes(it) => it,
            other => panic!("{other:?}"),
        };
        assert!(next.after >= told.up_to && next.up_to > told.up_to);
        proofs_behind_writes += u64::from(alice.head().await > told.up_to);
    }
    writers.stop().await;
    assert!(proofs_behind_writes > 0, "nobody wrote meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_of_collections_and_comes_when_it_is_asked_for() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    alice.mutate(put("m1", "1", "{}")).await.unwrap();
    let mut stream = Stream::open(&alice).await.unwrap();
    let mut wrong = subscribe_frame("k", None);
    (wrong.digest, wrong.keys) = (true, vec![crate::support::key("1")]);
    stream.subscribe(wrong).await;
    let Frame::Closed(closed) = stream.frame().await else { panic!("it began") };
    assert_eq!(closed.violations[0].field, "subscribe.digest");
    stream.subscribe(subscribe_frame("plain", None)).await;
    loop {
        if let Frame::CaughtUp(told) = stream.frame().await {
            assert_eq!(told.digest, None);
            return;
        }
    }
}

/// A client that has lost something finds where, and loads only that anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_leads_to_one_collection() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    let mut random = Random(seed());
    for number in 0..60 {
        alice.mutate(random_write(&mut random, number)).await.unwrap();
    }
    let (mut copy, _) = snapshot(&alice, &[]).await.unwrap();
    let right = copy.clone();
    let lost = copy.records.keys().find(|(collection, _)| collection == "note").unwrap().clone();
    copy.records.remove(&lost);
    let told = proven(&alice).await.digest.unwrap();
    assert_eq!((copy.differing(&told), right.differing(&told)), (vec!["note".to_owned()], vec![]));
    // Meanwhile somebody writes: the collection comes from later than the rest.
    for number in 60..90 {
        alice.mutate(random_write(&mut random, number)).await.unwrap();
    }
    let (notes, _) = snapshot(&alice, &["note"]).await.unwrap();
    copy.records.retain(|(collection, _), _| collection != "note");
    copy.records.extend(notes.records);
    let request = ExchangeRequest { cursor: copy.cursor.clone(), ..Default::default() };
    let answer = exchange(&alice, request).await.unwrap();
    copy.apply(&answer.changes, answer.cursor);
    copy.check(proven(&alice).await.digest.as_ref().unwrap());
}

/// Whatever single row somebody changes behind the server's back, the digest no longer is
/// that of the records.
#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_row_shows() {
    for tampering in [
        "update changes set document = '{\"n\":2}' where revision = 1",
        "update latest set deleted = false where id = '3'; update changes set document = '{}' where revision = 4",
        "delete from latest where id = '2'",
        "update changes set id = '9' where revision = 2; update latest set id = '9' where id = '2'",
        "update digests set records = records + 1",
        "update digests set digest = digest + 1",
    ] {
        let database = Database::create().await;
        let server = TestServer::start(&database).await;
        let alice = server.client("alice").await;
        for number in 1..=3 {
            let id = number.to_string();
            alice.mutate(put(&format!("m{id}"), &id, "{\"n\":1}")).await.unwrap();
        }
        use syncline::rpc::proto::{DeleteOperation, mutation::Operation};
        let delete = Operation::Delete(DeleteOperation {});
        alice.mutate(crate::support::mutation("m4", "3", delete)).await.unwrap();
        snapshot(&alice, &[]).await.unwrap().0.check(&proven(&alice).await.digest.unwrap());
        database.connect().await.execute(tampering).await.unwrap();
        let (copy, _) = snapshot(&alice, &[]).await.unwrap();
        let told = proven(&alice).await.digest.unwrap();
        assert!(!copy.differing(&told).is_empty(), "not found: {tampering}");
    }
}
