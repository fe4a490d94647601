//! No frame is larger than clients accept, whatever is in it; what belongs together and
//! does not fit is marked.

use prost::Message;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    Change, ChangesFrame, Cursor, DocumentForm, Mutation, Start, SubscribeFrame, SubscribeResponse,
};

use crate::support::{Client, Database, Stream, TestServer, put};

const MESSAGE_BYTES_MAX: usize = 3 << 20;

async fn open(client: &Client, frame: SubscribeFrame) -> Stream {
    let stream = Stream::open(client).await.unwrap();
    stream.subscribe(SubscribeFrame { subscription_id: "s".into(), ..frame }).await;
    stream
}

/// The frames of changes up to a revision.
async fn frames(stream: &mut Stream, up_to: i64) -> Vec<ChangesFrame> {
    let mut frames: Vec<ChangesFrame> = Vec::new();
    while frames.last().is_none_or(|last| last.up_to < up_to) {
        let frame = stream.frame().await;
        let bytes = SubscribeResponse { frame: Some(frame.clone()) }.encoded_len();
        assert!(bytes <= MESSAGE_BYTES_MAX, "{bytes} bytes");
        if let Frame::Changes(frame) = frame {
            frames.push(frame);
        }
    }
    frames
}

/// Ranges join, and all but the last say that they end inside something.
fn check(frames: &[ChangesFrame], after: i64, count: usize) -> Vec<Change> {
    let mut cursor = after;
    for (number, frame) in frames.iter().enumerate() {
        assert_eq!(frame.after, cursor);
        assert_eq!(frame.partial, number + 1 < frames.len(), "frame {number} of {}", frames.len());
        cursor = frame.up_to;
    }
    let changes: Vec<_> = frames.iter().flat_map(|it| it.changes.clone()).collect();
    assert_eq!(changes.len(), count);
    changes
}

/// An atomic batch of documents of this text.
fn batch(name: &str, text: &str, count: usize) -> Vec<Mutation> {
    let put = |number| put(&format!("{name}-{number}"), &format!("{name}-{number}"), text);
    (0..count).map(put).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_whole_where_they_fit_and_marked_where_not() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let client = server.client("alice").await;
    // Of numbers a Struct is many times as large as the text.
    let numbers = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(9_000));
    let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(200_000));
    let mut after = 0;
    for (name, text, count, whole) in [
        ("small", r#"{"a":1}"#, 1_000, true),
        ("fits", text.as_str(), 4, true),
        ("large", text.as_str(), 13, false),
        ("numbers", numbers.as_str(), 120, false),
    ] {
        for form in [DocumentForm::Json, DocumentForm::Struct] {
            let name = format!("{name}-{}", form.as_str_name());
            let live = SubscribeFrame { start: Start::Now.into(), ..SubscribeFrame::default() };
            let form = form.into();
            let mut live = open(&client, SubscribeFrame { document_form: form, ..live }).await;
            while !matches!(live.frame().await, Frame::CaughtUp(_)) {}
            let results = client.batch(batch(&name, text, count), true).await.unwrap();
            let end = results.last().unwrap().revision;
            assert_eq!(end, after + i64::try_from(count).unwrap());
            let seen = frames(&mut live, end).await;
            let changes = check(&seen, after, count);
            assert!(
                changes.iter().all(|change| change.batch_end == end && change.document.is_some())
            );
            if whole {
                assert_eq!(seen.len(), 1, "{name} was torn");
            }
            // The same from the store.
            let epoch = match live_epoch(&client).await {
                Frame::Subscribed(frame) => frame.epoch,
                other => panic!("not subscribed: {other:?}"),
            };
            let cursor = Some(Cursor { epoch, revision: after });
            let again = SubscribeFrame { cursor, document_form: form, ..SubscribeFrame::default() };
            let mut again = open(&client, again).await;
            check(&frames(&mut again, end).await, after, count);
            after = end;
        }
    }
    server.stop().await;
}

async fn live_epoch(client: &Client) -> Frame {
    let frame = SubscribeFrame { start: Start::Now.into(), ..SubscribeFrame::default() };
    open(client, frame).await.frame().await
}

/// Names are the larger part of a frame that many subscriptions share.
#[tokio::test(flavor = "multi_thread")]
async fn a_frame_has_room_for_the_names_of_a_thousand_subscriptions() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let client = server.client("alice").await;
    let mut stream = Stream::open(&client).await.unwrap();
    for number in 0..1_000 {
        let frame = SubscribeFrame {
            subscription_id: format!("{number:064}"),
            start: Start::Now.into(),
            document_form: DocumentForm::Struct.into(),
            ..SubscribeFrame::default()
        };
        stream.subscribe(frame).await;
        assert!(matches!(stream.frame().await, Frame::Subscribed(_)));
        assert!(matches!(stream.frame().await, Frame::CaughtUp(_)));
    }
    let numbers = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(9_000));
    client.batch(batch("n", &numbers, 100), true).await.unwrap();
    let seen = frames(&mut stream, 100).await;
    assert_eq!(check(&seen, 0, 100).len(), 100);
    assert!(seen.iter().all(|frame| frame.subscription_ids.len() == 1_000));
    server.stop().await;
}
