//! That statements find by an index what they need, however much there is beside it.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use super::{OPEN, records_with_keys, select, with_ids, with_keys};
use crate::client::store::write::{EDITED, FINISHED, MOVED, update};

#[tokio::test]
async fn nothing_reads_a_whole_space() {
    let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    sqlx::raw_sql(include_str!("../schema.sql")).execute(&mut db).await.unwrap();
    for (sql, by) in [
        (with_ids(64), "(id=?)"),
        (with_keys(64), "entries_of_record (space=? AND collection=? AND record=?)"),
        (records_with_keys(64), "sqlite_autoindex_records_1 (space=? AND collection=? AND id=?)"),
        (select(OPEN), "PRIMARY KEY (space=? AND number>?)"),
        (update(MOVED, 64), "PRIMARY KEY (space=? AND number=?)"),
        (update(EDITED, 64), "PRIMARY KEY (space=? AND number=?)"),
        (update(FINISHED, 64), "PRIMARY KEY (space=? AND number=?)"),
    ] {
        let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let plan = sqlx::query(sql).fetch_all(&mut db).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(3)).collect();
        assert!(plan.iter().any(|step| step.contains(by)), "{by}: {plan:?}");
    }
}
