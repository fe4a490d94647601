//! Brings the hub what other replicas wrote: polls the heads of watched spaces,
//! and reads the log wherever a ring lacks something, however that was noticed.
//! Wakes those who watch, wherever it was written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};
use uuid::Uuid;

use crate::chain::Chain;
use crate::domain::{Change, Epoch, Event, Revision, Scope, SpaceId, limits};
use crate::hub::{Arrival, Hint, Hub, Refresh};
use crate::store::{ChangesQuery, Error, SpaceHead, Store};

/// With every notification lost, a change is this late.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Without an answer for this long, the store counts as away.
const STORE_OK_WITHIN: Duration = Duration::from_secs(5);
/// A ring that lacks more than this is not filled: its readers take it from the
/// store themselves, in pages of their own.
const FILL_REVISIONS_MAX: u64 = 5_000;

#[derive(Debug)]
pub(super) struct Feeder {
    store: Store,
    hub: Arc<Hub>,
    /// Somebody wants the heads polled now.
    poll: Notify,
    /// Somebody shall wait behind those who were woken.
    turn: Notify,
    /// He has.
    turn_taken: Notify,
    last_answer: Mutex<Option<Instant>>,
    /// Watched spaces that were not there at the last poll.
    missing: Mutex<HashSet<SpaceId>>,
}

impl Feeder {
    pub(super) fn new(store: Store, hub: Arc<Hub>) -> Self {
        Self {
            store,
            hub,
            poll: Notify::new(),
            turn: Notify::new(),
            turn_taken: Notify::new(),
            last_answer: Mutex::new(None),
            missing: Mutex::default(),
        }
    }

    /// Polls all heads now. For when notifications may have been missed.
    pub(super) fn poll_now(&self) {
        self.poll.notify_one();
    }

    /// Hears where a space is.
    pub(super) fn hint(&self, space: SpaceId, hint: Hint) {
        self.hub.hint(space, hint);
    }

    /// Hears an event from another replica.
    pub(super) fn event(&self, space: SpaceId, event: Arc<Event>) {
        self.hub.tell(space, event, None);
    }

    /// Whether the store has answered lately.
    pub(super) fn store_ok(&self) -> bool {
        self.last_answer.lock().is_some_and(|answer| answer.elapsed() < STORE_OK_WITHIN)
    }

    /// Wakes the hub's watchers, until `stop`. For a thread of its own: on the runtime
    /// it would wait behind all whom it has woken before.
    pub(super) async fn wake(self: Arc<Self>, stop: CancellationToken) {
        let waking = async {
            loop {
                self.hub.wake_watchers().await;
                // Those have their turn before anybody is woken again, so that a busy
                // reader is told of what came meanwhile in one frame.
                self.turn.notify_one();
                self.turn_taken.notified().await;
            }
        };
        // Cancel: all only wait, and at the end nobody has to be woken.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = waking => {}
        }
    }

    /// Waits in the runtime's queue behind those who were woken, until `stop`.
    pub(super) async fn take_turns(self: Arc<Self>, stop: CancellationToken) {
        loop {
            // Cancel: both only wait.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.turn.notified() => self.turn_taken.notify_one(),
            }
        }
    }

    /// Feeds the hub, until `stop`.
    pub(super) async fn feed(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            // Cancel: every branch waits only; the work below is not dropped.
            let poll = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = tick.tick() => true,
                () = self.poll.notified() => true,
                () = self.hub.lack() => false,
            };
            let result = self.refresh(poll).await;
            match &result {
                Ok(()) if failing => info!("the store answers again"),
                Err(failure) if !failing => {
                    error!(error = %Chain(failure), "the store does not answer; trying on");
                }
                Ok(()) | Err(_) => {}
            }
            failing = result.is_err();
        }
    }

    /// Not cancel safe.
    async fn refresh(&self, poll: bool) -> Result<(), Error> {
        if poll {
            self.hub.trim();
            let watched = self.hub.watched();
            let heads = self.store.heads(&watched).await?;
            *self.last_answer.lock() = Some(Instant::now());
            self.note_missing(&watched, &heads);
            for (space, at) in heads {
                // Also tells of a new epoch; the head alone would not.
                self.hub.refresh(space, refresh(at, Some((at.head, Vec::new()))));
            }
        }
        // One space that cannot be read must not hold up the others.
        let mut result = Ok(());
        for (space, end) in self.hub.lacking() {
            match self.fill(space, end).await {
                Ok(()) => *self.last_answer.lock() = Some(Instant::now()),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Ends what follows spaces that have been erased. One that is being born is missing
    /// only once.
    fn note_missing(&self, watched: &[SpaceId], heads: &[(SpaceId, SpaceHead)]) {
        let there: HashSet<_> = heads.iter().map(|(space, _)| *space).collect();
        let missing = watched.iter().copied().filter(|space| !there.contains(space));
        let missing: HashSet<_> = missing.collect();
        let mut before = self.missing.lock();
        for space in missing.intersection(&before) {
            let epoch = Epoch(Uuid::nil());
            self.hub.refresh(*space, Refresh { epoch, at: Hint::default(), changes: None });
        }
        *before = missing;
    }

    async fn fill(&self, space: SpaceId, mut end: Revision) -> Result<(), Error> {
        loop {
            let query = ChangesQuery {
                space,
                after: end,
                scope: &Scope::All,
                every_step: true,
                entries_max: limits::PAGE_ENTRIES_MAX,
                bytes_max: limits::PAGE_DOCUMENT_BYTES_MAX,
            };
            let Some(page) = self.store.changes(query).await? else { return Ok(()) };
            let at = page.space;
            // Below the floor the log has gaps, which a ring must not have: its readers
            // are told by the store that they are too late.
            let far = end < at.floor || at.head.since(end) > FILL_REVISIONS_MAX;
            let changes =
                if far { None } else { Some((end, self.arrivals(space, page.changes).await)) };
            self.hub.refresh(space, refresh(at, changes));
            if far || page.up_to >= at.head {
                return Ok(());
            }
            end = page.up_to;
        }
    }

    /// With what was before each, if somebody wants differences.
    async fn arrivals(&self, space: SpaceId, changes: Vec<Arc<Change>>) -> Vec<Arrival> {
        let mut before: HashMap<_, _> =
            changes.iter().map(|it| (it.revision, Arc::clone(it))).collect();
        if self.hub.wants_deltas(space) {
            let updated = changes.iter().filter(|it| it.document.is_some());
            let missing = updated.map(|it| it.previous_revision).filter(|it| *it > Revision::ZERO);
            let missing: Vec<_> = missing.filter(|it| !before.contains_key(it)).collect();
            if !missing.is_empty() {
                let bytes_max = limits::PAGE_DOCUMENT_BYTES_MAX;
                match self.store.changes_at(space, &missing, bytes_max).await {
                    Ok(read) => before.extend(read.into_iter().map(|it| (it.revision, it))),
                    // Then these changes come whole.
                    Err(error) => debug!(error = %Chain(&error), "differences are left out"),
                }
            }
        }
        let arrival = |change: Arc<Change>| {
            let before = before.get(&change.previous_revision).cloned();
            Arrival { change, before }
        };
        changes.into_iter().map(arrival).collect()
    }
}

fn refresh(at: SpaceHead, changes: Option<(Revision, Vec<Arrival>)>) -> Refresh {
    let SpaceHead { epoch, head, floor: _, conflicts } = at;
    Refresh { epoch, at: Hint { head, conflicts }, changes }
}
