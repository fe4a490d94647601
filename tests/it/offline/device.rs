//! A device of a user: a file of its own, and a client on it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde_json::Value;
use sqlx::{Connection, SqliteConnection};
use syncline::client::{Client, Error, Link, Options, Outcome, Space, Status, Trigger};
use tokio::time::timeout;

use crate::support::{TestServer, mint, wait_for};

/// How long a device may take to be as the server: a limit for what is broken only.
pub const SOON: Duration = Duration::from_secs(120);

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
        Self::at(user, &url(server.address())).await
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

    /// There is no network, until it is told otherwise.
    pub async fn goes_offline(&self) {
        goes_offline(&self.client).await;
    }

    /// What becomes of an edit of the own space.
    pub async fn settled(&self, id: &str) -> Outcome {
        settled(&self.own, id).await
    }

    /// Waits until a task is so; null is none.
    pub async fn shows(&self, id: &str, expected: Value) {
        wait_for(&format!("{id} to be {expected}"), async || {
            (self.see("task", id).await == expected).then_some(())
        })
        .await;
    }

    /// A record's document; null if there is none.
    pub async fn see(&self, collection: &str, id: &str) -> Value {
        let record = self.own.get(collection, id).await.unwrap();
        record.map_or(Value::Null, |record| record.value())
    }
}

/// There is no network for it, until it is told otherwise.
pub async fn goes_offline(client: &Client) {
    client.sync(Trigger::Offline);
    wait_for("to be offline", async || {
        (client.status().await.unwrap().link == Link::Offline).then_some(())
    })
    .await;
}

/// What becomes of an edit.
pub async fn settled(space: &Space, id: &str) -> Outcome {
    let settled = timeout(SOON, space.settled(id)).await;
    settled.expect("the edit is answered").unwrap().expect("the edit is known")
}

/// The next thing that a stream tells.
pub async fn next<T>(stream: &mut (impl Stream<Item = Result<T, Error>> + Unpin)) -> T {
    let next = timeout(SOON, stream.next()).await;
    next.expect("something is told").expect("the client is open").unwrap()
}

/// Does something to a file that its client does not know of.
pub async fn sql(file: &Path, sql: &'static str) {
    let mut db = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

/// Where a server, or what is before it, can be reached.
pub fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}
