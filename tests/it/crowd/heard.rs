//! A client that stops reading its stream is still heard: what it says takes effect
//! while what it would be told is stuck.

use std::time::Duration;

use syncline::clock::Clock;
use syncline::domain::limits;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    AckFrame, GetStatusRequest, GoingAwayReason, Mutation, PublishFrame, RefreshTokenFrame, Start,
    SubscribeFrame,
};
use tonic::Code;

use super::told::Listener;
use crate::support::{
    Client, Database, Stream, TestServer, json, mint_granted, put, subscribe_frame, wait_for,
};

/// The server's clock runs this much faster than time.
const HASTE: u32 = 20;
/// By that clock: eight seconds, far longer than it takes to send another token.
const FIRST_TOKEN: Duration = Duration::from_secs(160);
const DAY: Duration = Duration::from_hours(24);

/// A reader that stands still, and those who see what it says.
struct Scene {
    server: TestServer,
    clock: Clock,
    writer: Client,
    reader: Stream,
    told: Listener,
    /// Hears events.
    other: Stream,
    other_told: Listener,
    /// Has the reader's first token and never gets another.
    unrenewed: Stream,
    written: i64,
}

fn document(bytes: usize) -> String {
    format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes.saturating_sub(11)))
}

impl Scene {
    async fn set(database: &Database) -> Self {
        let clock = Clock::fast(Clock::system().now(), HASTE);
        let server = TestServer::start_with(database, clock.clone(), |_config| {}).await;
        let address = server.address();
        let long = mint_granted("alice", &[], DAY, &clock);
        let writer = Client::connect(address, &long).await;
        writer.mutate(put("first", "first", "{}")).await.unwrap();
        let other = Stream::open(&Client::lazy(address, &long)).await.unwrap();
        let events =
            SubscribeFrame { events: true, start: Start::Now.into(), ..subscribe_frame("o", None) };
        other.subscribe(events).await;
        let token = mint_granted("alice", &[], FIRST_TOKEN, &clock);
        let reader = Stream::open(&Client::narrow(address, &token)).await.unwrap();
        for id in ["stays", "goes"] {
            let device = "phone".into();
            reader.subscribe(SubscribeFrame { device, ..subscribe_frame(id, None) }).await;
        }
        let unrenewed = Stream::open(&Client::lazy(address, &token)).await.unwrap();
        unrenewed.subscribe(subscribe_frame("u", None)).await;
        let (told, other_told) = (Listener::default(), Listener::default());
        let mut scene =
            Self { server, clock, writer, reader, told, other, other_told, unrenewed, written: 1 };
        let caught_up = |it: &Listener| it.0.len() == 2 && it.0.values().all(|it| it.caught_up);
        scene.told.read_until(&mut scene.reader, caught_up).await;
        let caught_up = |it: &Listener| it.0.values().any(|it| it.caught_up);
        scene.other_told.read_until(&mut scene.other, caught_up).await;
        scene
    }

    /// Writes until the reader's stream must be full, and waits until everybody
    /// else knows. Each record once, so that nothing stands for anything else.
    async fn write(&mut self, documents: usize, bytes: usize, atomic: bool) {
        let put = |number: i64| {
            let id = format!("m{number}");
            put(&id, &id, &document(bytes))
        };
        let last = self.written + i64::try_from(documents).unwrap();
        let mutations: Vec<Mutation> = (self.written + 1..=last).map(put).collect();
        for some in mutations.chunks((2 << 20) / bytes) {
            self.writer.batch(some.to_vec(), atomic).await.unwrap();
        }
        self.written = last;
        self.other_told.read_until(&mut self.other, |it| it.of("o").cursor == last).await;
    }

    async fn publish(&mut self, topic: &str) {
        self.reader
            .send(Out::Publish(PublishFrame {
                subscription_id: "stays".into(),
                topic: topic.into(),
                document: json("{}"),
            }))
            .await;
        let came = |it: &Listener| it.of("o").events.last().is_some_and(|last| last == topic);
        self.other_told.read_until(&mut self.other, came).await;
    }

    async fn acknowledge(&self, revision: i64) {
        let subscription_id = "stays".into();
        self.reader.send(Out::Ack(AckFrame { subscription_id, revision })).await;
        wait_for("the acknowledged revision", async || {
            let request =
                GetStatusRequest { device: "phone".into(), ..GetStatusRequest::default() };
            let status = self.writer.stub.clone().get_status(request).await.unwrap().into_inner();
            (status.acknowledged_revision == revision).then_some(())
        })
        .await;
    }

    /// Waits for the end of the stream that has the first token still.
    async fn outlive_the_first_token(&mut self) {
        let end = loop {
            match self.unrenewed.next().await {
                Ok(Some(Frame::GoingAway(it))) => {
                    assert_eq!(it.reason(), GoingAwayReason::TokenExpired);
                }
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends with a status"),
                Err(status) => break status,
            }
        };
        assert_eq!(end.code(), Code::Unauthenticated);
    }
}

/// `documents` of so many bytes each make the stream full, as batches or one by one.
async fn is_heard(documents: usize, bytes: usize, atomic: bool) {
    let database = Database::create().await;
    let mut scene = Scene::set(&database).await;
    scene.write(documents, bytes, atomic).await;
    let stuck_at = scene.written;

    scene.reader.unsubscribe("goes").await;
    let token = mint_granted("alice", &[], DAY, &scene.clock);
    scene.reader.send(Out::RefreshToken(RefreshTokenFrame { token })).await;
    scene.publish("said").await;
    scene.acknowledge(1).await;
    scene.write(1, bytes, false).await;
    scene.outlive_the_first_token().await;
    scene.publish("still-here").await;

    // It reads again, and gets everything in order.
    let end = scene.written;
    let done = |it: &Listener| it.of("stays").cursor == end;
    scene.told.read_until(&mut scene.reader, done).await;
    let (stays, goes) = (scene.told.of("stays"), scene.told.of("goes"));
    let all: Vec<i64> = (1..=end).collect();
    assert_eq!(stays.changes, all);
    assert!(goes.closed, "unsubscribed");
    // Those that had been made for it before are all that it got.
    let got = goes.changes.len();
    assert_eq!(goes.changes, all[..got]);
    println!("{got} of {stuck_at} came for the one that was ended meanwhile");
    assert!(goes.cursor < end, "ended only after it had read");
    scene.acknowledge(end).await;
    scene.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_is_heard() {
    is_heard(600, 4 << 10, false).await;
}

/// A frame as large as all answers may be together was once counted as one of them:
/// the server was deaf until it had been read.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_large_documents_is_heard() {
    is_heard(12, limits::DOCUMENT_BYTES_MAX, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_large_batches_is_heard() {
    is_heard(150, 40 << 10, true).await;
}
