//! Apps that work without the network and lose nothing.
//!
//! A [`Client`] has one file for one user on one device. Reads and queries come from the file;
//! an edit is on disk before its call returns, is shown at once, and is sent when there is a
//! server. What others have written comes meanwhile. When two devices have written the same
//! record, the policy of its collection decides, here as on the server.
//!
//! ```
//! use serde_json::json;
//! use syncline::client::{Client, Options, Query};
//!
//! # async fn run() -> Result<(), syncline::client::Error> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let file = dir.path().join("alice.db");
//! // With `.server(url).tokens(callback)` it would sync as well.
//! let client = Client::open(Options::new(file, "alice")).await?;
//! let own = client.own().await?;
//! own.put("task", "1", json!({"title": "Buy milk", "done": false})).await?;
//! own.put("task", "2", json!({"title": "Sleep", "done": false})).await?;
//! own.patch("task", "1", json!({"done": true})).await?;
//!
//! let open = own.query(&Query::all("task").eq("/done", false)).await?;
//! assert_eq!(open.len(), 1);
//! assert_eq!(open[0].value()["title"], "Sleep");
//! client.close().await;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

mod backoff;
mod conflict;
mod edit;
mod engine;
mod entry;
mod error;
mod lead;
mod news;
mod options;
mod outcome;
mod query;
mod record;
pub mod remote;
mod replica;
mod resolve;
mod session;
mod space;
mod status;
mod store;
mod upcast;
mod watch;
mod wire;

use std::sync::Arc;

use tokio::sync::{broadcast, watch as bell};

pub use crate::domain::Document;
use crate::domain::{Scope, Space as SpaceName};
use crate::tasks::Tasks;

pub use conflict::{Conflict, Resolution, Side};
pub use edit::{Edit, Patch};
pub use engine::{Code, Fault, HaltReason, LinkState, Phase, TokenTrouble};
pub use entry::{EntryState, Trouble};
pub use error::Error;
pub use news::{News, NewsKind};
pub use options::Options;
pub use outcome::Outcome;
pub use query::Query;
pub use record::Record;
pub use space::Space;
pub use status::{Link, Problem, SpaceStatus, Status};
pub use store::StoreError;
pub use watch::Changes;

use lead::Lead;
use store::{FileOptions, Opened, Store, Vault};

/// News that wait for whoever listens.
const NEWS_MAX: usize = 64;
/// What is still being written when a client is closed.
const CLOSE_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Why a client should sync now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// There is a network, or another one.
    Network,
    /// There is none.
    Offline,
    /// The app came to the front.
    Foreground,
    /// The system lets us work for a moment.
    Periodic,
    /// A person asked for it.
    Demand,
}

/// An open file, and what keeps it in sync. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    options: Options,
    lead: Lead,
    state: bell::Receiver<Option<engine::EngineState>>,
    news: broadcast::Sender<News>,
    tasks: Tasks,
}

impl Client {
    /// Opens the file, makes it if there is none, and begins to sync if a server is given.
    /// Needs a tokio runtime with time and I/O. Refuses a file of another user or device, of a
    /// newer form, or of another program.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let user = options.user.clone();
        let user = user.map_err(|rule| Error::invalid(format!("the user {rule}")))?;
        let device = options.device.clone().transpose();
        let device = device.map_err(|rule| Error::invalid(format!("the device {rule}")))?;
        let target = options.target()?;
        let vault = Vault::new(options.sensitive_fields()?);
        let tasks = Tasks::new();
        let file = FileOptions { path: options.path.clone(), user, device, vault };
        let Opened { store, sentinel } = Store::open(file, &tasks).await?;
        upcast::all(&store, &options).await?;
        let (shown, state) = bell::channel(None);
        let (news, _) = broadcast::channel(NEWS_MAX);
        let parts = lead::Parts {
            store: store.clone(),
            sentinel,
            target: target.zip(options.token.clone()),
            mode: options.mode,
            state: shown,
            news: news.clone(),
            seed: options.seed,
            silence: options.silence,
        };
        let lead = Lead::start(parts, &tasks);
        Ok(Self { inner: Arc::new(Inner { store, options, lead, state, news, tasks }) })
    }

    /// The user's private space, all of it.
    pub async fn own(&self) -> Result<Space, Error> {
        let name = SpaceName::private(&self.inner.store.identity().user);
        self.follow(name, Scope::All).await
    }

    /// A space, all of it, such as `spaces/…`; it is followed from now on.
    pub async fn space(&self, name: &str) -> Result<Space, Error> {
        self.follow(self.name(name)?, Scope::All).await
    }

    /// Some collections of a space. What was kept of others is forgotten here.
    pub async fn collections(&self, name: &str, collections: &[&str]) -> Result<Space, Error> {
        let names: Result<Vec<_>, _> =
            collections.iter().map(|it| crate::domain::CollectionName::parse(it)).collect();
        let names = names.map_err(|rule| Error::invalid(format!("a collection {rule}")))?;
        if names.is_empty() {
            return Err(Error::invalid("no collection is named"));
        }
        self.follow(self.name(name)?, Scope::Collections(names)).await
    }

    /// Follows a space no longer: what is here of it is forgotten, but for what waits to be
    /// sent.
    pub async fn leave(&self, name: &str) -> Result<(), Error> {
        let name = self.name(name)?;
        let facts = self.inner.store.facts().await?;
        if let Some(facts) = facts.iter().find(|it| it.place.space == name) {
            self.inner.store.unfollow(facts.no).await?;
            self.inner.lead.spaces_changed();
            self.inner.store.collect().await?;
        }
        Ok(())
    }

    fn name(&self, name: &str) -> Result<SpaceName, Error> {
        match name {
            "" => Ok(SpaceName::private(&self.inner.store.identity().user)),
            name => SpaceName::named(name)
                .map_err(|rule| Error::invalid(format!("the space {name:?} {rule}"))),
        }
    }

    async fn follow(&self, name: SpaceName, scope: Scope) -> Result<Space, Error> {
        let store = &self.inner.store;
        // As at most starts of an app: nothing has to reach the disk before it can read.
        if let Some(no) = store.followed(&name, &scope).await? {
            return Ok(Space::new(self.clone(), no, name));
        }
        let no = store.follow(name.clone(), scope).await?;
        self.inner.lead.spaces_changed();
        Ok(Space::new(self.clone(), no, name))
    }

    /// Syncs now, if anything can be done: backing off ends.
    pub fn sync(&self, why: Trigger) {
        self.inner.lead.trigger(why);
    }

    /// The device's name in this file.
    pub fn device(&self) -> String {
        self.inner.store.identity().device.to_string()
    }

    /// Takes away what nobody needs any more: old deletions, edits that are done. Happens by
    /// itself now and then.
    pub async fn collect(&self) -> Result<(), Error> {
        Ok(self.inner.store.collect().await?)
    }

    /// Ends the session and closes the file; what was put in is on disk already.
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.tasks.token().cancel();
        inner.store.close().await;
        if let Err(error) = inner.tasks.shutdown(CLOSE_WITHIN).await {
            tracing::warn!(%error, "the client did not end in time");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody can wait here: the session ends by itself, and the writer with its last asker.
        self.tasks.token().cancel();
    }
}

/// A document of an app.
fn document(fields: impl serde::Serialize) -> Result<Document, Error> {
    match serde_json::to_value(fields).map_err(Error::invalid)? {
        serde_json::Value::Object(fields) => Document::from_fields(fields).map_err(Error::invalid),
        _ => Err(Error::invalid("a document must be a JSON object")),
    }
}
