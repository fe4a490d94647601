//! How streams end, and Watch, which ends with its one subscription.

use std::time::Duration;

use syncline::clock::Clock;
use syncline::rpc::proto::{
    self, Cursor, DocumentForm, Start, SubscribeFrame, SubscribeRequest, WatchRequest,
};
use time::OffsetDateTime;
use tokio_stream::wrappers::ReceiverStream;

use super::{Session, named, show};
use crate::support::{Client, Database, TestServer, describe, mint_granted, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_told_before_it_ends() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let mut session = Session::open(server.client("alice").await).await;
    session.subscribe("from the beginning", named("s")).await;
    session.expect(2).await;
    session.note("# the server stops");
    let hearing = async {
        session.expect(1).await;
        session.end().await;
    };
    tokio::join!(server.stop(), hearing);

    session.note("# the token is not renewed");
    let clock = Clock::fast(OffsetDateTime::now_utc(), 100);
    let server = TestServer::start_with(&database, clock.clone(), |_config| {}).await;
    let token = mint_granted("alice", &[], Duration::from_secs(60), &clock);
    let mut other = Session::open(Client::connect(server.address(), &token).await).await;
    other.expect(1).await;
    other.end().await;
    session.log.push_str(&other.log);
    insta::assert_snapshot!("ends", session.log);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_another_version_ends_the_stream() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let client = server.client("alice").await;
    let (out, queue) = tokio::sync::mpsc::channel(1);
    out.send(SubscribeRequest { frame: None }).await.unwrap();
    let frames = client.stub.clone().subscribe(ReceiverStream::new(queue)).await;
    let status = frames.unwrap().into_inner().message().await.unwrap_err();
    assert_eq!(describe(&status), "InvalidArgument VALIDATION_ERROR frame");
    server.stop().await;
}

/// What Watch says, up to so many frames or its end.
async fn watched(client: &Client, frame: Option<SubscribeFrame>, frames: usize) -> Vec<String> {
    let form = DocumentForm::Json.into();
    let subscription = frame.map(|frame| SubscribeFrame { document_form: form, ..frame });
    let mut answers =
        client.stub.clone().watch(WatchRequest { subscription }).await.unwrap().into_inner();
    let mut said = Vec::new();
    while said.len() < frames {
        match answers.message().await {
            Ok(Some(message)) => said.push(show(same(&message))),
            Ok(None) => said.push("end".into()),
            Err(status) => {
                said.push(format!("end: {}: {}", describe(&status), status.message()));
                break;
            }
        }
    }
    said
}

/// A frame of Watch is the same as one of Subscribe, byte by byte.
fn same(message: &proto::WatchResponse) -> proto::subscribe_response::Frame {
    let bytes = prost::Message::encode_to_vec(message);
    let message: proto::SubscribeResponse = prost::Message::decode(bytes.as_slice()).unwrap();
    message.frame.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_is_one_subscription() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let session = Session::open(server.client("alice").await).await;
    let Session { client, epoch, .. } = session;
    client.mutate(put("m1", "1", r#"{"n":1}"#)).await.unwrap();
    client.mutate(put("m2", "2", r#"{"n":2}"#)).await.unwrap();
    let cursor = |revision| Some(Cursor { epoch: epoch.clone(), revision });
    let mut log = String::new();
    let rows = [
        ("nothing", None, 2),
        ("its name", Some(named("mine")), 3),
        ("a snapshot", Some(SubscribeFrame { start: Start::Snapshot.into(), ..named("") }), 3),
        ("a cursor", Some(SubscribeFrame { cursor: cursor(1), ..named("") }), 3),
        ("a cursor ahead", Some(SubscribeFrame { cursor: cursor(9), ..named("") }), 9),
        ("a bad name", Some(named("a b")), 9),
        ("bob's space", Some(SubscribeFrame { space: "users/bob".into(), ..named("") }), 9),
        ("a bad device", Some(SubscribeFrame { device: " ".into(), ..named("") }), 9),
    ];
    for (what, frame, frames) in rows {
        let said = watched(&client, frame, frames).await;
        log.push_str(&format!("> watch {what}\n< {}\n", said.join("\n< ")));
    }
    insta::assert_snapshot!("watch", log.replace(&epoch, "<epoch>"));
    server.stop().await;
}
