//! A record as an app sees it.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Error;
use super::store::Row;
use crate::domain::Document;

/// A record, with the edits that wait on top.
///
/// ```
/// use serde::Deserialize;
/// use serde_json::json;
/// use syncline::client::{Client, Options};
///
/// #[derive(Deserialize)]
/// struct Task {
///     title: String,
/// }
///
/// # async fn run() -> Result<(), syncline::client::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let client = Client::open(Options::new(dir.path().join("alice.db"), "alice")).await?;
/// let own = client.own().await?;
/// own.create("task", "1", json!({"title": "Sleep"})).await?;
/// let record = own.get("task", "1").await?.expect("it was created");
/// let task: Task = record.parse()?;
/// assert_eq!(task.title, "Sleep");
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its collection.
    pub collection: String,
    /// Its id there.
    pub id: String,
    /// Edits of it wait to be sent, or for their answer.
    pub pending: bool,
    /// Of the server's state beneath; 0 if the server has none yet.
    pub revision: i64,
    document: Document,
}

impl Record {
    /// The document's canonical JSON text.
    pub fn json(&self) -> &str {
        self.document.as_str()
    }

    /// The document.
    pub fn value(&self) -> Value {
        self.document.value()
    }

    /// The document as a type of the app.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(self.document.as_str()).map_err(Error::invalid)
    }
}

impl From<Row> for Record {
    fn from(row: Row) -> Self {
        Self {
            collection: row.key.collection.as_str().to_owned(),
            id: row.key.id.as_str().to_owned(),
            pending: row.pending,
            revision: row.revision,
            document: row.document,
        }
    }
}
