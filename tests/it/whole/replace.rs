//! ReplaceAll: a space holds what was sent and nothing else, in one step or not at all.

use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::replace_all_request::Part;
use syncline::rpc::proto::{
    ChangesSinceRequest, DeleteOperation, Mutation, NewRecord, Policy, ReplaceAllBegin,
    ReplaceAllEnd, ReplaceAllRecords, ReplaceAllRequest, ReplaceAllResponse,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Copy, proven, random_write, snapshot};
use crate::support::{
    Client, Database, Random, ServerProcess, TestServer, error_reason, json, key, mint, mutation,
    put, scale, seed, wait_for,
};

pub(super) fn record(id: &str, text: &str) -> NewRecord {
    NewRecord { key: Some(key(id)), document: json(text) }
}

fn begin(id: &str, seen_revision: Option<i64>) -> Part {
    let (id, device) = (id.to_owned(), "desk".to_owned());
    Part::Begin(ReplaceAllBegin { id, device, seen_revision, ..Default::default() })
}

fn records(records: Vec<NewRecord>) -> Part {
    Part::Records(ReplaceAllRecords { records })
}

fn end(records: i64) -> Part {
    Part::End(ReplaceAllEnd { records })
}

/// Sends these parts, and then the end of the stream.
async fn send(
    client: &Client,
    parts: impl IntoIterator<Item = Part, IntoIter: Send + 'static>,
) -> Result<ReplaceAllResponse, Status> {
    let parts = parts.into_iter().map(|part| ReplaceAllRequest { part: Some(part) });
    Ok(client.stub.clone().replace_all(tokio_stream::iter(parts)).await?.into_inner())
}

/// Replaces by these, in parts of a hundred.
pub(super) async fn replace(
    client: &Client,
    (id, seen): (&str, Option<i64>),
    all: &[NewRecord],
) -> Result<ReplaceAllResponse, Status> {
    let chunks = all.chunks(100).map(|chunk| records(chunk.to_vec()));
    let mut parts: Vec<_> = std::iter::once(begin(id, seen)).chain(chunks).collect();
    parts.push(end(i64::try_from(all.len()).unwrap()));
    send(client, parts).await
}

pub(super) fn counts(it: &ReplaceAllResponse) -> [i64; 4] {
    [it.created, it.updated, it.deleted, it.unchanged]
}

async fn house() -> (Database, TestServer, Client) {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    (database, server, alice)
}

async fn verified(database: &Database) {
    if let Err(mismatch) = database.store().await.verify(None).await.unwrap() {
        panic!("{mismatch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_same_stays_and_what_is_missing_goes() {
    let (database, _server, alice) = house().await;
    for (id, task, text) in
        [("m1", "1", "{\"n\":1}"), ("m2", "2", "{\"n\":2}"), ("m3", "3", "{}"), ("m4", "4", "{}")]
    {
        alice.mutate(put(id, task, text)).await.unwrap();
    }
    alice.mutate(mutation("m5", "4", Operation::Delete(DeleteOperation {}))).await.unwrap();
    let new = [
        record("1", "{ \"n\": 1 }"),
        record("2", "{\"n\":22}"),
        record("4", "{\"n\":4}"),
        record("5", "{\"n\":5}"),
    ];
    let answer = replace(&alice, ("r", Some(5)), &new).await.unwrap();
    assert_eq!((counts(&answer), answer.replayed), ([2, 1, 1, 1], false));
    let (copy, _) = snapshot(&alice, &[]).await.unwrap();
    assert_eq!(copy.cursor, answer.cursor);
    assert_eq!(copy.revision(), 9);
    let shown: Vec<_> =
        copy.records.iter().map(|((_, id), it)| (id.as_str(), it.0, &*it.1)).collect();
    assert_eq!(
        shown,
        [
            ("1", 1, "{\"n\":1}"),
            ("2", 6, "{\"n\":22}"),
            ("4", 7, "{\"n\":4}"),
            ("5", 8, "{\"n\":5}")
        ]
    );
    copy.check(proven(&alice).await.digest.as_ref().unwrap());
    // Its changes are as all others, and belong together.
    let request = ChangesSinceRequest { every_step: true, ..Default::default() };
    let changes = alice.stub.clone().changes_since(request).await.unwrap().into_inner().changes;
    let told: Vec<_> = changes
        .iter()
        .skip(5)
        .map(|it| (it.mutation_id.as_str(), it.device.as_str(), it.batch_end, it.previous_revision))
        .collect();
    let expected = [
        ("r/1", "desk", 9, 2),
        ("r/2", "desk", 9, 5),
        ("r/3", "desk", 9, 0),
        ("r/4", "desk", 9, 3),
    ];
    assert_eq!(told, expected);

    // The same again has no effect, by whatever id.
    let again = replace(&alice, ("r", Some(5)), &[]).await.unwrap();
    assert_eq!(again, ReplaceAllResponse { replayed: true, ..answer.clone() });
    let reused = replace(&alice, ("r", Some(9)), &new).await.unwrap_err();
    assert_eq!(error_reason(&reused), "MUTATION_ID_REUSED");
    let other = replace(&alice, ("r2", None), &new).await.unwrap();
    assert_eq!((counts(&other), &other.cursor), ([0, 0, 0, 4], &answer.cursor));
    // Whoever writes next finds everything as it is.
    let base = Mutation { base: Some(6), ..put("w", "2", "{}") };
    assert_eq!(alice.mutate(base).await.unwrap().revision, 10);
    verified(&database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_refuses_what_was_not_seen() {
    let (_database, _server, alice) = house().await;
    let new = [record("1", "{}")];
    assert_eq!(counts(&replace(&alice, ("r1", Some(0)), &new).await.unwrap()), [1, 0, 0, 0]);
    let refused = replace(&alice, ("r2", Some(0)), &new).await.unwrap_err();
    assert_eq!(error_reason(&refused), "SPACE_CHANGED");
    // Somebody writes while it is being sent.
    let (parts, queue) = mpsc::channel(8);
    let part = |part| ReplaceAllRequest { part: Some(part) };
    parts.send(part(begin("r3", Some(1)))).await.unwrap();
    let mut calls = JoinSet::new();
    let mut stub = alice.stub.clone();
    calls.spawn(async move { stub.replace_all(ReceiverStream::new(queue)).await });
    parts.send(part(records(vec![record("2", "{}")]))).await.unwrap();
    alice.mutate(put("m", "3", "{}")).await.unwrap();
    parts.send(part(end(1))).await.unwrap();
    let refused = calls.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(error_reason(&refused), "SPACE_CHANGED");
    assert_eq!(alice.head().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_off_or_wrong_changes_nothing() {
    let (database, server, alice) = house().await;
    alice.mutate(put("m1", "1", "{}")).await.unwrap();
    let two = || records(vec![record("1", "{\"n\":1}"), record("2", "{}")]);
    let no_document = records(vec![NewRecord { document: None, ..record("2", "{}") }]);
    let no_object = records(vec![record("2", "[]"), record("", "{}")]);
    let long = "x".repeat(97);
    let negative = begin("r", Some(-1));
    for (name, parts) in [
        ("begin", vec![]),
        ("begin", vec![two(), end(2)]),
        ("begin", vec![begin("r", None), begin("r", None)]),
        ("end", vec![begin("r", None)]),
        ("end", vec![begin("r", None), two()]),
        ("end.records", vec![begin("r", None), two(), end(1)]),
        ("records[task/1]", vec![begin("r", None), two(), two(), end(4)]),
        ("records[2].document", vec![begin("r", None), two(), no_document, end(3)]),
        ("records[0].document", vec![begin("r", None), no_object, end(2)]),
        ("begin.id", vec![begin("", None), end(0)]),
        ("begin.id", vec![begin(&long, None), end(0)]),
        ("begin.seen_revision", vec![negative, end(0)]),
    ] {
        let refused = send(&alice, parts).await.unwrap_err();
        assert_eq!(error_reason(&refused), "VALIDATION_ERROR", "{name}");
        assert!(refused.message().starts_with(name), "{name}: {}", refused.message());
    }
    // A client that goes away in the middle.
    let (parts, queue) = mpsc::channel(8);
    let part = |part| ReplaceAllRequest { part: Some(part) };
    let mut stub = Client::connect(server.address(), &mint("alice")).await.stub;
    let mut calls = JoinSet::new();
    calls.spawn(async move { stub.replace_all(ReceiverStream::new(queue)).await });
    parts.send(part(begin("r", None))).await.unwrap();
    parts.send(part(two())).await.unwrap();
    let sessions = "select count(*) from pg_stat_activity where datname = current_database()
        and query like '%into staged%' and pid <> pg_backend_pid()";
    let mut connection = database.connect().await;
    let mut staging =
        async || -> i64 { sqlx::query_scalar(sessions).fetch_one(&mut connection).await.unwrap() };
    wait_for("the records to be staged", async || (staging().await > 0).then_some(())).await;
    calls.abort_all();
    wait_for("the end of the session", async || (staging().await == 0).then_some(())).await;
    assert_eq!(alice.head().await, 1);
    let bob = server.client("bob").await;
    let begin =
        ReplaceAllBegin { space: "users/alice".into(), id: "r".into(), ..Default::default() };
    let refused = send(&bob, [Part::Begin(begin), end(0)]).await.unwrap_err();
    assert_eq!(error_reason(&refused), "SPACE_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_refuses_the_whole() {
    let (_database, server, alice) = house().await;
    let schema = "{\"required\":[\"n\"]}".to_owned();
    let policy = Policy { collection: "task".into(), json_schema: schema, ..Default::default() };
    server.admin("alice").await.set_policy(policy).await.unwrap();
    let new = [record("1", "{\"n\":1}"), record("2", "{}")];
    let refused = replace(&alice, ("r", None), &new).await.unwrap_err();
    assert_eq!(error_reason(&refused), "VALIDATION_ERROR");
    assert!(refused.message().starts_with("records[task/2]"), "{}", refused.message());
    assert_eq!(alice.head().await, 0);
}

/// Writers of the same space on both replicas, readers, and replacements: each step of the
/// log is there, and all end up with the same.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_one_step_for_everybody() {
    let (database, server, alice) = house().await;
    let other = TestServer::start(&database).await;
    let (mut random, scale) = (Random(seed()), scale());
    let mut writing = JoinSet::new();
    for (number, server) in [&server, &other].into_iter().enumerate() {
        let (client, mut writes) = (server.client("alice").await, Random(random.next()));
        let base = u64::try_from(number).unwrap() << 32;
        writing.spawn(async move {
            for at in 0..100 * scale {
                let write = random_write(&mut writes, base + at);
                while let Err(status) = client.mutate(write.clone()).await {
                    assert_eq!(error_reason(&status), "SYNC_FAILED", "{status:?}");
                }
            }
        });
    }
    for round in 0..5 * scale {
        let count = 1 + random.below(1_500);
        let new =
            (0..count).map(|it| record(&it.to_string(), &format!("{{\"r\":{}}}", it % 7 + round)));
        let new: Vec<_> = new.collect();
        let id = format!("r{round}");
        let answer = loop {
            match replace(&alice, (&id, None), &new).await {
                Ok(answer) => break answer,
                Err(status) => assert_eq!(error_reason(&status), "SYNC_FAILED", "{status:?}"),
            }
        };
        let [created, updated, _, unchanged] = counts(&answer);
        assert_eq!(u64::try_from(created + updated + unchanged).unwrap(), count);
    }
    writing.join_all().await;
    let (copy, _) = snapshot(&alice, &[]).await.unwrap();
    copy.check(proven(&alice).await.digest.as_ref().unwrap());
    verified(&database).await;
}

/// A server that dies in the middle has replaced all or nothing, and the same call comes
/// to the same end.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_has_replaced_all_or_nothing() {
    for (point, done) in [
        ("replace.staged", false),
        ("replace.written", false),
        ("replace.written=2", false),
        ("replace.committed", true),
    ] {
        let database = Database::create().await;
        let server = ServerProcess::start_in(&database.url, &[], &[("SYNCLINE_FAILPOINT", point)]);
        let alice = Client::connect(server.address, &mint("alice")).await;
        let old = (0..50).map(|it| put(&format!("o{it}"), &format!("o{it}"), "{}")).collect();
        alice.batch(old, false).await.unwrap();
        let before = snapshot(&alice, &[]).await.unwrap().0;
        let new: Vec<_> = (0..1_500).map(|it| record(&it.to_string(), "{\"n\":1}")).collect();
        replace(&alice, ("r", Some(50)), &new).await.unwrap_err();
        assert!(server.died().await, "{point}");
        verified(&database).await;

        let server = ServerProcess::start(&database.url);
        let alice = Client::connect(server.address, &mint("alice")).await;
        let found = snapshot(&alice, &[]).await.unwrap().0;
        let count = |it: &Copy| it.records.len();
        assert_eq!(
            (count(&found), found == before),
            if done { (1_500, false) } else { (50, true) }
        );
        let answer = replace(&alice, ("r", Some(50)), &new).await.unwrap();
        assert_eq!((counts(&answer), answer.replayed), ([1_500, 0, 50, 0], done));
        assert_eq!(alice.head().await, 1_600);
        verified(&database).await;
    }
}
