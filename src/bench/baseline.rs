//! What PostgreSQL does without us: the same rows, written and read straight,
//! in tables of the bench's own that look like the service's.

use std::str::FromStr;

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

use super::load::Work;
use super::target::document;

/// The bench's own schema in the server's database.
pub(super) async fn create_tables(url: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await.context("cannot reach the database")?;
    sqlx::raw_sql(
        "drop schema if exists syncline_bench cascade;
         create schema syncline_bench;
         create table syncline_bench.spaces (like spaces including all);
         create table syncline_bench.latest (like latest including all);
         create table syncline_bench.changes (like changes including all);
         create table syncline_bench.rows (
             space_id uuid not null, revision bigint not null, id text collate \"C\" not null,
             document jsonb not null, primary key (space_id, revision));
         create unique index on syncline_bench.rows (space_id, id);",
    )
    .execute(&mut connection)
    .await?;
    Ok(connection.close().await?)
}

/// Leaves the database as it was.
pub(super) async fn drop_tables(url: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql("drop schema syncline_bench cascade").execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// One statement that writes what a mutation of ours writes: the head, the
/// record and the change.
const SAME_ROWS: &str = "with moved as (
         update syncline_bench.spaces set head = head + 1 where id = $1 returning head
     ), logged as (
         insert into syncline_bench.changes (space_id, revision, collection, id, action, document,
             previous_revision, author, mutation_id, fingerprint, committed_at)
         select $1, head, 'task', $2, 1, $3, 0, 'bench', $4, $5, now() from moved
     )
     insert into syncline_bench.latest (space_id, collection, id, revision, foreign_revision,
         deleted, bytes)
     select $1, 'task', $2, head, 0, false, octet_length($3) from moved";

/// A client that commits one write at a time.
pub(super) struct SingleRows {
    connection: PgConnection,
    space: Uuid,
    number: u64,
    name: usize,
}

impl SingleRows {
    /// Clients on connections of their own, in a space each or all in one.
    pub(super) async fn clients(
        url: &str,
        count: usize,
        one_space: bool,
    ) -> anyhow::Result<Vec<Self>> {
        let shared = Uuid::new_v4();
        let mut clients = Vec::new();
        for name in 0..count {
            let mut connection = connect(url).await?;
            let space = if one_space { shared } else { Uuid::new_v4() };
            sqlx::query(
                "insert into syncline_bench.spaces (id, name, epoch) values ($1, '', $1)
                 on conflict do nothing",
            )
            .bind(space)
            .execute(&mut connection)
            .await?;
            clients.push(Self { connection, space, number: 0, name });
        }
        Ok(clients)
    }
}

impl Work for SingleRows {
    async fn work(&mut self) -> anyhow::Result<u64> {
        self.number += 1;
        sqlx::query(SAME_ROWS)
            .bind(self.space)
            .bind(format!("{}-{}", self.name, self.number))
            .bind(document(self.number))
            .bind(Uuid::new_v4().to_string())
            .bind([7_u8; 32].as_slice())
            .execute(&mut self.connection)
            .await?;
        Ok(1)
    }
}

/// A client that commits groups of rows into one table with two indexes.
pub(super) struct Groups {
    connection: PgConnection,
    space: Uuid,
    revision: i64,
    size: i64,
}

impl Groups {
    /// Clients on connections of their own, with groups of this size.
    pub(super) async fn clients(url: &str, count: usize, size: i64) -> anyhow::Result<Vec<Self>> {
        let mut clients = Vec::new();
        for _ in 0..count {
            let connection = connect(url).await?;
            clients.push(Self { connection, space: Uuid::new_v4(), revision: 0, size });
        }
        Ok(clients)
    }
}

impl Work for Groups {
    async fn work(&mut self) -> anyhow::Result<u64> {
        let revisions: Vec<i64> = (1..=self.size).map(|it| self.revision + it).collect();
        self.revision += self.size;
        let ids: Vec<_> = revisions.iter().map(|_| Uuid::new_v4().to_string()).collect();
        let numbers = revisions.iter().map(|revision| revision.unsigned_abs());
        let documents: Vec<_> = numbers.map(document).collect();
        sqlx::query(
            "insert into syncline_bench.rows (space_id, revision, id, document)
             select $1, r, i, d::jsonb from unnest($2::bigint[], $3::text[], $4::text[]) w (r, i, d)",
        )
        .bind(self.space)
        .bind(revisions)
        .bind(ids)
        .bind(documents)
        .execute(&mut self.connection)
        .await?;
        Ok(self.size.unsigned_abs())
    }
}

/// A client that reads a table of documents in pages, from end to end.
pub(super) struct Pages {
    connection: PgConnection,
    space: Uuid,
    after: i64,
}

impl Pages {
    /// Clients on connections of their own, all for one new space with so many
    /// rows.
    pub(super) async fn clients(url: &str, count: usize, rows: u64) -> anyhow::Result<Vec<Self>> {
        let space = Uuid::new_v4();
        let size = 500;
        let mut filler = Groups { connection: connect(url).await?, space, revision: 0, size };
        for _ in 0..rows / size.unsigned_abs() {
            filler.work().await?;
        }
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(Self { connection: connect(url).await?, space, after: 0 });
        }
        Ok(clients)
    }
}

impl Work for Pages {
    async fn work(&mut self) -> anyhow::Result<u64> {
        let rows: Vec<(i64, String, sqlx::types::Json<Box<serde_json::value::RawValue>>)> =
            sqlx::query_as(
                "select revision, id, document from syncline_bench.rows
             where space_id = $1 and revision > $2 order by revision limit 1000",
            )
            .bind(self.space)
            .bind(self.after)
            .fetch_all(&mut self.connection)
            .await?;
        self.after = match rows.last() {
            Some((revision, ..)) if rows.len() == 1_000 => *revision,
            _ => 0,
        };
        Ok(rows.len() as u64)
    }
}

/// A connection whose plans follow the indexes, as ours do: otherwise the
/// baseline would suffer from a table that was never analysed.
async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?.options([
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_sort", "off"),
        ("jit", "off"),
    ]);
    Ok(options.disable_statement_logging().connect().await?)
}
