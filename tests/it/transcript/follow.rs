//! Several subscriptions that come and go, and what cannot be subscribed to.

use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{Cursor, EchoMode, SubscribeFrame};

use super::{Session, named, of};
use crate::support::{Database, TestServer, put};

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
