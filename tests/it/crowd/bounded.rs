//! What one stream makes its server hold, read from the server's own process: a few
//! frames, whatever its subscriptions have to be told and however slowly it reads.

use std::collections::HashMap;

use syncline::domain::limits;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{DocumentForm, PublishFrame, Start, SubscribeFrame};
use tokio::task::JoinSet;

use super::told::Listener;
use super::{NOISE_BYTES, STREAM_BYTES_MAX, fill, server_process};
use crate::support::{
    Client, Database, ServerProcess, Stream, json, mint, signed, subscribe_frame,
};

/// The highest growth of a server's memory since the beginning.
struct Growth<'s> {
    server: &'s ServerProcess,
    before: u64,
    highest: u64,
}

impl<'s> Growth<'s> {
    fn begin(server: &'s ServerProcess) -> Self {
        let before = server.memory_bytes().unwrap_or(0);
        Self { server, before, highest: 0 }
    }

    fn look(&mut self) {
        let now = self.server.memory_bytes().unwrap_or(0);
        self.highest = self.highest.max(now.saturating_sub(self.before));
    }
}

fn kib(bytes: u64) -> u64 {
    bytes >> 10
}

const BEHIND: usize = 60;
const DOCUMENTS: usize = 20;
const DOCUMENT_BYTES: usize = 100 << 10;

/// Begins so many from the beginning on one stream, each in its own way, so that
/// nothing is shared, and reads everything, frame by frame.
async fn catch_up(server: &ServerProcess, subscriptions: usize) -> u64 {
    let narrow = Client::narrow(server.address, &mint("alice"));
    let mut stream = Stream::open(&narrow).await.unwrap();
    let mut growth = Growth::begin(server);
    for number in 0..subscriptions {
        let frame = SubscribeFrame {
            collections: vec!["task".into(), format!("c{number}")],
            document_form: DocumentForm::Json.into(),
            ..subscribe_frame(&format!("s{number}"), None)
        };
        stream.subscribe(frame).await;
    }
    let mut told = Listener::default();
    while told.0.len() < subscriptions || !told.0.values().all(|it| it.caught_up) {
        told.take(stream.next().await.unwrap().unwrap());
        growth.look();
    }
    let all: Vec<i64> = (1..=signed(DOCUMENTS)).collect();
    assert!(told.0.values().all(|it| it.changes == all));
    growth.highest
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_are_behind_on_a_slow_stream_are_bounded() {
    let database = Database::create().await;
    let server = server_process(&database).await;
    let client = Client::connect(server.address, &mint("alice")).await;
    fill(&client, DOCUMENTS, DOCUMENT_BYTES).await;
    // What connections to the database, and pages that are kept for others, take once.
    let first = catch_up(&server, 8).await;
    let more = catch_up(&server, BEHIND).await;
    let read = u64::try_from(BEHIND * DOCUMENTS * DOCUMENT_BYTES).unwrap();
    println!("{} KiB at first, then {} more for {}", kib(first), kib(more), kib(read));
    let bound = STREAM_BYTES_MAX + limits::SHARED_PAGES_BYTES_MAX + NOISE_BYTES;
    let bound = u64::try_from(bound).unwrap();
    assert!(more <= bound, "{} KiB > {} KiB", kib(more), kib(bound));
}

const EVENT_BYTES: usize = 480;
/// Published and not heard by one who reads; fewer than are kept for those who do not.
const IN_FLIGHT: i64 = 200;

/// Publishes as fast as somebody hears it, until it is dropped.
fn publish_on(client: Client) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(async move {
        let (publisher, mut other) =
            (Stream::open(&client).await.unwrap(), Stream::open(&client).await.unwrap());
        publisher.subscribe(hearing("p")).await;
        other.subscribe(hearing("o")).await;
        let mut told = Listener::default();
        let live = |it: &Listener| it.0.values().any(|it| it.caught_up);
        told.read_until(&mut other, live).await;
        for number in 1.. {
            let event = PublishFrame {
                subscription_id: "p".into(),
                topic: format!("t{number}"),
                document: json(&format!(r#"{{"text":"{}"}}"#, "x".repeat(EVENT_BYTES))),
            };
            publisher.send(Out::Publish(event)).await;
            let last = |it: &Listener| it.of("o").events.last().map_or(0, |last| number_of(last));
            let in_flight = |it: &Listener| number - last(it);
            told.read_until(&mut other, |it| in_flight(it) < IN_FLIGHT).await;
        }
    });
    task
}

fn number_of(topic: &str) -> i64 {
    topic.trim_start_matches('t').parse().unwrap()
}

fn hearing(id: &str) -> SubscribeFrame {
    SubscribeFrame { events: true, start: Start::Now.into(), ..subscribe_frame(id, None) }
}

/// Has so many subscriptions on one stream hear events, and reads so many bytes of
/// them; the highest growth of the server's memory meanwhile.
async fn hear(server: &ServerProcess, subscriptions: usize, bytes: usize) -> u64 {
    let narrow = Client::narrow(server.address, &mint("alice"));
    let mut stream = Stream::open(&narrow).await.unwrap();
    let (mut last, mut open) = (HashMap::new(), 0);
    for number in 0..subscriptions {
        stream.subscribe(hearing(&format!("s{number}"))).await;
    }
    let mut growth = None;
    let mut read = 0;
    while read < bytes {
        let event = match stream.frame().await {
            Frame::Event(event) => event,
            Frame::Subscribed(_) => continue,
            Frame::CaughtUp(_) => {
                open += 1;
                continue;
            }
            other => panic!("there are only events: {other:?}"),
        };
        let number = number_of(&event.topic);
        // Of the first it is not known what came before.
        let before = last.insert(event.subscription_id, number);
        let expected = before.map_or(number, |before| before + 1 + event.missed);
        assert_eq!(number, expected, "it was told wrongly how many it missed");
        if open == subscriptions {
            read += EVENT_BYTES;
            growth.get_or_insert_with(|| Growth::begin(server)).look();
        }
    }
    growth.map_or(0, |growth| growth.highest)
}

/// All events once came for all subscriptions of a stream together, however many.
#[tokio::test(flavor = "multi_thread")]
async fn events_for_many_on_a_slow_stream_are_bounded() {
    let database = Database::create().await;
    let server = server_process(&database).await;
    let _publishing = publish_on(Client::connect(server.address, &mint("alice")).await);
    let bound = STREAM_BYTES_MAX + limits::SPACE_EVENT_BYTES_MAX + NOISE_BYTES;
    let first = hear(&server, 10, bound / 4).await;
    let more = hear(&server, limits::STREAM_SUBSCRIPTIONS_MAX, bound).await;
    let bound = u64::try_from(bound).unwrap();
    println!("{} KiB at first, then {} more for {}", kib(first), kib(more), kib(bound));
    assert!(more <= bound, "{} KiB > {} KiB", kib(more), kib(bound));
}
