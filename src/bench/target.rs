//! Whom to measure: a private server, or one that runs already.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::net::TcpListener;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;

use crate::auth::{Grant, KeyConfig, Minter, Verifier};
use crate::clock::Clock;
use crate::config::{
    self, BenchTarget, Command, DEV_AUDIENCE, DEV_ISSUER, QuotaConfig, RateConfig, ServerConfig,
    Signer,
};
use crate::domain::{UserId, limits};
use crate::postgres::{Options, PrivatePostgres};
use crate::rpc::proto::sync_service_client::SyncServiceClient;
use crate::rpc::proto::{
    Document, Mutation, PutOperation, RecordKey, document::Form, mutation::Operation,
};
use crate::server::Server;
use crate::store::{Settings, Store};

/// A connection that carries a token.
pub(super) type Connection = InterceptedService<Channel, Bearer>;

/// A stub on one.
pub(super) type Stub = SyncServiceClient<Connection>;

/// Adds the token to each call.
#[derive(Clone, Debug)]
pub(super) struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    pub(super) fn new(token: &str) -> anyhow::Result<Self> {
        Ok(Self(format!("Bearer {token}").parse()?))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A server to measure.
pub(super) struct Target {
    uri: String,
    tokens: Tokens,
    /// The server's database, for the baselines.
    pub(super) database_url: Option<String>,
    private: Option<Private>,
    /// Tells this run's users from those of other runs.
    run: String,
}

/// A replica of the server that is measured.
pub(super) struct Beside {
    server: Server,
}

impl Beside {
    /// A stub on a connection of its own, for this run's user of that number.
    pub(super) async fn stub(&self, target: &Target, user: usize) -> anyhow::Result<Stub> {
        let bearer = Bearer::new(&target.token_of(&format!("{}-{user}", target.run))?)?;
        let channel = connect(&format!("http://{}", self.server.address())).await?;
        Ok(SyncServiceClient::new(InterceptedService::new(channel, bearer)))
    }

    /// Its address.
    pub(super) fn uri(&self) -> String {
        format!("http://{}", self.server.address())
    }

    pub(super) async fn stop(self) {
        self.server.shutdown().await;
    }
}

enum Tokens {
    Dev(Minter),
    Remote(Signer),
}

struct Private {
    server: Server,
    postgres: PrivatePostgres,
    dir: PathBuf,
}

impl Target {
    pub(super) async fn open(target: BenchTarget) -> anyhow::Result<Self> {
        let run = Uuid::now_v7().simple().to_string();
        match target {
            BenchTarget::Dev => Self::start(run, unlimited(dev_config()?)).await,
            BenchTarget::Remote { uri, signer, database_url } => Ok(Self {
                uri: uri.to_string(),
                tokens: Tokens::Remote(*signer),
                database_url: database_url.map(|url| url.expose().to_owned()),
                private: None,
                run,
            }),
        }
    }

    /// A server of the bench's own with all the limits that hold by default.
    pub(super) async fn guarded() -> anyhow::Result<Self> {
        Self::start(Uuid::now_v7().simple().to_string(), dev_config()?).await
    }

    /// A server and a PostgreSQL of the bench's own, with the settings that
    /// `syncline dev` uses, apart from room for the load.
    async fn start(run: String, config: ServerConfig) -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("syncline-bench-{run}"));
        let mut options = Options::new(&dir);
        for (name, value) in [
            ("shared_buffers", "512MB"),
            ("max_wal_size", "8GB"),
            ("checkpoint_timeout", "30min"),
            ("max_connections", "300"),
        ] {
            options.settings.push((name.to_owned(), value.to_owned()));
        }
        let postgres =
            tokio::task::spawn_blocking(move || PrivatePostgres::start(options)).await??;
        let url = postgres.url("postgres");
        let settings = Settings { read_connections: 8, allow_unsafe: false };
        let store = Store::connect(&url, settings).await?;
        store.migrate().await?;
        let key = KeyConfig::Secret(run.repeat(2).into_bytes());
        let verifier = Verifier::new(&key, DEV_ISSUER, DEV_AUDIENCE)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Server::start(listener, store, verifier, Clock::system(), &config).await?;
        Ok(Self {
            uri: format!("http://{}", server.address()),
            tokens: Tokens::Dev(Minter::new(&key)?.with_grants(vec![Grant::Policies])),
            database_url: Some(url),
            private: Some(Private { server, postgres, dir }),
            run,
        })
    }

    /// A stub on a connection of its own, for this run's user of that number.
    pub(super) async fn stub(&self, user: usize) -> anyhow::Result<Stub> {
        self.stub_of(&format!("{}-{user}", self.run)).await
    }

    /// The same for a user by name.
    pub(super) async fn stub_of(&self, user: &str) -> anyhow::Result<Stub> {
        Ok(SyncServiceClient::new(self.connection_of(user).await?)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX))
    }

    /// A connection without a stub.
    pub(super) async fn connection_of(&self, user: &str) -> anyhow::Result<Connection> {
        let bearer = Bearer::new(&self.token_of(user)?)?;
        Ok(InterceptedService::new(connect(&self.uri).await?, bearer))
    }

    /// A token for the user.
    pub(super) fn token_of(&self, user: &str) -> anyhow::Result<String> {
        let user = UserId::parse(user).map_err(anyhow::Error::msg)?;
        let (ttl, now) = (Duration::from_secs(3_600), Clock::system().unix_seconds());
        Ok(match &self.tokens {
            Tokens::Dev(minter) => minter.mint(&user, ttl, now, DEV_ISSUER, DEV_AUDIENCE)?,
            Tokens::Remote(signer) => signer.mint(&user, ttl, now)?,
        })
    }

    /// A second server on the private one's database, as a replica, with other settings.
    pub(super) async fn beside(
        &self,
        change: impl FnOnce(&mut ServerConfig),
    ) -> anyhow::Result<Beside> {
        let Tokens::Dev(_) = &self.tokens else {
            anyhow::bail!("this needs a server of the bench's own")
        };
        let settings = Settings { read_connections: 8, allow_unsafe: false };
        let store = Store::connect(self.database()?, settings).await?;
        let key = KeyConfig::Secret(self.run.repeat(2).into_bytes());
        let verifier = Verifier::new(&key, DEV_ISSUER, DEV_AUDIENCE)?;
        let mut config = unlimited(dev_config()?);
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = Server::start(listener, store, verifier, Clock::system(), &config).await?;
        Ok(Beside { server })
    }

    /// What tells this run from others.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// The server's address.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// The database, for a baseline that needs it.
    pub(super) fn database(&self) -> anyhow::Result<&str> {
        self.database_url
            .as_deref()
            .context("the baselines need the server's database: give --database-url")
    }

    pub(super) async fn close(self) -> anyhow::Result<()> {
        if let Some(Private { server, postgres, dir }) = self.private {
            server.shutdown().await;
            tokio::task::spawn_blocking(move || {
                postgres.stop();
                std::fs::remove_dir_all(dir)
            })
            .await??;
        }
        Ok(())
    }
}

/// The same without limits, where what is measured is the service, and not how it holds back
/// one user.
fn unlimited(config: ServerConfig) -> ServerConfig {
    ServerConfig { quotas: QuotaConfig::unlimited(), rates: RateConfig::unlimited(), ..config }
}

/// What `syncline dev` runs with when no flag is given.
fn dev_config() -> anyhow::Result<ServerConfig> {
    match config::load(["syncline".into(), "dev".into()], |_variable| None)? {
        Command::Dev(dev) => Ok(dev.server),
        _ => anyhow::bail!("`dev` is not the command that was parsed"),
    }
}

/// A connection.
pub(super) async fn connect(uri: &str) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(uri.to_owned())?
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20);
    endpoint.connect().await.with_context(|| format!("cannot connect to {uri}"))
}

/// A document of 268 bytes, as a contact or a task might have.
pub(super) fn document(number: u64) -> String {
    let text = "The quick brown fox jumps over the lazy dog; ".repeat(5);
    format!(
        r#"{{"done":false,"number":{number:010},"tags":["home","garden"],"text":"{}"}}"#,
        text.get(..199).unwrap_or_default()
    )
    .replace(":0", ":1")
}

/// A put of that document.
pub(super) fn put(record: String, number: u64) -> Mutation {
    let json = Form::Json(Bytes::from(document(number)));
    Mutation {
        id: Uuid::new_v4().to_string(),
        key: Some(RecordKey { collection: "task".into(), id: record }),
        operation: Some(Operation::Put(PutOperation {
            document: Some(Document { form: Some(json) }),
        })),
        ..Mutation::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text was once too short to be cut, and so left out.
    #[test]
    fn documents_are_as_large_as_they_are_said_to_be() {
        assert_eq!(document(7).len(), 268);
        assert!(document(7).contains("lazy dog"));
    }
}
