//! TLS: the certificate that clients see, the authorities of theirs, and handshakes. The files are
//! looked at again and again, so that a new certificate needs no restart; a broken one changes
//! nothing. Must not know what is said on a connection.

#[cfg(test)]
pub(super) mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::chain::Chain;

/// A handshake must be done by then, whatever the client does.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// No certificate is larger, nor are all authorities of a machine.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// As clients of gRPC and browsers ask for them.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate, with those between it and the authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients' certificates; without them, clients need none.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that holds something else.
    #[error("{} does not hold {expected} in PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// Why it does not.
        source: pem::Error,
    },
    /// The key is another certificate's, or the like.
    #[error("{} and {} do not go together", cert.display(), key.display())]
    Pair {
        /// The file with the certificate.
        cert: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Certificates that cannot be authorities.
    #[error("{} does not hold authorities", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What handshakes are made with now.
pub struct Tls {
    files: TlsFiles,
    now: Mutex<Arc<ServerConfig>>,
    /// Of what the files held when they were looked at last.
    seen: Mutex<Option<Fingerprint>>,
}

type Fingerprint = [u8; 32];

impl Tls {
    /// Reads the files for the first time.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let texts = Texts::read(&files)?;
        let config = texts.config(&files)?;
        let seen = Mutex::new(Some(texts.fingerprint()));
        Ok(Self { files, now: Mutex::new(Arc::new(config)), seen })
    }

    /// Looks at the files until `stop`.
    pub async fn follow(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        loop {
            // Cancel: nothing is lost by not waiting.
            tokio::select! {
                () = stop.cancelled() => return,
                // Nobody tells that a file was replaced, least of all on a mounted volume.
                () = sleep(interval) => {}
            }
            let tls = Arc::clone(&self);
            if let Err(panic) = tokio::task::spawn_blocking(move || tls.look()).await {
                error!(error = %Chain(&panic), "looking at certificates panicked");
            }
        }
    }

    /// Takes what is in the files if it is new and good. What is bad is told once.
    fn look(&self) {
        // By content: a file that is replaced may have the time of the old one.
        let read = Texts::read(&self.files);
        let fingerprint = read.as_ref().ok().map(Texts::fingerprint);
        if std::mem::replace(&mut *self.seen.lock(), fingerprint) == fingerprint {
            return;
        }
        match read.and_then(|texts| texts.config(&self.files)) {
            Ok(config) => {
                *self.now.lock() = Arc::new(config);
                info!("new connections see a new certificate");
            }
            Err(error) => error!(error = %Chain(&error), "the certificate stays as it is"),
        }
    }

    /// Turns a connection into one that nobody else can read.
    pub(super) async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.now.lock()));
        timeout(HANDSHAKE_WITHIN, acceptor.accept(stream)).await?
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// What is in the files.
struct Texts {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Texts {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let client_ca = files.client_ca.as_deref().map(read).transpose()?;
        Ok(Self { cert: read(&files.cert)?, key: read(&files.key)?, client_ca })
    }

    fn fingerprint(&self) -> Fingerprint {
        let mut digest = Sha256::new();
        for text in [&self.cert, &self.key].into_iter().chain(&self.client_ca) {
            digest.update(Sha256::digest(text));
        }
        digest.finalize().into()
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&self.cert, &files.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| TlsError::Pem {
            path: files.key.clone(),
            expected: "a private key",
            source,
        })?;
        // This provider whatever else the program links: no default of the process is asked.
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let pair =
            |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(pair)?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(text), Some(path)) => {
                builder.with_client_cert_verifier(client_verifier(text, path, provider)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }
}

fn client_verifier(
    text: &[u8],
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let unfit = |source| TlsError::Authorities { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(text, path)? {
        roots.add(certificate).map_err(|error| unfit(error.into()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
    verifier.map_err(|error| unfit(error.into()))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(source) => Err(TlsError::Read { path: path.to_owned(), source }),
    }
}

/// One certificate or more.
fn certificates(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.and_then(|all| match all.is_empty() {
        true => Err(pem::Error::NoItemsFound),
        false => Ok(all),
    });
    found.map_err(|source| TlsError::Pem {
        path: path.to_owned(),
        expected: "certificates",
        source,
    })
}
