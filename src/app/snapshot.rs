//! Snapshots: a part of a space as it was at one revision, page by page.

use crate::app::{App, Error, reading};
use crate::domain::{Epoch, Revision, Scope, Space};
use crate::store::{SnapshotPage, SnapshotPlace, SnapshotQuery, SpaceHead, Store};

/// Which snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub space: Space,
    pub epoch: Epoch,
    pub at: Revision,
    pub scope: Scope,
}

/// At most so much in a page; there is always room for one document.
#[derive(Clone, Copy, Debug)]
pub struct PageSize {
    pub entries_max: usize,
    /// Of documents.
    pub bytes_max: usize,
}

impl Snapshot {
    /// The page after a place. Not cancel safe.
    pub(super) async fn page(
        &self,
        store: &Store,
        after: Option<&SnapshotPlace>,
        size: PageSize,
    ) -> Result<SnapshotPage, Error> {
        let PageSize { entries_max, bytes_max } = size;
        let (space, at, scope) = (self.space.id, self.at, &self.scope);
        let query = SnapshotQuery { space, at, after, scope, entries_max, bytes_max };
        reading::snapshot(store, &self.space, Some(self.epoch), query).await
    }
}

impl App {
    /// A snapshot of a part of a space, as it is now.
    pub async fn snapshot_now(&self, space: Space, scope: Scope) -> Result<Snapshot, Error> {
        let SpaceHead { epoch, head, .. } = self.heads.read(&space).await?;
        Ok(Snapshot { space, epoch, at: head, scope })
    }

    /// Its next page. Cancel safe.
    pub async fn snapshot_page(
        &self,
        snapshot: Snapshot,
        after: Option<SnapshotPlace>,
        size: PageSize,
    ) -> Result<SnapshotPage, Error> {
        let store = self.store.clone();
        self.detached(async move { Ok(snapshot.page(&store, after.as_ref(), size).await) }).await?
    }
}
