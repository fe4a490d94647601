//! Many subscriptions on one stream: those that are live do not wait for one that is
//! far behind, however much it has to read, and none of them makes the server hold
//! more than a few frames.

use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::{DocumentForm, Mutation, PublishFrame, Start, SubscribeFrame};
use tokio::task::JoinSet;

use super::fill;
use super::told::{Listener, Told};
use crate::support::{Client, Database, Stream, TestServer, mint, put, signed, subscribe_frame};

/// Subscriptions that are live; with one more it is as many as a stream may have.
const LIVE: usize = 999;
/// Far more than a connection and a stream hold.
const DOCUMENTS: usize = 400;
const DOCUMENT_BYTES: usize = 32 << 10;
/// Live changes while the one is behind.
const NOTES: usize = 5;

/// When the one that is far behind is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    First,
    Last,
}

fn note(number: usize) -> Mutation {
    let mut note = put(&format!("n{number}"), &format!("n{number}"), "{}");
    note.key.as_mut().unwrap().collection = "note".into();
    note
}

fn of(collection: &str, id: &str) -> SubscribeFrame {
    SubscribeFrame {
        collections: vec![collection.into()],
        document_form: DocumentForm::Json.into(),
        ..subscribe_frame(id, None)
    }
}

/// A stream of many, and one who hears when it was heard.
struct Scene {
    server: TestServer,
    writer: Client,
    stream: Stream,
    told: Listener,
    other: Stream,
    other_told: Listener,
}

impl Scene {
    async fn set(database: &Database, (documents, bytes): (usize, usize)) -> Self {
        let server = TestServer::start(database).await;
        let writer = server.client("alice").await;
        fill(&writer, documents, bytes).await;
        let narrow = Client::narrow(server.address(), &mint("alice"));
        let stream = Stream::open(&narrow).await.unwrap();
        let other = Stream::open(&writer).await.unwrap();
        let start = Start::Now.into();
        other.subscribe(SubscribeFrame { events: true, start, ..subscribe_frame("o", None) }).await;
        let (told, other_told) = (Listener::default(), Listener::default());
        let mut scene = Self { server, writer, stream, told, other, other_told };
        let live = |it: &Listener| it.0.values().any(|it| it.caught_up);
        scene.other_told.read_until(&mut scene.other, live).await;
        scene
    }

    /// Begins some, and reads only once the server has heard of all of them: otherwise
    /// it would read a page for each one that it hears.
    async fn begin(&mut self, frames: Vec<SubscribeFrame>) {
        let last = frames.last().unwrap().subscription_id.clone();
        for frame in frames {
            self.stream.subscribe(frame).await;
        }
        let publish = PublishFrame { subscription_id: last.clone(), topic: last, document: None };
        let topic = publish.topic.clone();
        self.stream.send(Out::Publish(publish)).await;
        self.other_told.read_until(&mut self.other, |it| it.of("o").events.contains(&topic)).await;
        self.told.read_until(&mut self.stream, |it| it.0.contains_key(&topic)).await;
    }

    async fn read_until_live(&mut self, is: impl Fn(&Told) -> bool) {
        let live = |it: &Listener| {
            (0..LIVE).all(|number| it.0.get(&format!("live{number}")).is_some_and(&is))
        };
        self.told.read_until(&mut self.stream, live).await;
    }
}

async fn the_others_go_on(comes: Comes) {
    let database = Database::create().await;
    let mut scene = Scene::set(&database, (DOCUMENTS, DOCUMENT_BYTES)).await;
    let behind = of("task", "behind");
    if comes == Comes::First {
        scene.begin(vec![behind.clone()]).await;
    }
    for some in (0..LIVE).collect::<Vec<_>>().chunks(333) {
        let live = |number: &usize| SubscribeFrame {
            // Some follow in their own way, so that nobody shares frames with them.
            device: if number.is_multiple_of(10) { format!("d{number}") } else { String::new() },
            start: Start::Now.into(),
            ..of("note", &format!("live{number}"))
        };
        scene.begin(some.iter().map(live).collect()).await;
    }
    if comes == Comes::Last {
        scene.begin(vec![behind]).await;
    }
    scene.read_until_live(|it| it.caught_up).await;
    let mut notes = Vec::new();
    let mut read = vec![scene.told.of("behind").changes.len()];
    for number in 0..NOTES {
        notes.push(scene.writer.mutate(note(number)).await.unwrap().revision);
        scene.read_until_live(|it| it.changes == notes).await;
        assert!(!scene.told.of("behind").caught_up, "they waited for the one that was behind");
        read.push(scene.told.of("behind").changes.len());
    }
    println!("{comes:?}: the one behind had {read:?} of {DOCUMENTS} at each note");
    scene.told.read_until(&mut scene.stream, |it| it.of("behind").caught_up).await;
    let behind: Vec<i64> = (1..=signed(DOCUMENTS)).collect();
    assert_eq!(scene.told.of("behind").changes, behind);
    scene.read_until_live(|it| it.changes == notes).await;
    scene.server.stop().await;
}

/// Pages of the store once filled each frame before what was live had its turn.
#[tokio::test(flavor = "multi_thread")]
async fn live_subscriptions_do_not_wait_for_one_that_is_behind() {
    the_others_go_on(Comes::First).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_subscriptions_do_not_wait_for_one_that_comes_later() {
    the_others_go_on(Comes::Last).await;
}

/// Those that are far behind beside many that are live.
const BEHIND: usize = 3;
/// Small ones, as many as also are far more than a stream holds: all that it holds may
/// be of the first of them, if the server hears of the others late.
const SMALL_DOCUMENTS: usize = 4_000;
const SMALL_DOCUMENT_BYTES: usize = 256;

async fn those_behind_go_on_alike(busy: bool) {
    let database = Database::create().await;
    // Beside others pages are small, and with these none of them fills a frame.
    let small = (SMALL_DOCUMENTS, SMALL_DOCUMENT_BYTES);
    let (documents, bytes) = if busy { small } else { (DOCUMENTS, DOCUMENT_BYTES) };
    let mut scene = Scene::set(&database, (documents, bytes)).await;
    let live = |number| {
        let live = of("note", &format!("live{number}"));
        SubscribeFrame { start: Start::Now.into(), ..live }
    };
    scene.begin((0..LIVE / 3).map(live).collect()).await;
    // Ends when dropped.
    let mut writing = JoinSet::new();
    if busy {
        let writer = scene.writer.clone();
        writing.spawn(async move {
            for number in 0.. {
                writer.mutate(note(number)).await.unwrap();
            }
        });
    }
    let behind: Vec<String> = (0..BEHIND).map(|number| format!("behind{number}")).collect();
    // Each in its own way, so that they do not go together.
    let own = |id: &String| SubscribeFrame { device: id.clone(), ..of("task", id) };
    scene.begin(behind.iter().map(own).collect()).await;
    let some_caught_up = |it: &Listener| behind.iter().any(|id| it.of(id).caught_up);
    scene.told.read_until(&mut scene.stream, some_caught_up).await;
    let read: Vec<usize> = behind.iter().map(|id| scene.told.of(id).changes.len()).collect();
    println!("{read:?} of {documents} when the first of them had caught up");
    assert!(read.iter().all(|read| *read > documents / 2), "one had nearly every turn: {read:?}");
    let all_caught_up = |it: &Listener| behind.iter().all(|id| it.of(id).caught_up);
    scene.told.read_until(&mut scene.stream, all_caught_up).await;
    let all: Vec<i64> = (1..=signed(documents)).collect();
    assert!(behind.iter().all(|id| scene.told.of(id).changes == all));
    writing.shutdown().await;
    scene.server.stop().await;
}

/// Rounds once began with the next subscription each, wherever the last one had
/// ended: of several that were behind the first had nearly every turn.
#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_are_behind_go_on_alike() {
    those_behind_go_on_alike(false).await;
}

/// The rest after a page once ended the round without a word of whose turn was next.
#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_that_give_way_to_live_ones_go_on_alike() {
    those_behind_go_on_alike(true).await;
}
