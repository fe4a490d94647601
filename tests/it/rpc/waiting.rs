//! ChangesSince with `wait`: it answers as soon as there is something, never later
//! than it may, and moves its cursor over what was filtered out.

use std::time::Duration;

use syncline::rpc::proto::{
    BatchMutateRequest, ChangesSinceRequest, ChangesSinceResponse, Cursor, GetStatusRequest,
    Mutation, RecordKey,
};
use tokio::time::Instant;
use tonic::{Code, Request, Status};

use super::House;
use crate::support::{Client, TestServer, describe, error_reason, key, put, wait_for};

/// Longer than a write takes, shorter than a test may.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(14);

fn duration(of: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(of).unwrap()
}

async fn cursor(client: &Client) -> Cursor {
    let status = client.stub.clone().get_status(GetStatusRequest::default()).await.unwrap();
    let status = status.into_inner();
    Cursor { epoch: status.epoch, revision: status.head }
}

fn waiting(cursor: &Cursor, wait: Duration) -> ChangesSinceRequest {
    let (cursor, wait) = (Some(cursor.clone()), Some(duration(wait)));
    ChangesSinceRequest { cursor, wait, ..ChangesSinceRequest::default() }
}

async fn read(
    client: &Client,
    request: ChangesSinceRequest,
) -> Result<ChangesSinceResponse, Status> {
    Ok(client.stub.clone().changes_since(request).await?.into_inner())
}

/// An answer, and how long it took.
async fn timed(client: &Client, request: ChangesSinceRequest) -> (ChangesSinceResponse, Duration) {
    let began = Instant::now();
    (read(client, request).await.unwrap(), began.elapsed())
}

fn revisions(page: &ChangesSinceResponse) -> Vec<i64> {
    page.changes.iter().map(|change| change.revision).collect()
}

fn note(mutation: Mutation) -> Mutation {
    let collection = "note".into();
    Mutation { key: mutation.key.map(|it| RecordKey { collection, ..it }), ..mutation }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_with_the_first_change_on_any_replica() {
    let house = House::new().await;
    let other = TestServer::start(&house.database).await;
    let (alice, elsewhere) = (house.alice().await, other.client("alice").await);
    alice.mutate(put("m1", "1", "{}")).await.unwrap();
    let at = cursor(&alice).await;
    for (number, writer) in [(2, &alice), (3, &elsewhere)] {
        let after = Cursor { revision: number - 1, ..at.clone() };
        let write = async {
            // Written at once or while the other waits: both must be answered.
            writer.mutate(put(&format!("m{number}"), "1", "{}")).await.unwrap();
        };
        let ((page, took), ()) = tokio::join!(timed(&alice, waiting(&after, LONG)), write);
        assert_eq!(revisions(&page), [number]);
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        assert_eq!((page.cursor.unwrap().revision, page.has_more), (number, false));
    }
    // What is there already is not waited for.
    let (page, took) = timed(&alice, waiting(&at, LONG)).await;
    assert_eq!(revisions(&page), [3], "coalesced");
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    let every_step = ChangesSinceRequest { every_step: true, ..waiting(&at, LONG) };
    assert_eq!(revisions(&read(&alice, every_step).await.unwrap()), [2, 3]);
    other.stop().await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_filtered_out_does_not_end_the_wait_but_moves_the_cursor() {
    let house = House::new().await;
    let alice = house.alice().await;
    let at = cursor(&alice).await;
    let (page, took) = timed(&alice, waiting(&at, SHORT)).await;
    assert!(page.changes.is_empty() && took >= SHORT, "{page:?} after {took:?}");
    assert_eq!(page.cursor.unwrap(), at);
    let of_notes = ChangesSinceRequest { collections: vec!["note".into()], ..waiting(&at, SHORT) };
    let of_one = ChangesSinceRequest { keys: vec![key("7")], ..waiting(&at, SHORT) };
    for (filtered, passes) in
        [(of_notes, note(put("n1", "1", "{}"))), (of_one, put("m7", "7", "{}"))]
    {
        let before = alice.head().await;
        let write =
            async { alice.mutate(put(&format!("t{before}"), "1", "{}")).await.unwrap().revision };
        let (after, cursor) = (before, Some(Cursor { revision: before, ..at.clone() }));
        let filtered = ChangesSinceRequest { cursor, ..filtered };
        let ((page, took), written) = tokio::join!(timed(&alice, filtered.clone()), write);
        assert!(page.changes.is_empty() && took >= SHORT, "{page:?} after {took:?}");
        assert_eq!((written, page.has_more), (after + 1, false));
        assert_eq!(page.cursor.unwrap().revision, written, "the cursor stayed behind");
        let filtered = ChangesSinceRequest { wait: Some(duration(LONG)), ..filtered };
        let write = async { alice.mutate(passes).await.unwrap().revision };
        let ((page, _took), written) = tokio::join!(timed(&alice, filtered), write);
        assert_eq!(revisions(&page), [written]);
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_before_the_call_s_deadline_and_when_the_server_stops() {
    let house = House::new().await;
    let alice = house.alice().await;
    let at = cursor(&alice).await;
    let mut request = Request::new(waiting(&at, LONG));
    request.set_timeout(Duration::from_millis(1_500));
    let began = Instant::now();
    let page = alice.stub.clone().changes_since(request).await.unwrap().into_inner();
    assert!(page.changes.is_empty());
    assert!(began.elapsed() >= Duration::from_millis(500), "it did not wait");
    for (wait, expected) in [(-1, "InvalidArgument VALIDATION_ERROR wait"), (0, "")] {
        let wait = Some(prost_types::Duration { seconds: wait, nanos: 0 });
        let answer = read(&alice, ChangesSinceRequest { wait, ..waiting(&at, SHORT) }).await;
        assert_eq!(answer.err().as_ref().map(describe).unwrap_or_default(), expected);
    }
    // Nobody waits for long polls when the server stops.
    let polls = house.alice().await;
    let House { server, database: _database } = house;
    let began = Instant::now();
    let stop = async {
        // The poll is there once the space is watched, which shows nowhere: a
        // second one, with its own answer, comes after it on the connection.
        read(&polls, waiting(&at, Duration::ZERO)).await.unwrap();
        server.stop().await;
    };
    let (answer, ()) = tokio::join!(read(&polls, waiting(&at, LONG)), stop);
    match answer {
        Ok(page) => assert!(page.changes.is_empty()),
        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
    }
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_cannot_be_resumed_is_not_waited_for() {
    let house = House::new().await;
    let alice = house.alice().await;
    let at = cursor(&alice).await;
    let ahead = Cursor { revision: at.revision + 1, ..at };
    let status = read(&alice, waiting(&ahead, LONG)).await.unwrap_err();
    assert_eq!(error_reason(&status), "CURSOR_AHEAD");
    house.end().await;
}

/// What nobody has written to for long is found in bounded steps.
#[tokio::test(flavor = "multi_thread")]
async fn a_rare_collection_in_a_large_space_is_found_page_by_page() {
    let house = House::new().await;
    let alice = house.alice().await;
    alice.mutate(note(put("n1", "1", r#"{"n":1}"#))).await.unwrap();
    // Rows as a server would have written them, for 120,000 revisions.
    let mut connection = house.database.connect().await;
    sqlx::raw_sql(
        "insert into changes (space_id, revision, collection, id, action, document,
             previous_revision, author, mutation_id, fingerprint, committed_at, micros)
         select s.id, n, 'task', n::text, 1, '{}', 0, 'alice', 'bulk' || n, '\\x00', now(), n
         from spaces s, generate_series(2, 120000) n where s.name = 'users/alice';
         insert into latest (space_id, collection, id, revision, deleted, bytes)
         select s.id, 'task', n::text, n, false, 2
         from spaces s, generate_series(2, 120000) n where s.name = 'users/alice';
         update spaces set head = 120000 where name = 'users/alice'",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let last = wait_for("the server's knowledge of the head", async || {
        let request = BatchMutateRequest {
            mutations: vec![note(put("n2", "2", r#"{"n":2}"#))],
            ..BatchMutateRequest::default()
        };
        alice.stub.clone().batch_mutate(request).await.ok()
    });
    let last = last.await.into_inner().results[0].revision;
    assert_eq!(last, 120_001);
    for every_step in [false, true] {
        let (mut found, mut pages, mut cursor) = (Vec::new(), 0, None);
        loop {
            let collections = vec!["note".to_owned()];
            let request =
                ChangesSinceRequest { cursor, collections, every_step, ..Default::default() };
            let page = read(&alice, request).await.unwrap();
            found.extend(revisions(&page));
            pages += 1;
            cursor = page.cursor;
            if !page.has_more {
                break;
            }
        }
        assert_eq!(found, [1, 120_001]);
        assert_eq!(pages, 3, "50,000 revisions a page");
    }
    house.end().await;
}
