//! One watched space: its ring, what is known of its head, and its watchers.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::events::{Events, News};
use super::ring::Ring;
use super::{Ahead, Arrival, Effect, Hint, Refresh, Waker};
use crate::domain::{Epoch, Event, Revision, SpaceId};

/// One watched space.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) space: SpaceId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None until the first watcher has read the head.
    ring: Option<Ring>,
    epoch: Option<Epoch>,
    /// The highest head heard of; the ring may still lack some of it.
    head: Revision,
    /// The number of the last conflict that was opened or closed.
    conflicts: i64,
    events: Events,
    /// The last event when the feed was last trimmed.
    events_trimmed: u64,
    watchers: HashMap<u64, Waker>,
    /// Watchers that want differences.
    deltas: usize,
    /// The hub was asked to wake the watchers and has not done so yet.
    waking: bool,
    /// What readers could see when they were woken last, events apart.
    woken_at: (Option<Revision>, i64),
}

/// The ring's end, the last conflict and the last event.
type Sight = (Option<Revision>, i64, u64);

impl State {
    fn end(&self) -> Option<Revision> {
        self.ring.as_ref().map(Ring::end)
    }

    /// What readers can see.
    fn sight(&self) -> Sight {
        (self.end(), self.conflicts, self.events.last())
    }

    /// Takes the epoch, and says whether it is another one than was known.
    fn is_replaced(&mut self, epoch: Epoch) -> bool {
        self.epoch.replace(epoch).is_some_and(|known| known != epoch)
    }

    /// Begins anew: nothing of another epoch counts.
    fn replace(&mut self, at: Hint) -> Effect {
        (self.head, self.conflicts) = (at.head, at.conflicts);
        self.ring = Some(Ring::new(at.head));
        // Also where it looks the same, all shall see it.
        self.woken_at = (None, -1);
        let moved = !std::mem::replace(&mut self.waking, true);
        Effect { moved, lacks: false }
    }

    fn hear(&mut self, hint: Hint) {
        self.head = self.head.max(hint.head);
        self.conflicts = self.conflicts.max(hint.conflicts);
    }

    fn effect(&mut self, before: Sight) -> Effect {
        let moved = self.sight() != before && !self.waking;
        self.waking |= moved;
        Effect { moved, lacks: self.end().is_some_and(|end| end < self.head) }
    }
}

impl Feed {
    pub(super) fn new(space: SpaceId) -> Self {
        Self { space, state: Mutex::default() }
    }

    pub(super) fn add_watcher(&self, number: u64, waker: Waker) {
        let mut state = self.state.lock();
        state.deltas += usize::from(waker.deltas);
        state.watchers.insert(number, waker);
    }

    /// How many watchers it has.
    pub(super) fn watchers(&self) -> usize {
        self.state.lock().watchers.len()
    }

    /// True if that was the last one.
    pub(super) fn remove_watcher(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        if state.watchers.remove(&number).is_some_and(|waker| waker.deltas) {
            state.deltas = state.deltas.saturating_sub(1);
        }
        state.watchers.is_empty()
    }

    pub(super) fn begin(&self, read: &Refresh) -> Effect {
        let mut state = self.state.lock();
        let before = state.sight();
        if state.is_replaced(read.epoch) {
            return state.replace(read.at);
        }
        state.hear(read.at);
        state.ring.get_or_insert_with(|| Ring::new(read.at.head));
        state.effect(before)
    }

    pub(super) fn append(
        &self,
        epoch: Epoch,
        after: Revision,
        changes: &[Arrival],
        conflicts: i64,
        bytes_max: usize,
    ) -> Effect {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        // The next poll tells which of the two holds.
        if state.epoch.is_some_and(|known| known != epoch) {
            return Effect::default();
        }
        let before = state.sight();
        let head = changes.last().map_or(after, |last| last.change.revision);
        state.hear(Hint { head, conflicts });
        if let Some(ring) = &mut state.ring {
            // If it does not join the end, another replica wrote in between:
            // then the log is read, from where the ring ends.
            if ring.joins(after) {
                ring.append(changes, state.deltas > 0, bytes_max);
            }
        }
        state.effect(before)
    }

    pub(super) fn tell(&self, event: Arc<Event>, origin: Option<u64>) -> Effect {
        let mut state = self.state.lock();
        let before = state.sight();
        state.events.add(event, origin);
        state.effect(before)
    }

    pub(super) fn last_event(&self) -> u64 {
        self.state.lock().events.last()
    }

    pub(super) fn events(&self, seen: u64, reader: u64) -> News {
        self.state.lock().events.after(seen, reader)
    }

    pub(super) fn wants_deltas(&self) -> bool {
        self.state.lock().deltas > 0
    }

    pub(super) fn reach(&self) -> Hint {
        let state = self.state.lock();
        let head = state.ring.as_ref().map(Ring::start).unwrap_or_default();
        Hint { head, conflicts: state.conflicts }
    }

    pub(super) fn hint(&self, hint: Hint) -> Effect {
        let mut state = self.state.lock();
        let before = state.sight();
        state.hear(hint);
        state.effect(before)
    }

    pub(super) fn refresh(&self, read: Refresh, bytes_max: usize) -> Effect {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let before = state.sight();
        if state.is_replaced(read.epoch) {
            return state.replace(read.at);
        }
        state.hear(read.at);
        match (&mut state.ring, read.changes) {
            (Some(ring), Some((after, changes))) if ring.joins(after) => {
                ring.append(&changes, state.deltas > 0, bytes_max);
            }
            (Some(ring), None) if ring.end() < read.at.head => *ring = Ring::new(read.at.head),
            _ => {}
        }
        state.effect(before)
    }

    /// The ring's end, if the store has more.
    pub(super) fn lacks(&self) -> Option<Revision> {
        let state = self.state.lock();
        state.end().filter(|end| *end < state.head)
    }

    pub(super) fn ahead(
        &self,
        epoch: Epoch,
        cursor: Revision,
        conflicts: Option<i64>,
        bytes_max: usize,
    ) -> Ahead {
        let state = self.state.lock();
        if let Some(other) = state.epoch.filter(|it| *it != epoch) {
            return Ahead::Replaced(other, state.head);
        }
        if conflicts.is_some_and(|seen| seen < state.conflicts) {
            return Ahead::InStore;
        }
        match &state.ring {
            Some(ring) if cursor < ring.end() => ring.after(cursor, bytes_max),
            _ => Ahead::Nothing,
        }
    }

    pub(super) fn head(&self) -> Revision {
        self.state.lock().head
    }

    pub(super) fn wake(&self) {
        let mut state = self.state.lock();
        // Before waking: what moves from now on wakes again.
        state.waking = false;
        let (end, conflicts, _) = state.sight();
        let before = std::mem::replace(&mut state.woken_at, (end, conflicts));
        let events_only = before == (end, conflicts);
        let woken = state.watchers.values().filter(|waker| waker.events || !events_only);
        let woken: Vec<_> = woken.map(|waker| Arc::clone(&waker.bell)).collect();
        // The first of them already read, while the last are still asleep.
        drop(state);
        woken.iter().for_each(|bell| bell.ring());
    }

    pub(super) fn trim(&self, bytes_max: usize) {
        let mut state = self.state.lock();
        if let Some(ring) = &mut state.ring {
            ring.trim(bytes_max);
        }
        let last = state.events.last();
        let trimmed = std::mem::replace(&mut state.events_trimmed, last);
        state.events.forget(trimmed);
    }
}
