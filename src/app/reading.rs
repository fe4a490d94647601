//! Reading: records, pages of changes, conflicts. Each is one statement on a task of
//! its own.

use std::sync::Arc;

use super::{App, Error};
use crate::domain::{
    Access, Answer, CollectionName, Conflict, Cursor, CursorFault, DeviceId, Epoch, Fingerprint,
    MutationId, MutationResult, Record, RecordId, RecordKey, Refusal, Scope, Space, UserId,
};
use crate::store::{
    self, ChangesPage, ChangesQuery, ConflictQuery, ConflictsPage, RecordsPage, SnapshotPage,
    SnapshotQuery, SpaceHead, SpaceStatus, Store, Tallies,
};

/// Which changes to read.
#[derive(Clone, Debug)]
pub struct Reading {
    pub space: Space,
    pub cursor: Cursor,
    pub scope: Scope,
    /// Every step, or each record's last change only.
    pub every_step: bool,
    pub entries_max: usize,
    /// Of documents.
    pub bytes_max: usize,
}

/// Whether a cursor can be resumed where the space is.
pub(super) fn check(cursor: Cursor, at: SpaceHead) -> Result<(), Error> {
    let SpaceHead { epoch, head, floor, conflicts: _ } = at;
    cursor.check(epoch, floor, head).map_err(|fault| Error::Cursor { fault, epoch, head, floor })
}

/// A page of changes. Not cancel safe.
pub(super) async fn changes(store: &Store, reading: &Reading) -> Result<ChangesPage, store::Error> {
    let query = ChangesQuery {
        space: reading.space.id,
        after: reading.cursor.revision,
        scope: &reading.scope,
        every_step: reading.every_step,
        entries_max: reading.entries_max,
        bytes_max: reading.bytes_max,
    };
    loop {
        if let Some(page) = store.changes(query).await? {
            return Ok(page);
        }
        store.status(&reading.space, None).await?;
    }
}

/// A page of a snapshot, or why there is none at that revision of the epoch; without
/// one, of whatever history the space has. Not cancel safe.
pub(super) async fn snapshot(
    store: &Store,
    space: &Space,
    epoch: Option<Epoch>,
    query: SnapshotQuery<'_>,
) -> Result<SnapshotPage, Error> {
    let page = loop {
        if let Some(page) = store.snapshot(query).await? {
            break page;
        }
        store.status(space, None).await?;
    };
    // A snapshot at 0 needs no more of the log than a cursor there.
    let cursor = Cursor { epoch: epoch.or(Some(page.space.epoch)), revision: query.at };
    check(cursor, page.space)?;
    if page.too_far {
        let SpaceHead { epoch, head, floor, .. } = page.space;
        return Err(Error::Cursor { fault: CursorFault::Expired, epoch, head, floor });
    }
    Ok(page)
}

impl App {
    /// One living record.
    pub async fn record(&self, space: Space, key: RecordKey) -> Result<Arc<Record>, Error> {
        let store = self.store.clone();
        let found = self.detached(async move { store.record(space.id, &key).await }).await?;
        match found {
            Some(record) if record.lives() => Ok(record),
            Some(tombstone) => Err(Error::RecordNotFound { deleted_at: Some(tombstone.revision) }),
            None => Err(Error::RecordNotFound { deleted_at: None }),
        }
    }

    /// A page of a collection's living records.
    pub async fn records(
        &self,
        space: Space,
        collection: CollectionName,
        after: Option<RecordId>,
        entries_max: usize,
    ) -> Result<RecordsPage, Error> {
        let store = self.store.clone();
        self.detached(async move {
            loop {
                let page = store.records(space.id, &collection, after.as_ref(), entries_max);
                if let Some(page) = page.await? {
                    return Ok(page);
                }
                store.status(&space, None).await?;
            }
        })
        .await
    }

    /// A page of the changes after a cursor, or why it cannot be resumed.
    pub async fn changes(&self, reading: Reading) -> Result<ChangesPage, Error> {
        let (store, cursor) = (self.store.clone(), reading.cursor);
        let page = self.detached(async move { changes(&store, &reading).await }).await?;
        check(cursor, page.space)?;
        Ok(page)
    }

    /// Where a space is, and where the device is in it.
    pub async fn status(
        &self,
        space: Space,
        device: Option<(UserId, DeviceId)>,
    ) -> Result<SpaceStatus, Error> {
        let store = self.store.clone();
        self.detached(async move {
            let device = device.as_ref().map(|(user, device)| (user, device));
            store.status(&space, device).await
        })
        .await
    }

    /// The tallies of a part of a space, which is not single records.
    pub async fn tallies(&self, space: Space, scope: Scope) -> Result<Tallies, Error> {
        let store = self.store.clone();
        self.detached(async move {
            loop {
                if let Some(tallies) = store.tallies(space.id, &scope).await? {
                    return Ok(tallies);
                }
                store.status(&space, None).await?;
            }
        })
        .await
    }

    /// A page of conflicts, the latest first.
    pub async fn conflicts(
        &self,
        space: Space,
        query: ConflictQuery,
    ) -> Result<ConflictsPage<i64>, Error> {
        let store = self.store.clone();
        self.detached(async move { store.conflicts(space.id, &query).await }).await
    }

    /// One conflict, and its record as it is now.
    pub async fn conflict(
        &self,
        space: Space,
        id: MutationId,
    ) -> Result<(Conflict, Option<Arc<Record>>), Error> {
        let store = self.store.clone();
        let found = self.detached(async move {
            let Some(conflict) = store.conflict(space.id, &id).await? else { return Ok(None) };
            let record = store.record(space.id, &conflict.key).await?;
            Ok(Some((conflict, record)))
        });
        found.await?.ok_or(Error::ConflictNotFound)
    }

    /// The first answer of a mutation of this content, if it was decided before.
    pub async fn first_answer(
        &self,
        space: Space,
        id: MutationId,
        fingerprint: Fingerprint,
    ) -> Result<Option<MutationResult>, Error> {
        let (store, mutation_id) = (self.store.clone(), id.clone());
        let found = self.detached(async move { store.answer(space.id, &mutation_id).await });
        match found.await? {
            Some(answer) if answer.fingerprint != fingerprint => {
                Err(Error::Refused(Refusal::MutationIdReused { index: 0, id }))
            }
            Some(Answer { outcome, .. }) => {
                Ok(Some(MutationResult { mutation_id: id, outcome, replayed: true }))
            }
            None => Ok(None),
        }
    }

    /// How many conflicts wait for a decision, as far as the access extends.
    pub async fn open_conflicts(&self, access: &Access) -> Result<i64, Error> {
        let (store, space) = (self.store.clone(), access.space.id);
        let collections = access.collections.clone();
        self.detached(async move { store.open_conflicts(space, collections.as_deref()).await })
            .await
    }
}
