//! Loading and catching up, beside what PostgreSQL's own programs do with the same rows.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use futures_util::TryStreamExt;
use sqlx::postgres::PgPoolCopyExt;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::Instant;
use uuid::Uuid;

use super::{RECORDS, once, replace, space};
use crate::bench::Bench;
use crate::bench::load::Measured;
use crate::bench::process::memory_bytes;
use crate::bench::report::Expected;
use crate::bench::target::{Stub, document};
use crate::postgres::program;
use crate::rpc::proto::{ChangesSinceRequest, DocumentForm, SnapshotRequest};

/// A snapshot adds at most so many MiB to a process that has both its ends.
const MEMORY_MIB_MAX: f64 = 64.0;
/// Records of the large space, unless something else is asked for.
const LARGE: u64 = 500_000;

/// So many documents into a table with a key, as fast as PostgreSQL takes them.
pub(super) async fn copy_in(url: &str, records: u64) -> anyhow::Result<Measured> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(
        "drop table if exists syncline_bench_copy;
         create table syncline_bench_copy (
             collection text, id text, document text, primary key (collection, id))",
    )
    .execute(&mut connection)
    .await?;
    let began = Instant::now();
    let sql = "copy syncline_bench_copy from stdin";
    let mut copy = connection.copy_in_raw(sql).await?;
    for first in (0..records).step_by(1_000) {
        let mut rows = String::new();
        for number in first..(first + 1_000).min(records) {
            writeln!(rows, "task\t{number:07}\t{}", document(number))?;
        }
        copy.send(rows.into_bytes()).await?;
    }
    let rows = copy.finish().await?;
    let measured = once(rows, began)?;
    sqlx::raw_sql("drop table syncline_bench_copy").execute(&mut connection).await?;
    connection.close().await?;
    Ok(measured)
}

/// From the beginning, in pages; every one of these changes is a record's last.
pub(super) async fn catch_up(
    bench: &mut Bench,
    stub: &mut Stub,
    space: &Uuid,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let (mut cursor, mut changes) = (None, 0);
    loop {
        let request = ChangesSinceRequest {
            cursor,
            page_size: 1_000,
            document_form: DocumentForm::Json.into(),
            ..Default::default()
        };
        let page = stub.changes_since(request).await?.into_inner();
        changes += page.changes.len() as u64;
        if !page.has_more {
            break;
        }
        cursor = page.cursor;
    }
    anyhow::ensure!(changes == RECORDS, "{changes} changes");
    let ours = once(changes, began)?;
    // One statement, without pages.
    let sql = format!(
        "select c.* from latest l join changes c
             on c.space_id = l.space_id and c.revision = l.revision
         where l.space_id = '{space}' order by l.revision"
    );
    let mut psql = Command::new(program("psql")?);
    psql.args(["-X", "-q", "-A", "-t", "-d", bench.target.database()?, "-c", &sql]);
    let began = Instant::now();
    psql.stdin(Stdio::null()).stdout(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || psql.status()).await??;
    anyhow::ensure!(ended.success(), "psql failed: {ended}");
    let theirs = once(RECORDS, began)?;
    let ours = bench.report.figure("ChangesSince, 100,000 changes", "changes", &ours);
    let theirs = bench.report.figure("baseline: the same rows through psql", "rows", &theirs);
    let name = "ChangesSince / the same rows through psql";
    bench.report.ratio(name, Expected::Nothing, ours, theirs);
    Ok(())
}

/// A whole snapshot of a large space, beside COPY of the same rows.
pub(super) async fn first_load(bench: &mut Bench, round: u32) -> anyhow::Result<()> {
    let records = bench.plan.records.unwrap_or(LARGE);
    // One for the whole run: it takes a while to fill.
    let user = format!("{}-large", bench.target.run());
    let mut stub = bench.target.stub_of(&user).await?;
    if round == 1 {
        replace(&mut stub, records, 0).await?;
    }
    let before = memory_bytes();
    let mut most = before;
    let began = Instant::now();
    let form = DocumentForm::Json.into();
    let request = SnapshotRequest { document_form: form, ..Default::default() };
    let mut snapshot = stub.snapshot(request).await?.into_inner();
    let mut loaded = 0;
    let mut whole = false;
    while let Some(response) = snapshot.message().await? {
        loaded += response.records.len() as u64;
        whole = response.last;
        most = most.max(memory_bytes());
    }
    let ours = once(loaded, began)?;
    anyhow::ensure!(whole && loaded == records, "{loaded} records");

    let space = space(&user)?;
    let sql = format!(
        "copy (select c.* from latest l join changes c
             on c.space_id = l.space_id and c.revision = l.revision
         where l.space_id = '{space}' and not l.deleted) to stdout"
    );
    let pool = PgPool::connect(bench.target.database()?).await?;
    let began = Instant::now();
    let mut copy = pool.copy_out_raw(&sql).await?;
    let mut rows = 0;
    while let Some(bytes) = copy.try_next().await? {
        rows += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
    let theirs = once(rows, began)?;
    drop(copy);
    pool.close().await;
    anyhow::ensure!(rows == records, "{rows} rows");

    let name = format!("Snapshot of {records} records");
    let ours = bench.report.figure(name, "records", &ours);
    let theirs = bench.report.figure("baseline: COPY TO STDOUT of the same rows", "rows", &theirs);
    bench.report.ratio("Snapshot / COPY TO STDOUT", Expected::Nothing, ours, theirs);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let added = most.saturating_sub(before) as f64 / f64::from(1 << 20);
    let name = "memory that a Snapshot adds to server and client, MiB";
    bench.report.amount(name, Expected::AtMost(MEMORY_MIB_MAX), added);
    Ok(())
}
