//! Following a space: begin to watch it, read what came before, hear what comes, and
//! say so. What many read alike when they come back together is read once.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::reading::{self, check};
use super::shared::Sized;
use super::snapshot::{PageSize, Snapshot};
use super::{App, Error, Reading};
use crate::domain::{
    Conflict, Cursor, DeviceId, Epoch, Event, Filter, Revision, Scope, Sight, Space, SpaceId,
    UserId, limits,
};
use crate::hub::{Ahead, Entry, Hint, Waker, Watch};
use crate::store::{
    Acknowledged, ChangesPage, ConflictPlace, MovedQuery, SnapshotPlace, SpaceHead,
};

/// What somebody follows.
#[derive(Clone, Copy, Debug)]
pub struct Following<'f> {
    pub space: &'f Space,
    pub epoch: Epoch,
    pub scope: &'f Scope,
    /// Where this replica's live changes begin.
    pub reach: Hint,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct PageKey {
    space: SpaceId,
    epoch: Epoch,
    after: Revision,
    scope: Scope,
}

/// A page of changes, coalesced, with its entries encoded for all who need them.
#[derive(Clone, Debug)]
pub struct SharedPage {
    pub space: SpaceHead,
    pub up_to: Revision,
    pub entries: Arc<[Entry]>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConflictKey {
    space: SpaceId,
    epoch: Epoch,
    ahead: ConflictsAhead,
    scope: Scope,
}

/// The conflicts that were opened or closed between two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConflictsAhead {
    /// Exclusive.
    pub after: ConflictPlace,
    /// Inclusive; what moved later has a higher one.
    pub number_max: i64,
    /// Only what is open still.
    pub open_only: bool,
}

/// A page of them.
pub(super) type SharedConflicts = Arc<(Vec<(ConflictPlace, Conflict)>, bool)>;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct SnapshotKey {
    space: SpaceId,
    epoch: Epoch,
    at: Revision,
    after: Option<SnapshotPlace>,
    scope: Scope,
}

/// A page of a snapshot.
pub type SharedSnapshot = Arc<crate::store::SnapshotPage>;

impl Sized for PageKey {
    fn size_bytes(&self) -> usize {
        self.scope.size_bytes()
    }
}

impl Sized for ConflictKey {
    fn size_bytes(&self) -> usize {
        self.scope.size_bytes()
    }
}

impl Sized for SnapshotKey {
    fn size_bytes(&self) -> usize {
        self.scope.size_bytes()
    }
}

impl Sized for SharedPage {
    fn size_bytes(&self) -> usize {
        self.entries.iter().map(Entry::size_bytes).sum()
    }
}

impl Sized for SharedConflicts {
    fn size_bytes(&self) -> usize {
        self.0.iter().map(|(_, conflict)| conflict.document_bytes()).sum()
    }
}

impl Sized for SharedSnapshot {
    fn size_bytes(&self) -> usize {
        self.records.iter().map(|record| record.size_bytes()).sum()
    }
}

impl App {
    /// Watches a space. Where it is, is read after the watch has begun, so nothing
    /// lies between the two. Cancel safe.
    pub async fn watch(&self, space: &Space, waker: Waker) -> Result<(Watch, SpaceHead), Error> {
        let most = self.quotas.subscriptions;
        if most > 0 && self.hub.watchers(space.id) >= most {
            return Err(Error::TooManySubscriptions);
        }
        let watch = self.hub.watch(space.id, waker);
        let at = self.heads.read(space).await?;
        watch.begin(at.epoch, Hint { head: at.head, conflicts: at.conflicts });
        Ok((watch, at))
    }

    /// The next page of a catch-up: perhaps one that was read for somebody else, if the
    /// hub has what came since. Cancel safe.
    pub async fn page(&self, it: Following<'_>, after: Revision) -> Result<SharedPage, Error> {
        let Following { space, epoch, scope, reach } = it;
        let key = || PageKey { space: space.id, epoch, after, scope: scope.clone() };
        let will_do = |page: &SharedPage| {
            let whole = page.up_to >= page.space.head;
            let joins = page.space.head >= reach.head && page.space.conflicts >= reach.conflicts;
            page.space.epoch == epoch && (!whole || joins)
        };
        let entries_max = self.frame_entries_max();
        let read = || {
            let reading = Reading {
                space: space.clone(),
                cursor: Cursor { epoch: Some(epoch), revision: after },
                scope: scope.clone(),
                every_step: false,
                entries_max,
                // Small pages: what a reader who stops reading can hold is made of them.
                bytes_max: limits::FRAME_DOCUMENT_BYTES_MAX,
            };
            let store = self.store.clone();
            async move {
                let page = reading::changes(&store, &reading).await?;
                check(reading.cursor, page.space)?;
                let ChangesPage { space, changes, up_to } = page;
                let entries = changes.into_iter().map(|change| Entry::new(change, None)).collect();
                Ok(SharedPage { space, up_to, entries })
            }
        };
        self.shared.pages.get(key, will_do, read).await
    }

    /// A page of conflicts that were opened or closed, and whether there are more.
    /// Cancel safe.
    pub async fn conflicts_ahead(
        &self,
        it: Following<'_>,
        ahead: ConflictsAhead,
    ) -> Result<Arc<(Vec<(ConflictPlace, Conflict)>, bool)>, Error> {
        let Following { space, epoch, scope, reach: _ } = it;
        let key = || ConflictKey { space: space.id, epoch, ahead, scope: scope.clone() };
        let read = || {
            let (store, space, scope) = (self.store.clone(), space.id, scope.clone());
            let ConflictsAhead { after, number_max, open_only } = ahead;
            async move {
                let query = MovedQuery { space, after, number_max, scope: &scope, open_only };
                let page = store.moved_conflicts(query).await?;
                Ok(Arc::new((page.conflicts, page.has_more)))
            }
        };
        // What has moved later has a higher number than any that is asked for.
        self.shared.conflicts.get(key, |_| true, read).await
    }

    /// The next page of a snapshot at a revision. Cancel safe.
    pub async fn snapshot(
        &self,
        it: Following<'_>,
        at: Revision,
        after: Option<SnapshotPlace>,
    ) -> Result<SharedSnapshot, Error> {
        let Following { space, epoch, scope, reach: _ } = it;
        let key = || {
            let (scope, after) = (scope.clone(), after.clone());
            SnapshotKey { space: space.id, epoch, at, after, scope }
        };
        let size = PageSize {
            entries_max: self.frame_entries_max(),
            bytes_max: limits::FRAME_DOCUMENT_BYTES_MAX,
        };
        let read = || {
            let part = Snapshot { space: space.clone(), epoch, at, scope: scope.clone() };
            let (store, after) = (self.store.clone(), after.clone());
            async move { Ok(Arc::new(part.page(&store, after.as_ref(), size).await?)) }
        };
        self.shared.snapshots.get(key, |_| true, read).await
    }

    /// A page of changes; if there is none yet that the reader wants, waits for one
    /// until then. The page's end moves on also without changes.
    pub async fn changes_until(
        &self,
        reading: Reading,
        until: Instant,
        stop: &CancellationToken,
    ) -> Result<ChangesPage, Error> {
        if until <= Instant::now() {
            return self.changes(reading).await;
        }
        let waker = Waker::default();
        let (watch, _at) = self.watch(&reading.space, waker.clone()).await?;
        loop {
            let mut page = self.changes(reading.clone()).await?;
            let more = page.up_to < page.space.head;
            if !page.changes.is_empty() || more {
                return Ok(page);
            }
            let filter = Filter { scope: reading.scope.clone(), ..Filter::default() };
            let waiting = moved(&watch, &waker, &filter, page.space.epoch, &mut page.up_to);
            // Cancel: both only wait.
            let came = tokio::select! {
                biased;
                () = stop.cancelled() => false,
                came = timeout_at(until, waiting) => came.is_ok(),
            };
            if !came {
                page.space.head = page.space.head.max(page.up_to);
                return Ok(page);
            }
        }
    }

    /// Notes what a user's device says that it has stored. Never waits.
    pub fn acknowledge(&self, space: SpaceId, user: UserId, device: DeviceId, up_to: Revision) {
        self.acks.note(Acknowledged { space, user, device, revision: up_to });
    }

    /// Publishes an event, to all subscribers but the one that it comes from. Never
    /// waits; events come at most once, so what would be too much is not told to other
    /// replicas.
    pub fn publish(&self, space: SpaceId, event: Event, origin: &Watch) {
        let event = Arc::new(event);
        self.wakeup.published(space, Arc::clone(&event));
        self.hub.tell(space, event, Some(origin.number()));
    }

    /// Whether live readers are being served, to whom those who catch up give way.
    pub fn is_busy(&self) -> bool {
        self.hub.is_busy()
    }

    /// In a page for one who catches up.
    fn frame_entries_max(&self) -> usize {
        if self.is_busy() { limits::BUSY_FRAME_ENTRIES_MAX } else { limits::FRAME_ENTRIES_MAX }
    }

    /// Whether the store has answered lately.
    pub fn store_ok(&self) -> bool {
        self.feeder.store_ok()
    }
}

/// Waits until there is something after a revision that the filter wants, or that only
/// the store has. What it does not want moves the revision on. Cancel safe.
async fn moved(watch: &Watch, waker: &Waker, filter: &Filter, epoch: Epoch, up_to: &mut Revision) {
    loop {
        match watch.ahead(epoch, *up_to, None, limits::FRAME_CHANGE_BYTES_MAX) {
            Ahead::Nothing => waker.bell.heard().await,
            Ahead::InStore | Ahead::Replaced(..) => return,
            Ahead::Entries(entries, _) => {
                if entries.iter().any(|it| filter.sight(&it.change) != Sight::Not) {
                    return;
                }
                *up_to = entries.last().map_or(*up_to, |last| last.change.revision);
            }
        }
    }
}
