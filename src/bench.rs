//! `syncline bench`: measures a server beside baselines that run in the same
//! minute on the same machine: the same rows written straight to the same
//! PostgreSQL, and gRPC calls that do nothing. Only the ratios travel from one
//! machine to another; the figures do not.
//!
//! Load generator, server and PostgreSQL share the cores. Rounds alternate, and
//! the medians of the rounds' ratios are what counts.

mod abuse;
mod access;
mod baseline;
mod batch;
mod catchup;
mod client;
mod conflict;
mod empty;
mod fanout;
mod host;
mod load;
mod process;
mod report;
mod target;
mod whole;
mod write;

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use crate::config::{BenchConfig, BenchKind, BenchPlan};
use crate::exit::Failure;
use crate::logging;
use report::Report;
use target::Target;

/// What one measurement needs.
struct Bench {
    target: Target,
    plan: BenchPlan,
    report: Report,
    progress: ProgressBar,
    /// How many can be open at once, with both their ends in this process.
    connections_max: usize,
}

/// Runs the plan and prints its report.
pub(crate) async fn run(config: BenchConfig) -> Result<(), Failure> {
    let BenchConfig { plan, target } = config;
    logging::init(&plan.log.filter, plan.log.format)?;
    let kinds = match plan.kind {
        BenchKind::All => {
            vec![
                BenchKind::Write,
                BenchKind::Batch,
                BenchKind::Catchup,
                BenchKind::Fanout,
                BenchKind::Conflict,
                BenchKind::Whole,
                BenchKind::Access,
                BenchKind::Abuse,
                BenchKind::Client,
            ]
        }
        kind @ (BenchKind::HostOurs | BenchKind::HostBare) => return Ok(fanout::host(kind).await?),
        BenchKind::HostGuarded => return Ok(abuse::host().await?),
        BenchKind::HostClient | BenchKind::HostSqlite => return Ok(client::host(&plan).await?),
        kind => vec![kind],
    };
    let connections_max = process::connections_max();
    let steps = kinds.len() as u64 * u64::from(plan.rounds);
    let mut bench = Bench {
        target: Target::open(target).await?,
        report: Report::default(),
        progress: progress(steps),
        connections_max: plan.connections.unwrap_or(connections_max),
        plan,
    };
    let mut result = Ok(());
    for kind in kinds {
        result = bench.measure(kind).await;
        if result.is_err() {
            break;
        }
    }
    bench.progress.finish_and_clear();
    let closed = bench.target.close().await;
    result?;
    closed?;
    let text = if bench.plan.json { bench.report.json() } else { bench.report.table() };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

impl Bench {
    async fn measure(&mut self, kind: BenchKind) -> anyhow::Result<()> {
        for round in 1..=self.plan.rounds {
            self.progress.set_message(format!("{kind:?} {round}/{}", self.plan.rounds));
            match kind {
                BenchKind::Write => write::round(self).await?,
                BenchKind::Batch => batch::round(self).await?,
                BenchKind::Catchup => catchup::round(self).await?,
                BenchKind::Fanout => fanout::round(self, round).await?,
                BenchKind::Conflict => conflict::round(self).await?,
                BenchKind::Whole => whole::round(self, round).await?,
                BenchKind::Access => access::round(self).await?,
                BenchKind::Abuse => abuse::round(self).await?,
                BenchKind::Client => client::round(self, round).await?,
                BenchKind::All
                | BenchKind::HostOurs
                | BenchKind::HostBare
                | BenchKind::HostGuarded
                | BenchKind::HostClient
                | BenchKind::HostSqlite => {}
            }
            self.progress.inc(1);
        }
        Ok(())
    }
}

fn progress(steps: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}");
    let bar = ProgressBar::new(steps);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_template) => bar,
    }
}
