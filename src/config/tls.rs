//! Where the certificate is that clients see, as flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Error, wrong};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct TlsArgs {
    /// File with the server's certificate and those between it and the authority, in PEM: with it
    /// and --tls-key there is TLS. All these files are looked at every 5 s.
    #[arg(long, value_name = "FILE")]
    pub(super) tls_cert: Option<PathBuf>,
    /// File with the certificate's private key, in PEM.
    #[arg(long, value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,
    /// File with the authorities of which every client needs a certificate, in PEM (mutual TLS).
    #[arg(long, value_name = "FILE")]
    pub(super) tls_client_ca: Option<PathBuf>,
}

/// Files for TLS.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// The certificate, with its chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients' certificates, if these are wanted.
    pub client_ca: Option<PathBuf>,
    /// How often the files are looked at.
    pub look_interval: Duration,
}

impl TlsArgs {
    /// Both files, or none.
    pub(super) fn config(self) -> Result<Option<TlsConfig>, Error> {
        match (self.tls_cert, self.tls_key, self.tls_client_ca) {
            (Some(cert), Some(key), client_ca) => {
                Ok(Some(TlsConfig { cert, key, client_ca, look_interval: LOOK_INTERVAL }))
            }
            (None, None, None) => Ok(None),
            (None, ..) => Err(wrong("--tls-cert", "missing: TLS needs a certificate and its key")),
            (_, None, _) => Err(wrong("--tls-key", "missing: TLS needs a certificate and its key")),
        }
    }
}
