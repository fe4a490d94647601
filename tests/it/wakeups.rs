//! What happens on one replica comes to the subscribers of the other, whatever becomes
//! of the word that it sends: lost, doubled, late, said again, to a listener that is
//! cut off or does not know that it is; and whatever becomes of the database or of the
//! replica. They are current soon afterwards, nothing is lost and nothing comes twice.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::postgres::PgListener;
use sqlx::{Connection, PgConnection};
use syncline::clock::Clock;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::history::{Ack, Log};
use crate::support::load::Load;
use crate::support::private::{blocking, folder, postgres};
use crate::support::reader::{Manner, Reader};
use crate::support::seen::{Seen, View};
use crate::support::wire::{Notifications, Wire};
use crate::support::{
    Client, Database, Random, ServerProcess, TestServer, compacts_rarely, mint, put, scale,
    store_at, wait_for,
};

/// How soon subscribers are current, once everything is as it should be.
const CURRENT_WITHIN: Duration = Duration::from_secs(2);

/// Subscribers of several views, with some servers each, first one and then the other.
struct Subscribers {
    reading: JoinSet<(Manner, Seen)>,
    goal: watch::Sender<i64>,
}

impl Subscribers {
    async fn come(servers: &[SocketAddr]) -> Self {
        let goal = watch::channel(i64::MAX).0;
        let mut reading = JoinSet::new();
        let tasks = vec!["task".to_owned()];
        for view in [
            View::default(),
            View { delta: true, ..View::default() },
            View { collections: tasks, ..View::default() },
            View { keys: vec![("task".into(), "probe".into())], ..View::default() },
            View { not_by: Some("w-0".into()), ..View::default() },
        ] {
            let reader = Reader::new(servers, Manner::Steady, view, Random(0), goal.subscribe());
            reading.spawn(reader.await.run());
        }
        Self { reading, goal }
    }

    /// Writes something that all are to be told of, and waits until they were: not
    /// longer than they may take since then.
    async fn are_current(self, writer: &Client, since: Instant) -> Vec<Seen> {
        let probe = put("probe", "probe", "{}");
        let probe = wait_for("a write", async || writer.mutate(probe.clone()).await.ok()).await;
        let written = since.elapsed();
        self.goal.send(probe.revision).unwrap();
        let seen = self.reading.join_all().await;
        let current = since.elapsed();
        println!("written {written:?} and current {current:?} after the recovery");
        assert!(current < CURRENT_WITHIN, "{current:?}");
        seen.into_iter().map(|(_, seen)| seen).collect()
    }
}

/// Two replicas, the other one with a wire that is read along, and its subscribers.
struct Pair {
    database: Database,
    here: TestServer,
    there: TestServer,
    wire: Wire,
    writer: Client,
    subscribers: Subscribers,
    load: Option<Load>,
    acks: Vec<Ack>,
}

impl Pair {
    async fn new() -> Self {
        let database = Database::create().await;
        let here = TestServer::start(&database).await;
        let (wire, url) = Wire::start(&database.url).await;
        let store = store_at(&url).await;
        let there = TestServer::start_on(store, Clock::system(), compacts_rarely).await;
        let writer = here.client("alice").await;
        let subscribers = Subscribers::come(&[there.address()]).await;
        let load = Load::start("w", 4, 20, std::slice::from_ref(&writer));
        load.more(50).await;
        wait_for("a notification", async || (wire.came() > 0).then_some(())).await;
        let (load, acks) = (Some(load), Vec::new());
        Self { database, here, there, wire, writer, subscribers, load, acks }
    }

    async fn more(&self, writes: u64) {
        self.load.as_ref().unwrap().more(writes).await;
    }

    async fn writers_end(&mut self) {
        if let Some(load) = self.load.take() {
            self.acks = load.stop().await;
        }
    }

    /// Everybody is current, was told every step, and none twice.
    async fn end(mut self, since: Instant) {
        self.writers_end().await;
        let seen = self.subscribers.are_current(&self.writer, since).await;
        let log = Log::checked(&self.database, "alice", &self.acks).await;
        for seen in seen {
            assert_eq!(seen.streams, 1);
            seen.check_every_step(&log).unwrap();
        }
        self.here.stop().await;
        self.there.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_may_get_lost_come_twice_or_late() {
    for notifications in [
        Notifications::Lost,
        Notifications::Doubled,
        Notifications::Late(Duration::from_millis(300)),
        Notifications::Late(Duration::from_secs(3)),
    ] {
        let it = Pair::new().await;
        it.wire.notifications(notifications);
        let came = it.wire.came();
        it.more(200 * scale()).await;
        assert!(it.wire.came() > came);
        println!("{notifications:?}");
        // There is nothing to recover from.
        it.end(Instant::now()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_may_be_cut_off_or_fall_silent() {
    for silent in [false, true] {
        let it = Pair::new().await;
        for _ in 0..2 * scale() {
            if silent {
                it.wire.silence_listeners();
            } else {
                it.wire.cut_listeners();
            }
            it.more(100).await;
        }
        println!("silent: {silent}");
        it.end(Instant::now()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_and_what_is_not_so_may_be_said_again() {
    let mut it = Pair::new().await;
    let mut listener = PgListener::connect(&it.database.url).await.unwrap();
    listener.listen("syncline_heads").await.unwrap();
    let mut connection = it.database.connect().await;
    let mut said = Vec::new();
    for _ in 0..30 {
        said.push(listener.recv().await.unwrap().payload().to_owned());
    }
    let last = said.last().unwrap().clone();
    let (replica, word) = last.split_once(' ').unwrap();
    let (space, _) = word.split_once(':').unwrap();
    said.reverse();
    said.extend([
        format!("{replica} {}:7:0", "0".repeat(32)),
        format!("{replica} {space}:0:0"),
        format!("{replica} {space}:-1:0"),
        "nonsense".to_owned(),
        String::new(),
    ]);
    for payload in said.iter().cycle().take(100) {
        let sql = "select pg_notify('syncline_heads', $1)";
        sqlx::query(sql).bind(payload).execute(&mut connection).await.unwrap();
    }
    it.more(20).await;
    it.writers_end().await;
    // A head that is nowhere is looked for with each poll, and not without pause.
    let ahead = format!("{replica} {space}:1000000:0");
    let sql = "select pg_notify('syncline_heads', $1)";
    sqlx::query(sql).bind(ahead).execute(&mut connection).await.unwrap();
    it.wire.forget();
    let polls = async || (it.wire.executed("from spaces where id = any($1)") >= 3).then_some(());
    wait_for("some polls", polls).await;
    let counts = it.wire.statements();
    println!("{counts:?}");
    assert!(counts.values().sum::<u64>() < 20, "{counts:?}");
    it.end(Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_may_be_killed() {
    let folder = folder();
    let postgres = postgres(folder.path(), &[]).await;
    let url = postgres.url("postgres");
    let store = store_at(&url).await;
    store.migrate().await.unwrap();
    let here = TestServer::start_on(store, Clock::system(), |_| {}).await;
    let there = TestServer::start_on(store_at(&url).await, Clock::system(), |_| {}).await;
    let (writer, reader) = (here.client("alice").await, there.client("alice").await);
    for round in 0..2 * scale() {
        let subscribers = Subscribers::come(&[there.address()]).await;
        let load = Load::start(&format!("w{round}"), 4, 20, std::slice::from_ref(&writer));
        load.more(50).await;
        // All connections for reads are there, and none of them will be any good.
        let reads = (0..30).map(|_| reader.head());
        join_all(reads).await;
        postgres.kill9();
        let up = async || (postgres.restarts() == round + 1).then_some(());
        wait_for("the restart", up).await;
        let since = Instant::now();
        let acks = load.stop().await;
        let seen = subscribers.are_current(&writer, since).await;
        let mut connection = PgConnection::connect(&url).await.unwrap();
        let log = Log::read(&mut connection, "alice").await;
        log.check().unwrap();
        log.check_acks(&acks).unwrap();
        connection.close().await.unwrap();
        for seen in seen {
            assert_eq!(seen.streams, 1, "a stream outlives its database");
            seen.check(&log).unwrap();
        }
    }
    here.stop().await;
    there.stop().await;
    blocking(|| postgres.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_may_be_killed_and_its_subscribers_go_on_at_the_other() {
    let database = Database::create().await;
    let start = || {
        let url = database.url.clone();
        blocking(move || ServerProcess::start(&url))
    };
    let mut servers = [start().await, start().await];
    for round in 0..2 * scale() {
        let [dies, lives] = &servers;
        let subscribers = Subscribers::come(&[dies.address, lives.address]).await;
        let writer = Client::connect(lives.address, &mint("alice")).await;
        // Who writes to the one that dies goes on at the other as well.
        let clients = [Client::lazy(dies.address, &mint("alice")), writer.clone()];
        let load = Load::start(&format!("w{round}"), 4, 20, &clients);
        load.more(100).await;
        let [dies, lives] = servers;
        blocking(|| dies.kill()).await;
        let since = Instant::now();
        let acks = load.stop().await;
        let seen = subscribers.are_current(&writer, since).await;
        let log = Log::checked(&database, "alice", &acks).await;
        for seen in seen {
            assert!(seen.streams > 1);
            seen.check(&log).unwrap();
        }
        servers = [lives, start().await];
    }
    for server in servers {
        assert_eq!(blocking(|| server.stop()).await, Some(0));
    }
}
