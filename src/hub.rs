//! Live changes in memory: for each watched space a ring of its last changes,
//! and whom to wake when it grows. Holds nothing that may not be lost: who
//! falls off a ring reads the store. Knows neither the store nor the wire.
//!
//! Nothing is pushed to a reader. A reader has a cursor, is woken, looks whether
//! the head is past its cursor, and takes what it wants; so a slow one costs
//! nothing but its own progress.

mod events;
mod feed;
mod ring;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use crate::bell::Bell;
use crate::domain::{Change, Epoch, Event, Revision, SpaceId};
use feed::Feed;

pub use events::News;
pub use ring::Entry;

/// Live readers are being served if something came in this lately.
const BUSY_WITHIN: Duration = Duration::from_millis(100);

/// All watched spaces of this replica.
#[derive(Debug)]
pub struct Hub {
    feeds: Mutex<HashMap<SpaceId, Arc<Feed>>>,
    /// Feeds that moved and whose watchers have not been woken yet.
    moved: Mutex<Vec<Arc<Feed>>>,
    /// There is something in `moved`.
    wake: Notify,
    /// Some feed lacks changes that the store has.
    lack: Notify,
    ring_bytes_max: usize,
    watches: AtomicU64,
    /// When something last came in.
    published: Mutex<Option<Instant>>,
}

impl Hub {
    /// A hub whose rings share `ring_bytes_max`.
    pub fn new(ring_bytes_max: usize) -> Self {
        Self {
            feeds: Mutex::default(),
            moved: Mutex::default(),
            wake: Notify::new(),
            lack: Notify::new(),
            ring_bytes_max,
            watches: AtomicU64::new(0),
            published: Mutex::default(),
        }
    }

    /// Watches a space: `waker` is notified whenever it moves. Read the head
    /// from the store after this, and begin with [`Watch::begin`]: then nothing
    /// can fall between history and what is live.
    pub fn watch(self: &Arc<Self>, space: SpaceId, waker: Waker) -> Watch {
        let number = self.watches.fetch_add(1, Ordering::Relaxed);
        let mut feeds = self.feeds.lock();
        let feed = Arc::clone(feeds.entry(space).or_insert_with(|| Arc::new(Feed::new(space))));
        feed.add_watcher(number, waker);
        drop(feeds);
        Watch { hub: Arc::clone(self), feed, number }
    }

    /// Takes the changes of a commit on this replica. `after` is the head that
    /// they follow, `conflicts` the space's last conflict by now. Never waits.
    pub fn publish(
        &self,
        (space, epoch): (SpaceId, Epoch),
        after: Revision,
        changes: &[Arrival],
        conflicts: i64,
    ) {
        let Some(feed) = self.feed(space) else { return };
        *self.published.lock() = Some(Instant::now());
        self.note(&feed, feed.append(epoch, after, changes, conflicts, self.share()));
    }

    /// Hears that a space is there by now, wherever it was written.
    pub fn hint(&self, space: SpaceId, hint: Hint) {
        let Some(feed) = self.feed(space) else { return };
        self.note(&feed, feed.hint(hint));
    }

    /// Takes what was read from the store: where the space is now, and the
    /// changes after the feed's end, if they were few enough to read.
    pub fn refresh(&self, space: SpaceId, read: Refresh) {
        let Some(feed) = self.feed(space) else { return };
        // What is lacking still is read at the next poll: asking again at once,
        // for a head that the store does not have, would never end.
        let effect = feed.refresh(read, self.share());
        self.note(&feed, Effect { lacks: false, ..effect });
    }

    /// Takes an event for all watchers of a space but the one that it comes from.
    /// Never waits.
    pub fn tell(&self, space: SpaceId, event: Arc<Event>, origin: Option<u64>) {
        let Some(feed) = self.feed(space) else { return };
        self.note(&feed, feed.tell(event, origin));
    }

    /// Whether somebody follows the space by differences.
    pub fn wants_deltas(&self, space: SpaceId) -> bool {
        self.feed(space).is_some_and(|feed| feed.wants_deltas())
    }

    /// Whether anything that is watched has changed on this replica lately.
    pub fn is_busy(&self) -> bool {
        self.published.lock().is_some_and(|last| last.elapsed() < BUSY_WITHIN)
    }

    /// How many watch a space.
    pub fn watchers(&self, space: SpaceId) -> usize {
        self.feed(space).map_or(0, |feed| feed.watchers())
    }

    /// The spaces that are watched.
    pub fn watched(&self) -> Vec<SpaceId> {
        self.feeds.lock().keys().copied().collect()
    }

    /// Spaces that lack changes, each with the end of its ring.
    pub fn lacking(&self) -> Vec<(SpaceId, Revision)> {
        let feeds = self.feeds.lock();
        feeds.values().filter_map(|feed| feed.lacks().map(|end| (feed.space, end))).collect()
    }

    /// Waits until some feed lacks changes. Cancel safe.
    pub async fn lack(&self) {
        self.lack.notified().await;
    }

    /// Wakes the watchers of all feeds that moved; waits until there are some.
    /// Runs beside all else: waking ten thousand readers is not the writer's work.
    /// Cancel safe.
    pub async fn wake_watchers(&self) {
        self.wake.notified().await;
        let moved = std::mem::take(&mut *self.moved.lock());
        for feed in moved {
            feed.wake();
        }
    }

    /// Shrinks rings to their share, which gets smaller with more spaces.
    pub fn trim(&self) {
        let share = self.share();
        let feeds: Vec<_> = self.feeds.lock().values().cloned().collect();
        feeds.iter().for_each(|feed| feed.trim(share));
    }

    fn feed(&self, space: SpaceId) -> Option<Arc<Feed>> {
        self.feeds.lock().get(&space).cloned()
    }

    fn share(&self) -> usize {
        self.ring_bytes_max / self.feeds.lock().len().max(1)
    }

    fn note(&self, feed: &Arc<Feed>, effect: Effect) {
        if effect.moved {
            self.moved.lock().push(Arc::clone(feed));
            self.wake.notify_one();
        }
        if effect.lacks {
            self.lack.notify_one();
        }
    }
}

/// What a feed wants after it changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Effect {
    /// Watchers are to be woken, and were not asked to yet.
    moved: bool,
    /// The store has changes that the feed lacks.
    lacks: bool,
}

/// A change that comes in, and the change of its record before it, as far as
/// that is known.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub change: Arc<Change>,
    pub before: Option<Arc<Change>>,
}

/// How a watcher is woken, and what it wants.
#[derive(Clone, Debug, Default)]
pub struct Waker {
    pub bell: Arc<Bell>,
    /// Differences, for which the ring has to keep what was before.
    pub deltas: bool,
    /// Events; without this it is not woken for them alone.
    pub events: bool,
}

/// How far a space is: a counter that is behind the one known says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    pub head: Revision,
    /// The number of the last conflict that was opened or closed.
    pub conflicts: i64,
}

/// What the store says of a space.
#[derive(Clone, Debug)]
pub struct Refresh {
    pub epoch: Epoch,
    pub at: Hint,
    /// Changes after a revision; None if there are too many to hold, so that
    /// readers shall take them from the store.
    pub changes: Option<(Revision, Vec<Arrival>)>,
}

/// One reader's hold on a space. Ends when dropped; a space that nobody holds
/// costs nothing.
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    feed: Arc<Feed>,
    number: u64,
}

/// What a ring has for a reader.
#[derive(Debug)]
pub enum Ahead {
    /// Nothing after the cursor yet.
    Nothing,
    /// These, without a gap; what the ring has ends at this revision.
    Entries(Vec<Arc<Entry>>, Revision),
    /// Something, but the ring does not reach back to the cursor.
    InStore,
    /// The space has another epoch by now, and this head.
    Replaced(Epoch, Revision),
}

impl Watch {
    /// Begins the feed at a head that was read after [`Hub::watch`].
    pub fn begin(&self, epoch: Epoch, at: Hint) {
        let read = Refresh { epoch, at, changes: None };
        self.hub.note(&self.feed, self.feed.begin(&read));
    }

    /// What comes after `cursor` in this epoch, at most about `bytes_max` of it. If
    /// conflicts were opened or closed after the one of this number, it is the
    /// store that has them, and what comes with them.
    pub fn ahead(
        &self,
        epoch: Epoch,
        cursor: Revision,
        conflicts: Option<i64>,
        bytes_max: usize,
    ) -> Ahead {
        self.feed.ahead(epoch, cursor, conflicts, bytes_max)
    }

    /// From where on the ring has everything, and the last conflict that is
    /// known: a reader gets there by the store.
    pub fn reach(&self) -> Hint {
        self.feed.reach()
    }

    /// This watcher among all.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number of the space's last event here.
    pub fn last_event(&self) -> u64 {
        self.feed.last_event()
    }

    /// The events after a number, but for those that come from this watcher.
    pub fn events(&self, seen: u64) -> News {
        self.feed.events(seen, self.number)
    }

    /// The last revision of the space that this replica knows of.
    pub fn head(&self) -> Revision {
        self.feed.head()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Under the lock of the map, so that a new watcher cannot come to a feed
        // that is just being taken out.
        let mut feeds = self.hub.feeds.lock();
        if self.feed.remove_watcher(self.number) {
            feeds.remove(&self.feed.space);
        }
    }
}

#[cfg(test)]
mod tests;
