//! The memory of idle subscribers: how much the resident set of a server grows
//! when they come. The server is a process of its own, so that the clients do not
//! count: this executable again, which serves until its standard input ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::bare::BareServer;
use super::crowd::{Crowd, Shape};
use super::peer::{Peer, Side};
use super::user;
use crate::bench::Bench;
use crate::bench::report::Expected;
use crate::bench::target::{Bearer, Target};
use crate::config::{BenchKind, BenchTarget};
use crate::rpc::proto::SubscribeResponse;

/// Between two readings.
const READING_INTERVAL: Duration = Duration::from_millis(100);
/// For the readings to become equal.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn round(
    bench: &mut Bench,
    round: u32,
    apart: usize,
    shared: usize,
) -> anyhow::Result<()> {
    // A hundred streams on each connection, or one.
    let (apart, shared) = (Shape::apart(apart, 1), Shape::full(shared));
    let mut sides = [Side::Ours, Side::Bare];
    if round.is_multiple_of(2) {
        sides.reverse();
    }
    let mut kib = [0.0; 2];
    for side in sides {
        let Some(grown) = growth(side, apart).await? else { return Ok(()) };
        if let Some(kib) = kib.get_mut(side as usize) {
            *kib = grown;
        }
    }
    let Some(in_shared) = growth(Side::Ours, shared).await? else { return Ok(()) };
    let [ours, bare] = kib;
    let (report, apart) = (&mut bench.report, apart.name());
    report.ratio(format!("memory, {apart}, idle"), Expected::AtMost(2.0), ours, bare);
    report.amount(format!("KiB each, {apart}, idle"), Expected::AtMost(8.0), ours);
    report.amount(format!("bare: KiB each, {apart}, idle"), Expected::Nothing, bare);
    let shared = format!("KiB each, {}, idle", shared.name());
    report.amount(shared, Expected::AtMost(1.0), in_shared);
    Ok(())
}

/// KiB for each subscriber; none where there is nothing to read that from.
async fn growth(side: Side, shape: Shape) -> anyhow::Result<Option<f64>> {
    let host = Host::start(side).await?;
    // What a server takes for the first one of a kind is no subscriber's.
    let first = Crowd::open(host.peer.clone(), shape.tenth()).await?;
    let before = host.settled().await;
    let crowd = Crowd::open(host.peer.clone(), shape).await?;
    let after = host.settled().await;
    crowd.close().await;
    first.close().await;
    host.end().await?;
    Ok(before.zip(after).map(|(before, after)| shape.share_of(after.saturating_sub(before))))
}

/// A server in a process of its own.
struct Host {
    child: Child,
    peer: Peer,
}

impl Host {
    async fn start(side: Side) -> anyhow::Result<Self> {
        let kind = match side {
            Side::Ours => "host-ours",
            Side::Bare => "host-bare",
        };
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", kind, "--dev", "--log", "error"])
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
        let (uri, token) = line.trim_end().split_once(' ').context("the server did not start")?;
        let (uri, bearer) = (uri.to_owned(), Bearer::new(token)?);
        Ok(Self { child, peer: Peer { side, uri, bearer, cursor: None } })
    }

    /// KiB of memory, once two readings are equal.
    async fn settled(&self) -> Option<u64> {
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

    fn resident(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// Ends the process, as its input's end asks it to.
    async fn end(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = spawn_blocking(move || self.child.wait()).await??;
        anyhow::ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

/// What that process does.
pub(crate) async fn host(kind: BenchKind) -> anyhow::Result<()> {
    if kind == BenchKind::HostBare {
        // Nothing is written, so it does not matter what events look like.
        let bare = BareServer::start(SubscribeResponse::default()).await?;
        return until_asked_to_end(&bare.uri, "-").await;
    }
    let target = Target::open(BenchTarget::Dev).await?;
    until_asked_to_end(target.uri(), &target.token_of(&user())?).await?;
    target.close().await
}

async fn until_asked_to_end(uri: &str, token: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{uri} {token}")?;
    out.flush()?;
    let input = spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    input.await??;
    Ok(())
}
