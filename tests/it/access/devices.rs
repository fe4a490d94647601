//! Tokens that are bound to a device.

use serde_json::json;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    EnqueueRequest, GetRecordRequest, GetStatusRequest, ListQueuedRequest, MutateFrame, Mutation,
    QueueState, RetryQueuedRequest, SubscribeFrame,
};

use super::Team;
use crate::bad_inputs::with;
use crate::support::{Client, Stream, describe, key, mint, put, subscribe_frame, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_device_speaks_for_no_other() {
    let team = Team::new().await;
    let token = with(&json!({ "device": "phone" }));
    let client = Client::connect(team.server.address(), &token).await;
    // Who names none is the one of the token.
    client.mutate(put("m1", "1", "{}")).await.unwrap();
    client.mutate_from("phone", put("m2", "1", "{}")).await.unwrap();
    let get = GetRecordRequest { key: Some(key("1")), ..Default::default() };
    let record = client.stub.clone().get_record(get).await.unwrap().into_inner().record.unwrap();
    assert_eq!((record.device.as_str(), record.revision), ("phone", 2));
    let denied = "PermissionDenied PERMISSION_DENIED device=phone";
    let status = client.mutate_from("desk", put("m3", "1", "{}")).await.unwrap_err();
    assert_eq!(describe(&status), denied);
    let request = GetStatusRequest { device: "desk".into(), ..Default::default() };
    let status = client.stub.clone().get_status(request).await.unwrap_err();
    assert_eq!(describe(&status), denied);
    let mutations = vec![put("q", "1", "{}")];
    let enqueue = EnqueueRequest { device: "desk".into(), mutations, ..Default::default() };
    let status = client.queue.clone().enqueue(enqueue).await.unwrap_err();
    assert_eq!(describe(&status), denied);
    // An entry of another device is not edited either.
    let anybody = Client::connect(team.server.address(), &mint("alice")).await;
    let mutations = vec![Mutation { base: Some(9), ..put("q", "1", "{}") }];
    let enqueue = EnqueueRequest { device: "desk".into(), mutations, ..Default::default() };
    anybody.queue.clone().enqueue(enqueue).await.unwrap();
    wait_for("the entry to fail", async || {
        let list = ListQueuedRequest::default();
        let entries = client.queue.clone().list_queued(list).await.unwrap().into_inner().entries;
        entries.first().filter(|it| it.state() == QueueState::Failed).map(drop)
    })
    .await;
    let edited = Some(put("q", "1", "{}"));
    let retry = RetryQueuedRequest { mutation_id: "q".into(), edited, ..Default::default() };
    let status = client.queue.clone().retry_queued(retry).await.unwrap_err();
    assert_eq!(describe(&status), denied);
    let mut stream = Stream::open(&client).await.unwrap();
    let frame = SubscribeFrame { device: "desk".into(), ..subscribe_frame("s", None) };
    stream.subscribe(frame).await;
    let Frame::Closed(closed) = stream.frame().await else { panic!("it is open") };
    assert_eq!(closed.reason, "PERMISSION_DENIED");
    let mutate = MutateFrame {
        request_id: "r".into(),
        device: "desk".into(),
        mutations: vec![put("m4", "1", "{}")],
        ..Default::default()
    };
    stream.send(Out::Mutate(mutate)).await;
    let Frame::Mutated(mutated) = stream.frame().await else { panic!("no answer") };
    assert_eq!(mutated.failure.unwrap().reason, "PERMISSION_DENIED");
    assert_eq!(client.head().await, 2);
    team.end().await;
}
