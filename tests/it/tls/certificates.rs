//! Certificates that tests make for themselves, and callers who look at them.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tonic::transport::Endpoint;
use tower::service_fn;

use crate::support::{Client, mint};

/// Somebody who vouches for others.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Identity {
    pub cert_pem: String,
    pub cert_der: Vec<u8>,
    pub key_pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this machine, which differs from all others.
    pub fn issue(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &self.0).unwrap();
        let cert_der = cert.der().to_vec();
        Identity { cert_pem: cert.pem(), cert_der, key_pem: key.serialize_pem() }
    }
}

/// Somebody who calls over TLS.
#[derive(Clone)]
pub struct Caller {
    roots: Arc<RootCertStore>,
    versions: Vec<&'static SupportedProtocolVersion>,
    protocol: &'static [u8],
    identity: Option<(String, String)>,
}

impl Caller {
    pub fn trusting(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).unwrap();
        let versions = vec![&TLS13, &TLS12];
        Self { roots: Arc::new(roots), versions, protocol: b"h2", identity: None }
    }

    pub fn speaking(self, version: &'static SupportedProtocolVersion) -> Self {
        Self { versions: vec![version], ..self }
    }

    pub fn asking_for(self, protocol: &'static [u8]) -> Self {
        Self { protocol, ..self }
    }

    pub fn showing(self, identity: &Identity) -> Self {
        let identity = (identity.cert_pem.clone(), identity.key_pem.clone());
        Self { identity: Some(identity), ..self }
    }

    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = vec![self.protocol.to_vec()];
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    pub async fn client(&self, address: SocketAddr, user: &str) -> Client {
        let caller = self.clone();
        let connector = service_fn(move |_uri| {
            let caller = caller.clone();
            async move { caller.connect(address).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        Client::on(channel, &mint(user))
    }

    /// A client that connects with its first call.
    pub fn lazy(self, address: SocketAddr, user: &str) -> Client {
        let connector = service_fn(move |_uri| {
            let caller = self.clone();
            async move { caller.connect(address).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        Client::on(endpoint.connect_with_connector_lazy(connector), &mint(user))
    }
}
