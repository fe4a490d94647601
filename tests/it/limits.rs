//! Who calls too often or wants to hold too much is told so, and when to come back; nobody
//! else notices.

use std::time::Duration;

use syncline::clock::Clock;
use syncline::config::ServerConfig;
use syncline::domain::limits;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    DeleteOperation, GetStatusRequest, GetStatusResponse, MutateFrame, Mutation, PatchOperation,
    RefreshTokenFrame, mutation::Operation,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::generic::Generic;
use crate::support::raw::{End, Http2, framed, post};
use crate::support::{
    Client, Database, Stream, TestServer, describe, error_reason, json, mint, mutation, put, show,
    subscribe_frame,
};

async fn house(change: impl FnOnce(&mut ServerConfig)) -> (Database, TestServer) {
    let database = Database::create().await;
    let server = TestServer::start_with(&database, Clock::system(), change).await;
    (database, server)
}

async fn status(client: &Client) -> Result<GetStatusResponse, Status> {
    let request = GetStatusRequest::default();
    Ok(client.stub.clone().get_status(request).await?.into_inner())
}

fn retry(status: &Status) -> Duration {
    status.get_details_retry_info().unwrap().retry_delay.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_too_often_waits_as_long_as_they_are_told() {
    let (_database, server) = house(|it| {
        it.rates.reads_per_second = 20;
        it.rates.writes_per_second = 10;
    })
    .await;
    let (alice, bob) = (server.client("alice").await, server.client("bob").await);
    let told = status(&alice).await.unwrap().limits.unwrap();
    assert_eq!((told.reads_per_second, told.writes_per_second), (20, 10));
    let (mut written, mut refused) = (0, None);
    for number in 0..60 {
        match alice.mutate(put(&format!("m{number}"), "1", "{}")).await {
            Ok(_) => written += 1,
            Err(status) => refused = Some(status),
        }
    }
    let refused = refused.expect("sixty writes are too many");
    // The burst, and what came meanwhile.
    assert!((20..60).contains(&written), "{written} were let in");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(error_reason(&refused), "RATE_LIMITED");
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(
        (info.metadata["kind"].as_str(), info.metadata["per_second"].as_str()),
        ("writes", "10")
    );
    let wait = retry(&refused);
    assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
    // Reads are counted apart, and so are others.
    assert_eq!(status(&alice).await.unwrap().head, written);
    bob.mutate(put("m", "1", "{}")).await.unwrap();
    // Whoever waits as told is let in: the wait itself is what is tried here.
    for number in 0.. {
        let id = format!("again{number}");
        let Err(status) = alice.mutate(put(&id, "1", "{}")).await else { continue };
        tokio::time::sleep(retry(&status)).await;
        alice.mutate(put(&id, "1", "{}")).await.unwrap();
        break;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_count_like_calls() {
    let (_database, server) = house(|it| {
        it.rates.writes_per_second = 5;
        it.rates.opens_per_second = 5;
    })
    .await;
    let alice = server.client("alice").await;
    let mut stream = Stream::open(&alice).await.unwrap();
    for number in 0..40 {
        let id = format!("m{number}");
        let mutations = vec![put(&id, "1", "{}")];
        stream
            .send(Out::Mutate(MutateFrame { request_id: id, mutations, ..Default::default() }))
            .await;
    }
    let (mut done, mut refused) = (0, 0);
    while done + refused < 40 {
        if let Frame::Mutated(frame) = stream.frame().await {
            match frame.failure {
                None => done += 1,
                Some(failure) => {
                    assert_eq!(failure.reason, "RATE_LIMITED");
                    assert!(failure.retry_after.is_some());
                    refused += 1;
                }
            }
        }
    }
    assert!((10..25).contains(&done), "{done} frames were let in");
    // Opening the stream was one of them.
    for number in 0..20 {
        stream.subscribe(subscribe_frame(&format!("s{number}"), None)).await;
    }
    let (mut open, mut closed) = (0, 0);
    while open + closed < 20 {
        match stream.frame().await {
            Frame::Subscribed(_) => open += 1,
            Frame::Closed(frame) => {
                assert_eq!((frame.code, frame.reason.as_str()), (8, "RATE_LIMITED"));
                closed += 1;
            }
            _ => {}
        }
    }
    assert!((9..16).contains(&open), "{open} subscriptions were let in");
    // What every subscription is looked at for counts too, and has no answer of its own.
    // The stream ends at one of them, perhaps before all have gone out.
    for _ in 0..20 {
        let token = RefreshTokenFrame { token: mint("alice") };
        if !stream.offer(Out::RefreshToken(token)).await {
            break;
        }
    }
    let status = loop {
        if let Err(status) = stream.next().await {
            break status;
        }
    };
    assert!(describe(&status).starts_with("ResourceExhausted RATE_LIMITED"), "{status:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_so_many_streams_and_a_space_so_many_subscriptions() {
    let (_database, server) = house(|it| {
        it.rates.user_streams = 2;
        it.quotas.space_subscriptions = 3;
    })
    .await;
    let alice = server.client("alice").await;
    let mut first = Stream::open(&alice).await.unwrap();
    let _second = Stream::open(&alice).await.unwrap();
    let third = Stream::open(&alice).await.map(drop).unwrap_err();
    assert_eq!(
        describe(&third),
        "ResourceExhausted RATE_LIMITED kind=streams max=2 retry after 1s"
    );
    drop(Stream::open(&server.client("bob").await).await.unwrap());
    for number in 0..4 {
        first.subscribe(subscribe_frame(&number.to_string(), None)).await;
    }
    let mut open = 0;
    let closed = loop {
        match first.frame().await {
            Frame::Subscribed(_) => open += 1,
            Frame::Closed(frame) => break frame,
            _ => {}
        }
    };
    assert_eq!((open, closed.reason.as_str()), (3, "QUOTA_EXCEEDED"));
    assert_eq!(status(&alice).await.unwrap().subscriptions, 3);
    first.unsubscribe("0").await;
    first.subscribe(subscribe_frame("again", None)).await;
    loop {
        match first.frame().await {
            Frame::Subscribed(_) => break,
            Frame::Closed(frame) => assert_eq!(frame.subscription_id, "0"),
            _ => {}
        }
    }
    drop(first);
    // Its place is free once the server knows that it has ended.
    crate::support::wait_for("a free place", async || Stream::open(&alice).await.ok()).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_holds_so_many_records_and_bytes() {
    let (database, server) = house(|it| {
        it.quotas.space_records = 3;
        it.quotas.space_bytes = 200;
    })
    .await;
    let alice = server.client("alice").await;
    let long = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let said = async |mutation: Mutation| match alice.mutate(mutation).await {
        Ok(result) => show(&result),
        Err(status) => {
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert_eq!(retry(&status), Duration::from_secs(60));
            error_reason(&status)
        }
    };
    let delete =
        |id: &str, record: &str| mutation(id, record, Operation::Delete(DeleteOperation {}));
    let patch = |id: &str, record: &str, bytes: usize| {
        let set = PatchOperation { set: json(&long(bytes)), ..Default::default() };
        mutation(id, record, Operation::Patch(set))
    };
    assert_eq!(said(put("1", "1", &long(100))).await, "applied 1");
    assert_eq!(said(put("2", "2", &long(101))).await, "QUOTA_EXCEEDED");
    assert_eq!(said(put("2", "2", &long(50))).await, "applied 2");
    assert_eq!(said(put("3", "3", &long(20))).await, "applied 3");
    assert_eq!(said(put("4", "4", &long(10))).await, "QUOTA_EXCEEDED");
    // What was refused was not decided: the same id is good later.
    assert_eq!(said(delete("d", "3")).await, "applied 4");
    assert_eq!(said(put("4", "4", &long(10))).await, "applied 5");
    // A patch counts as if it added what it sets.
    assert_eq!(said(patch("p1", "2", 45)).await, "QUOTA_EXCEEDED");
    assert_eq!(said(patch("p2", "2", 30)).await, "applied 6");
    // What makes less passes, also where there is too much.
    assert_eq!(said(put("5", "1", &long(60))).await, "applied 7");
    let now = status(&alice).await.unwrap();
    assert_eq!((now.records, now.bytes), (3, 60 + 30 + 10));
    let told = now.limits.unwrap();
    assert_eq!((told.space_records, told.space_bytes), (3, 200));
    // In a batch nothing is done if it is too much together.
    let batch =
        alice.batch(vec![delete("b1", "4"), put("b2", "8", "{}"), put("b3", "9", "{}")], false);
    assert_eq!(error_reason(&batch.await.unwrap_err()), "QUOTA_EXCEEDED");
    let batch = alice.batch(vec![delete("b1", "4"), put("b2", "8", "{}")], true).await.unwrap();
    assert_eq!(batch.iter().map(show).collect::<Vec<_>>(), ["applied 8", "applied 9"]);
    server.stop().await;

    // A server that allows less lets nobody add, and everybody clear up.
    let less = |it: &mut ServerConfig| it.quotas.space_records = 1;
    let server = TestServer::start_with(&database, Clock::system(), less).await;
    let alice = server.client("alice").await;
    let more = alice.mutate(put("6", "6", "{}")).await.unwrap_err();
    assert_eq!(error_reason(&more), "QUOTA_EXCEEDED");
    alice.mutate(delete("d1", "1")).await.unwrap();
    assert!(server.client("bob").await.mutate(put("m", "1", "{}")).await.is_ok());
    assert!(database.store().await.verify(None).await.unwrap().is_ok());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_held_back_before_its_tokens_are_looked_at() {
    let (_database, server) = house(|it| it.rates.address_calls_per_second = 10).await;
    let call = Generic::connect(server.address()).await;
    let mut refused = 0;
    for number in 0..40 {
        let bearer = format!("Bearer forged{number}");
        let metadata = [("authorization", bearer.as_str())];
        let path = "/syncline.v1.SyncService/GetStatus";
        let status = call.call(path, &metadata, vec![Vec::new()]).await.unwrap_err();
        match status.code() {
            Code::Unauthenticated => {}
            Code::ResourceExhausted => {
                assert_eq!(error_reason(&status), "RATE_LIMITED");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 5, "{refused} were refused");
    let bearer = format!("Bearer {}", mint("alice"));
    let wait = crate::support::wait_for("a place for a good call", async || {
        let metadata = [("authorization", bearer.as_str())];
        call.call("/syncline.v1.SyncService/GetStatus", &metadata, vec![Vec::new()]).await.ok()
    });
    wait.await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_never_come_whole_take_no_more_room_than_there_is() {
    let (_database, server) = house(|_config| {}).await;
    let connection = std::sync::Arc::new(Http2::connect(server.address()).await);
    // Each announces a mebibyte and sends one byte of it.
    let most = limits::USER_INTAKE_BYTES_MAX >> 20;
    let mut calls = JoinSet::new();
    for _ in 0..most + 10 {
        let connection = std::sync::Arc::clone(&connection);
        calls.spawn(async move {
            connection.call(post("Mutate"), framed(0, 1 << 20, &[0]), End::Never).await
        });
    }
    for _ in 0..10 {
        let answer = calls.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(answer.words(), "ResourceExhausted OVERLOADED retry after 500ms");
    }
    // The others wait for the rest, and nobody else for them.
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(200_000));
    let batch = (0..10).map(|number| put(&format!("m{number}"), &number.to_string(), &long));
    server.client("bob").await.batch(batch.collect(), false).await.unwrap();
    // Who goes leaves the room to the next.
    calls.shutdown().await;
    let alice = server.client("alice").await;
    crate::support::wait_for("room again", async || {
        let batch = (0..10).map(|number| put(&format!("m{number}"), &number.to_string(), &long));
        alice.batch(batch.collect(), false).await.ok()
    })
    .await;
    server.stop().await;
}
