//! What walks through a space looks each record up by its key, whatever PostgreSQL knows
//! of the tables: a plan that finds it by another index reads the space for each.

use sqlx::Executor;
use syncline::rpc::proto::ReplaceAllResponse;

use super::replace::{counts, record, replace};
use crate::support::{Database, TestServer, put};

/// Many enough that reading the space for each would take minutes.
const ROWS: i64 = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_large_space_is_walked_through_once() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    alice.mutate(put("first", "0", "{}")).await.unwrap();
    let mut connection = database.connect().await;
    let fill = [
        "insert into spaces (id, name, epoch, head)
         select gen_random_uuid(), 'users/x' || n, gen_random_uuid(), 50
         from generate_series(1, 1000 + 0 * $1) n",
        "insert into changes (space_id, revision, collection, id, action, document,
             previous_revision, author, mutation_id, fingerprint, committed_at, micros)
         select s.id, n, 'task', (n - 1)::text, 1, '{}', 0, 'x', 'm' || n, '', now(), n
         from spaces s, generate_series(1, 50 + 0 * $1) n where s.head = 50",
        "insert into latest (space_id, collection, id, revision, deleted, bytes)
         select s.id, 'task', (n - 1)::text, n, false, 2
         from spaces s, generate_series(1, 50 + 0 * $1) n where s.head = 50",
        "insert into changes (space_id, revision, collection, id, action, document,
             previous_revision, author, mutation_id, fingerprint, committed_at, micros)
         select s.id, n, 'task', (n - 1)::text, 1, '{}', 0, 'alice', 'm' || n, '', now(), n
         from spaces s, generate_series(2, $1) n where s.head = 1",
        "insert into latest (space_id, collection, id, revision, deleted, bytes)
         select s.id, 'task', (n - 1)::text, n, false, 2 from spaces s, generate_series(2, $1) n where s.head = 1",
        "update spaces set head = $1 where head = 1",
    ];
    for sql in fill {
        sqlx::query(sql).bind(ROWS).execute(&mut connection).await.unwrap();
    }
    connection.execute("delete from digests").await.unwrap();
    let migration = include_str!("../../../migrations/0006_whole_state.sql");
    let tally = &migration[migration.find("insert into digests").unwrap()..];
    let tally = tally.split_inclusive(';').next().unwrap();
    connection.execute(sqlx::AssertSqlSafe(tally)).await.unwrap();
    let migration = include_str!("../../../migrations/0009_access.sql");
    let usage = &migration[migration.find("update spaces").unwrap()..];
    let usage = usage.split_inclusive(';').next().unwrap();
    connection.execute(sqlx::AssertSqlSafe(usage)).await.unwrap();
    // A thousand spaces are small: so are all, as far as is known.
    connection.execute("analyze").await.unwrap();
    let count = usize::try_from(ROWS).unwrap();
    let new: Vec<_> = (0..count).map(|id| record(&id.to_string(), "{}")).collect();
    let answer: ReplaceAllResponse = replace(&alice, ("r", Some(ROWS)), &new).await.unwrap();
    assert_eq!(counts(&answer), [0, 0, 0, ROWS]);
    let verified = database.store().await.verify(None).await.unwrap().unwrap();
    let all = ROWS + 1_000 * 50;
    assert_eq!((verified.records, verified.changes), (all, all));
}
