//! One watched space: its ring, what is known of its head, and its watchers.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ring::Ring;
use super::{Ahead, Effect, Refresh};
use crate::domain::{Change, Epoch, Revision, SpaceId};

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
    watchers: HashMap<u64, Arc<Notify>>,
    /// The hub was asked to wake the watchers and has not done so yet.
    waking: bool,
}

impl State {
    fn end(&self) -> Option<Revision> {
        self.ring.as_ref().map(Ring::end)
    }

    fn effect(&mut self, end_before: Option<Revision>) -> Effect {
        let moved = self.end() != end_before && !self.waking;
        self.waking |= moved;
        Effect { moved, lacks: self.end().is_some_and(|end| end < self.head) }
    }
}

impl Feed {
    pub(super) fn new(space: SpaceId) -> Self {
        Self { space, state: Mutex::default() }
    }

    pub(super) fn add_watcher(&self, number: u64, waker: Arc<Notify>) {
        self.state.lock().watchers.insert(number, waker);
    }

    /// True if that was the last one.
    pub(super) fn remove_watcher(&self, number: u64) -> bool {
        let mut state = self.state.lock();
        state.watchers.remove(&number);
        state.watchers.is_empty()
    }

    pub(super) fn begin(&self, read: &Refresh) -> Effect {
        let mut state = self.state.lock();
        let before = state.end();
        state.epoch = Some(read.epoch);
        state.head = state.head.max(read.head);
        state.ring.get_or_insert_with(|| Ring::new(read.head));
        state.effect(before)
    }

    pub(super) fn append(
        &self,
        after: Revision,
        changes: &[Arc<Change>],
        bytes_max: usize,
    ) -> Effect {
        let mut state = self.state.lock();
        let before = state.end();
        if let Some(last) = changes.last() {
            state.head = state.head.max(last.revision);
        }
        if let Some(ring) = &mut state.ring {
            // If it does not join the end, another replica wrote in between:
            // then the log is read, from where the ring ends.
            if ring.joins(after) {
                ring.append(changes, bytes_max);
            }
        }
        state.effect(before)
    }

    pub(super) fn hint(&self, head: Revision) -> Effect {
        let mut state = self.state.lock();
        let before = state.end();
        state.head = state.head.max(head);
        state.effect(before)
    }

    pub(super) fn refresh(&self, read: Refresh, bytes_max: usize) -> Effect {
        let mut state = self.state.lock();
        let before = state.end();
        let replaced = state.epoch.is_some_and(|epoch| epoch != read.epoch);
        state.epoch = Some(read.epoch);
        if replaced {
            state.head = read.head;
            state.ring = Some(Ring::new(read.head));
            return state.effect(None);
        }
        state.head = state.head.max(read.head);
        match (&mut state.ring, read.changes) {
            (Some(ring), Some((after, changes))) if ring.joins(after) => {
                ring.append(&changes, bytes_max);
            }
            (Some(ring), None) if ring.end() < read.head => *ring = Ring::new(read.head),
            _ => {}
        }
        state.effect(before)
    }

    /// The ring's end, if the store has more.
    pub(super) fn lacks(&self) -> Option<Revision> {
        let state = self.state.lock();
        state.end().filter(|end| *end < state.head)
    }

    pub(super) fn ahead(&self, epoch: Epoch, cursor: Revision, bytes_max: usize) -> Ahead {
        let state = self.state.lock();
        if let Some(other) = state.epoch.filter(|it| *it != epoch) {
            return Ahead::Replaced(other, state.head);
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
        state.watchers.values().for_each(|waker| waker.notify_one());
    }

    pub(super) fn trim(&self, bytes_max: usize) {
        if let Some(ring) = &mut self.state.lock().ring {
            ring.trim(bytes_max);
        }
    }
}
