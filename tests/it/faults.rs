//! What breaks around a server that runs: clients that hang up, notifications
//! that are lost, sessions that are terminated, a database that refuses a row.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::{Executor, PgConnection};
use syncline::clock::Clock;
use syncline::rpc::proto::{ChangesSinceRequest, MutationOutcome};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout;
use tonic::Code;

use crate::support::history::{Ack, Log};
use crate::support::load::Load;
use crate::support::proxy::{Fault, Proxy};
use crate::support::seen::{Seen, View};
use crate::support::{
    Client, Database, Random, Stream, TestServer, put, scale, seed, signed, store_at, wait_for,
};

/// Sessions of servers on this database, in some state.
async fn sessions(connection: &mut PgConnection, condition: &str) -> i64 {
    let sql = format!(
        "select count(*) from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and {condition}"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(connection).await.unwrap()
}

/// Terminates sessions, again and again, until it is dropped.
struct Terminator {
    count: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl Terminator {
    async fn start(database: &Database, which: &'static str) -> Self {
        let mut connection = database.connect().await;
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let sql = format!(
                    "select count(pg_terminate_backend(pid)) from (
                         select pid from pg_stat_activity
                         where datname = current_database() and application_name = 'syncline'
                           and {which} order by random() limit 1
                     ) sessions"
                );
                let query = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql));
                let terminated = query.fetch_one(&mut connection).await.unwrap();
                counted.fetch_add(terminated.unsigned_abs(), SeqCst);
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
        Self { count, _task: task }
    }

    async fn more(&self, sessions: u64) {
        let before = self.count.load(SeqCst);
        for step in 1..=sessions {
            let reached = async || (self.count.load(SeqCst) >= before + step).then_some(());
            wait_for("terminated sessions", reached).await;
        }
    }
}

/// Makes a call and drops it after some milliseconds. True if it was cut short.
async fn hang_up(client: Client, id: String, kind: u64, millis: u64) -> bool {
    let call = async {
        match kind {
            0 => drop(client.mutate(put(&id, &id, "{}")).await),
            1 => drop(client.task("1").await),
            2 => drop(client.stub.clone().changes_since(ChangesSinceRequest::default()).await),
            _ => drop(Seen::default().open(&client).await),
        }
    };
    timeout(Duration::from_millis(millis), call).await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_hang_up_harm_nobody() {
    let database = Database::create().await;
    let (server, proxy) = TestServer::behind_proxy(&database).await;
    let client = server.client("alice").await;
    client.mutate(put("first", "first", "{}")).await.unwrap();
    // Long enough that each step of a call can be hit.
    proxy.delay(Duration::from_millis(3));
    let patient = Load::start("patient", 2, 10, &[server.client("alice").await]);
    let mut random = Random(seed());
    let calls = 200 * scale();
    let mut hung_up = 0;
    for wave in 0..calls / 10 {
        let wave = (0..10).map(|number| {
            let (kind, millis) = (random.below(4), 1 + random.below(30));
            hang_up(client.clone(), format!("h{wave}-{number}"), kind, millis)
        });
        hung_up += join_all(wave).await.into_iter().map(u64::from).sum::<u64>();
    }
    proxy.delay(Duration::ZERO);
    assert!(hung_up >= calls / 4, "only {hung_up} of {calls} hung up");
    assert_eq!(patient.retried(), 0);
    let mut acks = patient.stop().await;

    // Every connection of the server still does what it says.
    let mut other = database.connect().await;
    for round in 0..20 {
        let (id, began) = (format!("after{round}"), Instant::now());
        let results = join_all((0..6).map(|_| client.mutate(put(&id, &id, "{}")))).await;
        let revision = results.into_iter().map(|it| it.unwrap().revision).max().unwrap();
        acks.push(Ack { mutation: id, revision, replayed: false, began, ended: Instant::now() });
        let reads = join_all((0..6).map(|_| client.task("first"))).await;
        assert!(reads.into_iter().all(|read| read.unwrap() == "{}"));
    }
    let log = Log::checked(&database, "alice", &acks).await;
    wait_for("no session is idle in a transaction", async || {
        (sessions(&mut other, "state like 'idle in%'").await == 0).then_some(())
    })
    .await;
    // Who hung up asks again, and is answered from the log if it was written.
    for line in log.lines.iter().filter(|line| line.mutation.starts_with('h')) {
        let again = client.mutate(put(&line.mutation, &line.id, "{}")).await.unwrap();
        assert!(again.replayed && again.revision == line.revision);
    }
    println!("{hung_up} of {calls} hung up, {} writes beside them", acks.len());
    server.stop().await;
}

/// Writes on one replica, and how late the other tells of it, at most.
async fn lateness(writer: &Client, seen: &mut Seen, stream: &mut Stream, name: &str) -> Duration {
    let mut most = Duration::ZERO;
    for round in 0..3 {
        let id = format!("{name}{round}");
        let revision = writer.mutate(put(&id, &id, "{}")).await.unwrap().revision;
        let began = Instant::now();
        seen.follow(stream, revision).await.unwrap();
        most = most.max(began.elapsed());
    }
    println!("{name}: at most {most:?} late");
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn without_notifications_subscribers_of_the_other_replica_are_current_within_the_poll() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    // A listener that falls silent, and nobody says so.
    let (proxy, url) = Proxy::postgres(&database.url).await;
    proxy.arm(Fault::SilenceAfter("LISTEN".into()));
    let there = TestServer::start_on(store_at(&url).await, Clock::system(), |_config| {}).await;
    wait_for("a silent listener", async || (proxy.fired() == 1).then_some(())).await;
    let silent: i32 = wait_for("its session", async || {
        let sql = "select pid from pg_stat_activity
                   where datname = current_database() and query ilike 'listen %'";
        sqlx::query_scalar(sql).fetch_optional(&mut connection).await.unwrap()
    })
    .await;
    let here = TestServer::start(&database).await;
    let writer = here.client("alice").await;
    let mut seen = Seen::new(View::default());
    let mut stream = seen.open_live(&there.client("alice").await).await.unwrap();
    let late = lateness(&writer, &mut seen, &mut stream, "silent").await;
    assert!(late < Duration::from_secs(3), "{late:?}");
    // It is given up, and another one takes its place.
    wait_for("another listener", async || {
        let condition = format!("query ilike 'listen %' and pid <> {silent}");
        (sessions(&mut connection, &condition).await == 2).then_some(())
    })
    .await;

    let terminator = Terminator::start(&database, "query ilike 'listen %'").await;
    for round in 0..4 * scale() {
        terminator.more(2).await;
        let name = format!("terminated{round}");
        let late = lateness(&writer, &mut seen, &mut stream, &name).await;
        assert!(late < Duration::from_secs(3), "{late:?}");
    }
    drop(terminator);
    seen.check(&Log::checked(&database, "alice", &[]).await).unwrap();
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_the_end_of_any_session() {
    let database = Database::create().await;
    let servers = [TestServer::start(&database).await, TestServer::start(&database).await];
    let clients = [servers[0].client("alice").await, servers[1].client("alice").await];
    let mut followers = Vec::new();
    for client in &clients {
        let mut seen = Seen::new(View::default());
        let stream = seen.open_live(client).await.unwrap();
        followers.push((seen, stream));
    }
    let terminator = Terminator::start(&database, "true").await;
    let load = Load::start("w", 8, 50, &clients);
    load.more(300 * scale()).await;
    terminator.more(15 * scale()).await;
    load.more(100).await;
    let terminated = terminator.count.load(SeqCst);
    drop(terminator);
    let retried = load.retried();
    let acks = load.stop().await;
    let log = Log::checked(&database, "alice", &acks).await;
    assert_eq!(log.head, signed(acks.len()));
    for (mut seen, mut stream) in followers {
        seen.follow(&mut stream, log.head).await.unwrap();
        seen.check(&log).unwrap();
    }
    println!("{terminated} sessions, {} acknowledged, {retried} sent again", acks.len());
    for server in servers {
        server.stop().await;
    }
}

/// What PostgreSQL does with a marked row, and a count of rows that it was
/// asked to store: sequences do not go back with a transaction.
const REFUSE_MARKED: &str = "create sequence tries;
    create function refuse() returns trigger language plpgsql as $$ begin
        perform nextval('tries');
        if new.mutation_id like 'marked%' then raise 'inner text: %', new.id; end if;
        return new;
    end $$;
    create trigger refuse before insert on changes for each row execute function refuse()";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_database_refuses_does_not_fail_its_neighbours() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    connection.execute(REFUSE_MARKED).await.unwrap();
    let start = |config: &mut syncline::config::ServerConfig| config.committers = 1;
    let server = TestServer::start_with(&database, Clock::system(), start).await;
    let users = ["alice", "bob", "carol", "dave"];
    let clients = join_all(users.map(|user| server.client(user))).await;
    let rounds = 3 * scale();
    for round in 0..rounds {
        let send = |number: usize| {
            let marked = number % 8 == 3;
            let name = if marked { "marked" } else { "good" };
            let mutation = put(&format!("{name}{round}-{number}"), &format!("{number}"), "{}");
            // Every user has some of either kind.
            let client = clients[(number + number / 8) % 4].clone();
            async move { (marked, client.mutate(mutation).await) }
        };
        for (marked, answer) in join_all((0..64).map(send)).await {
            if !marked {
                assert_eq!(answer.unwrap().outcome, i32::from(MutationOutcome::Applied));
                continue;
            }
            let status = answer.unwrap_err();
            assert_eq!(status.code(), Code::Internal);
            assert!(status.message().starts_with("internal error; report it with id "));
            assert!(!format!("{status:?}").contains("inner text"), "{status:?}");
        }
    }
    let mut stored = 0;
    for user in users {
        let log = Log::read(&mut connection, user).await;
        log.check().unwrap();
        assert!(log.head >= 8);
        stored += log.head;
    }
    assert_eq!(stored, i64::try_from(56 * rounds).unwrap());
    let tries: i64 = sqlx::query_scalar("select last_value from tries")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(tries > i64::try_from(64 * rounds).unwrap(), "no neighbour was in a refused group");
    // A refusal is not an answer: the id is as good as new.
    connection.execute("drop trigger refuse on changes").await.unwrap();
    let result = clients[3].mutate(put("marked0-3", "3", "{}")).await.unwrap();
    assert!(!result.replayed);
    server.stop().await;
}
