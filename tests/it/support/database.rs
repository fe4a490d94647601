//! One PostgreSQL for the test process; one database for each test, copied from
//! a template that is migrated once.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use syncline::postgres::{Options, PrivatePostgres};
use syncline::store::{Settings, Store};
use time::OffsetDateTime;

static SHARED: OnceLock<PrivatePostgres> = OnceLock::new();
static NUMBER: AtomicU64 = AtomicU64::new(0);
const TEMPLATE: &str = "template_migrated";

/// A database of one test's own. Gone when dropped.
#[derive(Debug)]
pub struct Database {
    name: String,
    pub url: String,
}

impl Database {
    /// A migrated, empty database on the shared PostgreSQL.
    pub async fn create() -> Self {
        tokio::task::spawn_blocking(|| {
            SHARED.get_or_init(|| {
                let postgres = start();
                on_own_runtime(prepare(&postgres));
                postgres
            });
        })
        .await
        .unwrap();
        Self::of(TEMPLATE).await
    }

    async fn of(template: &str) -> Self {
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        admin(&format!("create database {name} template {template}")).await;
        let url = shared().url(&name);
        Self { name, url }
    }

    /// As it is now. Whoever is connected to it is not any more.
    pub async fn copy(&self) -> Self {
        let from = &self.name;
        let sql = "select pg_terminate_backend(pid) from pg_stat_activity where datname";
        admin(&format!("{sql} = '{from}'")).await;
        Self::of(from).await
    }

    /// A connection for looking behind the curtain.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// A database without tables.
    pub async fn unmigrated() -> Self {
        let database = Self::create().await;
        let mut connection = database.connect().await;
        let sql = "drop schema public cascade; create schema public";
        connection.execute(sql).await.unwrap();
        database
    }

    /// The store on it.
    pub async fn store(&self) -> Store {
        store_at(&self.url).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("drop database {} with (force)", self.name);
        std::thread::spawn(move || on_own_runtime(async move { admin(&sql).await }))
            .join()
            .expect("the database is dropped");
    }
}

/// When the statements began that wait for a lock, in the database of this connection.
pub async fn waiting_since(connection: &mut PgConnection) -> Vec<OffsetDateTime> {
    let sql = "select query_start from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock'";
    sqlx::query_scalar(sql).fetch_all(connection).await.unwrap()
}

/// The store behind a URL.
pub async fn store_at(url: &str) -> Store {
    let settings = Settings { read_connections: 4, allow_unsafe: false };
    Store::connect(url, settings).await.unwrap()
}

fn shared() -> &'static PrivatePostgres {
    SHARED.get().expect("started by Database::create")
}

async fn admin(sql: &str) {
    let mut connection = PgConnection::connect(&shared().url("postgres")).await.unwrap();
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

async fn prepare(postgres: &PrivatePostgres) {
    let mut connection = PgConnection::connect(&postgres.url("postgres")).await.unwrap();
    let old: Vec<String> = sqlx::query_scalar(
        "select datname::text from pg_database where datname ~ '^t[0-9]+$' or datname = $1",
    )
    .bind(TEMPLATE)
    .fetch_all(&mut connection)
    .await
    .unwrap();
    for name in old {
        let sql = format!("drop database {name} with (force)");
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    let sql = format!("create database {TEMPLATE}");
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    connection.close().await.unwrap();
    let settings = Settings { read_connections: 1, allow_unsafe: false };
    let store = Store::connect(&postgres.url(TEMPLATE), settings).await.unwrap();
    store.migrate().await.unwrap();
    store.close().await;
}

/// Starts a PostgreSQL in a folder that is kept from run to run, in the first
/// place that no other test process holds. It ends with this process.
fn start() -> PrivatePostgres {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let temporary = std::env::temp_dir().join("syncline-tests");
    let places = |root: &Path| -> Vec<PathBuf> {
        (0..8).map(|slot| root.join(format!("postgres-{slot}"))).collect()
    };
    let mut failures = Vec::new();
    for dir in places(target).into_iter().chain(places(&temporary)) {
        let mut options = Options::new(&dir);
        options.settings = vec![("max_connections".into(), "500".into())];
        match PrivatePostgres::start(options) {
            Ok(postgres) => return postgres,
            Err(error) => failures.push(format!("{}: {error}", dir.display())),
        }
    }
    panic!("no PostgreSQL for the tests:\n{}", failures.join("\n"));
}

fn on_own_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
