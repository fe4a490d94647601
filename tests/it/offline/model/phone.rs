//! An installation behind a network of its own, which is closed, killed, cut off and brought
//! back at will. It follows everything that it shows, and keeps what it was told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use syncline::client::{Changes, Client, Error, Options, Query, Space, SpaceStatus};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::offline::Heard;
use crate::offline::device::url;
use crate::support::proxy::{Proxy, Target};
use crate::support::{mint, wait_for};

type Watching = Pin<Box<dyn Stream<Item = Result<Changes, Error>> + Send>>;

/// How a phone syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Stream,
    Poll,
}

/// How a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Closed,
    Dropped,
}

/// A collection that is followed, as it was told.
struct Watched {
    collection: String,
    changes: Watching,
    told: BTreeMap<String, String>,
}

pub struct Phone {
    pub name: String,
    pub user: String,
    pub proxy: Proxy,
    pub client: Client,
    pub space: Space,
    /// Its connections of before are silent for good.
    pub silent: bool,
    manner: Manner,
    collections: Vec<String>,
    watched: Vec<Watched>,
    /// What it has told, whenever it was started.
    pub heard: Heard,
    dir: TempDir,
}

impl Phone {
    pub async fn new(
        (name, user, space): (&str, &str, &str),
        server: SocketAddr,
        manner: Manner,
        collections: &[&str],
    ) -> Self {
        let proxy = Proxy::start(Target::Tcp(server)).await;
        let dir = tempfile::tempdir().unwrap();
        let (client, space) = open((name, user, space), &dir, &proxy, manner).await;
        let collections: Vec<_> = collections.iter().map(|it| (*it).to_owned()).collect();
        let watched = watch(&space, &collections);
        Self {
            name: name.to_owned(),
            user: user.to_owned(),
            heard: Heard::new(&client),
            proxy,
            client,
            space,
            silent: false,
            manner,
            collections,
            watched,
            dir,
        }
    }

    /// The program ends, and is started again.
    pub async fn restarted(self, end: End) -> Self {
        let Self { name, user, proxy, client, space, silent, manner, collections, dir, .. } = self;
        let mut heard = self.heard;
        heard.read();
        let followed = space.name().to_owned();
        drop(self.watched);
        if end == End::Closed {
            client.close().await;
            heard.read();
        }
        drop((client, space));
        let (client, space) = open((&name, &user, &followed), &dir, &proxy, manner).await;
        let watched = watch(&space, &collections);
        heard.go_on(&client);
        Self { name, user, proxy, client, space, silent, manner, collections, watched, heard, dir }
    }

    /// Goes on with what it follows, as far as that is told without waiting.
    pub async fn read_on(&mut self) {
        for watched in &mut self.watched {
            watched.read_on().await;
        }
    }

    /// What it was told is what it finds.
    pub async fn check_watches(&mut self) {
        for watched in &mut self.watched {
            let space = &self.space;
            wait_for("what is followed to be what is found", async || {
                watched.read_on().await;
                (watched.told == shown(space, &watched.collection).await).then_some(())
            })
            .await;
        }
    }

    pub async fn status(&self) -> SpaceStatus {
        let status = self.client.status().await.unwrap();
        let mut spaces = status.spaces.into_iter();
        spaces.find(|it| it.name == self.space.name()).expect("the space is followed")
    }
}

impl Watched {
    async fn read_on(&mut self) {
        // A file that nobody writes to is read within this; more comes when it is asked again.
        while let Ok(next) = timeout(Duration::from_millis(20), self.changes.next()).await {
            let changes = next.expect("the client is open").unwrap();
            if changes.whole {
                self.told.clear();
            }
            for record in changes.changed {
                self.told.insert(record.id.clone(), record.json().to_owned());
            }
            for id in changes.removed {
                assert!(self.told.remove(&id).is_some(), "{id} was removed, and never told");
            }
        }
    }
}

/// All that is shown of a collection.
pub async fn shown(space: &Space, collection: &str) -> BTreeMap<String, String> {
    let found = space.query(&Query::all(collection)).await.unwrap();
    found.into_iter().map(|it| (it.id.clone(), it.json().to_owned())).collect()
}

async fn open(
    (name, user, space): (&str, &str, &str),
    dir: &TempDir,
    proxy: &Proxy,
    manner: Manner,
) -> (Client, Space) {
    let options = Options::new(dir.path().join("app.db"), user).device(name);
    let options = options.server(&url(proxy.address())).token(mint(user));
    let options = match manner {
        Manner::Stream => options,
        Manner::Poll => options.poll(Duration::from_millis(300)),
    };
    let client = Client::open(options).await.unwrap();
    let space = match space.strip_prefix("users/") {
        Some(_) => client.own().await.unwrap(),
        None => client.space(space).await.unwrap(),
    };
    (client, space)
}

fn watch(space: &Space, collections: &[String]) -> Vec<Watched> {
    let one = |collection: &String| Watched {
        collection: collection.clone(),
        changes: space.watch(&Query::all(collection)),
        told: BTreeMap::new(),
    };
    collections.iter().map(one).collect()
}
