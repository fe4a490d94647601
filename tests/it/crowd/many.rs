//! Ten thousand subscribers of one server, and what two bad ones among them do to the
//! others and to the writers: nothing that could be told from chance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use syncline::domain::limits;
use syncline::rpc::proto::{DocumentForm, Start, SubscribeFrame};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::transport::{Channel, Endpoint};

use super::lean::{LeanChange, LeanStream};
use super::{NOISE_BYTES, STREAM_BYTES_MAX, fill, server_process};
use crate::support::{Client, Database, ServerProcess, mint, put, scale, wait_for};

const SUBSCRIBERS: usize = 10_000;
/// Streams that one connection carries.
const CONNECTION_STREAMS: usize = 100;
/// How far behind the late one begins.
const BEHIND: usize = 10_000;
/// Written while one does not read.
const BURST_BYTES: usize = 8 << 20;
const ROUNDS: usize = 3;
/// Of each round and kind of writer.
const WRITERS: usize = 2;
const WRITES: usize = 10;
const PACE: Duration = Duration::from_millis(50);

/// What all subscribers and writers share.
#[derive(Debug)]
struct Book {
    /// Where each stream is.
    reached: Vec<AtomicI64>,
    /// When each write was sent, by its number, which is its record's id.
    sent: Mutex<Vec<Instant>>,
    /// How late each stream told of each write.
    deliveries: Mutex<Vec<Duration>>,
}

impl Book {
    /// Notes that a write is sent; its number.
    fn send(&self, at: Instant) -> usize {
        let mut sent = self.sent.lock();
        sent.push(at);
        sent.len() - 1
    }

    fn receive(&self, changes: &[LeanChange]) {
        let now = Instant::now();
        let sent = self.sent.lock();
        let numbers = changes.iter().filter_map(|it| it.key.as_ref()?.id.parse::<usize>().ok());
        let late = numbers.map(|number| now - sent[number]);
        self.deliveries.lock().extend(late);
    }

    fn reached(&self) -> i64 {
        self.reached.iter().map(|it| it.load(SeqCst)).min().unwrap()
    }
}

/// The good subscribers.
struct Crowd {
    book: Arc<Book>,
    readers: JoinSet<i64>,
    goal: watch::Sender<i64>,
}

fn following(start: Start) -> SubscribeFrame {
    let form = DocumentForm::Json.into();
    SubscribeFrame { start: start.into(), document_form: form, ..SubscribeFrame::default() }
}

async fn connect(server: &ServerProcess, window_bytes: u32) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let endpoint = endpoint.initial_stream_window_size(window_bytes).tcp_nodelay(true);
    endpoint.initial_connection_window_size(4 << 20).connect().await.unwrap()
}

impl Crowd {
    async fn gather(server: &ServerProcess, streams: usize) -> Self {
        let book = Arc::new(Book {
            reached: (0..streams).map(|_| AtomicI64::new(-1)).collect(),
            sent: Mutex::default(),
            deliveries: Mutex::default(),
        });
        let (goal, mut readers) = (watch::Sender::new(i64::MAX), JoinSet::new());
        for first in (0..streams).step_by(CONNECTION_STREAMS) {
            let channel = connect(server, 1 << 20).await;
            for number in first..streams.min(first + CONNECTION_STREAMS) {
                let (channel, book, goal) = (channel.clone(), Arc::clone(&book), goal.subscribe());
                readers.spawn(read(channel, SUBSCRIBERS / streams, number, book, goal));
            }
        }
        wait_for("all subscribers", async || (book.reached() >= 0).then_some(())).await;
        Self { book, readers, goal }
    }

    /// Waits until everybody has been told of a revision; how long that took.
    async fn have(&self, revision: i64, within: Duration) -> Duration {
        let began = Instant::now();
        let all =
            wait_for("all subscribers", async || (self.book.reached() >= revision).then_some(()));
        timeout(within, all).await.expect("nobody waits");
        began.elapsed()
    }
}

/// Reads one stream up to the goal; the changes that came for each subscription.
async fn read(
    channel: Channel,
    subscriptions: usize,
    number: usize,
    book: Arc<Book>,
    mut goal: watch::Receiver<i64>,
) -> i64 {
    let begin = following(Start::Now);
    let mut stream = LeanStream::open(channel, &mint("alice"), &begin, subscriptions).await;
    while stream.cursors.iter().any(Option::is_none) {
        stream.next().await;
    }
    let first = stream.reached();
    book.reached[number].store(first, SeqCst);
    while stream.reached() < *goal.borrow_and_update() {
        // Cancel: a frame that is not whole stays in the stream.
        let (changes, _) = tokio::select! {
            changes = stream.next() => changes,
            _ = goal.changed() => continue,
        };
        book.receive(&changes);
        book.reached[number].store(stream.reached(), SeqCst);
    }
    stream.reached() - first
}

/// The 99th percentiles of a phase.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    delivered: Duration,
    written: Duration,
    elsewhere: Duration,
}

fn p99(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values[values.len() * 99 / 100]
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}

/// As a contact or a task might be.
fn document(number: usize) -> String {
    let text = "The quick brown fox jumps over the lazy dog; ".repeat(18);
    format!(r#"{{"done":false,"number":{number},"tags":["home","garden"],"text":"{text}"}}"#)
}

/// The whole test's people.
struct Scene {
    server: ServerProcess,
    client: Client,
    neighbour: Client,
    crowd: Crowd,
}

impl Scene {
    /// Writes to the space that all follow, so much that each is told before the next
    /// comes, and to another one without a pause; what that took.
    async fn phase(&self) -> Measured {
        drop(std::mem::take(&mut *self.crowd.book.deliveries.lock()));
        let over = AtomicBool::new(false);
        let followed = async {
            let written = join_all((0..WRITERS).map(|_| self.write())).await;
            over.store(true, SeqCst);
            written.concat()
        };
        let (written, elsewhere) = tokio::join!(followed, self.write_elsewhere(&over));
        let delivered = std::mem::take(&mut *self.crowd.book.deliveries.lock());
        assert_eq!(delivered.len(), WRITERS * WRITES * self.crowd.book.reached.len());
        Measured { delivered: p99(delivered), written: p99(written), elsewhere: p99(elsewhere) }
    }

    async fn write(&self) -> Vec<Duration> {
        let mut took = Vec::new();
        for _ in 0..WRITES {
            let (began, revision) = self.write_one().await;
            took.push(began.elapsed());
            self.crowd.have(revision, Duration::from_secs(30)).await;
        }
        took
    }

    async fn write_one(&self) -> (Instant, i64) {
        let began = Instant::now();
        let number = self.crowd.book.send(began);
        let put = put(&format!("w{number}"), &number.to_string(), &document(number));
        (began, self.client.mutate(put).await.unwrap().revision)
    }

    async fn write_elsewhere(&self, over: &AtomicBool) -> Vec<Duration> {
        let mut took = Vec::new();
        while !over.load(SeqCst) {
            let began = Instant::now();
            let id = uuid::Uuid::new_v4().to_string();
            self.neighbour.mutate(put(&id, &id, &document(0))).await.unwrap();
            took.push(began.elapsed());
            // The pace of somebody who is not the load that is measured.
            tokio::time::sleep(PACE).await;
        }
        took
    }
}

/// Two whom nobody shall notice: one that does not read, one that is far behind.
struct Bad {
    unread: LeanStream,
    late: LeanStream,
}

impl Bad {
    async fn come(server: &ServerProcess) -> Self {
        let alice = mint("alice");
        let narrow = connect(server, 1 << 10).await;
        let mut unread = LeanStream::open(narrow, &alice, &following(Start::Now), 1).await;
        while unread.reached() < 0 {
            unread.next().await;
        }
        let begin = following(Start::Unspecified);
        let late = LeanStream::open(connect(server, 1 << 20).await, &alice, &begin, 1).await;
        Self { unread, late }
    }

    /// Both get there, and miss nothing.
    async fn end(mut self, revision: i64) {
        self.unread.read_to(revision).await;
        self.late.read_to(revision).await;
    }
}

impl Scene {
    async fn set(database: &Database) -> Self {
        let server = server_process(database).await;
        let client = Client::connect(server.address, &mint("alice")).await;
        fill(&client, BEHIND * usize::try_from(scale()).unwrap(), 900).await;
        // A stream for each, where there is time for it.
        let streams = if scale() < 10 { SUBSCRIBERS / 100 } else { SUBSCRIBERS };
        let crowd = Crowd::gather(&server, streams).await;
        let neighbour = Client::connect(server.address, &mint("bob")).await;
        Self { server, client, neighbour, crowd }
    }

    /// Writes more than a stream may hold, and waits until all but the bad ones have it.
    async fn burst(&self, name: &str) -> i64 {
        let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(20_000));
        let mut last = 0;
        for part in 0..BURST_BYTES / (2 << 20) {
            let id = |number| format!("{name}-{part}-{number}");
            let puts = (0..100).map(|number| put(&id(number), &id(number), &text));
            let results = self.client.batch(puts.collect(), false).await.unwrap();
            last = results.last().unwrap().revision;
        }
        self.crowd.have(last, Duration::from_secs(30)).await;
        drop(std::mem::take(&mut *self.crowd.book.deliveries.lock()));
        last
    }

    /// One write reaches everybody at once.
    async fn probe(&self) -> i64 {
        let (_, revision) = self.write_one().await;
        self.crowd.have(revision, Duration::from_secs(2)).await;
        revision
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscribers_do_not_notice_two_bad_ones() {
    let database = Database::create().await;
    let scene = Scene::set(&database).await;
    let server = &scene.server;
    scene.burst("before").await;
    let before = server.memory_bytes();
    let Bad { unread, mut late } = Bad::come(server).await;
    let head = scene.client.head().await;
    let (written, ()) = tokio::join!(scene.burst("beside"), late.read_to(head));
    let probe = scene.probe().await;
    assert!(probe > written && unread.reached() < written, "it has read");
    // The pages that the late one read are kept a while, for others who come.
    let bound = 2 * STREAM_BYTES_MAX + limits::SHARED_PAGES_BYTES_MAX + NOISE_BYTES;
    const { assert!(BURST_BYTES > 2 * STREAM_BYTES_MAX, "what was written fits") };
    if let Some((before, beside)) = before.zip(server.memory_bytes()) {
        let grown = beside.saturating_sub(before);
        println!("{} KiB for two bad subscribers, of {} that may be", grown >> 10, bound >> 10);
        assert!(grown < bound as u64, "{grown} bytes");
    }
    Bad { unread, late }.end(probe).await;

    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(scene.phase().await);
        let mut bad = Bad::come(server).await;
        let head = scene.client.head().await;
        let (measured, ()) = tokio::join!(scene.phase(), bad.late.read_to(head));
        with.push(measured);
        bad.end(scene.probe().await).await;
    }
    // How late things are depends on what else the machine does: `bench fanout` says what
    // that comes to, and here it is only shown.
    type Of = fn(&Measured) -> Duration;
    let figures: [(&str, Of); 3] = [
        ("delivery", |it| it.delivered),
        ("writes to the followed space", |it| it.written),
        ("writes elsewhere", |it| it.elsewhere),
    ];
    for (name, of) in figures {
        let [without, with] = [&without, &with].map(|all| median(all.iter().map(of).collect()));
        println!("p99 of {name}: {without:?} without bad subscribers, {with:?} with them");
    }
    let Scene { crowd: Crowd { mut readers, goal, .. }, client, .. } = scene;
    let end = client.mutate(put("end", "end", "{}")).await.unwrap().revision;
    goal.send(end).unwrap();
    let mut streams = 0;
    while let Some(covered) = readers.join_next().await {
        assert!(covered.unwrap() > 0);
        streams += 1;
    }
    assert!(streams * 100 >= SUBSCRIBERS);
}
