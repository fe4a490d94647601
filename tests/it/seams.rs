//! The seams of a subscription: snapshot to catch-up to live and back, from stream to
//! stream and from server to server, through every filter and mode, while writers
//! write at full speed and the log is compacted under the readers.

mod found;

use std::collections::BTreeMap;

use futures_util::future::join_all;
use syncline::clock::Clock;
use syncline::rpc::proto::{
    BatchMutateRequest, DeleteOperation, EchoMode, Mutation, MutationOutcome, RecordKey,
    mutation::Operation,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::compaction::Compaction;
use crate::support::history::Ack;
use crate::support::load::passes;
use crate::support::reader::{Manner, Reader};
use crate::support::seen::{Seen, View};
use crate::support::{Client, Database, Random, TestServer, mutation, put, scale, seed, wait_for};

const COLLECTIONS: [&str; 3] = ["task", "note", "file"];
const RECORDS: u64 = 40;
const WRITERS: u64 = 4;
/// Enough for the largest frame that a reader must get through to go on.
const CUT_BYTES_MAX: u64 = 1 << 19;

fn pick<T: Clone>(random: &mut Random, of: &[T]) -> T {
    of[usize::try_from(random.below(of.len() as u64)).unwrap()].clone()
}

/// Some fields of a few, so that a difference has something to remove, to set and to
/// keep; of very different sizes.
fn document(random: &mut Random) -> String {
    let mut fields = Vec::new();
    for name in ["a", "b", "c"] {
        match random.below(4) {
            0 => {}
            1 => fields.push(format!(r#""{name}":{}"#, random.below(3))),
            2 => fields.push(format!(r#""{name}":[{}]"#, random.below(3))),
            _ => {
                let (key, n) = (pick(random, &["x", "y/z", "~"]), random.below(3));
                fields.push(format!(r#""{name}":{{"{key}":{n},"n":{{"m":{n}}}}}"#));
            }
        }
    }
    let pad = match random.below(60) {
        0 => 60_000,
        1..=4 => 10_000,
        5..=20 => 2_000,
        _ => 150,
    };
    fields.push(format!(r#""pad":"{:0pad$}""#, random.below(2)));
    format!("{{{}}}", fields.join(","))
}

fn some_mutation(random: &mut Random, id: &str) -> Mutation {
    let record = random.below(RECORDS).to_string();
    let mut mutation = match random.below(8) {
        0 => mutation(id, &record, Operation::Delete(DeleteOperation {})),
        _ => put(id, &record, &document(random)),
    };
    mutation.key.as_mut().unwrap().collection = pick(random, &COLLECTIONS).into();
    mutation
}

/// One write, some that only come together, or some that belong together; rarely so
/// much that no frame has it all.
fn some_batch(random: &mut Random, name: &str) -> (bool, Vec<Mutation>) {
    let (atomic, len) = match random.below(5) {
        0 => (true, 2 + random.below(19)),
        1 => (false, 2 + random.below(5)),
        _ => (false, 1),
    };
    let large = (atomic && random.below(40) == 0).then(|| "0".repeat(90_000));
    let len = if large.is_some() { 20 } else { len };
    let mutations = (0..len).map(|place| {
        let id = format!("{name}-{place}");
        match &large {
            Some(pad) => put(&id, &place.to_string(), &format!(r#"{{"pad":"{pad}"}}"#)),
            None => some_mutation(random, &id),
        }
    });
    (atomic, mutations.collect())
}

/// Writes as a device until told to stop.
async fn write(
    number: u64,
    client: Client,
    mut random: Random,
    stop: watch::Receiver<bool>,
) -> Vec<Ack> {
    let mut acks = Vec::new();
    for count in 0.. {
        if *stop.borrow() {
            break;
        }
        let (atomic, mutations) = some_batch(&mut random, &format!("w{number}-{count}"));
        let device = format!("w{number}");
        let request = BatchMutateRequest { device, mutations, atomic, ..<_>::default() };
        let began = Instant::now();
        let answer = match client.stub.clone().batch_mutate(request).await {
            Ok(answer) => answer.into_inner(),
            // Asked again, it might have to be found in what was taken out of the log.
            Err(status) => {
                assert!(passes(&status), "{status:?}");
                continue;
            }
        };
        let ended = Instant::now();
        let applied = answer.results.into_iter().filter(|it| {
            assert!(!it.replayed);
            // A deletion of what is not there is none.
            it.outcome == i32::from(MutationOutcome::Applied)
        });
        acks.extend(applied.map(|it| {
            let (mutation, revision) = (it.mutation_id, it.revision);
            Ack { mutation, revision, replayed: false, began, ended }
        }));
    }
    acks
}

fn some_view(random: &mut Random) -> View {
    let starts = [(false, false), (true, false), (false, true)];
    let (snapshot, now) = pick(random, &starts);
    let mut view = View {
        echo: pick(random, &[EchoMode::Unspecified, EchoMode::All, EchoMode::Mark]),
        not_by: (random.below(3) > 0).then(|| format!("w{}", random.below(WRITERS))),
        delta: random.below(2) == 0,
        snapshot,
        now,
        ..View::default()
    };
    match random.below(3) {
        0 => {}
        1 => {
            view.collections.extend(["end".to_owned(), pick(random, &COLLECTIONS).to_owned()]);
            view.collections.extend((random.below(2) == 0).then(|| "nothing".to_owned()));
        }
        _ => {
            view.keys.push(("end".into(), "end".into()));
            for _ in 0..random.below(60) {
                let collection = pick(random, &COLLECTIONS).to_owned();
                view.keys.push((collection, random.below(RECORDS).to_string()));
            }
        }
    }
    view
}

struct Setting {
    ring_bytes: usize,
    /// The floor stays within so many revisions of the head, if it rises.
    floor_within: Option<u64>,
}

/// Writers and readers at once, on two replicas.
struct World {
    database: Database,
    servers: [TestServer; 2],
    random: Random,
}

impl World {
    async fn new(setting: &Setting) -> Self {
        let database = Database::create().await;
        let start = || {
            TestServer::start_with(&database, Clock::system(), |it| {
                it.ring_bytes = setting.ring_bytes;
            })
        };
        let servers = [start().await, start().await];
        Self { database, servers, random: Random(seed()) }
    }

    async fn writers(&mut self, stop: &watch::Receiver<bool>) -> JoinSet<Vec<Ack>> {
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let client = self.servers[usize::from(number % 2 == 1)].client("alice").await;
            writers.spawn(write(number, client, Random(self.random.next()), stop.clone()));
        }
        writers
    }

    /// Readers that come one after the other, while the log grows.
    async fn readers(&mut self, goal: &watch::Receiver<i64>) -> JoinSet<(Manner, Seen)> {
        let client = self.servers[0].client("alice").await;
        let mut readers = JoinSet::new();
        let manners = [Manner::Drops, Manner::IsCut, Manner::Slow, Manner::Steady];
        for (manner, number) in manners.into_iter().cycle().zip(0..12) {
            let head = number * 100 * scale().cast_signed();
            wait_for("the log", async || (client.head().await >= head).then_some(())).await;
            let mut addresses = [self.servers[0].address(), self.servers[1].address()];
            addresses.rotate_left(usize::from(number % 3 == 1));
            let (view, random) = (some_view(&mut self.random), Random(self.random.next()));
            let reader = Reader::new(&addresses, manner, view, random, goal.clone()).await;
            readers.spawn(reader.cut_within(CUT_BYTES_MAX).run());
        }
        readers
    }
}

/// Readers of all manners and views while writers write.
async fn readers_show_what_the_log_had(setting: Setting) {
    let mut world = World::new(&setting).await;
    let ((stop, stopped), (told, goal)) = (watch::channel(false), watch::channel(i64::MAX));
    let writers = world.writers(&stopped).await;
    let mut compaction = JoinSet::new();
    let compacting = Compaction::prepare(&world.database).await;
    let random = Random(world.random.next());
    compaction.spawn(compacting.go_on(random, setting.floor_within, stopped));
    let readers = world.readers(&goal).await;
    stop.send(true).unwrap();
    let acks = writers.join_all().await.concat();
    // Passes every view, so that every reader gets there.
    let key = Some(RecordKey { collection: "end".into(), id: "end".into() });
    let end = Mutation { key, ..put("end", "", "{}") };
    let end = world.servers[0].client("alice").await.mutate(end).await.unwrap().revision;
    told.send(end).unwrap();
    let readers = readers.join_all().await;
    let compaction = compaction.join_all().await.remove(0);
    let (floor, taken_out) = (compaction.floor, compaction.taken_out);
    let log = compaction.checked(&acks).await;
    let mut counts = BTreeMap::<_, (u64, usize, usize)>::new();
    for (manner, seen) in &readers {
        seen.check(&log).unwrap_or_else(|error| panic!("{manner:?} {:?}: {error}", seen.view));
        let count = counts.entry(*manner).or_default();
        count.0 += seen.streams;
        count.1 += seen.earlier.len();
        count.2 += seen.points.len();
    }
    let batched = log.lines.iter().filter(|line| line.batch_end > 0).count();
    println!("{end} changes, {batched} in batches, floor {floor}, {taken_out} taken out");
    println!("streams, new beginnings, states: {counts:?}");
    join_all(world.servers.map(TestServer::stop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_that_a_reader_shows_is_one_that_the_log_had() {
    let setting = Setting { ring_bytes: 16 << 20, floor_within: None };
    readers_show_what_the_log_had(setting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_while_the_log_is_compacted() {
    let setting = Setting { ring_bytes: 16 << 20, floor_within: Some(300) };
    readers_show_what_the_log_had(setting).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_with_a_ring_that_holds_little() {
    let setting = Setting { ring_bytes: 30_000, floor_within: Some(600) };
    readers_show_what_the_log_had(setting).await;
}
