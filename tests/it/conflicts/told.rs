//! Conflicts on live streams: in order with the changes, once, and after a resume.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sqlx::PgConnection;
use syncline::rpc::proto::resolve_conflict_request::Resolution;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{Cursor, GetStatusRequest, KeepClient, Strategy, SubscribeFrame};

use super::{House, based, meet, resolve, tasks};
use crate::support::{Client, Stream, TestServer, put, subscribe_frame, wait_for};

fn with_conflicts(id: &str, cursor: Option<Cursor>) -> SubscribeFrame {
    SubscribeFrame { conflicts: true, ..subscribe_frame(id, cursor) }
}

fn show(frame: Frame) -> String {
    match frame {
        Frame::Subscribed(it) => format!("subscribed at {}", it.head),
        Frame::Changes(it) => {
            let revisions: Vec<_> = it.changes.iter().map(|it| it.revision.to_string()).collect();
            format!("changes {} up to {}", revisions.join(" "), it.up_to)
        }
        Frame::CaughtUp(it) => format!("caught up at {}", it.up_to),
        Frame::Conflict(it) => {
            let conflict = it.conflict.unwrap();
            let state = conflict.state().as_str_name().trim_start_matches("CONFLICT_STATE_");
            format!("conflict {} {} at {}", conflict.id, state.to_lowercase(), conflict.revision)
        }
        other => panic!("not expected: {other:?}"),
    }
}

async fn frames(stream: &mut Stream, count: usize) -> Vec<String> {
    let mut shown = Vec::new();
    while shown.len() < count {
        shown.push(show(stream.frame().await));
    }
    shown
}

/// A stream of a client that has caught up.
async fn following(client: &Client) -> Stream {
    let mut stream = Stream::open(client).await.unwrap();
    stream.subscribe(with_conflicts("s", None)).await;
    frames(&mut stream, 2).await;
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn opened_and_resolved_come_in_order_with_the_changes_on_every_replica() {
    let house = House::new().await;
    let other = TestServer::start(&house.database).await;
    let elsewhere = other.client("alice").await;
    let mut streams = [following(&house.alice).await, following(&elsewhere).await];
    meet(&house.alice, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#).await;
    let keep = || Resolution::KeepClient(KeepClient {});
    // Each part is waited for, because what was opened and closed while somebody was behind comes
    // once only.
    for stream in &mut streams {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|it: &String| !it.starts_with("conflict")) {
            seen.extend(frames(stream, 1).await);
        }
        seen.retain(|it| !it.starts_with("changes") && !it.starts_with("caught up"));
        assert_eq!(seen, ["conflict phone-1 open at 2"]);
    }
    resolve(&elsewhere, "r", "phone-1", 2, keep()).await.unwrap();
    for stream in &mut streams {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|it: &String| !it.starts_with("conflict")) {
            seen.extend(frames(stream, 1).await);
        }
        seen.retain(|it| !it.starts_with("caught up"));
        assert_eq!(seen, ["changes 3 up to 3", "conflict phone-1 resolved at 3"]);
    }
    other.stop().await;
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_is_told_what_happened_meanwhile_and_who_begins_what_is_open() {
    let house = House::new().await;
    let alice = &house.alice;
    meet(alice, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#).await;
    let late = based(put("tablet-1", "1", r#"{"n":4}"#), 1);
    alice.mutate_from("tablet", late).await.unwrap();
    let mut stream = Stream::open(alice).await.unwrap();
    stream.subscribe(with_conflicts("begins", None)).await;
    let expected = [
        "subscribed at 2",
        "changes 2 up to 2",
        "conflict phone-1 open at 2",
        "conflict tablet-1 open at 2",
        "caught up at 2",
    ];
    assert_eq!(frames(&mut stream, 5).await, expected);
    let status = alice.stub.clone().get_status(GetStatusRequest::default()).await.unwrap();
    let epoch = status.into_inner().epoch;
    let keep = Resolution::KeepClient(KeepClient {});
    resolve(alice, "r", "phone-1", 2, keep).await.unwrap();

    let mut again = Stream::open(alice).await.unwrap();
    again.subscribe(with_conflicts("returns", Some(Cursor { epoch, revision: 2 }))).await;
    let expected = [
        "subscribed at 3",
        "changes 3 up to 3",
        // Of the very revision of the cursor: it may have come before.
        "conflict tablet-1 open at 2",
        "conflict phone-1 resolved at 3",
        "caught up at 3",
    ];
    assert_eq!(frames(&mut again, 5).await, expected);
    let mut new = Stream::open(alice).await.unwrap();
    new.subscribe(with_conflicts("begins", None)).await;
    let expected = ["subscribed at 3", "changes 3 up to 3", "conflict tablet-1 open at 2"];
    assert_eq!(frames(&mut new, 3).await, expected);
    house.server.stop().await;
}

/// Conflicts come behind the changes, and a stream may end between the two.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_between_changes_and_conflicts_misses_none() {
    let house = House::new().await;
    let alice = &house.alice;
    let mut stream = Stream::open(alice).await.unwrap();
    stream.subscribe(with_conflicts("s", None)).await;
    frames(&mut stream, 1).await;
    let Frame::CaughtUp(none) = stream.frame().await else { panic!("not caught up") };
    meet(alice, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#).await;
    alice.mutate(put("later", "2", "{}")).await.unwrap();
    // All changes have come; what has come of conflicts is not used.
    let (mut revision, mut told) = (0, String::new());
    while revision < 3 || told.is_empty() {
        match stream.frame().await {
            Frame::Changes(it) => revision = it.up_to,
            Frame::Conflict(it) => told = it.conflict_cursor,
            _ => {}
        }
    }
    let epoch = alice.stub.clone().get_status(GetStatusRequest::default()).await.unwrap();
    let cursor = Some(Cursor { epoch: epoch.into_inner().epoch, revision });
    let resumed = |id: &str, conflict_cursor: &str| SubscribeFrame {
        conflict_cursor: conflict_cursor.into(),
        ..with_conflicts(id, cursor.clone())
    };
    let mut again = Stream::open(alice).await.unwrap();
    again.subscribe(resumed("before", &none.conflict_cursor)).await;
    let expected = ["subscribed at 3", "conflict phone-1 open at 2", "caught up at 3"];
    assert_eq!(frames(&mut again, 3).await, expected);
    again.subscribe(resumed("after", &told)).await;
    assert_eq!(frames(&mut again, 2).await, ["subscribed at 3", "caught up at 3"]);
    // Of what the space was before it began anew, there is nothing to go on from.
    let other = BASE64.encode(format!("{}.9.9", uuid::Uuid::new_v4()));
    again.subscribe(resumed("other", &other)).await;
    assert_eq!(frames(&mut again, 2).await, ["subscribed at 3", "caught up at 3"]);
    for forged in ["x", "!", "MS4"] {
        again.subscribe(resumed("forged", forged)).await;
        let Frame::Closed(closed) = again.frame().await else { panic!("not closed") };
        assert_eq!(closed.violations[0].field, "subscribe.conflict_cursor", "{forged}");
    }
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_ask_hears_nothing_of_conflicts() {
    let house = House::new().await;
    let mut stream = Stream::open(&house.alice).await.unwrap();
    stream.subscribe(subscribe_frame("plain", None)).await;
    let other =
        SubscribeFrame { collections: vec!["note".into()], ..with_conflicts("notes", None) };
    stream.subscribe(other).await;
    frames(&mut stream, 4).await;
    meet(&house.alice, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#).await;
    house.alice.mutate(put("end", "2", "{}")).await.unwrap();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|it: &String| !it.ends_with("up to 3")) {
        seen.extend(frames(&mut stream, 1).await);
    }
    // Whatever came of the conflict comes before a later change.
    house.alice.mutate(put("later", "3", "{}")).await.unwrap();
    while seen.last().is_none_or(|it: &String| !it.ends_with("up to 4")) {
        seen.extend(frames(&mut stream, 1).await);
    }
    assert!(seen.iter().all(|it| !it.starts_with("conflict")), "{seen:?}");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_there_from_the_first_change_on_is_told_also_what_was_closed_at_once() {
    let house = House::with(tasks(Strategy::Merge, Strategy::LastWriteWins)).await;
    let mut stream = following(&house.alice).await;
    // Writes of no device do not know each other, and these come as one news.
    let writes = [("a", r#"{"a":1}"#), ("b", r#"{"b":1}"#)];
    let writes = writes.map(|(id, text)| based(put(id, "1", text), 0)).to_vec();
    house.alice.batch(writes, false).await.unwrap();
    let expected = ["changes 2 up to 2", "conflict b resolved at 2", "caught up at 2"];
    assert_eq!(frames(&mut stream, 3).await, expected);
    house.server.stop().await;
}

/// Whether somebody waits for the table of conflicts.
async fn reads_wait(observer: &mut PgConnection, expected: bool) -> Option<()> {
    const WAIT: &str = "select exists (select from pg_locks
         where relation = 'conflicts'::regclass and not granted)";
    let wait: bool = sqlx::query_scalar(WAIT).fetch_one(observer).await.unwrap();
    (wait == expected).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_that_cannot_be_read_cost_no_change() {
    let house = House::new().await;
    let alice = &house.alice;
    meet(alice, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#).await;
    // The changes can be read, and the conflicts cannot.
    let mut lock = house.database.connect().await;
    sqlx::raw_sql("begin; lock table conflicts in access exclusive mode")
        .execute(&mut lock)
        .await
        .unwrap();
    let mut stream = Stream::open(alice).await.unwrap();
    stream.subscribe(with_conflicts("s", None)).await;
    let mut observer = house.database.connect().await;
    wait_for("the read to wait", async || reads_wait(&mut observer, true).await).await;
    wait_for("the read to be given up", async || reads_wait(&mut observer, false).await).await;
    sqlx::raw_sql("rollback").execute(&mut lock).await.unwrap();
    let expected =
        ["subscribed at 2", "changes 2 up to 2", "conflict phone-1 open at 2", "caught up at 2"];
    assert_eq!(frames(&mut stream, 4).await, expected);
    house.server.stop().await;
}
