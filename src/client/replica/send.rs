//! What goes out of the queue, and what happens to it if it is not answered as it should be.
//! A sequence is given when an entry first goes out; with it the entry stays as it is until it
//! is answered, because it may have taken effect.

use std::collections::BTreeSet;

use super::{Held, Replica, Told, Touch, from_micros};
use crate::client::entry::{Entry, EntryState, Trouble};
use crate::domain::{Document, Epoch, RecordKey, Revision, Sequence};

impl Replica {
    /// The next entries to send, at most so many and so large, as they are to go out: those
    /// that went out already first, and unchanged. What cannot be sent is put aside.
    pub(in crate::client) fn take(&mut self, entries_max: usize, bytes_max: usize) -> Vec<Entry> {
        let open = self.entries.values().filter(|it| it.state.is_open()).map(|it| it.number);
        // Others of the same records may be loaded from far behind.
        let open: Vec<_> = open.take(entries_max.saturating_add(1)).collect();
        // The first of these is the first of all, as far as they were loaded from the front.
        self.place.front = open.first().copied().unwrap_or(self.place.last_entry + 1);
        let mut batch: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for number in open {
            let Some(entry) = self.entries.get(&number) else { continue };
            if entry.incomplete {
                self.fail(number, lost_values());
                continue;
            }
            bytes += entry.edit.size_bytes();
            if batch.len() >= entries_max || (bytes > bytes_max && !batch.is_empty()) {
                break;
            }
            let next = batch.last().and_then(|last| last.sequence).map(Sequence::next);
            match entry.sequence {
                // Each is the one after that before it.
                Some(sequence) if next.is_some_and(|next| next != sequence) => break,
                Some(_) => {}
                None => {
                    let sequence = self.place.last_sequence.next();
                    if next.is_some_and(|next| next != sequence) {
                        break;
                    }
                    self.place.last_sequence = sequence;
                    self.with_entry(number, Touch::Moved, |entry| {
                        entry.sequence = Some(sequence);
                        entry.state = EntryState::Syncing;
                        entry.sent.get_or_insert((sequence, entry.base));
                    });
                }
            }
            batch.extend(self.entries.get(&number).cloned());
        }
        batch
    }

    /// The first entry can never be sent as it is: it is put aside. Unless it was decided, its
    /// sequence was not used, and so neither were those after it.
    pub(in crate::client) fn fail_front(&mut self, trouble: &Trouble, decided: bool) {
        let Some(front) = self.entries.values().find(|it| it.state.is_open()) else { return };
        let (number, sequence) = (front.number, front.sequence);
        self.fail(number, trouble.clone());
        if let Some(sequence) = sequence.filter(|_| !decided) {
            self.number_anew(sequence.before());
        }
    }

    /// The first entry with the numbers with which it first went out, if it has others now:
    /// if the server knows its id, it was answered under those.
    pub(in crate::client) fn recalled(&self) -> Option<Entry> {
        let front = self.entries.values().find(|it| it.state.is_open())?;
        let (sequence, base) = front.sent.filter(|_| front.is_renumbered())?;
        Some(Entry { sequence: Some(sequence), base, ..front.clone() })
    }

    /// The first entry was answered under its first numbers, so the sequence that it has had since
    /// was not used.
    pub(in crate::client) fn settle_recalled(&mut self, answer: &super::Answer) -> super::Settled {
        let number = self.entries.values().find(|it| it.id == answer.id).and_then(|it| it.sequence);
        let settled = self.settle(std::slice::from_ref(answer));
        if let Some(sequence) = number {
            self.number_anew(sequence.before());
        }
        settled
    }

    /// All entries that went out and were not answered lose their sequences; the next one gets
    /// the one after `last`.
    pub(in crate::client) fn number_anew(&mut self, last: Sequence) {
        let sent: Vec<_> = self
            .entries
            .values()
            .filter(|it| it.state == EntryState::Syncing)
            .map(|it| it.number)
            .collect();
        for number in sent {
            self.with_entry(number, Touch::Moved, |entry| {
                entry.sequence = None;
                entry.state = EntryState::Pending;
            });
        }
        self.place.last_sequence = last;
    }

    /// The space has this history. If what is here is of another one it is of none; the queue
    /// stays, and what it was based on is compared with the new state once that is here.
    pub(in crate::client) fn adopt(&mut self, epoch: Epoch) {
        if self.place.epoch != Some(epoch) {
            self.replace_history(epoch);
        }
    }

    /// What is here is of a history that the server has lost a part of.
    pub(in crate::client) fn distrust(&mut self) {
        if let Some(epoch) = self.place.epoch {
            self.replace_history(epoch);
        }
    }

    /// Whatever is here is of another history than the server's.
    fn replace_history(&mut self, epoch: Epoch) {
        self.fold_answered();
        let place = &mut self.place;
        place.replaced |= place.epoch.is_some();
        self.touched.conflicts |= place.epoch.is_some();
        place.epoch = Some(epoch);
        (place.cursor, place.complete) = (Revision::ZERO, Revision::ZERO);
        place.loaded = None;
        place.loading = None;
        place.conflict_cursor = String::new();
        place.newest = Revision::ZERO;
    }
}

impl Replica {
    /// Takes what was answered, and has not come back, for what the server has: of a history
    /// that has been replaced nothing more will come.
    fn fold_answered(&mut self) {
        let answered = |it: &&Entry| super::settle::is_answered(it.state) && !it.done;
        let keys: BTreeSet<_> =
            self.entries.values().filter(answered).map(|it| it.key.clone()).collect();
        for key in keys {
            let local = self.records.get(&key).cloned().unwrap_or_default();
            let document = self.foreseen(&key, local.server.as_ref(), Revision::MAX);
            let checksum = document.as_ref().map(Document::checksum);
            let at = local.server.as_ref().map_or(Revision::ZERO, Held::revision).next();
            let told = Told {
                key: key.clone(),
                revision: at,
                document,
                author: self.identity.user.clone(),
                device: Some(self.identity.device.clone()),
                sequence: 0,
                micros: 0,
                foreign: Revision::ZERO,
                committed_at: from_micros(0),
            };
            self.replace(&key, local, Some(Held { record: told.record(), checksum }));
            self.finish_answered(&key);
            self.show(&key);
        }
    }

    /// Nothing more is to come of what was answered of a record.
    pub(super) fn finish_answered(&mut self, key: &RecordKey) {
        self.cover(key, Revision::MAX);
    }
}

/// Why an entry cannot be sent whose values were never written down.
fn lost_values() -> Trouble {
    Trouble::new(
        "SENSITIVE_VALUES_LOST",
        "its sensitive values were kept in memory only, by a process that is gone; edit it, or \
         discard it",
    )
}
