//! Connecting, and refusing databases that would lose data.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{ConnectOptions, Connection, PgConnection, Postgres};
use tokio::time::timeout;
use tracing::log::LevelFilter;
use tracing::warn;

use super::{Error, Fitness, Store};

/// How to use a database.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections for reads.
    pub read_connections: u32,
    /// Accept a database that may lose acknowledged writes, for tests.
    pub allow_unsafe: bool,
}

/// What every session sets. The planner settings make plans follow the indexes:
/// by default they depend on statistics, and on a table that was never analysed
/// a page costs twenty times as much.
const SESSION: [(&str, &str); 14] = [
    ("application_name", "syncline"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_sort", "off"),
    // The settings above raise estimates so far that plans would be compiled.
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "10s"),
    ("lock_timeout", "3s"),
    // A replica that is stopped in a transaction must not hold its spaces.
    ("idle_in_transaction_session_timeout", "5s"),
    ("client_min_messages", "warning"),
];

/// A read whose answer takes longer has lost its connection without a word: the
/// database itself would have ended it before, by `statement_timeout`.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(11);
/// What closing takes from a database that answers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

impl Store {
    /// Connects, after one plain connection has shown that it can be done and
    /// that the database is fit. Does not migrate.
    pub async fn connect(url: &str, settings: Settings) -> Result<Self, Error> {
        let connect = options(url)?;
        // The pool would hide the reason behind a timeout.
        let mut probe = PgConnection::connect_with(&connect).await?;
        let fitness = Fitness::read(&mut probe).await?;
        if let Some(problem) = fitness.problems(settings.allow_unsafe).into_iter().next() {
            return Err(problem);
        }
        probe.close().await?;
        let reads = PgPoolOptions::new()
            .max_connections(settings.read_connections)
            .acquire_timeout(Duration::from_secs(5))
            // A dead connection shows itself at its first statement just as well.
            .test_before_acquire(false)
            .connect_lazy_with(connect.clone());
        Ok(Self { reads, connect })
    }

    /// A connection outside the pool, for an owner that keeps it.
    pub(super) async fn connection(&self) -> Result<PgConnection, Error> {
        Ok(PgConnection::connect_with(&self.connect).await?)
    }

    /// Reads with one statement; all its rows. Not cancel safe.
    pub(super) async fn read(
        &self,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, Error> {
        let mut connection = self.reads.acquire().await?;
        if let Ok(rows) = timeout(READ_TIMEOUT, query.fetch_all(&mut *connection)).await {
            return Ok(rows?);
        }
        connection.close_on_drop();
        // What is idle fell silent with it, most likely, and nobody shall wait
        // for each of them in turn.
        while let Some(mut idle) = self.reads.try_acquire() {
            idle.close_on_drop();
        }
        Err(Error::TimedOut("a read"))
    }

    /// Ends all connections of the pool; those that do not answer are left.
    pub async fn close(&self) {
        // Cancel: nobody uses what is left, and it ends with the process.
        if timeout(CLOSE_TIMEOUT, self.reads.close()).await.is_err() {
            warn!("connections of the database did not close in time; they were left");
        }
    }
}

/// How every session is opened.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, Error> {
    Ok(PgConnectOptions::from_str(url)?
        .options(SESSION)
        .log_statements(LevelFilter::Off)
        .log_slow_statements(LevelFilter::Off, Duration::ZERO))
}
