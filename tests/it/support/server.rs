//! A server in this process.

use std::net::SocketAddr;
use std::time::Duration;

use syncline::auth::{Grant, KeyConfig, Minter, Verifier};
use syncline::clock::Clock;
use syncline::config::{
    LogConfig, Origins, Policies, QuotaConfig, RateConfig, RetentionConfig, ServerConfig,
};
use syncline::domain::UserId;
use syncline::server::Server;
use syncline::store::Store;
use tokio::net::TcpListener;

use super::proxy::Proxy;
use super::{Client, Database, store_at};

pub const SECRET: &str = "a secret for tests, longer than 32 bytes";
pub const ISSUER: &str = "syncline-tests";
pub const AUDIENCE: &str = "syncline";

/// A token for this user, good for an hour.
pub fn mint(user: &str) -> String {
    mint_for(user, Duration::from_secs(3_600))
}

/// A token that is good for this long.
pub fn mint_for(user: &str, ttl: Duration) -> String {
    let minter = Minter::new(&KeyConfig::Secret(SECRET.into())).unwrap();
    let user = UserId::parse(user).unwrap();
    minter.mint(&user, ttl, Clock::system().unix_seconds(), ISSUER, AUDIENCE).unwrap()
}

/// A token with grants, good for this long from now on by that clock.
pub fn mint_granted(user: &str, grants: &[&str], ttl: Duration, clock: &Clock) -> String {
    let minter = Minter::new(&KeyConfig::Secret(SECRET.into())).unwrap();
    let grants = grants.iter().map(|name| Grant::parse(name).unwrap()).collect();
    let user = UserId::parse(user).unwrap();
    minter.with_grants(grants).mint(&user, ttl, clock.unix_seconds(), ISSUER, AUDIENCE).unwrap()
}

/// For tests that count statements: by default compaction comes so often that it comes
/// between.
pub fn compacts_rarely(config: &mut ServerConfig) {
    config.compaction_interval = Duration::from_mins(10);
}

/// A server on port 0. Several on one database are replicas.
#[derive(Debug)]
pub struct TestServer {
    server: Server,
}

impl TestServer {
    pub async fn start(database: &Database) -> Self {
        Self::start_with(database, Clock::system(), |_config| {}).await
    }

    pub async fn start_with(
        database: &Database,
        clock: Clock,
        change: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        Self::start_on(database.store().await, clock, change).await
    }

    /// On a store that leads to its database in its own way.
    pub async fn start_on(
        store: Store,
        clock: Clock,
        change: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let mut config = Self::config();
        change(&mut config);
        let verifier = Verifier::new(&KeyConfig::Secret(SECRET.into()), ISSUER, AUDIENCE).unwrap();
        Self::start_verifying(store, verifier, clock, &config).await
    }

    /// Small, quick and without limits.
    pub fn config() -> ServerConfig {
        ServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            log: LogConfig { filter: "warn".into(), format: syncline::logging::LogFormat::Auto },
            committers: 2,
            database_connections: 4,
            max_connections: 1_000,
            max_connections_per_address: 0,
            tls: None,
            cors_origins: Origins::default(),
            clock_skew: Duration::from_secs(60),
            retention: RetentionConfig {
                log_retention: Duration::from_hours(24),
                tombstone_retention: Duration::from_hours(24),
                device_wait: Duration::from_hours(24),
            },
            compaction_interval: Duration::from_secs(5),
            quotas: QuotaConfig::unlimited(),
            rates: RateConfig::unlimited(),
            policies: Policies::default(),
            ring_bytes: 16 << 20,
            shutdown_deadline: Duration::from_secs(5),
            without_digests: false,
            metrics_listen: None,
            reflection: true,
        }
    }

    /// One that lets in whom this verifier does.
    pub async fn start_verifying(
        store: Store,
        verifier: Verifier,
        clock: Clock,
        config: &ServerConfig,
    ) -> Self {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        let server = Server::start(listener, store, verifier, clock, config).await.unwrap();
        Self { server }
    }

    /// With a proxy between it and PostgreSQL.
    pub async fn behind_proxy(database: &Database) -> (Self, Proxy) {
        let (proxy, url) = Proxy::postgres(&database.url).await;
        let store = store_at(&url).await;
        (Self::start_on(store, Clock::system(), |_config| {}).await, proxy)
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A client of this user, on a connection of its own.
    pub async fn client(&self, user: &str) -> Client {
        Client::connect(self.address(), &mint(user)).await
    }

    /// A client of this user, who may set policies.
    pub async fn admin(&self, user: &str) -> Client {
        let minter = Minter::new(&KeyConfig::Secret(SECRET.into())).unwrap();
        let minter = minter.with_grants(vec![Grant::Policies]);
        let (user, ttl) = (UserId::parse(user).unwrap(), Duration::from_secs(3_600));
        let now = Clock::system().unix_seconds();
        let token = minter.mint(&user, ttl, now, ISSUER, AUDIENCE).unwrap();
        Client::connect(self.address(), &token).await
    }

    pub async fn stop(self) {
        self.server.shutdown().await;
    }
}
