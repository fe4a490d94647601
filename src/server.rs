//! A whole server: the app with its background tasks, and the wire in front of
//! it. `dev`, `serve`, the bench and the tests all start this one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::app::{App, Settings};
use crate::auth::Verifier;
use crate::chain::Chain;
use crate::clock::Clock;
use crate::config::{ServerConfig, TlsConfig};
use crate::metrics::Metrics;
use crate::rpc;
use crate::store::Store;
use crate::tasks::Tasks;

/// Requests that wait to be decided share this much memory.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    tasks: Tasks,
    deadline: Duration,
    store: Store,
}

impl Server {
    /// Starts serving on a listener that is bound already, so that nobody has to
    /// wait until it can be reached.
    pub async fn start(
        listener: TcpListener,
        store: Store,
        verifier: Verifier,
        clock: Clock,
        config: &ServerConfig,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let tasks = Tasks::new();
        let tls = config.tls.as_ref().map(|files| begin_tls(files, &tasks)).transpose()?;
        let verifier = Arc::new(verifier);
        verifier.first_refresh().await;
        let (keys, stop) = (Arc::clone(&verifier), tasks.token());
        drop(tasks.spawn("keys", async move { keys.follow(stop).await }));
        let metrics = Arc::new(Metrics::default());
        if let Some(address) = config.metrics_listen {
            let listener = TcpListener::bind(address).await?;
            info!(metrics = %listener.local_addr()?, "showing metrics");
            let showing = Arc::clone(&metrics).serve(listener, tasks.clone(), tasks.token());
            drop(tasks.spawn("metrics", showing));
        }
        let settings = Settings {
            committers: config.committers,
            ring_bytes_max: config.ring_bytes,
            queue_bytes_max: QUEUE_BYTES_MAX,
            clock_skew: config.clock_skew,
            without_digests: config.without_digests,
            parse: rpc::parse_mutation,
            metrics: Arc::clone(&metrics),
            retention: config.retention.spans(),
            compaction_interval: config.compaction_interval,
            quotas: config.quotas.quotas(),
        };
        let policies = &config.policies.0;
        let app = App::start(store.clone(), settings, policies, &clock, tasks.clone()).await?;
        let parts = rpc::Parts {
            app,
            verifier,
            clock,
            connections_max: config.max_connections,
            address_connections_max: config.max_connections_per_address,
            tls,
            cors_origins: config.cors_origins.0.clone(),
            rates: config.rates.rates(),
            reflection: config.reflection,
            shutdown_deadline: config.shutdown_deadline,
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        // A group of its own: the app's tasks end only after the last call.
        let serving = Tasks::new().spawn("server", async move {
            if let Err(error) = rpc::serve(listener, parts, stopped).await {
                error!(error = %Chain(&error), "the server ended");
            }
        });
        let deadline = config.shutdown_deadline;
        Ok(Self { address, stop, serving, tasks, deadline, store })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the server ends by itself, which it does only when it fails.
    /// Cancel safe.
    pub async fn ended(&mut self) {
        if let Err(panic) = (&mut self.serving).await {
            error!(error = %Chain(&panic), "the server panicked");
        }
    }

    /// Ends it: streams are told, calls are answered, what was taken is decided.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(panic) = self.serving.await {
            error!(error = %Chain(&panic), "the server panicked");
        }
        if let Err(still) = self.tasks.shutdown(self.deadline).await {
            warn!(%still, "background tasks did not end in time");
        }
        self.store.close().await;
    }
}

/// Reads the files and goes on looking at them.
fn begin_tls(files: &TlsConfig, tasks: &Tasks) -> io::Result<Arc<rpc::Tls>> {
    let TlsConfig { cert, key, client_ca, look_interval } = files.clone();
    let tls = rpc::Tls::load(rpc::TlsFiles { cert, key, client_ca })
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let tls = Arc::new(tls);
    let following = Arc::clone(&tls).follow(look_interval, tasks.token());
    drop(tasks.spawn("certificates", following));
    Ok(tls)
}
