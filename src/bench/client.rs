//! The library for apps on its local file: reads, writes, starts, what it sends and loads, what
//! it takes of memory; each beside the same done by SQLite or the service alone. Owns the folder
//! of these files.

mod local;
mod raw;
mod start;
mod sync;

use std::path::{Path, PathBuf};

use tokio::time::Instant;
use uuid::Uuid;

use super::Bench;
use super::load::{Measured, latencies};
use crate::client::{Client, Options, Space};

pub(crate) use start::host;

/// Records in the local file, and edits that are sent, unless something else is asked for.
const RECORDS: u64 = 100_000;
/// The user of files that no server knows of.
const ALONE: &str = "bench";

/// A folder that goes with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let name = format!("syncline-bench-client-{}", Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // It lies among what is temporary anyway.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(super) async fn round(bench: &mut Bench, round: u32) -> anyhow::Result<()> {
    let records = bench.plan.records.unwrap_or(RECORDS);
    let folder = Folder::new()?;
    let loaded = sync::first_load(bench, &folder, round, records).await?;
    start::cold(bench, &loaded).await?;
    start::memory(bench, &loaded.file, round).await?;
    local::reads(bench, &loaded).await?;
    local::query(bench, &loaded).await?;
    local::writes(bench, &folder).await?;
    sync::drain(bench, &folder, records).await
}

/// A file with the records of a user.
struct Loaded {
    file: PathBuf,
    user: String,
    records: u64,
}

impl Loaded {
    /// The id of the record of that number.
    fn id(number: u64) -> String {
        format!("{number:07}")
    }
}

/// Opens a file without a server.
async fn open(file: &Path, user: &str) -> anyhow::Result<(Client, Space)> {
    let client = Client::open(Options::new(file, user)).await?;
    let own = client.own().await?;
    Ok((client, own))
}

/// What took from then until now.
fn once(operations: u64, began: Instant) -> anyhow::Result<Measured> {
    let elapsed = began.elapsed();
    let mut latency = latencies()?;
    latency.saturating_record(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
    Ok(Measured { operations, elapsed, latency, cpu: None })
}
