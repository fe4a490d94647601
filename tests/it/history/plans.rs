//! Statements whose plans were made while the tables were empty, and which nobody has
//! counted the rows for since: they must not read a whole space for each entry.

use sqlx::Executor;
use syncline::clock::Clock;
use syncline::rpc::proto::{ChangesSinceRequest, ListRecordHistoryRequest, ListRecordsRequest};
use syncline::store::{Settings, Store};

use super::{of, page, task_at};
use crate::support::{Client, Database, TestServer, put};

/// Far more than a statement may look at a thousand times.
const ROWS: i64 = 150_000;

/// All pages once: how many entries each had.
async fn read(client: &Client) -> [usize; 4] {
    let history = ListRecordHistoryRequest { page_size: 1_000, ..of("1") };
    let history = page(client, history).await.unwrap().steps.len();
    // Far back, and so step by step.
    let early = usize::from(task_at(client, "1", ROWS / 2).await.is_ok());
    let since = |every_step| ChangesSinceRequest {
        page_size: 1_000,
        every_step,
        ..ChangesSinceRequest::default()
    };
    client.stub.clone().changes_since(since(false)).await.unwrap();
    let steps = client.stub.clone().changes_since(since(true)).await.unwrap().into_inner();
    let list = ListRecordsRequest {
        collection: "task".into(),
        page_size: 1_000,
        ..ListRecordsRequest::default()
    };
    let list = client.stub.clone().list_records(list).await.unwrap().into_inner();
    [history, early, steps.changes.len(), list.records.len()]
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_of_empty_tables_serve_full_ones() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    for table in ["spaces", "changes", "latest", "conflicts"] {
        let sql = format!("alter table {table} set (autovacuum_enabled = off)");
        connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    }
    // One connection, which has made its plans before there is anything.
    let settings = Settings { read_connections: 1, allow_unsafe: false };
    let store = Store::connect(&database.url, settings).await.unwrap();
    let server = TestServer::start_on(store, Clock::system(), |_config| {}).await;
    let alice = server.client("alice").await;
    alice.mutate(put("first", "1", "{}")).await.unwrap();
    assert_eq!(read(&alice).await, [1, 0, 1, 1]);
    // A hundred records take turns.
    let fill = "insert into changes (space_id, revision, collection, id, action, document,
             previous_revision, author, mutation_id, fingerprint, committed_at, micros)
         select s.id, n, 'task', (n % 100)::text, 2, '{}', greatest(n - 100, 0), 'alice',
             'm' || n, '', now(), n
         from spaces s, generate_series(2, $1) n";
    sqlx::query(fill).bind(ROWS).execute(&mut connection).await.unwrap();
    let fill = "insert into latest (space_id, collection, id, revision, deleted, bytes)
         select s.id, 'task', (n % 100)::text, n, false, 2
         from spaces s, generate_series($1 - 99, $1) n
         on conflict (space_id, collection, id) do update set revision = excluded.revision";
    sqlx::query(fill).bind(ROWS).execute(&mut connection).await.unwrap();
    sqlx::query("update spaces set head = $1").bind(ROWS).execute(&mut connection).await.unwrap();
    assert_eq!(read(&alice).await, [1_000, 1, 1_000, 100]);
    server.stop().await;
}
