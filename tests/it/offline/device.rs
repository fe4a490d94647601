//! A device of a user: a file of its own, and a client on it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use syncline::client::{Client, Options, Space, Status};

use crate::support::{TestServer, mint};

/// How long a device may take to be as the server.
pub const SOON: Duration = Duration::from_secs(30);

/// One installation of an app. Its file goes with it.
#[derive(Debug)]
pub struct Device {
    dir: tempfile::TempDir,
    pub user: String,
    pub client: Client,
    pub own: Space,
}

impl Device {
    /// A new installation, on this server.
    pub async fn new(user: &str, server: &TestServer) -> Self {
        Self::at(user, &url(server)).await
    }

    /// One that finds the server there.
    pub async fn at(user: &str, url: &str) -> Self {
        let token = mint(user);
        Self::with(user, |options| options.server(url).token(token)).await
    }

    /// One without a server.
    pub async fn alone(user: &str) -> Self {
        Self::with(user, |options| options).await
    }

    pub async fn with(user: &str, change: impl FnOnce(Options) -> Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::in_dir(dir, user, change).await
    }

    async fn in_dir(
        dir: tempfile::TempDir,
        user: &str,
        change: impl FnOnce(Options) -> Options,
    ) -> Self {
        let options = change(Options::new(dir.path().join("app.db"), user));
        let client = Client::open(options).await.unwrap();
        let own = client.own().await.unwrap();
        Self { dir, user: user.to_owned(), client, own }
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("app.db")
    }

    /// The program ends, and is started again.
    pub async fn restarted(self, change: impl FnOnce(Options) -> Options) -> Self {
        self.client.close().await;
        Self::in_dir(self.dir, &self.user, change).await
    }

    /// Waits until it is as the server, and nothing waits.
    pub async fn synced(&self) -> Status {
        match self.client.synced(SOON).await {
            Ok(status) => status,
            Err(error) => panic!("{error}: {:#?}", self.client.status().await),
        }
    }

    /// A record's document; null if there is none.
    pub async fn see(&self, collection: &str, id: &str) -> Value {
        let record = self.own.get(collection, id).await.unwrap();
        record.map_or(Value::Null, |record| record.value())
    }
}

pub fn url(server: &TestServer) -> String {
    format!("http://{}", server.address())
}
