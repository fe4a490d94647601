//! What a group's decisions come to, for the statement that writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Answer, ClosedConflict, LoggedConflict, SpaceState, Usage};
use crate::domain::{
    Change, CollectionTally, Conflict, Fingerprint, MutationId, OwnDevice, Record, Sequence, Tally,
};

/// What the decisions ask to be stored, all in one transaction.
#[derive(Debug, Default)]
pub struct Writes {
    /// In revision order, with the fingerprint of the mutation behind each.
    pub changes: Vec<(Arc<Change>, Fingerprint)>,
    /// For each change the one of its record before it.
    pub before: Vec<Option<Arc<Change>>>,
    /// Final states of records that had no row before.
    pub inserts: Vec<Arc<Record>>,
    /// Final states of records that had one.
    pub updates: Vec<Arc<Record>>,
    /// Records that did not change, but whose open conflicts did.
    pub touched: Vec<Arc<Record>>,
    pub conflicts: Vec<LoggedConflict>,
    pub closed: Vec<ClosedConflict>,
    /// How far what the space holds moves.
    pub usage: Usage,
    /// How far each collection's tally moves.
    pub tallies: Vec<CollectionTally>,
    /// Answers that no change stands for.
    pub answers: Vec<(MutationId, Answer)>,
    /// The last sequence of each device that moved.
    pub sequences: Vec<(OwnDevice, Sequence)>,
}

impl SpaceState {
    /// What is to be stored.
    pub fn writes(&self) -> Writes {
        let mut writes = Writes {
            changes: self.changes.clone(),
            before: self.before.clone(),
            answers: self.new_answers.clone(),
            ..Writes::default()
        };
        let mut tallies: BTreeMap<_, Tally> = BTreeMap::new();
        for slot in self.records.values() {
            let Some(current) = &slot.current else { continue };
            let before = slot.stored.as_ref();
            let changed = before.map(|it| it.revision) != Some(current.revision);
            if changed {
                writes.usage +=
                    Usage::of(current) - before.map(|it| Usage::of(it)).unwrap_or_default();
            }
            if changed && !self.rules.without_digests {
                let tally = tallies.entry(&current.key.collection).or_default();
                before.inspect(|it| tally.remove(&it.key, it.document.as_ref()));
                tally.add(&current.key, current.document.as_ref());
            }
            match &slot.stored {
                None => writes.inserts.push(Arc::clone(current)),
                Some(stored) if stored.revision != current.revision => {
                    writes.updates.push(Arc::clone(current));
                }
                Some(stored) if stored.open_conflicts != current.open_conflicts => {
                    writes.touched.push(Arc::clone(current));
                }
                Some(_) => {}
            }
        }
        let moved = tallies.into_iter().filter(|(_, tally)| *tally != Tally::default());
        writes.tallies = moved.map(|(name, tally)| (name.clone(), tally)).collect();
        let sequences = self.new_sequences.iter();
        writes.sequences = sequences.map(|(device, last)| (device.clone(), *last)).collect();
        // What was opened and closed in the same group is written once.
        writes.conflicts.clone_from(&self.conflicts);
        for closed in &self.closed {
            let mut opened = writes.conflicts.iter_mut();
            match opened.find(|it| it.conflict.id == closed.id) {
                None => writes.closed.push(closed.clone()),
                Some(opened) => {
                    let closing = Some(closed.closing.clone());
                    let conflict = Conflict { closing, ..opened.conflict.as_ref().clone() };
                    *opened = LoggedConflict {
                        number: closed.number,
                        found: opened.found,
                        conflict: Arc::new(conflict),
                        expires_at: closed.expires_at,
                    };
                }
            }
        }
        writes
    }
}
