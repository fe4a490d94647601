//! How soon an app has something to show, and what an open client takes of memory.

use std::path::Path;

use anyhow::Context;
use sqlx::{AssertSqlSafe, Connection};
use tokio::time::Instant;

use super::raw::{self, SHOWN};
use super::{Loaded, once, open};
use crate::bench::Bench;
use crate::bench::host::{Host, until_asked_to_end};
use crate::bench::load::Measured;
use crate::bench::process::memory_bytes;
use crate::bench::report::Expected;
use crate::client::Query;
use crate::config::{BenchKind, BenchPlan};

/// Starts in a round.
const STARTS: usize = 20;
/// Records of the first page of an app.
const PAGE: u32 = 50;

/// From nothing to the first record, and to the first page.
pub(super) async fn cold(bench: &mut Bench, loaded: &Loaded) -> anyhow::Result<()> {
    let mut sums: [Option<Measured>; 4] = [const { None }; 4];
    // Not as they come: what one leaves in memory is there for the next.
    for _ in 0..STARTS {
        let starts = [
            first_record(loaded).await?,
            bare_start(loaded, 1).await?,
            first_page(loaded).await?,
            bare_start(loaded, PAGE).await?,
        ];
        for (sum, start) in sums.iter_mut().zip(starts) {
            match sum {
                Some(sum) => sum.add(&start)?,
                none => *none = Some(start),
            }
        }
    }
    let [Some(get), Some(bare_get), Some(page), Some(bare_page)] = sums else {
        anyhow::bail!("nothing was measured")
    };
    for (what, ours, bare) in [("get", &get, &bare_get), ("query of a page", &page, &bare_page)] {
        let name = format!("open of {} records and a {what}", loaded.records);
        let ours = bench.report.figure(&name, "starts", ours);
        let baseline = format!("baseline: SQLite opened, and the rows of a {what}");
        let bare = bench.report.figure(baseline, "starts", bare);
        bench.report.ratio(format!("{name} / SQLite"), Expected::Nothing, ours, bare);
    }
    Ok(())
}

async fn first_record(loaded: &Loaded) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let (client, space) = open(&loaded.file, &loaded.user).await?;
    let found = space.get("task", &Loaded::id(0)).await?;
    let measured = once(1, began)?;
    client.close().await;
    anyhow::ensure!(found.is_some(), "there is no first record");
    Ok(measured)
}

async fn first_page(loaded: &Loaded) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let (client, space) = open(&loaded.file, &loaded.user).await?;
    let found = space.query(&Query::all("task").limit(PAGE)).await?;
    let measured = once(1, began)?;
    client.close().await;
    anyhow::ensure!(!found.is_empty(), "there is no first page");
    Ok(measured)
}

async fn bare_start(loaded: &Loaded, rows: u32) -> anyhow::Result<Measured> {
    let began = Instant::now();
    let mut db = raw::reader(&loaded.file).await?;
    let sql = format!("{SHOWN} ORDER BY id LIMIT ?1");
    let found = sqlx::query(AssertSqlSafe(sql)).bind(rows).fetch_all(&mut db).await?;
    let found: Vec<_> = found.iter().map(raw::decoded).collect::<anyhow::Result<_>>()?;
    let measured = once(1, began)?;
    db.close().await?;
    anyhow::ensure!(!found.is_empty(), "there are no rows");
    Ok(measured)
}

/// What a process grows by that opens the file and reads a page.
pub(super) async fn memory(bench: &mut Bench, file: &Path, round: u32) -> anyhow::Result<()> {
    let mut kinds = ["host-client", "host-sqlite"];
    if round.is_multiple_of(2) {
        kinds.reverse();
    }
    let mut mib = [0.0; 2];
    for kind in kinds {
        let host = Host::start_with(kind, &["--file".as_ref(), file.as_os_str()]).await?;
        let bytes: u32 = host.uri.parse().context("the process did not tell its memory")?;
        host.end().await?;
        if let Some(mib) = mib.get_mut(usize::from(kind == "host-sqlite")) {
            *mib = f64::from(bytes) / f64::from(1 << 20);
        }
    }
    let [ours, bare] = mib;
    let report = &mut bench.report;
    report.amount("memory of an open client, MiB", Expected::Nothing, ours);
    report.amount("bare: memory of an open SQLite file, MiB", Expected::Nothing, bare);
    Ok(())
}

/// What that process does.
pub(crate) async fn host(plan: &BenchPlan) -> anyhow::Result<()> {
    let file = plan.file.as_deref().context("--file says which file to open")?;
    let before = memory_bytes();
    if plan.kind == BenchKind::HostSqlite {
        let mut db = raw::reader(file).await?;
        let sql = format!("{SHOWN} ORDER BY id LIMIT ?1");
        sqlx::query(AssertSqlSafe(sql)).bind(PAGE).fetch_all(&mut db).await?;
        let grown = memory_bytes().saturating_sub(before);
        return until_asked_to_end(&grown.to_string(), "-").await;
    }
    let mut db = raw::reader(file).await?;
    let user: String = sqlx::query_scalar("SELECT user FROM file").fetch_one(&mut db).await?;
    db.close().await?;
    let before = memory_bytes();
    let (client, space) = open(file, &user).await?;
    space.query(&Query::all("task").limit(PAGE)).await?;
    let grown = memory_bytes().saturating_sub(before);
    until_asked_to_end(&grown.to_string(), "-").await?;
    client.close().await;
    Ok(())
}
