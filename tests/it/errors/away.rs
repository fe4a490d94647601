//! The errors of a server whose database is away, and its return.

use std::net::SocketAddr;
use std::time::Duration;

use syncline::auth::{KeyConfig, Verifier};
use syncline::clock::Clock;
use syncline::config::{
    LogConfig, Origins, Policies, QuotaConfig, RateConfig, RetentionConfig, ServerConfig,
};
use syncline::postgres::{Options, PrivatePostgres};
use syncline::rpc::proto::{ChangesSinceRequest, GetStatusRequest, ListRecordsRequest};
use syncline::server::Server;
use syncline::store::{Settings, Store};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use super::Table;
use crate::support::{AUDIENCE, Client, ISSUER, SECRET, describe, mint, put, wait_for};

async fn start(postgres: &PrivatePostgres) -> Server {
    let config = ServerConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        log: LogConfig { filter: "off".into(), format: syncline::logging::LogFormat::Auto },
        committers: 1,
        database_connections: 2,
        max_connections: 10,
        max_connections_per_address: 0,
        tls: None,
        cors_origins: Origins::default(),
        without_digests: false,
        metrics_listen: None,
        clock_skew: Duration::from_secs(60),
        retention: RetentionConfig {
            log_retention: Duration::from_hours(24),
            tombstone_retention: Duration::from_hours(24),
            device_wait: Duration::from_hours(24),
        },
        compaction_interval: Duration::from_hours(1),
        quotas: QuotaConfig::unlimited(),
        rates: RateConfig::unlimited(),
        policies: Policies::default(),
        ring_bytes: 1 << 20,
        shutdown_deadline: Duration::from_secs(5),
        reflection: false,
    };
    let settings = Settings { read_connections: 2, allow_unsafe: false };
    let store = Store::connect(&postgres.url("postgres"), settings).await.unwrap();
    store.migrate().await.unwrap();
    let listener = TcpListener::bind(config.listen).await.unwrap();
    let verifier = Verifier::new(&KeyConfig::Secret(SECRET.into()), ISSUER, AUDIENCE).unwrap();
    Server::start(listener, store, verifier, Clock::system(), &config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_calls_are_told_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    let dir = folder.path().join("db");
    let options = Options { initdb_no_sync: true, ..Options::new(&dir) };
    let again = options.clone();
    let postgres = spawn_blocking(|| PrivatePostgres::start(options).unwrap()).await.unwrap();
    let server = start(&postgres).await;
    let alice = Client::connect(server.address(), &mint("alice")).await;
    alice.mutate(put("before", "1", "{}")).await.unwrap();

    spawn_blocking(|| postgres.stop()).await.unwrap();
    let mut table = Table::default();
    let stub = || alice.stub.clone();
    table.row("Mutate", &alice.mutate(put("during", "1", "{}")).await.unwrap_err());
    table.row("GetRecord", &alice.task("1").await.unwrap_err());
    let list = ListRecordsRequest { collection: "task".into(), ..Default::default() };
    table.row("ListRecords", &stub().list_records(list).await.unwrap_err());
    let since = ChangesSinceRequest::default();
    table.row("ChangesSince", &stub().changes_since(since).await.unwrap_err());
    let status = GetStatusRequest::default();
    table.row("GetStatus", &stub().get_status(status).await.unwrap_err());
    insta::assert_snapshot!("database_away", table.0);

    let postgres = spawn_blocking(|| PrivatePostgres::start(again).unwrap()).await.unwrap();
    let result = wait_for("the database is found again", async || {
        match alice.mutate(put("during", "1", r#"{"n":2}"#)).await {
            Ok(result) => Some(result),
            Err(status) => {
                assert!(describe(&status).starts_with("Unavailable SYNC_FAILED"), "{status:?}");
                None
            }
        }
    });
    assert_eq!(result.await.revision, 2);
    assert_eq!(alice.task("1").await.unwrap(), r#"{"n":2}"#);
    server.shutdown().await;
    spawn_blocking(|| postgres.stop()).await.unwrap();
}
