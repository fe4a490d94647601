//! What honest callers notice of those who are not: their latency while somebody abuses the
//! server, beside their latency a moment before, and the server's memory meanwhile. The
//! server is a process of its own; the abuse comes from this one, on the same cores, and is
//! bounded so that it does not take them all.

mod raw;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Bench;
use super::host::{Host, until_asked_to_end};
use super::load::{Measured, Span, latencies};
use super::report::Expected;
use super::target::{Bearer, Stub, Target, connect, put};
use crate::auth::{KeyConfig, Minter};
use crate::clock::Clock;
use crate::config::{DEV_AUDIENCE, DEV_ISSUER};
use crate::domain::UserId;
use crate::rpc::proto::sync_service_client::SyncServiceClient;
use crate::rpc::proto::{GetStatusRequest, MutateRequest};
use raw::Abuse;
use tonic::service::interceptor::InterceptedService;

/// Honest callers, who write and read by turns at this pace: far from what the server can do.
/// They call one after the other, so that what holds the machine up for a moment meets few.
const CALLERS: u32 = 20;
const PACE: Duration = Duration::from_millis(50);

pub(super) async fn round(bench: &mut Bench) -> anyhow::Result<()> {
    let seconds = bench.plan.seconds;
    let idle = bench.connections_max.min(5_000);
    let host = Guarded::start().await?;
    // What only the first call takes is nobody's.
    honest(&host, 1).await?;
    for abuse in Abuse::all(idle) {
        let before = honest(&host, seconds).await?;
        let memory_before = host.host.resident();
        let abusing = abuse.begin(&host).await?;
        let during = honest(&host, seconds).await?;
        let memory = host.host.resident();
        abusing.end().await;
        let name = abuse.name();
        let report = &mut bench.report;
        report.figure(format!("honest calls, before: {name}"), "calls", &before);
        report.figure(format!("honest calls, during: {name}"), "calls", &during);
        let (before, during) = (before.micros_at(0.99), during.micros_at(0.99));
        report.ratio(format!("p99 during / before: {name}"), Expected::AtMost(2.0), during, before);
        if let (Some(before), Some(after)) = (memory_before, memory) {
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            let mib = after.saturating_sub(before) as f64 / 1024.0;
            report.amount(format!("MiB more: {name}"), abuse.memory(), mib);
        }
    }
    host.host.end().await
}

/// A server that is abused, and the secret of its tokens.
struct Guarded {
    host: Host,
    minter: Minter,
}

impl Guarded {
    async fn start() -> anyhow::Result<Self> {
        let host = Host::start("host-guarded").await?;
        let minter = Minter::new(&KeyConfig::Secret(host.word.repeat(2).into_bytes()))?;
        Ok(Self { host, minter })
    }

    fn token(&self, user: &str) -> anyhow::Result<String> {
        let user = UserId::parse(user).map_err(anyhow::Error::msg)?;
        let (ttl, now) = (Duration::from_secs(3_600), Clock::system().unix_seconds());
        Ok(self.minter.mint(&user, ttl, now, DEV_ISSUER, DEV_AUDIENCE)?)
    }

    fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.host.uri.trim_start_matches("http://").parse()?)
    }
}

/// What the server's process does.
pub(super) async fn host() -> anyhow::Result<()> {
    let target = Target::guarded().await?;
    until_asked_to_end(target.uri(), target.run()).await?;
    target.close().await
}

/// Calls at a pace, whatever the answers take: who waits for one is late for the next.
async fn honest(host: &Guarded, seconds: u64) -> anyhow::Result<Measured> {
    let mut callers = Vec::new();
    for number in 0..CALLERS {
        let bearer = Bearer::new(&host.token(&format!("honest{number}"))?)?;
        let channel = connect(&host.host.uri).await?;
        callers.push(SyncServiceClient::new(InterceptedService::new(channel, bearer)));
    }
    let span = Span::of(seconds);
    let mut running = JoinSet::new();
    for (number, stub) in (0..).zip(callers) {
        running.spawn(call(stub, Instant::now() + PACE * number / CALLERS, span));
    }
    let (elapsed, latency) = (span.end - span.begin, latencies()?);
    let mut total = Measured { operations: 0, elapsed, latency, cpu: None };
    while let Some(caller) = running.join_next().await {
        let (operations, latency) = caller??;
        total.operations += operations;
        total.latency.add(latency)?;
    }
    Ok(total)
}

async fn call(
    mut stub: Stub,
    begin: Instant,
    span: Span,
) -> anyhow::Result<(u64, hdrhistogram::Histogram<u64>)> {
    let mut latency = latencies()?;
    let mut operations = 0;
    let mut pace = interval_at(begin, PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0.. {
        let due = pace.tick().await;
        if due >= span.end {
            break;
        }
        if number % 2 == 0 {
            let mutation = Some(put(uuid::Uuid::new_v4().simple().to_string(), number));
            stub.mutate(MutateRequest { mutation, ..Default::default() }).await?;
        } else {
            stub.get_status(GetStatusRequest::default()).await?;
        }
        if due >= span.begin {
            operations += 1;
            let micros = Instant::now().duration_since(due).as_micros();
            latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
        }
    }
    Ok((operations, latency))
}
