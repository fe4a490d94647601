//! Undeletions at the same time as other writes.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use sqlx::{Connection, Executor, PgConnection};
use syncline::rpc::proto::{DocumentForm, MutationOutcome, MutationResult, UndeleteRecordRequest};

use super::{House, delete, undelete};
use crate::support::{Client, TestServer, json, key, put, scale, text, wait_for};

/// Keeps everybody from writing to any space, until it is released.
struct Locked(PgConnection);

impl Locked {
    async fn all(house: &House) -> Self {
        let mut connection = house.database.connect().await;
        connection.execute("begin; select * from spaces for update").await.unwrap();
        Self(connection)
    }

    /// Waits until a write stands before the lock.
    async fn met(&mut self) {
        let sql = "select 1 from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'";
        self.find("a write to wait", sql).await;
    }

    /// Waits until an undeletion has read the document that it is to bring back.
    async fn read(&mut self) {
        let sql = "select 1 from pg_stat_activity
             where datname = current_database() and state = 'idle'
                 and query like '%with recursive way (revision, previous_revision%'";
        self.find("the document to be read", sql).await;
    }

    async fn find(&mut self, what: &str, sql: &'static str) {
        // Within a transaction these figures stand still, unless they are let go.
        wait_for(what, async || {
            self.0.execute("select pg_stat_clear_snapshot()").await.unwrap();
            sqlx::query(sql).fetch_optional(&mut self.0).await.unwrap().map(drop)
        })
        .await;
    }

    async fn release(mut self) {
        self.0.execute("rollback").await.unwrap();
        self.0.close().await.unwrap();
    }
}

/// A put of one device and an undeletion of another, which reads before the put is
/// written, and is decided after it: the undeletion's answer.
async fn meet(house: &House, put_by: &str, undeleted_by: &str) -> MutationResult {
    let alice = &house.alice;
    alice.mutate_from("desk", put("m1", "1", r#"{"n":1}"#)).await.unwrap();
    alice.mutate_from("desk", delete("m2", "1")).await.unwrap();
    let mut locked = Locked::all(house).await;
    let request = UndeleteRecordRequest {
        device: undeleted_by.into(),
        mutation_id: "u".into(),
        key: Some(key("1")),
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    };
    let write = alice.mutate_from(put_by, put("m3", "1", r#"{"n":3}"#));
    let then = async {
        locked.met().await;
        let mut spaces = alice.spaces.clone();
        let release = async {
            locked.read().await;
            locked.release().await;
        };
        tokio::join!(spaces.undelete_record(request), release).0
    };
    let (written, undeleted) = tokio::join!(write, then);
    assert_eq!(written.unwrap().revision, 3);
    undeleted.unwrap().into_inner().result.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_recreates_meanwhile_is_not_overwritten() {
    let house = House::new().await;
    let result = meet(&house, "laptop", "phone").await;
    assert_eq!(result.outcome(), MutationOutcome::Conflict);
    let conflict = result.conflict.unwrap();
    assert_eq!(conflict.client.unwrap().document, json(r#"{"n":1}"#));
    assert_eq!(text(&result.record.unwrap().document.unwrap()), r#"{"n":3}"#);
    assert_eq!(house.alice.task("1").await.unwrap(), r#"{"n":3}"#);
    assert_eq!(house.alice.head().await, 3);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_s_own_write_is_there_already() {
    let house = House::new().await;
    let result = meet(&house, "phone", "phone").await;
    assert_eq!(crate::support::show(&result), "rejected ALREADY_EXISTS");
    assert_eq!(house.alice.task("1").await.unwrap(), r#"{"n":3}"#);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_undeletion_sent_many_times_at_once_takes_effect_once() {
    let house = House::new().await;
    let other = TestServer::start(&house.database).await;
    let clients = [house.alice.clone(), other.client("alice").await];
    for round in 0..4 * scale() {
        let task = round.to_string();
        let alice = &clients[0];
        alice.mutate(put(&format!("put-{round}"), &task, r#"{"n":1}"#)).await.unwrap();
        alice.mutate(delete(&format!("delete-{round}"), &task)).await.unwrap();
        let before = alice.head().await;
        let id = format!("u{round}");
        let send = |client: &Client| {
            let (client, id, task) = (client.clone(), id.clone(), task.clone());
            async move { undelete(&client, &id, &task, 0).await.unwrap() }
        };
        let answers = join_all(clients.iter().cycle().take(12).map(send)).await;
        let first = answers.iter().filter(|it| !it.replayed).count();
        let told: BTreeSet<_> =
            answers.iter().map(|it| (it.outcome().as_str_name(), it.revision)).collect();
        assert_eq!(told, BTreeSet::from([("MUTATION_OUTCOME_APPLIED", before + 1)]));
        assert_eq!((first, alice.head().await), (1, before + 1));
    }
    other.stop().await;
    house.server.stop().await;
}
