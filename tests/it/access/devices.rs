//! Devices: tokens that are bound to one, and whose sequences are whose.

use serde_json::json;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    BatchMutateRequest, EnqueueRequest, GetRecordRequest, GetStatusRequest, ListQueuedRequest,
    MutateFrame, Mutation, MutationOutcome, MutationResult, QueueState, RetryQueuedRequest, Role,
    SubscribeFrame,
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

/// Whoever reads a change knows its device. Naming it uses up sequences of one's own.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_uses_up_the_sequences_of_another() {
    let team = Team::new().await;
    team.set("bob", Role::Writer, &[]).await;
    team.set("mallory", Role::Writer, &["notes"]).await;
    let (bob, mallory) = (team.server.client("bob").await, team.server.client("mallory").await);
    let queue = async |client: &Client, sequences: std::ops::RangeInclusive<i64>, id: &str| {
        let mutation = |sequence| Mutation {
            device_sequence: Some(sequence),
            ..put(&format!("{id}{sequence}"), &format!("{id}{sequence}"), "{}")
        };
        let request = BatchMutateRequest {
            space: team.space.clone(),
            device: "bobs-phone".into(),
            mutations: sequences.map(mutation).collect(),
            ..Default::default()
        };
        let results = client.stub.clone().batch_mutate(request).await.unwrap().into_inner().results;
        results.iter().map(MutationResult::outcome).collect::<Vec<_>>()
    };
    let last = async |client: &Client| {
        let (space, device) = (team.space.clone(), "bobs-phone".into());
        let request = GetStatusRequest { space, device, ..Default::default() };
        client.stub.clone().get_status(request).await.unwrap().into_inner().device_sequence
    };
    let (applied, rejected) = (MutationOutcome::Applied, MutationOutcome::Rejected);
    assert_eq!(queue(&bob, 1..=1, "b").await, [applied]);
    assert_eq!(queue(&mallory, 1..=3, "m").await, [rejected; 3]);
    assert_eq!((last(&bob).await, last(&mallory).await), (1, 3));
    assert_eq!(queue(&bob, 2..=3, "b").await, [applied; 2]);
    assert_eq!((last(&bob).await, last(&mallory).await), (3, 3));
    team.end().await;
}
