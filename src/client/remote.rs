//! A plain connection to a server: where it is, whom we trust there, the token that goes with each
//! call, and a stub for each service. It connects with the first call, and again when it must.
//! Must not know what is called for, nor who asks: what goes wrong is told as a [`Fault`].

mod fault;
mod values;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub use self::fault::{Fault, Violation};
pub use self::values::{document, duration, json_text, time};
use crate::rpc::proto::conflict_service_client::ConflictServiceClient;
use crate::rpc::proto::policy_service_client::PolicyServiceClient;
use crate::rpc::proto::queue_service_client::QueueServiceClient;
use crate::rpc::proto::space_service_client::SpaceServiceClient;
use crate::rpc::proto::sync_service_client::SyncServiceClient;
pub use tonic::{Code, Streaming};

/// For the connection with its handshake.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// A server says something at least every 15 s on a stream; a dead connection shows sooner.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// As the server limits messages.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// A service's stub, with the token in each call.
type Authorized = InterceptedService<Channel, Bearer>;

/// A server, and how to reach it.
#[derive(Clone, Debug)]
pub struct Target {
    /// `http://host:port` or `https://host:port`.
    pub url: http::Uri,
    /// The authorities that vouch for the server, in PEM; without them, the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// What we show to a server that wants to know its clients.
    pub identity: Option<Identity>,
}

/// A client's certificate and its key, for mutual TLS.
#[derive(Clone)]
pub struct Identity {
    /// The certificate with its chain, in PEM.
    pub cert_pem: Vec<u8>,
    /// The private key, in PEM.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A connection. Cheap to clone; clones share it, and the token.
#[derive(Clone, Debug)]
pub struct Remote {
    channel: Channel,
    bearer: Bearer,
}

impl Remote {
    /// Does not connect yet. Must be called within a runtime.
    pub fn new(target: &Target) -> Result<Self, Fault> {
        let mut endpoint = Endpoint::from(target.url.clone())
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .tcp_nodelay(true);
        if target.url.scheme_str() == Some("https") {
            let config = match &target.ca_pem {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            let config = match &target.identity {
                Some(it) => {
                    config.identity(tonic::transport::Identity::from_pem(&it.cert_pem, &it.key_pem))
                }
                None => config,
            };
            endpoint = endpoint.tls_config(config).map_err(|error| Fault::transport(&error))?;
        }
        Ok(Self { channel: endpoint.connect_lazy(), bearer: Bearer::default() })
    }

    /// Sends this token with each call from now on, or none.
    pub fn set_token(&self, token: Option<&str>) -> Result<(), Fault> {
        let value = token.map(|token| format!("Bearer {token}").parse()).transpose();
        let mut value: Option<MetadataValue<Ascii>> = value.map_err(|_| Fault::unfit_token())?;
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        *self.bearer.0.write() = value;
        Ok(())
    }

    /// Reads, writes and follows records.
    pub fn sync(&self) -> SyncServiceClient<Authorized> {
        SyncServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The conflict log.
    pub fn conflicts(&self) -> ConflictServiceClient<Authorized> {
        ConflictServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What collections do with conflicts.
    pub fn policies(&self) -> PolicyServiceClient<Authorized> {
        PolicyServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Shared spaces, histories and whole spaces.
    pub fn spaces(&self) -> SpaceServiceClient<Authorized> {
        SpaceServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Mutations that the server applies by itself.
    pub fn queue(&self) -> QueueServiceClient<Authorized> {
        QueueServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// How the server says that it is; it asks for no token.
    pub async fn health(&self) -> Result<Health, Fault> {
        let mut health = HealthClient::new(self.channel.clone());
        let answer = health.check(HealthCheckRequest::default()).await?;
        let date = answer.metadata().get("date").and_then(|date| date.to_str().ok());
        let date = date.map(str::to_owned);
        Ok(Health { is_serving: answer.into_inner().status() == ServingStatus::Serving, date })
    }
}

/// How a server is.
#[derive(Clone, Debug)]
pub struct Health {
    /// It answers calls.
    pub is_serving: bool,
    /// Its clock, to the second, as headers have times; None if something on the way leaves it out.
    pub date: Option<String>,
}

/// Adds the token to each call.
#[derive(Clone, Debug, Default)]
pub struct Bearer(Arc<RwLock<Option<MetadataValue<Ascii>>>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = self.0.read().clone() {
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}
