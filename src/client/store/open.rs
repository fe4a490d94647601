//! Opens the local file, makes it if there is none, and refuses one that is not ours.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, watch};

use super::vault::{Staged, Vault};
use super::writer::{self, Writer};
use super::{Error, Store, WAITING_MAX, row};
use crate::client::replica::Identity;
use crate::domain::{DeviceId, UserId};
use crate::tasks::Tasks;

/// "Sync", so that `file` and others can tell what it is.
const APPLICATION_ID: i64 = 0x5379_6e63;
/// The form that this program writes.
const FORMAT: i64 = 1;
const SCHEMA: &str = include_str!("schema.sql");
/// How long one process waits for what another writes.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// Twice as many as usually read at once: the pool takes one back only after it has answered again.
const READERS: u32 = 8;
/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 256;
/// Rows that a connection reads ahead, so that it and whoever waits for them seldom wake each other.
const ROWS_AHEAD: usize = 1_024;

/// Which file, and whose it is to be.
#[derive(Debug)]
pub(in crate::client) struct FileOptions {
    pub(in crate::client) path: PathBuf,
    pub(in crate::client) user: UserId,
    /// None = the file's; a new file gets a random one.
    pub(in crate::client) device: Option<DeviceId>,
    pub(in crate::client) vault: Vault,
}

/// An open file.
#[derive(Debug)]
pub(in crate::client) struct Opened {
    pub(in crate::client) store: Store,
    /// Stays on one connection, which sees what others write.
    pub(in crate::client) sentinel: Sentinel,
}

/// Sees that somebody has written to the file, in whatever process.
#[derive(Debug)]
pub(in crate::client) struct Sentinel {
    db: SqliteConnection,
    version: i64,
}

impl Sentinel {
    /// Whether somebody has written since this was asked last.
    pub(in crate::client) async fn has_moved(&mut self) -> Result<bool, Error> {
        let version: i64 =
            sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut self.db).await?;
        Ok(std::mem::replace(&mut self.version, version) != version)
    }
}

impl Store {
    /// Opens a file; its writer is a task of `tasks`, which ends once the store is closed.
    pub(in crate::client) async fn open(
        options: FileOptions,
        tasks: &Tasks,
    ) -> Result<Opened, Error> {
        let FileOptions { path, user, device, vault } = options;
        let connect = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .busy_timeout(BUSY_MAX)
            .statement_cache_capacity(STATEMENTS)
            .row_buffer_size(ROWS_AHEAD)
            .disable_statement_logging();
        // Acknowledged is on disk: each commit waits for it.
        let writing = connect
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        look(&connect, &path).await?;
        let mut db = SqliteConnection::connect_with(&writing).await?;
        let identity = prepare(&mut db, &path, &user, device).await?;
        let reading = connect.read_only(true);
        let sentinel = SqliteConnection::connect_with(&reading).await?;
        // A file does not hang up: asking each time whether it is there takes as long as a read.
        let readers = SqlitePoolOptions::new().max_connections(READERS).test_before_acquire(false);
        let readers = readers.connect_lazy_with(reading);
        let (commands, waiting) = mpsc::channel(WAITING_MAX);
        let (written, _) = watch::channel(0);
        let identity = Arc::new(Mutex::new(Arc::new(identity)));
        let writer = Writer {
            db,
            vault: vault.staging(),
            identity: Arc::clone(&identity),
            written: written.clone(),
            before: Staged::new(),
        };
        tasks.spawn("local file", writer::run(writer, waiting));
        let (path, tasks) = (Arc::new(path), tasks.clone());
        let store = Self { commands, readers, tasks, vault, identity, written, path };
        let mut sentinel = Sentinel { db: sentinel, version: 0 };
        sentinel.has_moved().await?;
        Ok(Opened { store, sentinel })
    }
}

/// Makes the tables, or looks whether those that are there are ours.
async fn prepare(
    db: &mut SqliteConnection,
    path: &Path,
    user: &UserId,
    device: Option<DeviceId>,
) -> Result<Identity, Error> {
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *db).await?;
    let prepared = tables(db, path, user, device).await;
    let end = if prepared.is_ok() { "COMMIT" } else { "ROLLBACK" };
    crate::failpoint::reach("client.before_made");
    sqlx::query(end).execute(db).await?;
    crate::failpoint::reach("client.after_made");
    prepared
}

/// Refuses what is not ours before anything of it is changed, be it only how it is written.
async fn look(connect: &SqliteConnectOptions, path: &Path) -> Result<(), Error> {
    let mut db = SqliteConnection::connect_with(connect).await?;
    let looked = is_new(&mut db, path).await;
    db.close().await?;
    looked.map(drop)
}

/// Whether there is nothing in a file yet; an error if it is not ours, or too new.
async fn is_new(db: &mut SqliteConnection, path: &Path) -> Result<bool, Error> {
    let path = || path.to_path_buf();
    let number = async |db: &mut SqliteConnection, pragma: &'static str| {
        sqlx::query_scalar::<_, i64>(pragma).fetch_one(db).await
    };
    let application = number(db, "PRAGMA application_id").await;
    let application = application.map_err(|error| match error {
        // As SQLite says of what is no database at all.
        sqlx::Error::Database(it) if it.code().as_deref() == Some("26") => {
            Error::NotOurs { path: path() }
        }
        error => error.into(),
    })?;
    let found = number(db, "PRAGMA user_version").await?;
    let tables = number(db, "SELECT count(*) FROM sqlite_schema").await?;
    if application != APPLICATION_ID && (application != 0 || tables > 0) {
        return Err(Error::NotOurs { path: path() });
    }
    if found > FORMAT {
        return Err(Error::NewerFormat { path: path(), found, known: FORMAT });
    }
    Ok(tables == 0)
}

async fn tables(
    db: &mut SqliteConnection,
    path: &Path,
    user: &UserId,
    device: Option<DeviceId>,
) -> Result<Identity, Error> {
    if is_new(db, path).await? {
        sqlx::raw_sql(SCHEMA).execute(&mut *db).await?;
        let marks =
            format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(marks)).execute(&mut *db).await?;
        let device = match device {
            Some(device) => device,
            None => new_device()?,
        };
        sqlx::query("INSERT INTO file (one, user, device) VALUES (1, ?1, ?2)")
            .bind(user.as_str())
            .bind(device.as_str())
            .execute(db)
            .await?;
        return Ok(Identity { user: user.clone(), device, policies: Arc::default() });
    }
    let (owner, named, policies): (String, String, String) =
        sqlx::query_as("SELECT user, device, policies FROM file").fetch_one(db).await?;
    let path = || path.to_path_buf();
    if owner != user.as_str() {
        return Err(Error::OtherUser { path: path(), owner, user: user.to_string() });
    }
    if let Some(device) = device.filter(|device| device.as_str() != named) {
        return Err(Error::OtherDevice { path: path(), owner: named, device: device.to_string() });
    }
    let policies = row::policies(&policies);
    let device = DeviceId::from_stored(&named);
    Ok(Identity { user: user.clone(), device, policies: Arc::new(policies) })
}

fn new_device() -> Result<DeviceId, Error> {
    let name = uuid::Uuid::new_v4().simple().to_string();
    DeviceId::parse(&name).map_err(Error::Failed)
}
