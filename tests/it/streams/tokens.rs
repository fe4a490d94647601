//! Streams outlive their tokens if these are renewed, and end soon after if not. A
//! fast clock shows it.

use std::time::Duration;

use syncline::clock::Clock;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{GoingAwayReason, MutateFrame, RefreshTokenFrame};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::seen::{Seen, View};
use crate::support::{Client, Database, TestServer, mint_granted, put, scale};

const MINUTE: Duration = Duration::from_secs(60);
/// How much faster than time a clock is: a minute takes half a second, or one.
const FAST: u32 = 100;
const LESS_FAST: u32 = 60;
/// What a server allows beyond a token's end.
const GRACE: i64 = 5;

async fn house(factor: u32) -> (Database, TestServer, Clock, Client) {
    let database = Database::create().await;
    let clock = Clock::fast(OffsetDateTime::now_utc(), factor);
    let server = TestServer::start_with(&database, clock.clone(), |_config| {}).await;
    let token = mint_granted("alice", &[], MINUTE, &clock);
    let client = Client::connect(server.address(), &token).await;
    (database, server, clock, client)
}

fn refresh(clock: &Clock) -> Out {
    let token = mint_granted("alice", &[], MINUTE, clock);
    Out::RefreshToken(RefreshTokenFrame { token })
}

fn write(number: i64) -> Out {
    let id = number.to_string();
    let mutations = vec![put(&id, &id, "{}")];
    Out::Mutate(MutateFrame { request_id: id, mutations, ..MutateFrame::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_token_is_renewed_goes_on_without_a_gap() {
    let (_database, server, clock, client) = house(FAST).await;
    let began = clock.unix_seconds();
    let mut seen = Seen::new(View::default());
    let mut stream = seen.open_live(&client).await.unwrap();
    let rounds = 200 * i64::try_from(scale()).unwrap();
    for round in 1..=rounds {
        stream.send(write(round)).await;
        // Some of the minute passes.
        let renewed_at = clock.unix_seconds();
        let mut answered = false;
        while !answered || clock.unix_seconds() < renewed_at + 5 {
            if answered {
                tokio::task::yield_now().await;
                continue;
            }
            let frame = stream.next().await.unwrap().unwrap();
            answered = matches!(&frame, Frame::Mutated(it) if it.request_id == round.to_string());
            seen.take(frame).unwrap();
        }
        stream.send(refresh(&clock)).await;
        loop {
            let frame = stream.next().await.unwrap().unwrap();
            let left = match &frame {
                Frame::Progress(frame) => frame.token_expires_in.map(|it| it.seconds),
                _ => None,
            };
            seen.take(frame).unwrap();
            if let Some(left) = left {
                assert!((0..=60).contains(&left), "{left} s left");
                break;
            }
        }
    }
    seen.follow(&mut stream, rounds).await.unwrap();
    assert_eq!(seen.changes.len(), usize::try_from(rounds).unwrap());
    assert_eq!(seen.streams, 1);
    let lived = clock.unix_seconds() - began;
    assert!(lived > 60 * 10, "the stream lived only {lived} s");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_new_token_nothing_comes_after_the_grace() {
    let (database, server, clock, client) = house(LESS_FAST).await;
    let ends_at = clock.unix_seconds() + 60;
    let mut seen = Seen::new(View::default());
    let mut stream = seen.open_live(&client).await.unwrap();
    // Somebody else, at another server, writes on and on.
    let other = TestServer::start(&database).await;
    let writer = other.client("alice").await;
    let mut writing = JoinSet::new();
    writing.spawn(async move {
        for number in 0.. {
            let id = format!("w{number}");
            if writer.mutate(put(&id, "1", "{}")).await.is_err() {
                return;
            }
        }
    });
    let mut went = false;
    let status = loop {
        match stream.next().await {
            Ok(Some(Frame::GoingAway(frame))) => {
                assert_eq!(frame.reason(), GoingAwayReason::TokenExpired);
                assert!(!std::mem::replace(&mut went, true), "it went twice");
            }
            Ok(Some(frame)) => {
                assert!(!went, "{frame:?} after the last");
                // A little for the way here, which by this clock takes long.
                let now = clock.unix_seconds();
                let late = now - ends_at - GRACE;
                let way = i64::from(LESS_FAST);
                assert!(late < way, "a frame came {late} s after the grace");
                seen.take(frame).unwrap();
            }
            Ok(None) => panic!("it ended well"),
            Err(status) => break status,
        }
    };
    assert!(went, "it went without a word");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(clock.unix_seconds() >= ends_at, "too early");
    assert!(seen.cursor > 0, "nothing came before");
    writing.abort_all();
    other.stop().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_slow_reader_is_not_sent_after_its_token_s_end() {
    let (database, server, clock, _client) = house(LESS_FAST).await;
    let ends_at = clock.unix_seconds() + 60;
    let token = mint_granted("alice", &[], MINUTE, &clock);
    let narrow = Client::narrow(server.address(), &token);
    let mut seen = Seen::new(View::default());
    let mut stream = seen.open_live(&narrow).await.unwrap();
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(60_000));
    // Somebody else writes, at a server with another clock.
    let other = TestServer::start(&database).await;
    let writer = other.client("alice").await;
    let mut written = 0;
    while written < 20 || clock.unix_seconds() < ends_at + GRACE + i64::from(LESS_FAST) {
        let id = format!("w{written}");
        writer.mutate(put(&id, &id, &long)).await.unwrap();
        written += 1;
    }
    // Two windows and what was on its way at most.
    let status = loop {
        match stream.next().await {
            Ok(Some(Frame::GoingAway(_))) => {}
            Ok(Some(frame)) => seen.take(frame).unwrap(),
            Ok(None) => panic!("it ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(seen.changes.len() < 8, "{} of {written} came", seen.changes.len());
    other.stop().await;
    server.stop().await;
}
