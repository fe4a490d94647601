//! One space, as an app works with it. Every call reads or writes the local file; none waits
//! for a server, unless it says so.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::edit::{Edit, Patch};
use super::query::Query;
use super::record::Record;
use super::replica::{Again, Replica};
use super::store::{Conditions, Need, StoreError, Wanted};
use super::watch::{self, Changes};
use super::{Client, Conflict, Error, Outcome, Resolution, document, resolve, upcast};
use crate::domain::{
    CollectionName, MutationId, Pointer, RecordId, RecordKey, Space as SpaceName, limits,
};

/// A space that the client follows.
///
/// ```
/// use serde_json::json;
/// use syncline::client::{Client, EntryState, Options, Patch};
///
/// # async fn run() -> Result<(), syncline::client::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// let client = Client::open(Options::new(dir.path().join("alice.db"), "alice")).await?;
/// let list = client.own().await?;
/// let edit = list.put("item", "milk", json!({"title": "Milk", "count": 1})).await?;
///
/// // It is on disk and shown, and waits for a server.
/// let milk = list.get("item", "milk").await?.expect("it was put");
/// assert!(milk.pending && milk.revision == 0);
/// assert_eq!(list.outcome(&edit).await?.unwrap().state, EntryState::Pending);
///
/// // A relative change goes together with those of other devices.
/// list.patch("item", "milk", Patch::new().increment("/count", 2)?).await?;
/// assert_eq!(list.get("item", "milk").await?.unwrap().value()["count"], 3);
///
/// // What nobody has sent yet can be taken back.
/// let wrong = list.delete("item", "milk").await?;
/// list.discard(&wrong).await?;
/// assert!(list.get("item", "milk").await?.is_some());
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Space {
    pub(super) client: Client,
    pub(super) no: i64,
    name: SpaceName,
}

impl Space {
    pub(super) fn new(client: Client, no: i64, name: SpaceName) -> Self {
        Self { client, no, name }
    }

    /// Its name, such as `users/alice`.
    pub fn name(&self) -> &str {
        self.name.name()
    }

    /// A push message said that something has changed here: it is fetched now.
    pub fn hint(&self) {
        self.client.inner.lead.hint(self.no);
    }

    /// Makes a record, or replaces its document. On disk when this returns, and shown; tells
    /// the edit's id, by which [`Space::outcome`] knows it.
    pub async fn put(
        &self,
        collection: &str,
        id: &str,
        fields: impl Serialize,
    ) -> Result<String, Error> {
        self.edit(collection, id, Edit::Put(document(fields)?)).await
    }

    /// Makes a record; an error if it is there, or if it turns out to be.
    pub async fn create(
        &self,
        collection: &str,
        id: &str,
        fields: impl Serialize,
    ) -> Result<String, Error> {
        self.edit(collection, id, Edit::Create(document(fields)?)).await
    }

    /// Changes parts of a record: fields to merge, or a [`Patch`] that can do more.
    pub async fn patch(
        &self,
        collection: &str,
        id: &str,
        patch: impl TryInto<Patch, Error: Into<Error>>,
    ) -> Result<String, Error> {
        let patch = patch.try_into().map_err(Into::into)?;
        self.edit(collection, id, Edit::Patch(patch)).await
    }

    /// Deletes a record.
    pub async fn delete(&self, collection: &str, id: &str) -> Result<String, Error> {
        self.edit(collection, id, Edit::Delete).await
    }

    /// Queues an edit. Cancel safe: an edit that was handed over is written.
    pub async fn edit(&self, collection: &str, id: &str, edit: Edit) -> Result<String, Error> {
        let key = key(collection, id)?;
        self.admit(&key, &edit)?;
        let inner = &self.client.inner;
        let (now, version) = (self.now(), inner.options.schema_version);
        let hidden = self.hidden(&key);
        // If the last entry is of this record, it is among those of it.
        let need = Need::records(vec![key.clone()]);
        let step = move |replica: &mut Replica| {
            let edit = replica.without_loss(&key, edit, &hidden);
            replica.enqueue(new_id(), &key, edit, now, version)
        };
        crate::failpoint::reach("client.before_edit");
        let id = inner.store.step(self.no, need, step).await??;
        inner.lead.queued(self.no);
        Ok(id.as_str().to_owned())
    }

    /// Fields of a record that are in memory only.
    fn hidden(&self, key: &RecordKey) -> Vec<Pointer> {
        self.client.inner.store.vault().fields(&key.collection).to_vec()
    }

    /// What breaks a rule whatever the record is.
    fn admit(&self, key: &RecordKey, edit: &Edit) -> Result<(), Error> {
        let inner = &self.client.inner;
        if let Edit::Patch(patch) = edit {
            if patch.unset.len() > limits::PATCH_UNSET_MAX {
                let max = limits::PATCH_UNSET_MAX;
                return Err(Error::invalid(format!("a patch removes more than {max} paths")));
            }
            if patch.transforms.len() > limits::PATCH_TRANSFORMS_MAX {
                let max = limits::PATCH_TRANSFORMS_MAX;
                return Err(Error::invalid(format!(
                    "a patch has more than {max} relative changes"
                )));
            }
            if inner.store.vault().is_relative(&key.collection, patch) {
                return Err(Error::invalid("sensitive fields are set, not changed relatively"));
            }
        }
        let syncs = inner.options.server.is_some();
        if syncs
            && !inner.lead.is_leading()
            && inner.store.vault().is_sensitive(&key.collection, edit)
        {
            return Err(Error::NotLeading);
        }
        Ok(())
    }

    fn now(&self) -> i64 {
        let nanos = self.client.inner.options.clock.now().unix_timestamp_nanos();
        i64::try_from(nanos / 1_000).unwrap_or(i64::MAX)
    }

    /// Reads a record, if there is one.
    pub async fn get(&self, collection: &str, id: &str) -> Result<Option<Record>, Error> {
        let row = self.client.inner.store.get(self.no, &key(collection, id)?).await?;
        Ok(row.map(Record::from))
    }

    /// Finds records.
    pub async fn query(&self, query: &Query) -> Result<Vec<Record>, Error> {
        let asked = query.asked()?;
        let conditions = Conditions::all(&asked.conditions, 4);
        let window = (i64::from(query.offset), query.limit.map_or(-1, i64::from));
        let store = &self.client.inner.store;
        let rows =
            store.find(self.no, &asked.collection, &conditions, &asked.order, window).await?;
        Ok(rows.into_iter().map(Record::from).collect())
    }

    /// The collections in which something is shown, by name, with how many records that is.
    pub async fn collections(&self) -> Result<Vec<(String, u64)>, Error> {
        Ok(self.client.inner.store.collections(self.no).await?)
    }

    /// Follows what a query finds: first all of it, then what is shown otherwise, by whatever
    /// edit, device or process. Order and limit do not count.
    ///
    /// ```
    /// use futures_util::StreamExt;
    /// use serde_json::json;
    /// use syncline::client::{Client, Options, Query};
    ///
    /// # async fn run() -> Result<(), syncline::client::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let client = Client::open(Options::new(dir.path().join("alice.db"), "alice")).await?;
    /// let own = client.own().await?;
    /// own.put("task", "1", json!({"done": false})).await?;
    /// let mut open = own.watch(&Query::all("task").eq("/done", false));
    /// let first = open.next().await.expect("the client is open")?;
    /// assert!(first.whole && first.changed.len() == 1);
    ///
    /// own.patch("task", "1", json!({"done": true})).await?;
    /// let next = open.next().await.expect("the client is open")?;
    /// assert_eq!(next.removed, ["1"]);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub fn watch(&self, query: &Query) -> BoxStream<'static, Result<Changes, Error>> {
        watch::query(self.clone(), query).boxed()
    }

    /// Follows one record: first as it is, then whenever it is shown otherwise.
    pub fn watch_record(
        &self,
        collection: &str,
        id: &str,
    ) -> BoxStream<'static, Result<Option<Record>, Error>> {
        watch::record(self.clone(), collection, id).boxed()
    }

    /// What has become of an edit; None if it is long done, or was discarded.
    pub async fn outcome(&self, id: &str) -> Result<Option<Outcome>, Error> {
        Ok(self.client.inner.store.entry(id).await?.map(Outcome::from))
    }

    /// Waits until the server has answered an edit, however long that takes.
    pub async fn settled(&self, id: &str) -> Result<Option<Outcome>, Error> {
        let mut written = self.client.inner.store.written();
        loop {
            let outcome = self.outcome(id).await?;
            if outcome.as_ref().is_none_or(|outcome| !outcome.state.is_open()) {
                return Ok(outcome);
            }
            // Level: the file is read again whatever has rung.
            written.changed().await.ok_or(StoreError::Closed)?;
        }
    }

    /// Edits that wait to be sent, or for their answer, in their order.
    pub async fn pending(&self) -> Result<Vec<Outcome>, Error> {
        let found = self.client.inner.store.open_entries(self.no).await?;
        Ok(found.into_iter().map(Outcome::from).collect())
    }

    /// Edits that were refused, and wait for the app: to [retry](Space::retry) them, perhaps
    /// edited, or to [discard](Space::discard) them. They hold up nothing.
    ///
    /// ```no_run
    /// use serde_json::json;
    /// use syncline::client::{Edit, Error, Space};
    ///
    /// async fn mend(space: &Space) -> Result<(), Error> {
    ///     for edit in space.parked().await? {
    ///         let trouble = edit.trouble.unwrap_or_default();
    ///         eprintln!("{} {}: {}", edit.collection, edit.record, trouble.message);
    ///         match trouble.reason.as_str() {
    ///             "SCHEMA" => space.retry(&edit.id, Some(Edit::put(json!({"title": "?"}))?)).await?,
    ///             "QUOTA_EXCEEDED" => space.retry(&edit.id, None).await?,
    ///             _ => {
    ///                 space.discard(&edit.id).await?;
    ///                 continue;
    ///             }
    ///         };
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub async fn parked(&self) -> Result<Vec<Outcome>, Error> {
        let found = self.client.inner.store.parked_entries(self.no).await?;
        Ok(found.into_iter().map(Outcome::from).collect())
    }

    /// Queues an edit again that was set aside, behind all others, or another one in its place.
    pub async fn retry(&self, id: &str, edit: Option<Edit>) -> Result<String, Error> {
        let found = self.client.inner.store.entry(id).await?.ok_or(Error::NotParked)?;
        let (number, now, space) = (found.entry.number, self.now(), found.space);
        let (key, options) = (found.entry.key.clone(), &self.client.inner.options);
        let (version, hidden) = (options.schema_version, self.hidden(&key));
        // What an older version has queued is not sent as if it were of this one.
        let is_old = found.entry.schema_version < version && found.entry.sent.is_none();
        let cast = match &edit {
            None if is_old => upcast::cast(found.entry, options).map(|it| it.edit).transpose()?,
            _ => None,
        };
        for edit in edit.iter().chain(&cast) {
            self.admit(&key, edit)?;
        }
        let need = Need::entries(Wanted::Number(number));
        let step = move |replica: &mut Replica| {
            let [edit, cast] =
                [edit, cast].map(|it| it.map(|it| replica.without_loss(&key, it, &hidden)));
            replica.retry(number, new_id(), Again { edit, cast }, now, version)
        };
        crate::failpoint::reach("client.before_retry");
        let id = self.client.inner.store.step(space, need, step).await??;
        self.client.inner.lead.queued(space);
        Ok(id.as_str().to_owned())
    }

    /// Takes an edit out of the queue that was set aside, or that was not sent yet.
    pub async fn discard(&self, id: &str) -> Result<(), Error> {
        let found = self.client.inner.store.entry(id).await?.ok_or(Error::NotParked)?;
        let number = found.entry.number;
        let need = Need::entries(Wanted::Number(number));
        let step = move |replica: &mut Replica| replica.discard(number);
        crate::failpoint::reach("client.before_discard");
        Ok(self.client.inner.store.step(found.space, need, step).await??)
    }

    /// Conflicts that wait for a decision, as far as they are known here. Who shows one shows the
    /// record as well ([`Space::get`], after this): it may have been written since.
    ///
    /// ```no_run
    /// use syncline::client::{Error, Resolution, Space};
    ///
    /// async fn decide(space: &Space) -> Result<(), Error> {
    ///     for conflict in space.conflicts().await? {
    ///         eprintln!("both changed {:?} of {}", conflict.paths, conflict.record);
    ///         space.resolve(&conflict, Resolution::KeepClient).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub async fn conflicts(&self) -> Result<Vec<Conflict>, Error> {
        let found = self.client.inner.store.conflicts(self.no).await?;
        let parsed = found.iter().map(|(body, revision)| {
            let conflict: Conflict = serde_json::from_str(body)?;
            // What is deleted may be here no more.
            let revision = conflict.server.revision.max(*revision);
            Ok(Conflict { revision, ..conflict })
        });
        let parsed: Result<Vec<_>, serde_json::Error> = parsed.collect();
        Ok(parsed.map_err(|error| StoreError::Damaged(error.to_string()))?)
    }

    /// Decides a conflict, for everybody, as [`Space::conflicts`] has told it. Asks the server,
    /// which must be reachable; if the record has been written since that was read, nothing is
    /// decided (`RECORD_CHANGED`): look at it again.
    pub async fn resolve(&self, conflict: &Conflict, resolution: Resolution) -> Result<(), Error> {
        resolve::resolve(self, conflict, resolution).await
    }
}

impl TryFrom<Value> for Patch {
    type Error = Error;

    fn try_from(fields: Value) -> Result<Self, Error> {
        Self::merge(fields)
    }
}

fn new_id() -> MutationId {
    MutationId::from_stored(&Uuid::new_v4().to_string())
}

pub(super) fn key(collection: &str, id: &str) -> Result<RecordKey, Error> {
    let collection = CollectionName::parse(collection)
        .map_err(|rule| Error::invalid(format!("the collection {rule}")))?;
    let id = RecordId::parse(id).map_err(|rule| Error::invalid(format!("the id {rule}")))?;
    Ok(RecordKey { collection, id })
}
