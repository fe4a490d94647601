//! Puts the services together behind their layers, with every limit that tonic
//! leaves open, and serves them.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::transport::{Error, Server};
use tonic_health::ServingStatus;
use tonic_web::GrpcWebLayer;
use tower::ServiceBuilder;
use tracing::{info, warn};

use super::acting::act;
use super::auth::AuthLayer;
use super::check::CheckLayer;
use super::incoming::{Limits, incoming};
use super::intake::IntakeLayer;
use super::linger::LingerLayer;
use super::outer::OuterLayer;
use super::proto::DESCRIPTOR_SET;
use super::proto::server::conflict_service_server::ConflictServiceServer;
use super::proto::server::policy_service_server::PolicyServiceServer;
use super::proto::server::queue_service_server::QueueServiceServer;
use super::proto::server::space_service_server::SpaceServiceServer;
use super::proto::server::sync_service_server::SyncServiceServer;
use super::rates::{Kind, Limiters};
use super::service::Service;
use super::tls::Tls;
use super::web::{GateLayer, cors};
use crate::app::App;
use crate::auth::{Principal, Verifier};
use crate::clock::Clock;
use crate::domain::{Rates, limits};
use crate::tasks::Tasks;

/// What a server is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub app: Arc<App>,
    pub verifier: Arc<Verifier>,
    pub clock: Clock,
    /// Client connections; further ones are closed at once.
    pub connections_max: usize,
    /// Of them those from one address; 0 = all.
    pub address_connections_max: usize,
    /// Without it, connections are in the clear.
    pub tls: Option<Arc<Tls>>,
    /// The origins whose pages may read answers; `*` alone stands for all.
    pub cors_origins: Vec<HeaderValue>,
    /// How often callers may call.
    pub rates: Rates,
    /// Serve the contract by reflection.
    pub reflection: bool,
    /// How long calls and streams may take to end.
    pub shutdown_deadline: Duration,
}

/// Streams on one connection. A client with more to follow puts several
/// subscriptions on one stream.
const CONNECTION_STREAMS_MAX: u32 = 200;
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// A connection whose peer does not answer a ping in time is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// tonic passes "no limit" unless told: then one client can have any number of
/// streams reset, each at our cost.
const LOCAL_RESETS_MAX: usize = 1_024;
const PENDING_RESETS_MAX: usize = 20;
/// What a connection may have in flight towards us.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Serves until `stop` is done, then ends: no new connections, streams are told
/// and closed, calls are answered. What is left at the
/// deadline ends with the process.
pub async fn serve(
    listener: TcpListener,
    parts: Parts,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let streams = Tasks::new();
    let stopping = streams.token();
    let deadline = parts.shutdown_deadline;
    let limits = Limits { all: parts.connections_max, address: parts.address_connections_max };
    let incoming = incoming(listener, limits, parts.tls.clone(), streams.clone());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<SyncServiceServer<Service>>().await;
    health.set_serving::<ConflictServiceServer<Service>>().await;
    health.set_serving::<PolicyServiceServer<Service>>().await;
    health.set_serving::<QueueServiceServer<Service>>().await;
    health.set_serving::<SpaceServiceServer<Service>>().await;
    let limiters = Arc::new(Limiters::new(parts.rates));
    // Outside of gRPC-Web nothing is translated, and outside of CORS no page can read.
    let layers = ServiceBuilder::new()
        .option_layer(cors(&parts.cors_origins))
        .layer(LingerLayer)
        .layer(GateLayer)
        .layer(GrpcWebLayer::new())
        .layer(OuterLayer)
        .layer(by_address(Arc::clone(&limiters), Arc::clone(&parts.app)))
        .layer(AuthLayer::new(Arc::clone(&parts.verifier), parts.clock.clone()))
        .layer(by_user(Arc::clone(&limiters), Arc::clone(&parts.app)))
        .layer(acting(Arc::clone(&parts.app)))
        .layer(IntakeLayer::default());
    let routes = routes(parts, (&streams, limiters), Routes::new(health_service));
    let serving = limited()
        .layer(layers)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
    tokio::pin!(serving);
    // Cancel: `stop` only waits, and `serving` is only borrowed.
    tokio::select! {
        ended = &mut serving => return ended,
        () = stop => {}
    }
    info!("stopping");
    health.set_service_status("", ServingStatus::NotServing).await;
    health.set_not_serving::<SyncServiceServer<Service>>().await;
    health.set_not_serving::<ConflictServiceServer<Service>>().await;
    health.set_not_serving::<PolicyServiceServer<Service>>().await;
    health.set_not_serving::<QueueServiceServer<Service>>().await;
    health.set_not_serving::<SpaceServiceServer<Service>>().await;
    stopping.cancel();
    end(serving, &streams, deadline).await
}

/// Refuses addresses that call too often, whoever calls.
fn by_address(limiters: Arc<Limiters>, app: Arc<App>) -> CheckLayer {
    CheckLayer::new(move |request| {
        let peer = request.extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let admitted = peer.map_or(Ok(()), |peer| limiters.admit_address(peer.ip()));
        admitted.inspect_err(|_refused| app.count_limited())
    })
}

/// Refuses users who call too often. Of who acts for another it is the actor who counts.
fn by_user(limiters: Arc<Limiters>, app: Arc<App>) -> CheckLayer {
    CheckLayer::new(move |request| match request.extensions.get::<Principal>() {
        Some(principal) => {
            let kind = Kind::of_path(request.uri.path());
            let admitted = limiters.admit(&principal.caller.user, kind);
            admitted.inspect_err(|_refused| app.count_limited())
        }
        None => Ok(()),
    })
}

fn acting(app: Arc<App>) -> CheckLayer {
    CheckLayer::new(move |request| act(&app, request))
}

/// Our service and, if it is wanted, the contract by reflection, added to others.
fn routes(parts: Parts, (streams, limiters): (&Tasks, Arc<Limiters>), others: Routes) -> Routes {
    let service = Service {
        app: parts.app,
        clock: parts.clock,
        verifier: parts.verifier,
        limiters,
        streams: streams.clone(),
        stop: streams.token(),
    };
    let conflicts = ConflictServiceServer::new(service.clone())
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let policies = PolicyServiceServer::new(service.clone())
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let queue = QueueServiceServer::new(service.clone())
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let spaces = SpaceServiceServer::new(service.clone())
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let sync = SyncServiceServer::new(service)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let routes = others.add_service(sync).add_service(conflicts).add_service(policies);
    let routes = routes.add_service(queue).add_service(spaces);
    if parts.reflection { with_reflection(routes) } else { routes }
}

fn with_reflection(mut routes: Routes) -> Routes {
    let set = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Both sets are built into the program, so they can be read.
    if let Ok(v1) = set().build_v1() {
        routes = routes.add_service(v1);
    }
    if let Ok(v1alpha) = set().build_v1alpha() {
        routes = routes.add_service(v1alpha);
    }
    routes
}

/// A server with all the limits of a connection. Those of HTTP/1.1, which browsers speak without
/// TLS, cannot be set: hyper closes a connection that does not finish its request's headers, or
/// idles, for 30 s, and refuses more than 100 headers or 408 KiB of them.
fn limited() -> Server {
    Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS_MAX))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
}

/// Waits until connections and streams, which have been told, are gone.
async fn end(
    serving: impl Future<Output = Result<(), Error>>,
    streams: &Tasks,
    deadline: Duration,
) -> Result<(), Error> {
    match tokio::time::timeout(deadline, serving).await {
        Ok(ended) => ended?,
        Err(_late) => warn!("connections did not end in time; they end with the process"),
    }
    if let Err(still) = streams.shutdown(deadline).await {
        warn!(%still, "streams did not end in time");
    }
    Ok(())
}
