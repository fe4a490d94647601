//! How a client is opened: whose file, which server, which token, and what the app says of its
//! own data. Must not open anything.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::edit::Edit;
use super::engine::Mode;
use super::remote::{Identity, Target};
use crate::clock::Clock;
use crate::domain::{CollectionName, DeviceId, Pointer, UserId};

type Fetching = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// Where tokens come from.
#[derive(Clone)]
pub(super) struct Token(Arc<dyn Fn(bool) -> Fetching + Send + Sync>);

impl Token {
    pub(super) fn fetch(&self, force: bool) -> Fetching {
        (self.0)(force)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

type Upcast = Arc<dyn Fn(&str, i64, Edit) -> Result<Edit, String> + Send + Sync>;

/// How a client is opened; see [`super::Client::open`].
///
/// ```
/// use std::time::Duration;
/// use syncline::client::Options;
///
/// # async fn sign_in(_again: bool) -> Result<String, String> { Ok("a token".into()) }
/// let options = Options::new("alice.db", "alice")
///     .server("https://sync.example.com")
///     // Asked whenever a token is needed; `true` if the server has refused the last one.
///     .tokens(|force| async move { sign_in(force).await })
///     .sensitive("card", "/number")
///     .poll(Duration::from_secs(60));
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct Options {
    pub(super) path: PathBuf,
    pub(super) user: Result<UserId, String>,
    pub(super) device: Option<Result<DeviceId, String>>,
    pub(super) server: Option<String>,
    ca_pem: Option<Vec<u8>>,
    identity: Option<Identity>,
    pub(super) token: Option<Token>,
    pub(super) mode: Mode,
    pub(super) schema_version: i64,
    pub(super) upcast: Option<Upcast>,
    sensitive: Vec<(String, String)>,
    pub(super) clock: Clock,
    pub(super) seed: Option<u64>,
    pub(super) silence: Option<Duration>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("path", &self.path)
            .field("user", &self.user)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The file of one user on one device. Without a server the client works on the file alone.
    pub fn new(path: impl Into<PathBuf>, user: &str) -> Self {
        Self {
            path: path.into(),
            user: UserId::parse(user),
            device: None,
            server: None,
            ca_pem: None,
            identity: None,
            token: None,
            mode: Mode::Live,
            schema_version: 0,
            upcast: None,
            sensitive: Vec::new(),
            clock: Clock::system(),
            seed: None,
            silence: None,
        }
    }

    /// The server, such as `https://sync.example.com`.
    #[must_use]
    pub fn server(mut self, url: &str) -> Self {
        self.server = Some(url.to_owned());
        self
    }

    /// The authorities that vouch for the server, in PEM; without them, the system's.
    #[must_use]
    pub fn authorities(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// What we show to a server that wants to know its clients.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// A token that does not change.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.tokens(move |_force| {
            let token = token.clone();
            async move { Ok(token) }
        })
    }

    /// Asks the app for a token whenever one is needed: at the start, before one ends, and with
    /// `true` if the server has refused the one before.
    #[must_use]
    pub fn tokens<F, R>(mut self, fetch: F) -> Self
    where
        F: Fn(bool) -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, String>> + Send + 'static,
    {
        self.token = Some(Token(Arc::new(move |force| Box::pin(fetch(force)))));
        self
    }

    /// The name of this device; without it the file's, which is random.
    #[must_use]
    pub fn device(mut self, device: &str) -> Self {
        self.device = Some(DeviceId::parse(device));
        self
    }

    /// Without a stream: changes come as often as this, and whenever something is sent.
    #[must_use]
    pub fn poll(mut self, every: Duration) -> Self {
        self.mode = Mode::Poll { every };
        self
    }

    /// The version of the app's data. Edits that an older version of the app has queued are
    /// given to `upcast`, with their collection and version, before anything is sent; Err sets
    /// one aside.
    ///
    /// ```
    /// use serde_json::json;
    /// use syncline::client::{Client, Edit, Options, Patch};
    ///
    /// # async fn run() -> Result<(), syncline::client::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let file = dir.path().join("alice.db");
    /// let old = Client::open(Options::new(&file, "alice")).await?;
    /// let own = old.own().await?;
    /// own.put("task", "1", json!({"name": "Milk"})).await?;
    /// own.patch("task", "1", json!({"name": "Oat milk"})).await?;
    /// old.close().await;
    ///
    /// // The next version of the app calls it "title".
    /// let renamed = |mut fields: serde_json::Value| {
    ///     if let Some(name) = fields.as_object_mut().and_then(|it| it.remove("name")) {
    ///         fields["title"] = name;
    ///     }
    ///     fields
    /// };
    /// let options = Options::new(&file, "alice").schema_version(2, move |_collection, _from, edit| {
    ///     let edit = match edit {
    ///         Edit::Put(document) => Edit::put(renamed(document.value())),
    ///         Edit::Patch(patch) => patch.with_fields(renamed(patch.fields())).map(Edit::Patch),
    ///         other => Ok(other),
    ///     };
    ///     edit.map_err(|error| error.to_string())
    /// });
    /// let own = Client::open(options).await?.own().await?;
    /// assert_eq!(own.get("task", "1").await?.unwrap().value(), json!({"title": "Oat milk"}));
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    #[must_use]
    pub fn schema_version(
        mut self,
        version: i64,
        upcast: impl Fn(&str, i64, Edit) -> Result<Edit, String> + Send + Sync + 'static,
    ) -> Self {
        self.schema_version = version;
        self.upcast = Some(Arc::new(upcast));
        self
    }

    /// A field, by a JSON Pointer, whose values are never written to disk. They are read and
    /// written like others, but an edit with one waits in memory only: if the program ends
    /// before it is sent, it is set aside for the app.
    #[must_use]
    pub fn sensitive(mut self, collection: &str, path: &str) -> Self {
        self.sensitive.push((collection.to_owned(), path.to_owned()));
        self
    }

    /// Another clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What chance depends on, for tests.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long a server may say nothing on a stream before it is taken for gone, for tests that
    /// cannot wait as long as an app does.
    #[doc(hidden)]
    #[must_use]
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = Some(silence);
        self
    }

    pub(super) fn target(&self) -> Result<Option<Target>, Error> {
        let Some(url) = &self.server else { return Ok(None) };
        let url: http::Uri =
            url.parse().map_err(|error| Error::invalid(format!("server {url:?}: {error}")))?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.authority().is_none() {
            return Err(Error::invalid("the server must be http://host:port or https://host:port"));
        }
        let (ca_pem, identity) = (self.ca_pem.clone(), self.identity.clone());
        Ok(Some(Target { url, ca_pem, identity }))
    }

    pub(super) fn sensitive_fields(&self) -> Result<HashMap<CollectionName, Vec<Pointer>>, Error> {
        let mut fields: HashMap<_, Vec<_>> = HashMap::new();
        for (collection, path) in &self.sensitive {
            let collection = CollectionName::parse(collection);
            let path = Pointer::parse(path);
            let invalid = |rule| Error::invalid(format!("a sensitive field {rule}"));
            let (collection, path) = (collection.map_err(invalid)?, path.map_err(invalid)?);
            fields.entry(collection).or_default().push(path);
        }
        Ok(fields)
    }
}
