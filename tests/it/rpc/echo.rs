//! A device's own changes are not sent to it, unless they hide what another
//! device did.

use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{Cursor, DocumentForm, GetStatusRequest, SubscribeFrame};

use super::{House, patch, send};
use crate::support::{Client, Stream, put, text};

/// The documents that a device is sent when it comes back to a cursor.
async fn catch_up(client: &Client, device: &str, cursor: Option<Cursor>) -> Vec<(i64, String)> {
    let mut stream = Stream::open(client).await.unwrap();
    let frame = SubscribeFrame {
        subscription_id: "s".into(),
        device: device.into(),
        cursor,
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    };
    stream.subscribe(frame).await;
    let mut documents = Vec::new();
    loop {
        match stream.frame().await {
            Frame::Changes(frame) => documents.extend(
                frame.changes.iter().map(|it| (it.revision, text(it.document.as_ref().unwrap()))),
            ),
            Frame::CaughtUp(_) => return documents,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_change_that_hides_another_device_s_is_sent() {
    let house = House::new().await;
    let alice = house.alice().await;
    send(&alice, "phone", put("m1", "x", r#"{"n":0}"#)).await.unwrap();
    send(&alice, "phone", put("m2", "y", r#"{"n":0}"#)).await.unwrap();
    let status = alice.stub.clone().get_status(GetStatusRequest::default()).await.unwrap();
    let cursor = Cursor { epoch: status.into_inner().epoch, revision: 2 };
    // While the phone is away the laptop writes; the phone pushes what it had
    // queued, and only then catches up.
    send(&alice, "laptop", patch("m3", "x", r#"{"b":2}"#, &[])).await.unwrap();
    send(&alice, "phone", patch("m4", "x", r#"{"a":1}"#, &[])).await.unwrap();
    send(&alice, "phone", patch("m5", "y", r#"{"a":1}"#, &[])).await.unwrap();

    let seen = catch_up(&alice, "phone", Some(cursor.clone())).await;
    assert_eq!(seen, [(4, r#"{"a":1,"b":2,"n":0}"#.to_owned())], "with the laptop's b");
    // Resumed after the laptop's b, which may have been hidden, or not: nobody knows.
    let later = Cursor { revision: 3, ..cursor.clone() };
    assert_eq!(catch_up(&alice, "phone", Some(later)).await, seen);
    let laptop = catch_up(&alice, "laptop", Some(cursor)).await;
    assert_eq!(laptop.iter().map(|it| it.0).collect::<Vec<_>>(), [4, 5]);
    house.end().await;
}
