//! Compaction: what is old goes, and what is left can be asked for.

mod storm;

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use syncline::app::{Forgotten, compact_once};
use syncline::clock::Clock;
use syncline::domain::{Retention, Revision, SpaceId};
use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::{
    ChangesSinceRequest, Cursor, DeleteOperation, ExchangeRequest, Mutation, MutationOutcome,
    Policy, RejectionReason,
};
use syncline::store::Store;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{exchange, proven, snapshot};
use crate::support::{
    Client, Database, Stream, TestServer, error_reason, mutation, put, subscribe_frame, wait_for,
    waiting_since,
};

const DAY: Duration = Duration::from_hours(24);
const RETENTION: Retention = Retention {
    log: DAY.saturating_mul(30),
    tombstones: DAY.saturating_mul(90),
    device_wait: DAY.saturating_mul(30),
};

fn delete(id: &str, task: &str) -> Mutation {
    mutation(id, task, Operation::Delete(DeleteOperation {}))
}

/// Compacts as somebody would so many days later.
async fn compact_in(store: &Store, days: u32) -> Forgotten {
    let now = Clock::system().now_to_store() + DAY * days;
    // The server looks as well, now and then.
    wait_for("the right to compact", async || compact_once(store, RETENTION, now).await.unwrap())
        .await
}

async fn verified(store: &Store) {
    if let Err(difference) = store.verify(None).await.unwrap() {
        panic!("{difference}");
    }
}

struct House {
    database: Database,
    server: TestServer,
    store: Store,
    alice: Client,
}

impl House {
    async fn new() -> Self {
        let database = Database::create().await;
        let server = TestServer::start(&database).await;
        let (store, alice) = (database.store().await, server.client("alice").await);
        Self { database, server, store, alice }
    }

    async fn write(&self, mutations: impl IntoIterator<Item = Mutation>) {
        for mutation in mutations {
            let result = self.alice.mutate(mutation).await.unwrap();
            assert_eq!(result.outcome(), MutationOutcome::Applied);
        }
    }

    async fn changes(&self, revision: i64, every_step: bool) -> Result<Vec<i64>, String> {
        let epoch = proven(&self.alice).await.epoch;
        let cursor = Some(Cursor { epoch, revision });
        let request = ChangesSinceRequest { cursor, every_step, ..Default::default() };
        match self.alice.stub.clone().changes_since(request).await {
            Ok(page) => Ok(page.into_inner().changes.iter().map(|it| it.revision).collect()),
            Err(status) => Err(error_reason(&status)),
        }
    }

    /// The revisions in the log, and those in `latest`.
    async fn rows(&self) -> (Vec<i64>, Vec<i64>) {
        let mut connection = self.database.connect().await;
        let mut rows = Vec::new();
        for table in ["changes", "latest"] {
            let sql = format!("select revision from {table} order by revision");
            let sql = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
            rows.push(sql.fetch_all(&mut connection).await.unwrap());
        }
        (rows.remove(0), rows.remove(0))
    }
}

/// Six revisions: 1 three times, 2 created and deleted, 3.
fn six() -> [Mutation; 6] {
    [
        put("m1", "1", "{\"n\":1}"),
        put("m2", "2", "{\"n\":2}"),
        put("m3", "1", "{\"n\":3}"),
        delete("m4", "2"),
        put("m5", "1", "{\"n\":5}"),
        put("m6", "3", "{\"n\":6}"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_rises_with_what_is_deleted() {
    let house = House::new().await;
    house.write(six()).await;
    assert_eq!(compact_in(&house.store, 29).await, Forgotten::default());
    assert_eq!(house.rows().await.0.len(), 6);
    let before = snapshot(&house.alice, &[]).await.unwrap().0;

    let forgotten = compact_in(&house.store, 31).await;
    assert_eq!((forgotten.spaces, forgotten.changes, forgotten.tombstones), (1, 3, 0));
    assert_eq!(house.rows().await, (vec![4, 5, 6], vec![4, 5, 6]));
    verified(&house.store).await;
    let status = proven(&house.alice).await;
    assert_eq!((status.floor, status.head), (6, 6));
    assert_eq!(snapshot(&house.alice, &[]).await.unwrap().0, before);
    before.check(status.digest.as_ref().unwrap());

    // Below, at and above the floor.
    house.write([put("m7", "4", "{}"), put("m8", "5", "{}")]).await;
    for every_step in [false, true] {
        assert_eq!(house.changes(5, every_step).await, Err("CURSOR_EXPIRED".into()));
        assert_eq!(house.changes(6, every_step).await, Ok(vec![7, 8]));
        assert_eq!(house.changes(7, every_step).await, Ok(vec![8]));
    }
    let mut stream = Stream::open(&house.alice).await.unwrap();
    let epoch = status.epoch;
    stream.subscribe(subscribe_frame("s", Some(Cursor { epoch, revision: 5 }))).await;
    let frame = stream.frame().await;
    let syncline::rpc::proto::subscribe_response::Frame::ResyncRequired(told) = frame else {
        panic!("{frame:?}")
    };
    assert_eq!((told.floor, told.head), (6, 8));

    // Much later the tombstone goes as well.
    let forgotten = compact_in(&house.store, 91).await;
    assert_eq!((forgotten.spaces, forgotten.changes, forgotten.tombstones), (1, 0, 1));
    assert_eq!(house.rows().await, (vec![5, 6, 7, 8], vec![5, 6, 7, 8]));
    verified(&house.store).await;
    assert_eq!(compact_in(&house.store, 91).await, Forgotten::default(), "all was done");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_does_not_come_back_by_itself() {
    let house = House::new().await;
    house.write(six()).await;
    assert_eq!(compact_in(&house.store, 91).await.tombstones, 1);
    let stale = |id: &str, base| Mutation { base, ..put(id, "2", "{\"n\":7}") };
    let result = house.alice.mutate(stale("s1", Some(2))).await.unwrap();
    assert_eq!(result.rejection.unwrap().reason(), RejectionReason::RecordGone);
    // So it is in a batch, in an exchange, and when it is sent again.
    let result = house.alice.mutate(stale("s1", Some(2))).await.unwrap();
    assert!(result.replayed && result.outcome() == MutationOutcome::Rejected);
    assert_eq!(proven(&house.alice).await.head, 6);
    // Who says that it is to be anew makes it anew.
    let result = house.alice.mutate(stale("s2", None)).await.unwrap();
    assert_eq!((result.outcome(), result.revision), (MutationOutcome::Applied, 7));
    verified(&house.store).await;
    // A policy may say that an update beats a deletion.
    house.write([delete("d", "2")]).await;
    assert_eq!(compact_in(&house.store, 91).await.tombstones, 1);
    let admin = house.server.admin("alice").await;
    let policy =
        Policy { collection: "task".into(), deletes: 2, strategy: 6, ..Default::default() };
    admin.set_policy(policy).await.unwrap();
    let result = house.alice.mutate(stale("s3", Some(7))).await.unwrap();
    assert_eq!((result.outcome(), result.revision), (MutationOutcome::Applied, 9));
    verified(&house.store).await;
}

/// What a client wrote while it was away for too long stays good.
#[tokio::test(flavor = "multi_thread")]
async fn pending_writes_outlive_the_cursor() {
    let house = House::new().await;
    house.write(six()).await;
    compact_in(&house.store, 91).await;
    let epoch = proven(&house.alice).await.epoch;
    let stale = |id: &str, task: &str, base, sequence| Mutation {
        base: Some(base),
        device_sequence: Some(sequence),
        ..put(id, task, "{\"mine\":1}")
    };
    let pending = vec![stale("p1", "1", 1, 1), stale("p2", "9", 0, 2), stale("p3", "2", 2, 3)];
    let device = "phone".to_owned();
    let request = ExchangeRequest { device, mutations: pending, ..Default::default() };
    let cursor = Some(Cursor { epoch, revision: 2 });
    let expired = ExchangeRequest { cursor, ..request.clone() };
    assert_eq!(error_reason(&exchange(&house.alice, expired).await.unwrap_err()), "CURSOR_EXPIRED");
    let copy = snapshot(&house.alice, &[]).await.unwrap().0;
    let request = ExchangeRequest { cursor: copy.cursor.clone(), ..request };
    let answer = exchange(&house.alice, request.clone()).await.unwrap();
    let outcomes: Vec<_> = answer.results.iter().map(|it| it.outcome()).collect();
    use MutationOutcome::{Applied, Conflict, Rejected};
    assert_eq!(outcomes, [Conflict, Applied, Rejected]);
    let conflict = answer.results[0].conflict.clone().unwrap();
    assert!(!conflict.base_known, "what it was based on is no longer kept");

    // Long after, its answers are forgotten, but not that they were given.
    compact_in(&house.store, 91).await;
    verified(&house.store).await;
    let again = exchange(&house.alice, ExchangeRequest { cursor: None, ..request }).await.unwrap();
    for result in again.results {
        let first = result.replayed && result.outcome() == Applied;
        let used = result.rejection.is_some_and(|it| it.reason() == RejectionReason::SequenceUsed);
        assert!(first || used, "{}", result.mutation_id);
    }
    assert_eq!(proven(&house.alice).await.head, 7);
}

/// As long as an answer is kept, what it speaks of is kept.
#[tokio::test(flavor = "multi_thread")]
async fn answers_stay_whole() {
    let house = House::new().await;
    house.write(six()).await;
    let stale = Mutation { base: Some(1), ..put("c1", "1", "{\"n\":0}") };
    let first = house.alice.mutate(stale.clone()).await.unwrap();
    assert_eq!((first.outcome(), first.revision), (MutationOutcome::Conflict, 5));
    let sql = "update answers set answered_at = now() + interval '1 year'";
    house.database.connect().await.execute(sql).await.unwrap();
    house.write([put("m7", "1", "{\"n\":7}"), delete("m8", "1")]).await;
    compact_in(&house.store, 91).await;
    assert_eq!(house.rows().await.0, [5, 6, 8], "5 is told, of 8 a conflict is open");
    let again = house.alice.mutate(stale).await.unwrap();
    assert_eq!((again.replayed, again.record), (true, first.record));
    let sql = "update answers set answered_at = now()";
    house.database.connect().await.execute(sql).await.unwrap();
    let forgotten = compact_in(&house.store, 91).await;
    assert_eq!((forgotten.answers, forgotten.changes), (1, 1));
    assert_eq!(house.rows().await.0, [6, 8]);
    verified(&house.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_keeps_longer_but_not_shorter() {
    let house = House::new().await;
    let days = |days: i64| Some(prost_types::Duration { seconds: days * 86_400, nanos: 0 });
    let admin = house.server.admin("alice").await;
    let policy = |name: &str, log, tombstone| Policy {
        collection: name.into(),
        log_retention: days(log),
        tombstone_retention: days(tombstone),
        ..Default::default()
    };
    admin.set_policy(policy("kept", 100, 200)).await.unwrap();
    admin.set_policy(policy("brief", 1, 1)).await.unwrap();
    let of = |collection: &str, mut it: Mutation| {
        it.key.as_mut().unwrap().collection = collection.into();
        it.id = format!("{collection}-{}", it.id);
        it
    };
    for collection in ["kept", "brief", "task"] {
        house.write(six().map(|it| of(collection, it))).await;
    }
    assert_eq!(compact_in(&house.store, 2).await, Forgotten::default(), "cursors may resume");
    let forgotten = compact_in(&house.store, 31).await;
    assert_eq!((forgotten.changes, forgotten.tombstones), (6, 1));
    let forgotten = compact_in(&house.store, 101).await;
    assert_eq!((forgotten.changes, forgotten.tombstones), (3, 1));
    let forgotten = compact_in(&house.store, 201).await;
    assert_eq!((forgotten.changes, forgotten.tombstones), (0, 1));
    verified(&house.store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn active_devices_are_waited_for_within_a_bound() {
    let house = House::new().await;
    house.write(six()).await;
    let acknowledge = async |revision: i64, days: i32| {
        let sql = "insert into acknowledgements (space_id, author, device, revision, updated_at)
             select id, 'alice', 'phone', $1, now() + make_interval(days => $2) from spaces
             on conflict (space_id, author, device) do update
             set revision = excluded.revision, updated_at = excluded.updated_at";
        let query = sqlx::query(sql).bind(revision).bind(days);
        query.execute(&mut house.database.connect().await).await.unwrap();
    };
    let floor = async || proven(&house.alice).await.floor;
    acknowledge(3, 20).await;
    compact_in(&house.store, 31).await;
    assert_eq!((floor().await, house.rows().await.0), (3, vec![2, 3, 4, 5, 6]));
    acknowledge(4, 40).await;
    compact_in(&house.store, 45).await;
    assert_eq!(floor().await, 4);
    compact_in(&house.store, 59).await;
    assert_eq!(floor().await, 4, "it is active");
    // It goes on acknowledging, but too little.
    acknowledge(5, 60).await;
    compact_in(&house.store, 61).await;
    assert_eq!(floor().await, 6, "nobody is waited for that long");
    verified(&house.store).await;
    // Who has fallen silent is not waited for.
    house.write([put("m7", "1", "{\"n\":7}")]).await;
    acknowledge(5, -10).await;
    compact_in(&house.store, 31).await;
    assert_eq!(floor().await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_compacts_at_a_time() {
    let database = Database::create().await;
    let store = database.store().await;
    let held = store.compactor().await.unwrap().expect("nobody compacts");
    let now = Clock::system().now_to_store();
    assert_eq!(compact_once(&store, RETENTION, now).await.unwrap(), None);
    held.close().await.unwrap();
    // The lock is free once the connection has ended.
    wait_for("the lock", async || compact_once(&store, RETENTION, now).await.unwrap()).await;
}

/// A compaction that waits for a writer, and one that a writer waits for, take a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_is_being_written_is_left_in_peace() {
    let house = House::new().await;
    house.write(six()).await;
    let mut other = PgConnection::connect(&house.database.url).await.unwrap();
    let mut writing = other.begin().await.unwrap();
    writing.execute("select 1 from spaces for update").await.unwrap();
    let now = Clock::system().now_to_store() + DAY * 31;
    let failed = compact_once(&house.store, RETENTION, now).await.unwrap_err();
    assert!(failed.is_retryable(), "{failed:?}");
    writing.rollback().await.unwrap();
    assert_eq!(house.rows().await.0.len(), 6, "nothing happened");
    compact_in(&house.store, 31).await;
    verified(&house.store).await;
}

/// A tombstone that somebody gives an answer about, while it is to be forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_meanwhile_stays() {
    let house = House::new().await;
    house.write(six()).await;
    compact_in(&house.store, 31).await;
    let mut other = house.database.connect().await;
    let mut telling = other.begin().await.unwrap();
    let space: Uuid = sqlx::query_scalar("update spaces set answered = answered + 1 returning id")
        .fetch_one(&mut *telling)
        .await
        .unwrap();
    let sql = "insert into answers (space_id, mutation_id, fingerprint, outcome, record_revision,
             answered_at)
         values ($1, 'c', '', 2, 4, now())";
    sqlx::query(sql).bind(space).execute(&mut *telling).await.unwrap();
    let mut burying = JoinSet::new();
    let compactor = async || house.store.compactor().await.unwrap();
    let mut compactor = wait_for("the right to compact", compactor).await;
    burying.spawn(async move {
        compactor.bury(SpaceId(space), &[Revision::new(4).unwrap()]).await.unwrap()
    });
    let mut watching = house.database.connect().await;
    wait_for("who waits", async || waiting_since(&mut watching).await.pop()).await;
    telling.commit().await.unwrap();
    assert_eq!(burying.join_all().await, [0]);
    assert_eq!(house.rows().await, (vec![4, 5, 6], vec![4, 5, 6]));
}
