//! Streams of what is shown: they read the file, whoever has written to it, and tell what is
//! otherwise than it was told before. A stream that is not read costs nothing.

use std::collections::HashSet;

use futures_util::{Stream, stream};

use super::query::{Asked, Query};
use super::record::Record;
use super::store::{Conditions, Moved, Row, StoreError, Written};
use super::{Error, Space, space};

/// What is shown otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// These are all that there are: forget what was told before.
    pub whole: bool,
    /// Records that are new, or have another document, or whose edits are no longer pending.
    pub changed: Vec<Record>,
    /// Ids of records that are gone, or do not fit any more.
    pub removed: Vec<String>,
}

/// A query while it is followed.
struct Following {
    space: Space,
    asked: Asked,
    written: Written,
    /// Where the counter of the space was when this was told last; None = nothing was.
    at: Option<i64>,
    /// The space was left, and that was told.
    gone: bool,
    known: HashSet<String>,
}

pub(super) fn query(
    space: Space,
    query: &Query,
) -> impl Stream<Item = Result<Changes, Error>> + use<> {
    let begun = query.asked().map(|asked| {
        let written = space.client.inner.store.written();
        Following { space, asked, written, at: None, gone: false, known: HashSet::new() }
    });
    stream::unfold(Some(begun), async |state| match state? {
        Err(error) => Some((Err(error), None)),
        Ok(mut following) => match following.next().await {
            Ok(None) => None,
            Ok(Some(changes)) => Some((Ok(changes), Some(Ok(following)))),
            Err(Error::Store(StoreError::Closed)) => None,
            Err(error) => Some((Err(error), None)),
        },
    })
}

impl Following {
    /// What has changed since the last time; None once the client is closed, or the space left.
    async fn next(&mut self) -> Result<Option<Changes>, Error> {
        while !self.gone {
            // Before it is read: what is written meanwhile rings again.
            self.written.know();
            let changes = match self.at {
                None => Some(self.all().await?),
                Some(at) => self.since(at).await?,
            };
            match changes {
                Some(changes) if changes != Changes::default() => return Ok(Some(changes)),
                // Too long ago.
                None => self.at = None,
                Some(_) => {
                    if self.written.changed().await.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(None)
    }

    async fn all(&mut self) -> Result<Changes, Error> {
        let store = &self.space.client.inner.store;
        // The counter first: what is shown later is told again, not lost.
        self.at = store.counter(self.space.no).await?;
        self.gone = self.at.is_none();
        let conditions = Conditions::all(&self.asked.conditions, 4);
        let (collection, no) = (&self.asked.collection, self.space.no);
        let rows = store.find(no, collection, &conditions, &self.asked.order, (0, -1)).await?;
        self.known = rows.iter().map(id).collect();
        let changed = rows.into_iter().map(Record::from).collect();
        Ok(Changes { whole: true, changed, removed: Vec::new() })
    }

    async fn since(&mut self, at: i64) -> Result<Option<Changes>, Error> {
        let store = &self.space.client.inner.store;
        let conditions = Conditions::all(&self.asked.conditions, 4);
        let moved = store.moved(self.space.no, &self.asked.collection, &conditions, at).await?;
        let Some((now, moved)) = moved else { return Ok(None) };
        self.at = Some(now);
        let mut changes = Changes::default();
        for moved in moved {
            match moved {
                Moved::Shown(row) => {
                    self.known.insert(id(&row));
                    changes.changed.push(row.into());
                }
                Moved::Gone(key) => {
                    let id = key.id.as_str().to_owned();
                    // Whoever was never told of it need not forget it.
                    if self.known.remove(&id) {
                        changes.removed.push(id);
                    }
                }
            }
        }
        Ok(Some(changes))
    }
}

fn id(row: &Row) -> String {
    row.key.id.as_str().to_owned()
}

pub(super) fn record(
    space: Space,
    collection: &str,
    id: &str,
) -> impl Stream<Item = Result<Option<Record>, Error>> + use<> {
    let written = space.client.inner.store.written();
    let begun = space::key(collection, id).map(|key| (space, key, written, None));
    stream::unfold(Some(begun), async |state| {
        let (space, key, mut written, mut told) = match state? {
            Err(error) => return Some((Err(error), None)),
            Ok(state) => state,
        };
        loop {
            written.know();
            let row = match space.client.inner.store.get(space.no, &key).await {
                Err(StoreError::Closed) => return None,
                Err(error) => return Some((Err(error.into()), None)),
                Ok(row) => row.map(Record::from),
            };
            let json = row.as_ref().map(|record| record.json().to_owned());
            if told.as_ref() != Some(&json) {
                told = Some(json);
                return Some((Ok(row), Some(Ok((space, key, written, told)))));
            }
            written.changed().await?;
        }
    })
}
