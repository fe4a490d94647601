//! Reads, queries and writes of the local file, beside the same statements without the library.

use sqlx::AssertSqlSafe;
use tokio::time::Instant;

use super::raw::{self, SHOWN};
use super::{ALONE, Folder, Loaded, open};
use crate::bench::Bench;
use crate::bench::load::{Measured, Work, closed_loop, latencies};
use crate::bench::report::Expected;
use crate::bench::target::document;
use crate::client::{Query, Space};

/// Who writes at the same time.
const WRITERS: usize = 64;
/// Records that the query finds, or a hundredth of a small file.
const FOUND: u64 = 1_000;
/// The number that stands in the first of the documents.
const NUMBERS_FROM: u64 = 1_000_000_000;
/// How often a query is asked in a round.
const QUERIES: u64 = 10;

/// The number of the record that is read next: all of them, in no order.
pub(super) fn next(number: u64, records: u64) -> u64 {
    // A prime, so that it goes round by all of them.
    (number + 611_953) % records
}

/// Reads records by id.
struct Getter {
    space: Space,
    records: u64,
    number: u64,
}

impl Work for Getter {
    async fn work(&mut self) -> anyhow::Result<u64> {
        self.number = next(self.number, self.records);
        let found = self.space.get("task", &Loaded::id(self.number)).await?;
        anyhow::ensure!(found.is_some(), "a record is missing");
        Ok(1)
    }
}

/// Writes records, each of them durably.
struct Putter {
    space: Space,
    name: String,
    number: u64,
}

impl Work for Putter {
    async fn work(&mut self) -> anyhow::Result<u64> {
        self.number += 1;
        let fields: serde_json::Value = serde_json::from_str(&document(self.number))?;
        self.space.put("task", &format!("{}-{}", self.name, self.number), fields).await?;
        Ok(1)
    }
}

/// Reads by id, of one reader and of four.
pub(super) async fn reads(bench: &mut Bench, loaded: &Loaded) -> anyhow::Result<()> {
    let (seconds, records) = (bench.plan.seconds, loaded.records);
    for readers in [1, 4] {
        let (client, space) = open(&loaded.file, &loaded.user).await?;
        let getter = |number| Getter { space: space.clone(), records, number };
        let ours = closed_loop((0..readers).map(getter).collect(), seconds).await?;
        client.close().await;
        let mut bare = Vec::new();
        for number in 0..readers {
            bare.push(raw::Getter { db: raw::reader(&loaded.file).await?, records, number });
        }
        let bare = closed_loop(bare, seconds).await?;
        let name = format!("get by id, of {records}, {readers} at once");
        let ours = bench.report.figure(&name, "reads", &ours);
        let figure = format!("baseline: its statement, {readers} connections");
        let bare = bench.report.figure(figure, "reads", &bare);
        bench.report.ratio(format!("{name} / its statement"), Expected::Nothing, ours, bare);
    }
    Ok(())
}

/// A condition that fits a hundredth of what is there, or so: every record is looked at.
pub(super) async fn query(bench: &mut Bench, loaded: &Loaded) -> anyhow::Result<()> {
    let found = FOUND.min(loaded.records / 100).max(1);
    let (client, space) = open(&loaded.file, &loaded.user).await?;
    let bound = i64::try_from(NUMBERS_FROM + found)?;
    let asked = Query::all("task").lt("/number", bound);
    let mut ours = Asked::new()?;
    for _ in 0..QUERIES {
        let began = Instant::now();
        ours.note(space.query(&asked).await?.len(), found, began)?;
    }
    client.close().await;

    let mut db = raw::reader(&loaded.file).await?;
    let sql = format!(
        "{SHOWN} AND json_type(shown, ?1) IN ('integer','real') \
         AND json_extract(shown, ?1) < ?2 ORDER BY id ASC"
    );
    let mut bare = Asked::new()?;
    for _ in 0..QUERIES {
        let began = Instant::now();
        let query = sqlx::query(AssertSqlSafe(sql.as_str())).bind("$.\"number\"");
        let rows = query.bind(bound).fetch_all(&mut db).await?;
        let rows: anyhow::Result<Vec<_>> = rows.iter().map(raw::decoded).collect();
        bare.note(rows?.len(), found, began)?;
    }
    let name = format!("query that finds {found} of {}", loaded.records);
    let ours = bench.report.figure(&name, "queries", &ours.0);
    let bare = bench.report.figure("baseline: its statement", "queries", &bare.0);
    bench.report.ratio(format!("{name} / its statement"), Expected::Nothing, ours, bare);
    Ok(())
}

/// The same question, some times.
struct Asked(Measured);

impl Asked {
    fn new() -> anyhow::Result<Self> {
        let elapsed = std::time::Duration::ZERO;
        Ok(Self(Measured { operations: 0, elapsed, latency: latencies()?, cpu: None }))
    }

    fn note(&mut self, rows: usize, expected: u64, began: Instant) -> anyhow::Result<()> {
        anyhow::ensure!(rows as u64 == expected, "{rows} rows instead of {expected}");
        self.0.add(&super::once(1, began)?)
    }
}

/// Durable writes, of one writer and of many, beside rows of a plain table.
pub(super) async fn writes(bench: &mut Bench, folder: &Folder) -> anyhow::Result<()> {
    let seconds = bench.plan.seconds;
    for writers in [1, WRITERS] {
        let (client, space) = open(&folder.file(&format!("writes-{writers}.db")), ALONE).await?;
        let putter =
            |writer| Putter { space: space.clone(), name: format!("w{writer}"), number: 0 };
        let ours = closed_loop((0..writers).map(putter).collect(), seconds).await?;
        client.close().await;
        let db = raw::writer(&folder.file(&format!("raw-{writers}.db"))).await?;
        let bare = raw::Inserter { db, group: writers as u64, number: 0 };
        let bare = closed_loop(vec![bare], seconds).await?;
        let name = format!("put, on disk, {writers} at once");
        let ours = bench.report.figure(&name, "writes", &ours);
        let figure = match writers {
            1 => "a transaction for each INSERT".to_owned(),
            many => format!("a transaction for {many} INSERTs"),
        };
        let bare = bench.report.figure(format!("baseline: {figure}"), "rows", &bare);
        bench.report.ratio(format!("{name} / {figure}"), Expected::Nothing, ours, bare);
    }
    Ok(())
}
