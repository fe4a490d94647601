//! What is counted for whoever watches the server, and the page that shows it in the
//! format of Prometheus, on an address of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::chain::Chain;
use crate::tasks::Tasks;

/// Whoever watches asks now and then: more connections at once are none of theirs.
const CONNECTIONS_MAX: usize = 16;
/// Whoever is slower does not keep a place from others.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    pub(crate) access_refused: Counter,
    pub(crate) calls_limited: Counter,
    pub(crate) queue_applied: Counter,
    pub(crate) queue_conflicted: Counter,
    pub(crate) queue_failed: Counter,
    pub(crate) queue_retried: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("syncline");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        Self {
            access_refused: counter(
                "access_refused",
                "Calls and frames of known callers that were refused for lack of a right",
            ),
            calls_limited: counter("calls_limited", "Calls and frames beyond a rate"),
            queue_applied: counter("queue_applied", "Queued mutations that were applied"),
            queue_conflicted: counter(
                "queue_conflicted",
                "Queued mutations that are one side of an open conflict",
            ),
            queue_failed: counter(
                "queue_failed",
                "Queued mutations that have failed for good: somebody has to look at them",
            ),
            queue_retried: counter(
                "queue_retried",
                "Attempts to apply a queued mutation that came to nothing and are repeated",
            ),
            registry: Mutex::new(registry),
        }
    }
}

impl Metrics {
    /// Everything as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _written = encode(&mut text, &self.registry.lock());
        text
    }

    /// Shows them to whoever asks, until `stop`.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tasks: Tasks,
        stop: CancellationToken,
    ) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // Cancel: a connection that was not accepted is still in the listener's queue.
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _peer)) => stream,
                Err(failure) => {
                    warn!(error = %Chain(&failure), "a connection for metrics was not accepted");
                    // It would fail again at once: out of file descriptors, most likely.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
            let (metrics, stop) = (Arc::clone(&self), stop.clone());
            drop(tasks.spawn("metrics connection", async move {
                let answer = service_fn(|request| {
                    let answer = metrics.answer(&request);
                    async { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), answer);
                // Cancel: whoever is being answered asks again.
                let ended = tokio::select! {
                    () = stop.cancelled() => return,
                    ended = timeout(CONNECTION_TIMEOUT, connection) => ended,
                };
                if let Ok(Err(failure)) = ended {
                    debug!(error = %Chain(&failure), "a connection for metrics broke");
                }
                drop(place);
            }));
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let known = request.uri().path() == "/metrics";
        let text = match (known, request.method() == Method::GET) {
            (true, true) => self.text(),
            _ => "GET /metrics is all there is here\n".to_owned(),
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        if !known {
            *response.status_mut() = StatusCode::NOT_FOUND;
        } else if request.method() != Method::GET {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        } else {
            let kind = header::HeaderValue::from_static(CONTENT_TYPE);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
        }
        response
    }
}
