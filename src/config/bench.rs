//! The flags of `syncline bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::{DatabaseArgs, LogConfig, SignerArgs, count, target};

/// What `syncline bench` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchKind {
    /// One mutation for each call.
    Write,
    /// Many mutations for each call.
    Batch,
    /// Clients that come back after a while.
    Catchup,
    /// One writer, many subscribers.
    Fanout,
    /// Writes that are merged with others.
    Conflict,
    /// Whole states: replaced, loaded, caught up with; what compaction and digests cost.
    Whole,
    /// What asking who may do what costs.
    Access,
    /// What abuse costs the honest.
    Abuse,
    /// The library for apps: its local file, what it sends and loads.
    Client,
    /// One after the other.
    All,
    /// The server whose memory `fanout` measures, in a process of its own.
    #[value(hide = true)]
    HostOurs,
    /// The baseline of that.
    #[value(hide = true)]
    HostBare,
    /// The server that `abuse` abuses, with the limits that hold by default.
    #[value(hide = true)]
    HostGuarded,
    /// The open client whose memory `client` measures.
    #[value(hide = true)]
    HostClient,
    /// The baseline of that.
    #[value(hide = true)]
    HostSqlite,
}

/// How `syncline bench` measures.
#[derive(Clone, Debug, Args)]
pub struct BenchPlan {
    /// What to measure.
    pub kind: BenchKind,
    /// How long each round lasts.
    #[arg(long, value_name = "N", default_value = "5", value_parser = count::<u64>(3_600))]
    pub seconds: u64,
    /// How often each is measured.
    #[arg(long, value_name = "N", default_value = "3", value_parser = count::<u32>(100))]
    pub rounds: u32,
    /// Subscribers of `fanout`, one measurement for each number; by default 1,100,1000,10000, and
    /// in `all` 1000.
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = count::<usize>(10_000))]
    pub subscribers: Vec<usize>,
    /// Connections that the streams of `fanout` share; by default one for each stream, if file
    /// descriptors allow.
    #[arg(long, value_name = "N", value_parser = count::<usize>(10_000))]
    pub connections: Option<usize>,
    /// Records that `whole` loads, by default 500000, or that `client` has in its file, by default
    /// 100000.
    #[arg(long, value_name = "N", value_parser = count::<u64>(1_000_000))]
    pub records: Option<u64>,
    /// The file that a hidden kind opens.
    #[arg(long, value_name = "FILE", hide = true)]
    pub file: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    pub json: bool,
    /// How it logs.
    #[command(flatten)]
    pub log: LogConfig,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub(super) plan: BenchPlan,
    /// Measure a private server (the default).
    #[arg(long)]
    pub(super) dev: bool,
    /// Measure the server at this address.
    #[arg(long, value_name = "URL", conflicts_with = "dev", value_parser = target)]
    pub(super) target: Option<http::Uri>,
    #[command(flatten)]
    pub(super) signer: SignerArgs,
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
}
