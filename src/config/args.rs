//! The command line: every flag once, with its type, default, range and help. A flag named here is
//! thereby also an environment variable and a key of the file (`config/layers.rs`). Must not know
//! what the values are for, nor read anything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};

use super::bench::BenchArgs;
use super::keys::{ClaimArgs, VerifyingKeyArgs};
use super::limits::{QuotaConfig, RateConfig};
use super::remote::RemoteArgs;
use super::retention::{RetentionConfig, pause};
use super::tls::{TlsArgs, TlsConfig};
use super::values::{Origins, Policies, Secret, duration, origins, policies, size_bytes};
use crate::auth::Grant;
use crate::domain::UserId;
use crate::logging::{LogFormat, parse_filter};

/// Self-hosted sync: JSON records over gRPC, stored in your own PostgreSQL.
///
/// Without a command, `syncline dev` runs.
#[derive(Debug, Parser)]
#[command(name = "syncline", version, subcommand_required = true)]
pub(super) struct Cli {
    /// File with settings, in TOML; every flag but this one is a key of it.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: CommandArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum CommandArgs {
    /// Run everything on this machine, with a private PostgreSQL and a development token.
    Dev(Box<DevConfig>),
    /// Run the service on your PostgreSQL.
    Serve(Box<ServeArgs>),
    /// Print a token that is good for one user.
    Token(TokenArgs),
    /// Bring the database's schema up to date and end.
    Migrate(MigrateArgs),
    /// Forget now what need not be kept any longer, say what it was, and end.
    Compact(CompactArgs),
    /// Compute anew whatever the tables say about themselves, and name the first difference.
    Verify(VerifyArgs),
    /// Ask a server whether it serves; prints the answer and ends with 0 or 1.
    Health(HealthConfig),
    /// Measure how fast it is.
    Bench(BenchArgs),
    #[command(flatten)]
    Remote(RemoteArgs),
}

/// `syncline dev`.
#[derive(Clone, Debug, Args)]
pub struct DevConfig {
    /// Where the private PostgreSQL and the development secret live.
    #[arg(long, value_name = "DIR", default_value = ".syncline")]
    pub data_dir: PathBuf,
    /// What it has in common with `serve`.
    #[command(flatten)]
    pub server: ServerConfig,
}

/// What `dev` and `serve` have in common.
#[derive(Clone, Debug, Args)]
pub struct ServerConfig {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50051", value_parser = address)]
    pub listen: SocketAddr,
    /// Address on which `GET /metrics` shows what is counted, for Prometheus, to anybody who can
    /// reach it; by default none.
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    pub metrics_listen: Option<SocketAddr>,
    /// How it logs.
    #[command(flatten)]
    pub log: LogConfig,
    /// Connections that write; each gathers the writes of its share of the spaces. By default
    /// one for every two cores, at least two: more of them gather less each, and cost the
    /// database more.
    #[arg(long, value_name = "N", default_value_t = committers(), value_parser = count::<usize>(64))]
    pub committers: usize,
    /// Connections that read.
    #[arg(long, value_name = "N", default_value = "8", value_parser = count::<u32>(1_000))]
    pub database_connections: u32,
    /// Clients that may be connected at once.
    #[arg(long, value_name = "N", default_value = "10000")]
    #[arg(value_parser = count::<usize>(1_000_000))]
    pub max_connections: usize,
    /// Of them those from one address; of IPv6 a /64 counts as one. 0 = as many as there may be:
    /// behind a proxy all have its address.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count_or_none)]
    pub max_connections_per_address: usize,
    /// What only `serve` has flags for: where TLS finds its files.
    #[arg(skip)]
    pub tls: Option<TlsConfig>,
    /// Origins of web pages that may call from a browser, such as
    /// `https://app.example.com,http://localhost:5173`, or `*` for all. By default only pages that
    /// come from the same origin as the service can.
    #[arg(long, value_name = "ORIGINS", default_value = "", value_parser = origins)]
    pub cors_origins: Origins,
    /// How far a device's clock may be ahead of the server's; a write that claims more counts as
    /// that much ahead.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub clock_skew: Duration,
    /// Policies to begin with, by collection, such as {"task": {"strategy": "merge"}}; in the file
    /// as tables [policies.task]. What somebody has set by SetPolicy stays.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = policies)]
    pub policies: Policies,
    /// How long what is kept.
    #[command(flatten)]
    pub retention: RetentionConfig,
    /// What a space may hold.
    #[command(flatten)]
    pub quotas: QuotaConfig,
    /// How often callers may call.
    #[command(flatten)]
    pub rates: RateConfig,
    /// How often the server looks for what need not be kept any longer.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = pause)]
    pub compaction_interval: Duration,
    /// Memory for recent changes, all spaces together.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = ring_size)]
    pub ring_bytes: usize,
    /// How long requests may take to end once the server is asked to stop.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub shutdown_deadline: Duration,
    /// No digests are kept. There is no flag for it: the bench tells with it what they cost.
    #[arg(skip)]
    pub without_digests: bool,
    /// Whether the server describes its services to tools such as grpcurl.
    #[arg(long, value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub reflection: bool,
}

fn committers() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    (cores / 2).clamp(2, 64)
}

/// What is logged, and how it looks.
#[derive(Clone, Debug, Args)]
pub struct LogConfig {
    /// What to log: a level, or levels by module as in `info,syncline=debug`.
    #[arg(id = "log", long, value_name = "FILTER", default_value = "info", value_parser = filter)]
    pub filter: String,
    /// How logs look.
    #[arg(
        id = "log-format",
        long = "log-format",
        value_name = "FORMAT",
        value_enum,
        default_value = "auto"
    )]
    pub format: LogFormat,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    #[command(flatten)]
    pub(super) key: VerifyingKeyArgs,
    #[command(flatten)]
    pub(super) names: TokenNameArgs,
    #[command(flatten)]
    pub(super) claims: ClaimArgs,
    #[command(flatten)]
    pub(super) tls: TlsArgs,
    /// Start although the database may lose acknowledged writes (fsync or full_page_writes off).
    #[arg(long)]
    pub(super) allow_unsafe_database: bool,
    /// Listen beyond this machine without TLS; a proxy in front has to provide it.
    #[arg(long)]
    pub(super) allow_plaintext: bool,
    #[command(flatten)]
    pub(super) server: ServerConfig,
}

#[derive(Debug, Args)]
pub(super) struct DatabaseArgs {
    /// The database, as postgres://user:password@host/name; DATABASE_URL is read, too.
    #[arg(long, value_name = "URL")]
    pub(super) database_url: Option<Secret>,
}

/// The key that tokens are signed with.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct SigningKeyArgs {
    /// Secret to sign with (HS256).
    #[arg(long, value_name = "SECRET")]
    pub(super) jwt_secret: Option<Secret>,
    /// File with that secret.
    #[arg(long, value_name = "FILE")]
    pub(super) jwt_secret_file: Option<PathBuf>,
    /// File with a private key in PEM.
    #[arg(long, value_name = "FILE")]
    pub(super) jwt_private_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct TokenNameArgs {
    /// The `iss` of tokens.
    #[arg(long, value_name = "NAME")]
    pub(super) jwt_issuer: Option<String>,
    /// The `aud` of tokens.
    #[arg(long, value_name = "NAME")]
    pub(super) jwt_audience: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct SignerArgs {
    /// Where `syncline dev` keeps its secret, which signs when no key is given.
    #[arg(long, value_name = "DIR", default_value = ".syncline")]
    pub(super) data_dir: PathBuf,
    #[command(flatten)]
    pub(super) key: SigningKeyArgs,
    #[command(flatten)]
    pub(super) names: TokenNameArgs,
}

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// The user.
    #[arg(long, value_name = "USER", value_parser = UserId::parse)]
    pub(super) sub: Option<UserId>,
    /// How long the token is good.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = ttl)]
    pub(super) ttl: Duration,
    /// What else the bearer may do: `policies`, `audit`, `act_for:USER`, or `read:SPACE`,
    /// `write:SPACE` and `admin:SPACE`, such as `write:users/bob`; `*` stands for all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = grant)]
    pub(super) grants: Vec<Grant>,
    #[command(flatten)]
    pub(super) signer: SignerArgs,
}

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    #[command(flatten)]
    pub(super) log: LogConfig,
}

#[derive(Debug, Args)]
pub(super) struct CompactArgs {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    #[command(flatten)]
    pub(super) retention: RetentionConfig,
    #[command(flatten)]
    pub(super) log: LogConfig,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    /// Only this space, such as users/alice.
    #[arg(long, value_name = "NAME")]
    pub(super) space: Option<String>,
    #[command(flatten)]
    pub(super) log: LogConfig,
}

/// `syncline health`.
#[derive(Clone, Debug, Args)]
pub struct HealthConfig {
    /// The server's address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    #[arg(value_parser = target)]
    pub target: http::Uri,
}

/// Parses 1 to `max`.
pub(super) fn count<T: TryFrom<u64>>(max: u64) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=max).contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("expected a number from 1 to {max}"))
    }
}

fn count_or_none(text: &str) -> Result<usize, &'static str> {
    let number = text.parse().ok().filter(|number| *number <= 1_000_000);
    number.ok_or("expected a number from 0 to 1000000")
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "expected an IP address and a port, as in 127.0.0.1:50051")
}

fn filter(text: &str) -> Result<String, String> {
    let parsed = parse_filter(text);
    parsed.map(|_| text.to_owned()).map_err(|error| format!("{error}; `info` is one that works"))
}

fn ring_size(text: &str) -> Result<usize, String> {
    match size_bytes(text)? {
        size if (1 << 20..=1 << 36).contains(&size) => Ok(size),
        _ => Err("must be 1MiB to 64GiB".to_owned()),
    }
}

fn grant(text: &str) -> Result<Grant, String> {
    Grant::parse(text)
        .ok_or_else(|| "expected policies, read:users/<name> or write:users/<name>".to_owned())
}

fn ttl(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        ttl if (Duration::from_secs(1)..=Duration::from_hours(24 * 366)).contains(&ttl) => Ok(ttl),
        _ => Err("must be 1s to 366d".to_owned()),
    }
}

pub(super) fn target(text: &str) -> Result<http::Uri, String> {
    match text.parse::<http::Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") => Ok(uri),
        _ => Err("expected http://host:port; there is no TLS here".to_owned()),
    }
}
