//! A local file for the simulation: what survives a crash, and what the engine's actions make of
//! it. Holds what a client must never do against the server.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::server::{Batch, Entry, ServerSpace, revision, sequence};
use crate::client::engine::{Parked, Queue, SpaceInfo};
use crate::domain::{CollectionName, Epoch, Sequence};

#[derive(Clone, Debug, Default)]
pub(super) struct StoreSpace {
    pub(super) epoch: Option<Epoch>,
    pub(super) cursor: i64,
    pub(super) loaded: bool,
    pub(super) wanted: bool,
    last_sequence: i64,
    /// Each with its sequence, if it has one.
    pub(super) entries: VecDeque<(Entry, Option<i64>)>,
    attempts: u32,
    /// In which epoch each was answered.
    pub(super) answered: BTreeMap<Entry, Epoch>,
    pub(super) parked: BTreeMap<Entry, Parked>,
    /// What differs from the server.
    pub(super) wrong: BTreeSet<CollectionName>,
}

impl StoreSpace {
    pub(super) fn new() -> Self {
        Self { wanted: true, ..Self::default() }
    }

    pub(super) fn queue(&self) -> Queue {
        let frozen = self.entries.iter().take_while(|(_, it)| it.is_some()).count() as u64;
        let waiting = self.entries.len() as u64 - frozen;
        Queue { frozen, waiting, last_sequence: sequence(self.last_sequence) }
    }

    pub(super) fn info(&self) -> SpaceInfo {
        SpaceInfo {
            wanted: self.wanted,
            epoch: self.epoch,
            cursor: revision(self.cursor),
            loaded: self.loaded,
            queue: self.queue(),
            attempts: self.attempts,
        }
    }

    pub(super) fn take(&mut self, entries_max: u32) -> Batch {
        let mut batch = Batch::new();
        for (entry, sequence) in self.entries.iter_mut().take(entries_max as usize) {
            let sequence = *sequence.get_or_insert_with(|| {
                self.last_sequence += 1;
                self.last_sequence
            });
            batch.push((*entry, sequence));
        }
        batch
    }

    pub(super) fn answer(&mut self, batch: &Batch, epoch: Epoch) {
        for (entry, _) in batch {
            self.entries.retain(|(it, _)| it != entry);
            self.answered.insert(*entry, epoch);
        }
        self.attempts = 0;
    }

    pub(super) fn renumber(&mut self, epoch: Epoch, last: Sequence, server: &ServerSpace) {
        self.adopt(epoch);
        self.free(last.get(), server);
    }

    pub(super) fn adopt(&mut self, epoch: Epoch) {
        if self.epoch != Some(epoch) {
            self.loaded = false;
        }
        self.epoch = Some(epoch);
    }

    pub(super) fn park(&mut self, what: Parked, server: &ServerSpace) {
        let count = if what == Parked::All { self.entries.len() } else { 1 };
        let parked: Vec<_> = self.entries.drain(..count).collect();
        for (entry, _) in &parked {
            let has =
                self.epoch == Some(server.epoch) && server.history.answers.contains_key(entry);
            assert!(!has || what != Parked::Front, "{entry} was applied");
            self.parked.insert(*entry, what);
        }
        self.attempts = 0;
        // What lies behind one that was not used was not used either.
        if let (Parked::Front, Some((_, Some(sequence)))) = (what, parked.first()) {
            self.free(sequence - 1, server);
        }
    }

    /// No entry has a sequence any more.
    fn free(&mut self, last: i64, server: &ServerSpace) {
        for (entry, sequence) in &mut self.entries {
            // What the server has must be sent as it was.
            let has =
                self.epoch == Some(server.epoch) && server.history.answers.contains_key(entry);
            let may = !has || sequence.is_none();
            assert!(may, "entry {entry} loses sequence {sequence:?}, which the server has");
            *sequence = None;
        }
        self.last_sequence = last;
    }

    /// Nobody follows it any more, or somebody does again.
    pub(super) fn follow(&mut self, wanted: bool) {
        if !wanted {
            self.forget();
        }
        self.wanted = wanted;
    }

    pub(super) fn count_attempt(&mut self) {
        self.attempts += 1;
    }

    pub(super) fn forget(&mut self) {
        self.loaded = false;
        self.cursor = 0;
    }

    pub(super) fn load(&mut self, to: i64, healing: bool) {
        self.wrong.clear();
        if !healing {
            self.cursor = to;
            self.loaded = true;
        }
    }

    /// A range of changes; false if it does not follow on the one before.
    pub(super) fn absorb(&mut self, after: i64, up_to: i64, server: &ServerSpace) -> bool {
        assert!(self.loaded && self.wanted, "changes for a state that is not loaded");
        if after != self.cursor {
            return false;
        }
        self.cursor = up_to;
        if self.epoch == Some(server.epoch) {
            for (entry, sequence) in &self.entries {
                let own = server.history.answers.get(entry).map(|(_, revision)| *revision);
                let early = own.is_some_and(|own| own > after && own <= up_to);
                assert!(!early, "the change of {entry} ({sequence:?}) came before its answer");
            }
        }
        true
    }
}
