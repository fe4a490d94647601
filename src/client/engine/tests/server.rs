//! A server for the simulation: what it keeps of each space, and what it answers. Must not know
//! time.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::client::engine::{Code, Fault, SpaceNo, Told};
use crate::domain::{Cursor, Epoch, Revision, Sequence};

/// Entries are numbers here, and mutations are their sequences.
pub(super) type Entry = u64;
pub(super) type Batch = Vec<(Entry, i64)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Write,
    Read,
    None,
}

/// What the server thinks of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poison {
    /// It never takes it.
    Permanent,
    /// It never takes it, but says that it might.
    Stubborn,
    /// It takes it after so many refusals.
    Passing(u32),
    /// It takes it, and never manages to say so.
    Mute,
    /// It ends the connection.
    Fatal,
}

/// What is lost when the database is restored from an earlier copy.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) head: i64,
    pub(super) last_sequence: i64,
    /// By entry: the sequence that it came with, and its revision.
    pub(super) answers: BTreeMap<Entry, (i64, i64)>,
}

#[derive(Clone, Debug)]
pub(super) struct ServerSpace {
    pub(super) epoch: Epoch,
    pub(super) floor: i64,
    pub(super) access: Access,
    pub(super) history: History,
    pub(super) earlier: History,
    pub(super) poison: BTreeMap<Entry, Poison>,
    /// Restored: what was answered before may be lost, and sequences may not fit.
    pub(super) restored: bool,
}

pub(super) fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap()
}

pub(super) fn sequence(number: i64) -> Sequence {
    Sequence::new(number).unwrap_or_default()
}

/// Where a space stands in lists.
pub(super) fn index(space: SpaceNo) -> usize {
    usize::try_from(space.0).unwrap()
}

fn fault(code: Code, reason: &str) -> Fault {
    Fault::new(code, reason, "of the simulation")
}

impl ServerSpace {
    pub(super) fn new(number: u128, head: i64) -> Self {
        let history = History { head, last_sequence: 0, answers: BTreeMap::new() };
        Self {
            epoch: Epoch(Uuid::from_u128(number)),
            floor: 0,
            access: Access::Write,
            earlier: history.clone(),
            history,
            poison: BTreeMap::new(),
            restored: false,
        }
    }

    /// The database is restored from the last copy.
    pub(super) fn restore(&mut self) {
        self.epoch = Epoch(Uuid::from_u128(self.epoch.0.as_u128() + 1_000));
        self.history = self.earlier.clone();
        self.floor = self.floor.min(self.history.head);
        self.restored = true;
    }

    /// Whether the connection does not outlive this.
    pub(super) fn is_fatal(&self, batch: &Batch) -> bool {
        batch.iter().any(|(entry, _)| self.poison.get(entry) == Some(&Poison::Fatal))
    }

    pub(super) fn readable(&self) -> Result<(), Fault> {
        match self.access {
            Access::None => Err(fault(Code::NotFound, "SPACE_NOT_FOUND")),
            Access::Write | Access::Read => Ok(()),
        }
    }

    pub(super) fn status(&self) -> Result<Told, Fault> {
        self.readable()?;
        Ok(Told {
            epoch: self.epoch,
            head: revision(self.history.head),
            floor: revision(self.floor),
            device_sequence: sequence(self.history.last_sequence),
            batch_max: 0,
        })
    }

    pub(super) fn resume(&self, epoch: Option<Epoch>, cursor: i64) -> Result<(), Fault> {
        self.readable()?;
        let cursor = Cursor { epoch, revision: revision(cursor) };
        cursor
            .check(self.epoch, revision(self.floor), revision(self.history.head))
            .map_err(Fault::of_cursor)
    }

    /// Decides a batch: all of it, or nothing.
    pub(super) fn decide(&mut self, batch: &Batch) -> Result<(), Fault> {
        self.readable()?;
        if self.access == Access::Read {
            return Err(fault(Code::PermissionDenied, "PERMISSION_DENIED"));
        }
        for pair in batch.windows(2) {
            assert_eq!(pair[1].1, pair[0].1 + 1, "sequences are not dense: {batch:?}");
        }
        for (entry, sequence) in batch {
            if self.history.answers.get(entry).is_some_and(|(before, _)| before != sequence) {
                return Err(fault(Code::FailedPrecondition, "MUTATION_ID_REUSED"));
            }
            match self.poison.get_mut(entry) {
                Some(Poison::Permanent) => {
                    return Err(fault(Code::InvalidArgument, "VALIDATION_ERROR"));
                }
                Some(Poison::Stubborn | Poison::Fatal) => {
                    return Err(fault(Code::Internal, "INTERNAL"));
                }
                Some(Poison::Passing(left)) if *left > 0 => {
                    *left -= 1;
                    return Err(fault(Code::ResourceExhausted, "QUOTA_EXCEEDED"));
                }
                Some(Poison::Passing(_) | Poison::Mute) | None => {}
            }
        }
        let first = batch.iter().find(|(entry, _)| !self.history.answers.contains_key(entry));
        if first.is_some_and(|(_, sequence)| *sequence > self.history.last_sequence + 1) {
            assert!(self.restored, "a sequence is missing before {batch:?}");
            return Err(fault(Code::FailedPrecondition, "SEQUENCE_GAP"));
        }
        for (entry, sequence) in batch {
            if self.history.answers.contains_key(entry) {
                continue;
            }
            assert!(*sequence > self.history.last_sequence, "a sequence is used again: {batch:?}");
            self.history.head += 1;
            self.history.last_sequence = *sequence;
            self.history.answers.insert(*entry, (*sequence, self.history.head));
        }
        if batch.iter().any(|(entry, _)| self.poison.get(entry) == Some(&Poison::Mute)) {
            return Err(fault(Code::Internal, "INTERNAL"));
        }
        Ok(())
    }
}
