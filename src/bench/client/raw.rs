//! The same files and the like of them by SQLite alone, with the settings that the library has.

use std::path::Path;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};

use super::Loaded;
use crate::bench::load::Work;
use crate::bench::target::document;

/// The rows that one statement inserts where many are at hand.
const CHUNK: usize = 64;

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .statement_cache_capacity(256)
        .disable_statement_logging()
}

/// A connection that reads a file of the library.
pub(super) async fn reader(file: &Path) -> anyhow::Result<SqliteConnection> {
    Ok(options(file).read_only(true).connect().await?)
}

/// A connection that writes a new file of one plain table, whose commits wait for the disk.
pub(super) async fn writer(file: &Path) -> anyhow::Result<SqliteConnection> {
    let options = options(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut db = options.connect().await?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS rows (space INTEGER NOT NULL, collection TEXT NOT NULL, \
         id TEXT NOT NULL, document TEXT NOT NULL, UNIQUE (space, collection, id)) STRICT",
    )
    .execute(&mut db)
    .await?;
    Ok(db)
}

/// What the library reads of a record.
pub(super) const SHOWN: &str = "SELECT id, shown, dirty, revision FROM records \
     WHERE space = 1 AND collection = 'task' AND shown IS NOT NULL";

/// Takes out of a row what the library does.
pub(super) fn decoded(row: &SqliteRow) -> anyhow::Result<(String, String, i64, Option<i64>)> {
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
}

/// Reads records by id.
pub(super) struct Getter {
    pub(super) db: SqliteConnection,
    pub(super) records: u64,
    pub(super) number: u64,
}

impl Work for Getter {
    async fn work(&mut self) -> anyhow::Result<u64> {
        self.number = super::local::next(self.number, self.records);
        let query = sqlx::query(
            "SELECT id, shown, dirty, revision FROM records WHERE space = ?1 AND collection = ?2 \
             AND id = ?3 AND shown IS NOT NULL",
        );
        let row = query.bind(1).bind("task").bind(Loaded::id(self.number));
        let (id, _, _, _) = decoded(&row.fetch_one(&mut self.db).await?)?;
        anyhow::ensure!(!id.is_empty(), "another record");
        Ok(1)
    }
}

/// Inserts rows one by one, so many in each transaction.
pub(super) struct Inserter {
    pub(super) db: SqliteConnection,
    pub(super) group: u64,
    pub(super) number: u64,
}

impl Work for Inserter {
    async fn work(&mut self) -> anyhow::Result<u64> {
        if self.group > 1 {
            sqlx::query("BEGIN IMMEDIATE").execute(&mut self.db).await?;
        }
        for _ in 0..self.group {
            self.number += 1;
            sqlx::query("INSERT INTO rows VALUES (?1, ?2, ?3, ?4)")
                .bind(1)
                .bind("task")
                .bind(format!("raw-{}", self.number))
                .bind(document(self.number))
                .execute(&mut self.db)
                .await?;
        }
        if self.group > 1 {
            sqlx::query("COMMIT").execute(&mut self.db).await?;
        }
        Ok(self.group)
    }
}

/// Inserts rows in one transaction, in as few statements as may be.
pub(super) async fn insert(
    db: &mut SqliteConnection,
    rows: &[(String, String)],
) -> anyhow::Result<()> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *db).await?;
    for chunk in rows.chunks(CHUNK) {
        let marks = vec!["(1, 'task', ?, ?)"; chunk.len()].join(",");
        let sql = format!("INSERT INTO rows VALUES {marks}");
        let query = sqlx::query(AssertSqlSafe(sql));
        let query = chunk.iter().fold(query, |query, (id, json)| query.bind(id).bind(json));
        query.execute(&mut *db).await?;
    }
    sqlx::query("COMMIT").execute(db).await?;
    Ok(())
}
