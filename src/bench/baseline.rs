//! What PostgreSQL does without us: the same rows, written and read straight,
//! in tables of the bench's own that look like the service's.

use std::str::FromStr;

use anyhow::Context;
use serde_json::value::RawValue;
use sqlx::postgres::PgConnectOptions;
use sqlx::types::Json;
use sqlx::{ConnectOptions, Connection, PgConnection};
use time::OffsetDateTime;
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

/// Drops the bench's schema. After an error it stays, and the next run drops it.
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
             previous_revision, author, mutation_id, fingerprint, micros, committed_at)
         select $1, head, 'task', $2, 1, $3, 0, 'bench', $4, $5, 1, now() from moved
     )
     insert into syncline_bench.latest (space_id, collection, id, revision, deleted, bytes)
     select $1, 'task', $2, head, false, octet_length($3) from moved";

/// How a baseline writes the rows of one mutation.
#[derive(Clone, Copy)]
pub(super) enum Single {
    /// begin, one statement for each table, commit: as services do.
    Transaction,
    /// Everything in one statement that commits by itself: as fast as it gets.
    Statement,
}

/// A client that commits one write at a time.
pub(super) struct SingleRows {
    connection: PgConnection,
    how: Single,
    space: Uuid,
    number: u64,
    name: usize,
}

impl SingleRows {
    /// Clients on connections of their own, in a space each or all in one.
    pub(super) async fn clients(
        url: &str,
        count: usize,
        how: Single,
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
            clients.push(Self { connection, how, space, number: 0, name });
        }
        Ok(clients)
    }
}

impl Work for SingleRows {
    async fn work(&mut self) -> anyhow::Result<u64> {
        self.number += 1;
        let id = format!("{}-{}", self.name, self.number);
        let (document, mutation) = (document(self.number), Uuid::new_v4().to_string());
        match self.how {
            Single::Transaction => self.transaction(&id, &document, &mutation).await?,
            Single::Statement => {
                sqlx::query(SAME_ROWS)
                    .bind(self.space)
                    .bind(id)
                    .bind(document)
                    .bind(mutation)
                    .bind([7_u8; 32].as_slice())
                    .execute(&mut self.connection)
                    .await?;
            }
        }
        Ok(1)
    }
}

impl SingleRows {
    async fn transaction(
        &mut self,
        id: &str,
        document: &str,
        mutation: &str,
    ) -> anyhow::Result<()> {
        let mut transaction = self.connection.begin().await?;
        let head: i64 = sqlx::query_scalar(
            "update syncline_bench.spaces set head = head + 1 where id = $1 returning head",
        )
        .bind(self.space)
        .fetch_one(&mut *transaction)
        .await?;
        sqlx::query(
            "insert into syncline_bench.changes (space_id, revision, collection, id, action,
                 document, previous_revision, author, mutation_id, fingerprint, micros,
                 committed_at)
             values ($1, $2, 'task', $3, 1, $4, 0, 'bench', $5, $6, 1, now())",
        )
        .bind(self.space)
        .bind(head)
        .bind(id)
        .bind(document)
        .bind(mutation)
        .bind([7_u8; 32].as_slice())
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "insert into syncline_bench.latest (space_id, collection, id, revision, deleted, bytes)
             values ($1, 'task', $2, $3, false, octet_length($4))",
        )
        .bind(self.space)
        .bind(id)
        .bind(head)
        .bind(document)
        .execute(&mut *transaction)
        .await?;
        Ok(transaction.commit().await?)
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

/// A client that reads a space in pages, from end to end.
pub(super) struct Pages {
    connection: PgConnection,
    shape: Shape,
    space: Uuid,
    after: i64,
}

/// What a page is read from.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// The service's own tables: all that its clients are sent.
    Same,
    /// One table of revision, id and document.
    Plain,
}

impl Pages {
    /// Clients for the changes of a space of the service.
    pub(super) async fn same(url: &str, count: usize, space: Uuid) -> anyhow::Result<Vec<Self>> {
        Self::clients(url, count, Shape::Same, space).await
    }

    /// Clients for a plain table with so many rows.
    pub(super) async fn plain(url: &str, count: usize, rows: u64) -> anyhow::Result<Vec<Self>> {
        let space = Uuid::new_v4();
        let size = 500;
        let mut filler = Groups { connection: connect(url).await?, space, revision: 0, size };
        for _ in 0..rows / size.unsigned_abs() {
            filler.work().await?;
        }
        Self::clients(url, count, Shape::Plain, space).await
    }

    async fn clients(
        url: &str,
        count: usize,
        shape: Shape,
        space: Uuid,
    ) -> anyhow::Result<Vec<Self>> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(Self { connection: connect(url).await?, shape, space, after: 0 });
        }
        Ok(clients)
    }
}

/// A change, as its row has it.
type SameRow =
    (i64, String, String, i16, Option<String>, i64, String, Option<String>, String, OffsetDateTime);

const SAME_PAGE: &str = "select c.revision, c.collection, c.id, c.action, c.document,
         c.previous_revision, c.author, c.device, c.mutation_id, c.committed_at
     from (
         select space_id, revision from latest
         where space_id = $1 and revision > $2 order by revision limit 1000
     ) l
     left join changes c on c.space_id = l.space_id and c.revision = l.revision";

const PLAIN_PAGE: &str = "select revision, id, document from syncline_bench.rows
     where space_id = $1 and revision > $2 order by revision limit 1000";

impl Work for Pages {
    async fn work(&mut self) -> anyhow::Result<u64> {
        let (space, after) = (self.space, self.after);
        let revisions: Vec<i64> = match self.shape {
            Shape::Same => {
                let page = sqlx::query_as(SAME_PAGE).bind(space).bind(after);
                let rows: Vec<SameRow> = page.fetch_all(&mut self.connection).await?;
                rows.iter().map(|row| row.0).collect()
            }
            Shape::Plain => {
                let page = sqlx::query_as(PLAIN_PAGE).bind(space).bind(after);
                let rows: Vec<(i64, String, Json<Box<RawValue>>)> =
                    page.fetch_all(&mut self.connection).await?;
                rows.iter().map(|row| row.0).collect()
            }
        };
        self.after = revisions.last().copied().filter(|_| revisions.len() == 1_000).unwrap_or(0);
        Ok(revisions.len() as u64)
    }
}

/// A connection whose plans follow the indexes, as ours do: otherwise the
/// baseline would suffer from a table that was never analysed.
async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    let options = PgConnectOptions::from_str(url)?.options([
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_sort", "off"),
        ("jit", "off"),
        ("max_parallel_workers_per_gather", "0"),
    ]);
    Ok(options.disable_statement_logging().connect().await?)
}
