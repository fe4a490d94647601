//! A whole Subscribe session as a script, and its transcript as a snapshot:
//! what a client says, and every frame that answers it.

use std::fmt::Write as _;

use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    Change, ChangeAction, Cursor, DocumentForm, EchoMode, Failure, GoingAwayReason, MutateRequest,
    Mutation, Record, ResyncReason, SubscribeFrame,
};

use crate::support::{Client, Database, Stream, TestServer, describe, put, text};

/// A session and what has been said in it so far.
struct Session {
    client: Client,
    stream: Stream,
    epoch: String,
    log: String,
}

impl Session {
    async fn open(client: Client) -> Self {
        let stream = Stream::open(&client).await.unwrap();
        let request = syncline::rpc::proto::GetStatusRequest::default();
        let epoch = client.stub.clone().get_status(request).await.unwrap().into_inner().epoch;
        Self { client, stream, epoch, log: String::new() }
    }

    fn note(&mut self, line: &str) {
        let line = line.replace(&self.epoch, "<epoch>");
        writeln!(self.log, "{line}").unwrap();
    }

    async fn subscribe(&mut self, what: &str, frame: SubscribeFrame) {
        self.note(&format!("> subscribe {}: {what}", frame.subscription_id));
        let form = DocumentForm::Json.into();
        self.stream.subscribe(SubscribeFrame { document_form: form, ..frame }).await;
    }

    async fn unsubscribe(&mut self, id: &str) {
        self.note(&format!("> unsubscribe {id}"));
        self.stream.unsubscribe(id).await;
    }

    /// A write of a device, outside the stream.
    async fn write(&mut self, device: &str, mutation: Mutation) {
        let request =
            MutateRequest { device: device.into(), mutation: Some(mutation), ..Default::default() };
        let answer = self.client.stub.clone().mutate(request).await.unwrap().into_inner();
        let result = answer.result.unwrap();
        self.note(&format!("> {device} writes {}", result.revision));
    }

    /// Takes in as many frames. Those of one step are sorted by subscription:
    /// between subscriptions no order is promised.
    async fn expect(&mut self, frames: usize) {
        let mut lines = Vec::new();
        for _ in 0..frames {
            lines.push(show(self.stream.frame().await));
        }
        lines.sort_by_key(|line| line.split(' ').nth(1).map(str::to_owned));
        lines.iter().for_each(|line| self.note(&format!("< {line}")));
    }

    /// Takes in the stream's end.
    async fn end(&mut self) {
        let line = match self.stream.next().await {
            Ok(Some(frame)) => show(frame),
            Ok(None) => "end".into(),
            Err(status) => format!("end: {}: {}", describe(&status), status.message()),
        };
        self.note(&format!("< {line}"));
    }
}

fn show(frame: Frame) -> String {
    match frame {
        Frame::Subscribed(it) => format!(
            "subscribed {} to {} epoch {} head {} floor {}",
            it.subscription_id, it.space, it.epoch, it.head, it.floor
        ),
        Frame::Changes(it) => {
            let changes: String =
                it.changes.iter().map(|change| format!("\n    {}", line(change))).collect();
            format!(
                "changes {} ({}, {}]{changes}",
                it.subscription_ids.join("+"),
                it.after,
                it.up_to
            )
        }
        Frame::CaughtUp(it) => format!("caught_up {} at {}", it.subscription_id, it.up_to),
        Frame::Progress(_) => panic!("left out"),
        Frame::Snapshot(it) => {
            let records: String =
                it.records.iter().map(|record| format!("\n    {}", record_line(record))).collect();
            let end = if it.last { ", the last" } else { "" };
            format!("snapshot {} at {}{end}{records}", it.subscription_id, it.revision)
        }
        Frame::Mutated(it) => {
            let results: String = it
                .results
                .iter()
                .map(|result| format!("\n    {}", crate::support::show(result)))
                .collect();
            match it.failure {
                None => format!("mutated {}{results}", it.request_id),
                Some(failure) => format!("mutated {} {}", it.request_id, why(&failure)),
            }
        }
        Frame::Event(it) => {
            let document = it.document.as_ref().map_or_else(|| "-".into(), text);
            format!(
                "event {} {} {document} by {} of {}, {} missed",
                it.subscription_id, it.topic, it.device, it.author, it.missed
            )
        }
        Frame::RemovedFromView(it) => format!("removed_from_view {}", it.subscription_id),
        Frame::GoingAway(it) => {
            let reason = GoingAwayReason::try_from(it.reason).unwrap().as_str_name();
            format!("going_away {reason} retry after {:?}", it.retry_after.unwrap())
        }
        Frame::Conflict(it) => {
            let conflict = it.conflict.unwrap();
            let state = conflict.state().as_str_name();
            format!("conflict {} {} {state}", it.subscription_id, conflict.id)
        }
        Frame::Closed(it) => {
            let violations: String = it
                .violations
                .iter()
                .map(|it| format!("\n    {}: {}", it.field, it.description))
                .collect();
            format!(
                "closed {} code {} reason {:?}: {}{violations}",
                it.subscription_id, it.code, it.reason, it.message
            )
        }
        Frame::ResyncRequired(it) => {
            let reason = ResyncReason::try_from(it.reason).unwrap().as_str_name();
            format!(
                "resync_required {} {reason} epoch {} head {} floor {}",
                it.subscription_id, it.epoch, it.head, it.floor
            )
        }
    }
}

fn record_line(record: &Record) -> String {
    let key = record.key.as_ref().unwrap();
    let document = record.document.as_ref().map_or_else(|| "-".into(), text);
    format!("{} {}/{} {document}", record.revision, key.collection, key.id)
}

fn why(failure: &Failure) -> String {
    let violations = failure.violations.iter();
    let violations: String =
        violations.map(|it| format!("\n    {}: {}", it.field, it.description)).collect();
    format!("code {} reason {:?}: {}{violations}", failure.code, failure.reason, failure.message)
}

fn line(change: &Change) -> String {
    let key = change.key.as_ref().unwrap();
    let action = ChangeAction::try_from(change.action).unwrap().as_str_name();
    let action = action.trim_start_matches("CHANGE_ACTION_").to_lowercase();
    let document = change.document.as_ref().map_or_else(|| "-".into(), text);
    format!(
        "{} {action} {}/{} {document} before {} by {} of {} as {}",
        change.revision,
        key.collection,
        key.id,
        change.previous_revision,
        change.device,
        change.author,
        change.mutation_id
    )
}

fn named(id: &str) -> SubscribeFrame {
    SubscribeFrame { subscription_id: id.into(), ..Default::default() }
}

fn of(collection: &str, mut mutation: Mutation) -> Mutation {
    mutation.key.as_mut().unwrap().collection = collection.into();
    mutation
}

async fn follow_live(session: &mut Session) {
    session.write("desk", put("m1", "1", r#"{"n":1}"#)).await;
    session.write("desk", of("note", put("m2", "1", r#"{"n":2}"#))).await;
    session.write("desk", put("m3", "1", r#"{"n":3}"#)).await;
    session
        .subscribe(
            "from the beginning, as phone",
            SubscribeFrame { device: "phone".into(), ..named("all") },
        )
        .await;
    session.expect(3).await;
    session.write("desk", put("m4", "2", r#"{"n":4}"#)).await;
    session.expect(1).await;
    session.note("# its own changes are left out, but the range covers them");
    session.write("phone", put("m5", "2", r#"{"n":5}"#)).await;
    session.write("phone", put("m6", "2", r#"{"n":6}"#)).await;
    session.write("desk", put("m7", "2", r#"{"n":7}"#)).await;
    session.expect(1).await;
    session.note("# a second one, filtered, with echo, from a cursor");
    let cursor = Some(Cursor { epoch: session.epoch.clone(), revision: 1 });
    let collections = vec!["note".to_owned()];
    let device = "phone".to_owned();
    let notes = SubscribeFrame {
        cursor,
        collections,
        device,
        echo: EchoMode::All.into(),
        ..named("notes")
    };
    session.subscribe("notes after 1, as phone, with echo", notes).await;
    session.expect(3).await;
    session.write("phone", of("note", put("m8", "2", r#"{"n":8}"#))).await;
    session.expect(1).await;
    session.write("desk", of("note", put("m9", "2", r#"{"n":9}"#))).await;
    session.expect(2).await;
    session.note("# from the head there is nothing to catch up with");
    let cursor = Some(Cursor { epoch: session.epoch.clone(), revision: 9 });
    session.subscribe("after 9", SubscribeFrame { cursor, ..named("head") }).await;
    session.expect(2).await;
}

async fn end_subscriptions(session: &mut Session) {
    session.unsubscribe("notes").await;
    session.expect(1).await;
    session.write("desk", of("note", put("m10", "3", r#"{"n":10}"#))).await;
    session.expect(2).await;
    session.unsubscribe("notes").await;
    session.expect(1).await;
    session.unsubscribe("head").await;
    session.expect(1).await;
    session.note("# the name is free again");
    let cursor = Some(Cursor { epoch: session.epoch.clone(), revision: 10 });
    session.subscribe("after 10", SubscribeFrame { cursor, ..named("notes") }).await;
    session.expect(2).await;
}

async fn ask_for_what_cannot_be(session: &mut Session) {
    let epoch = session.epoch.clone();
    let ahead = Some(Cursor { epoch, revision: 11 });
    session.subscribe("after 11", SubscribeFrame { cursor: ahead, ..named("ahead") }).await;
    session.expect(1).await;
    let epoch = "00000000-0000-4000-8000-000000000000".to_owned();
    let other = Some(Cursor { epoch, revision: 1 });
    session.subscribe("another epoch", SubscribeFrame { cursor: other, ..named("other") }).await;
    session.expect(1).await;
    let negative = Some(Cursor { epoch: "x".into(), revision: -1 });
    let invalid = SubscribeFrame { cursor: negative, ..named("bad cursor") };
    session
        .subscribe(
            "a cursor that is none",
            SubscribeFrame { subscription_id: "bad-cursor".into(), ..invalid },
        )
        .await;
    session.expect(1).await;
    let collections = vec![String::new(), "task".to_owned(), "a\nb".to_owned()];
    session
        .subscribe("bad collections", SubscribeFrame { collections, ..named("collections") })
        .await;
    session.expect(1).await;
    session
        .subscribe("a bad device", SubscribeFrame { device: "no device".into(), ..named("device") })
        .await;
    session.expect(1).await;
    session
        .subscribe(
            "another's space",
            SubscribeFrame { space: "users/bob".into(), ..named("space") },
        )
        .await;
    session.expect(1).await;
    session.note("# the others go on");
    session.write("desk", put("m11", "1", r#"{"n":11}"#)).await;
    session.expect(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_as_the_transcript_says() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let mut session = Session::open(server.client("alice").await).await;
    follow_live(&mut session).await;
    end_subscriptions(&mut session).await;
    ask_for_what_cannot_be(&mut session).await;
    session.note("# a name that is in use ends the stream");
    session.subscribe("again", named("all")).await;
    session.end().await;
    insta::assert_snapshot!("session", session.log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_cannot_be_answered_ends_the_stream() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let mut log = String::new();
    let long = "x".repeat(65);
    for id in ["", "a b", "é", long.as_str()] {
        let mut session = Session::open(server.client("alice").await).await;
        session.subscribe("?", named(id)).await;
        session.end().await;
        log.push_str(&session.log);
    }
    insta::assert_snapshot!("ended_streams", log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_no_more_is_still_told_and_then_let_go() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let client = server.client("alice").await;
    // Nothing subscribed, nothing more to say: the stream ends well.
    let frames = tokio_stream::iter(Vec::new());
    let mut answers = client.stub.clone().subscribe(frames).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap(), None);
    // Something subscribed: changes go on.
    let frame = syncline::rpc::proto::subscribe_request::Frame::Subscribe(named("s"));
    let frames = vec![syncline::rpc::proto::SubscribeRequest { frame: Some(frame) }];
    let frames = tokio_stream::iter(frames);
    let mut answers = client.stub.clone().subscribe(frames).await.unwrap().into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().frame.unwrap();
    assert!(matches!(next().await, Frame::Subscribed(_)));
    assert!(matches!(next().await, Frame::CaughtUp(_)));
    client.mutate(put("m", "1", "{}")).await.unwrap();
    assert!(matches!(next().await, Frame::Changes(_)));
    server.stop().await;
}
