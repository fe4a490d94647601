//! Writes on a stream: answers in the order of the requests, and each before any range
//! that covers what it did, however many are on their way.

use std::collections::BTreeMap;

use syncline::clock::Clock;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    EchoMode, MutateFrame, MutationOutcome, Policy, Start, Strategy, SubscribeFrame,
};

use crate::support::load::Load;
use crate::support::{Database, Random, Stream, TestServer, put, scale, seed};

fn frame(request: usize, mutations: usize, random: &mut Random) -> MutateFrame {
    let put = |number| {
        let record = random.below(40).to_string();
        put(&format!("s{request}-{number}"), &record, r#"{"by":"stream"}"#)
    };
    MutateFrame {
        request_id: request.to_string(),
        device: "phone".into(),
        mutations: (0..mutations).map(put).collect(),
        atomic: request.is_multiple_of(3),
        ..MutateFrame::default()
    }
}

fn follows(id: &str, echo: EchoMode, start: Start) -> SubscribeFrame {
    SubscribeFrame {
        subscription_id: id.into(),
        device: "phone".into(),
        echo: echo.into(),
        start: start.into(),
        ..SubscribeFrame::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_order_and_before_what_they_did() {
    let database = Database::create().await;
    // So that subscriptions are often behind and catch up from the store.
    let small = |it: &mut syncline::config::ServerConfig| it.ring_bytes = 20_000;
    let server = TestServer::start_with(&database, Clock::system(), small).await;
    let client = server.client("alice").await;
    let load = Load::start("w", 4, 40, std::slice::from_ref(&client));
    load.more(200).await;
    let mut random = Random(seed());
    let mut stream = Stream::open(&client).await.unwrap();
    stream.subscribe(follows("all", EchoMode::All, Start::Unspecified)).await;
    stream.subscribe(follows("mark", EchoMode::Mark, Start::Snapshot)).await;
    stream.subscribe(follows("out", EchoMode::Unspecified, Start::Now)).await;
    let requests = 300 * usize::try_from(scale()).unwrap();
    let (mut sent, mut answered) = (0, 0);
    // The revisions of each request, once it is answered.
    let mut highest = 0;
    let mut cursors: BTreeMap<String, i64> = BTreeMap::new();
    while answered < requests || cursors.values().any(|cursor| *cursor < highest) {
        while sent < requests && sent < answered + 20 {
            let mutations = 1 + usize::try_from(random.below(3)).unwrap();
            stream.send(Out::Mutate(frame(sent, mutations, &mut random))).await;
            sent += 1;
        }
        match stream.next().await.unwrap().unwrap() {
            Frame::Mutated(frame) => {
                assert_eq!(frame.request_id, answered.to_string(), "out of order");
                answered += 1;
                for result in frame.results {
                    assert_eq!(result.outcome(), MutationOutcome::Applied);
                    for (id, cursor) in &cursors {
                        let revision = result.revision;
                        assert!(revision > *cursor, "{id} covered {revision} at {cursor} before");
                    }
                    highest = highest.max(result.revision);
                }
            }
            Frame::Changes(frame) => {
                for id in frame.subscription_ids {
                    let cursor = cursors.get_mut(&id).unwrap();
                    assert_eq!(*cursor, frame.after, "{id}");
                    *cursor = frame.up_to;
                }
            }
            Frame::Subscribed(frame) => {
                let at = if frame.subscription_id == "out" { frame.head } else { 0 };
                cursors.insert(frame.subscription_id, at);
            }
            Frame::Snapshot(frame) if frame.last => {
                cursors.insert(frame.subscription_id, frame.revision);
            }
            Frame::CaughtUp(frame) => {
                let cursor = cursors.get_mut(&frame.subscription_id).unwrap();
                *cursor = frame.up_to.max(*cursor);
            }
            Frame::Progress(frame) => {
                for at in frame.subscriptions {
                    let cursor = cursors.get_mut(&at.subscription_id).unwrap();
                    *cursor = at.up_to.max(*cursor);
                }
            }
            Frame::Snapshot(_) => {}
            other => panic!("not expected: {other:?}"),
        }
    }
    load.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_change_that_became_something_else_is_sent_in_every_mode() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let admin = server.admin("admin").await;
    let mut policy = Policy { collection: "task".into(), ..Policy::default() };
    policy.set_strategy(Strategy::Merge);
    admin.set_policy(policy).await.unwrap();
    let alice = server.client("alice").await;
    alice.mutate_from("phone", put("m1", "1", r#"{"a":1,"b":1}"#)).await.unwrap();
    let mut stream = Stream::open(&alice).await.unwrap();
    for echo in [EchoMode::Unspecified, EchoMode::All, EchoMode::Mark] {
        stream.subscribe(follows(echo.as_str_name(), echo, Start::Now)).await;
        assert!(matches!(stream.frame().await, Frame::Subscribed(_)));
        assert!(matches!(stream.frame().await, Frame::CaughtUp(_)));
    }
    alice.mutate_from("desk", put("m2", "1", r#"{"a":2,"b":1}"#)).await.unwrap();
    let late =
        syncline::rpc::proto::Mutation { base: Some(1), ..put("m3", "1", r#"{"a":1,"b":3}"#) };
    let merged = alice.mutate_from("phone", late).await.unwrap();
    assert_eq!(merged.outcome(), MutationOutcome::Merged);
    let mut whole = std::collections::BTreeSet::new();
    while whole.len() < 3 {
        if let Frame::Changes(frame) = stream.frame().await {
            for change in frame.changes.iter().filter(|it| it.revision == merged.revision) {
                assert!(change.document.is_some() && !change.own);
                whole.extend(frame.subscription_ids.iter().cloned());
            }
        }
    }
    server.stop().await;
}
