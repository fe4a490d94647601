//! A server in a process of its own, so that the clients do not count: this executable
//! again, which serves until its standard input ends.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

/// Between two readings.
const READING_INTERVAL: Duration = Duration::from_millis(100);
/// For the readings to become equal.
const PATIENCE: Duration = Duration::from_secs(10);

/// That process.
pub(super) struct Host {
    child: Child,
    pub(super) uri: String,
    /// What it says beside its address.
    pub(super) word: String,
}

impl Host {
    /// Starts one of a hidden kind.
    pub(super) async fn start(kind: &str) -> anyhow::Result<Self> {
        Self::start_with(kind, &[]).await
    }

    /// The same, and tells it more.
    pub(super) async fn start_with(kind: &str, more: &[&OsStr]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", kind, "--dev", "--log", "error"])
            .args(more)
            // What is freed goes back at once: what was needed to begin is not held.
            .env("MIMALLOC_PURGE_DELAY", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("the server has no output")?;
        let line = spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = line.await??;
        let (uri, word) = line.trim_end().split_once(' ').context("the server did not start")?;
        let (uri, word) = (uri.to_owned(), word.to_owned());
        Ok(Self { child, uri, word })
    }

    /// KiB of memory, once two readings are equal.
    pub(super) async fn settled(&self) -> Option<u64> {
        let give_up = Instant::now() + PATIENCE;
        let mut last = self.resident()?;
        loop {
            // Only between the readings of the condition.
            sleep(READING_INTERVAL).await;
            let now = self.resident()?;
            if now == last || Instant::now() > give_up {
                return Some(now);
            }
            last = now;
        }
    }

    /// KiB of memory now; None where nothing tells.
    pub(super) fn resident(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// Ends the process, as its input's end asks it to.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = spawn_blocking(move || self.child.wait()).await??;
        anyhow::ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

/// What that process does once it serves: says where, and waits for its end.
pub(super) async fn until_asked_to_end(uri: &str, word: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{uri} {word}")?;
    out.flush()?;
    let input = spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    input.await??;
    Ok(())
}
