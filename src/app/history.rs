//! What was: a record at a revision, the steps that it went through, and the document
//! that it had before it was deleted.

use std::sync::Arc;

use super::reading::snapshot;
use super::{App, Error};
use crate::domain::{Document, Record, RecordKey, Revision, Scope, Space, Undelete, limits};
use crate::store::{SnapshotQuery, StepsPage, StepsQuery};

/// What an undeletion finds.
#[derive(Clone, Debug)]
pub enum Undeletable {
    /// The record lives.
    Lives,
    /// It was deleted at this revision, and is to get this document.
    Deleted { at: Revision, document: Document },
}

impl App {
    /// One record as it was at a revision, with the open conflicts of now.
    pub async fn record_at(
        &self,
        space: Space,
        key: RecordKey,
        at: Revision,
    ) -> Result<Arc<Record>, Error> {
        let store = self.store.clone();
        let found = self.detached(async move {
            let scope = Scope::Records([key].into());
            let query = SnapshotQuery {
                space: space.id,
                at,
                after: None,
                scope: &scope,
                entries_max: 1,
                bytes_max: limits::DOCUMENT_BYTES_MAX,
            };
            Ok(snapshot(&store, &space, None, query).await)
        });
        match found.await? {
            Ok(page) => page.records.into_iter().next().ok_or(Error::RecordNotThere { at }),
            Err(Error::Cursor { fault, epoch, head, floor }) => {
                Err(Error::Revision { fault, epoch, head, floor })
            }
            Err(other) => Err(other),
        }
    }

    /// A page of a record's history, the latest first.
    pub async fn record_steps(&self, space: Space, query: StepsQuery) -> Result<StepsPage, Error> {
        let (store, first) = (self.store.clone(), query.from.is_none());
        let page = self.detached(async move { store.record_steps(space.id, &query).await }).await?;
        // What a page goes on with may be gone; what never was has no first page.
        page.filter(|page| !first || !page.steps.is_empty())
            .ok_or(Error::RecordNotFound { deleted_at: None })
    }

    /// What an undeletion would bring back now.
    pub async fn undeletable(
        &self,
        space: Space,
        undelete: Undelete,
    ) -> Result<Undeletable, Error> {
        let Undelete { key, document_at } = undelete;
        let (store, id, of) = (self.store.clone(), space.id, key.clone());
        let found = self.detached(async move { store.record(id, &of).await }).await?;
        let Some(tombstone) = found else {
            return Err(Error::RecordNotFound { deleted_at: None });
        };
        if tombstone.lives() {
            return Ok(Undeletable::Lives);
        }
        let document = match document_at {
            None => self.document_before(space, &tombstone).await?,
            Some(at) => {
                let record = self.record_at(space, key, at).await?;
                record.document.clone().ok_or(Error::RecordNotThere { at })?
            }
        };
        Ok(Undeletable::Deleted { at: tombstone.revision, document })
    }

    /// The last document that a deleted record had.
    async fn document_before(&self, space: Space, tombstone: &Record) -> Result<Document, Error> {
        // What was deleted may have been deleted again. Without room for documents, a
        // page ends with the first one that there is.
        let mut from = tombstone.previous_revision;
        while from != Revision::ZERO {
            let query = StepsQuery {
                key: tombstone.key.clone(),
                from: Some(from),
                entries_max: limits::PAGE_ENTRIES_MAX,
                bytes_max: 1,
            };
            let page = self.record_steps(space.clone(), query).await?;
            let mut documents = page.steps.iter().filter_map(|it| it.change.document.as_ref());
            if let Some(document) = documents.next() {
                return Ok(document.clone());
            }
            from = page.next.unwrap_or_default();
            if page.truncated {
                let (deleted_at, floor) = (tombstone.revision, page.space.floor);
                return Err(Error::DocumentNotKept { deleted_at, floor });
            }
        }
        // It never had one.
        Err(Error::RecordNotFound { deleted_at: Some(tombstone.revision) })
    }
}
