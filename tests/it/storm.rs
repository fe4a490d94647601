//! Everybody comes back at once, after a restart: what all of them want is read once
//! or a few times, not once for each. And who only waits costs nothing. Statements are
//! counted where they pass by, so nothing depends on when PostgreSQL reports them.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use syncline::clock::Clock;
use syncline::rpc::proto::Change;

use crate::support::history::Log;
use crate::support::seen::{Seen, View};
use crate::support::wire::Wire;
use crate::support::{
    Client, Database, Stream, TestServer, compacts_rarely, put, scale, store_at, wait_for,
};

/// Words of the statements that are counted.
const PAGE: &str = "from latest l\n         where l.space_id = s.id and l.revision > $2";
const SNAPSHOT: &str = "with recursive way";
const HEADS: &str = "from spaces where id = any($1)";

const CHANGES: usize = 5_000;
/// A page of them, so that it is the changes that are many, not the documents.
const RECORDS: usize = 200;
const BEHIND: i64 = 3_000;
const CONNECTIONS: u64 = 10;

/// A space with a history, whose server has gone, and one that has just come.
struct Restarted {
    database: Database,
    server: TestServer,
    wire: Wire,
    clients: Vec<Client>,
    log: Log,
    epoch: String,
}

impl Restarted {
    async fn new() -> Self {
        let database = Database::create().await;
        let before = TestServer::start(&database).await;
        let writer = before.client("alice").await;
        for batch in 0..CHANGES / 1_000 {
            let numbers = batch * 1_000..(batch + 1) * 1_000;
            let put = |n: usize| {
                put(&format!("m{n}"), &(n % RECORDS).to_string(), &format!(r#"{{"n":{n}}}"#))
            };
            writer.batch(numbers.map(put).collect(), false).await.unwrap();
        }
        let mut seen = Seen::new(View { now: true, ..View::default() });
        drop(seen.open_live(&writer).await.unwrap());
        before.stop().await;
        let (wire, url) = Wire::start(&database.url).await;
        let server = TestServer::start_on(store_at(&url).await, Clock::system(), |_| {}).await;
        let clients = join_all((0..CONNECTIONS).map(|_| server.client("alice"))).await;
        let log = Log::checked(&database, "alice", &[]).await;
        wire.forget();
        Self { database, server, wire, clients, log, epoch: seen.epoch }
    }

    /// Subscribers, all at once, until each has caught up.
    async fn storm(&self, subscribers: u64, seen: impl Fn() -> Seen) -> Vec<(Seen, Stream)> {
        let come = async |number: u64| {
            let mut seen = seen();
            let client = &self.clients[usize::try_from(number % CONNECTIONS).unwrap()];
            let stream = seen.open_live(client).await.unwrap();
            (seen, stream)
        };
        join_all((0..subscribers).map(come)).await
    }

    fn at(&self, cursor: i64) -> Seen {
        let (epoch, view) = (self.epoch.clone(), View::default());
        Seen { view, epoch, cursor, began: cursor, ..Seen::default() }
    }

    /// All saw the same, and that was right.
    fn check(&self, seen: &[(Seen, Stream)]) {
        let (first, _) = &seen[0];
        first.check(&self.log).unwrap();
        let changes = |seen: &Seen| seen.changes.values().cloned().collect::<Vec<Change>>();
        let all = changes(first);
        for (seen, _) in seen {
            assert_eq!(seen.cursor, self.log.head);
            assert!(changes(seen) == all && seen.snapshot == first.snapshot);
        }
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        self.wire.statements()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_come_back_to_one_cursor_read_together() {
    let it = Restarted::new().await;
    let subscribers = 500 * scale();
    let behind = it.storm(subscribers, || it.at(it.log.head - BEHIND)).await;
    let counts = it.counts();
    println!("{subscribers} behind: {counts:?}");
    it.check(&behind);
    assert_eq!(behind[0].0.changes.len(), RECORDS);
    let pages = it.wire.executed(PAGE);
    assert!((1..=subscribers / 50).contains(&pages), "{pages} pages: {counts:?}");
    assert!(counts.values().sum::<u64>() < subscribers / 5, "{counts:?}");
    drop(behind);
    it.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_everything_reads_no_page_and_who_wants_a_snapshot_shares_it() {
    let it = Restarted::new().await;
    let subscribers = 500 * scale();
    let there = it.storm(subscribers, || it.at(it.log.head)).await;
    let counts = it.counts();
    println!("{subscribers} at the head: {counts:?}");
    it.check(&there);
    assert_eq!(it.wire.executed(PAGE), 0, "{counts:?}");
    assert!(counts.values().sum::<u64>() < subscribers / 5, "{counts:?}");
    drop(there);

    it.wire.forget();
    let view = || View { snapshot: true, ..View::default() };
    let anew = it.storm(subscribers, || Seen::new(view())).await;
    let counts = it.counts();
    println!("{subscribers} anew: {counts:?}");
    it.check(&anew);
    assert_eq!(anew[0].0.snapshot.len(), RECORDS);
    let snapshots = it.wire.executed(SNAPSHOT);
    assert!((1..=subscribers / 50).contains(&snapshots), "{snapshots}: {counts:?}");
    assert!(counts.values().sum::<u64>() < subscribers / 5, "{counts:?}");
    drop(anew);
    it.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_while_somebody_writes_reads_together_as_well() {
    let it = Restarted::new().await;
    let subscribers = 300 * scale();
    let load = crate::support::load::Load::start("w", 4, 20, &it.clients[..2]);
    load.more(50).await;
    it.wire.forget();
    let behind = it.storm(subscribers, || it.at(it.log.head - BEHIND)).await;
    let (pages, counts) = (it.wire.executed(PAGE), it.counts());
    println!("{subscribers} behind, and a writer: {counts:?}");
    let acks = load.stop().await;
    let end = it.clients[0].mutate(put("end", "end", "{}")).await.unwrap().revision;
    let log = Log::checked(&it.database, "alice", &acks).await;
    let follow = behind.into_iter().map(async |(mut seen, mut stream)| {
        seen.follow(&mut stream, end).await.unwrap();
        seen
    });
    for seen in join_all(follow).await.iter().step_by(10) {
        seen.check(&log).unwrap();
    }
    assert!(pages < subscribers / 4, "{pages} pages: {counts:?}");
    it.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spaces_that_are_watched_and_idle_cost_one_statement_a_second() {
    let database = Database::create().await;
    let (wire, url) = Wire::start(&database.url).await;
    let store = store_at(&url).await;
    let server = TestServer::start_on(store, Clock::system(), compacts_rarely).await;
    let spaces = 200 * scale();
    let watch = async |number: u64| {
        let mut seen = Seen::default();
        let client = server.client(&format!("u{number}")).await;
        (seen.open_live(&client).await.unwrap(), client)
    };
    let watching = join_all((0..spaces).map(watch)).await;
    wire.forget();
    let polls = async || (wire.executed(HEADS) >= 4).then_some(());
    wait_for("some polls", polls).await;
    let counts = wire.statements();
    println!("{spaces} idle spaces: {counts:?}");
    // Beside it policies, memberships and the queue are looked at, which do not know of
    // spaces: each once in the time of a poll, or so.
    let most = 4 * wire.executed(HEADS);
    assert!(counts.values().sum::<u64>() <= most, "{counts:?}");
    drop(watching);
    server.stop().await;
}
