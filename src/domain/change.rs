//! A record's state, and what happened to it at one revision.

use std::ops::Deref;
use std::sync::Arc;

use time::OffsetDateTime;

use super::{
    DeviceId, Document, History, HistoryEntry, MutationId, Parents, Pointer, RecordKey, Revision,
    Seen, Transform, UserId, Version,
};

/// What a change did to its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeAction {
    /// It was new, or it had been deleted.
    Created,
    /// It lived and has another document now.
    Updated,
    /// A tombstone remains.
    Deleted,
}

/// What happened to one record at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    pub key: RecordKey,
    pub action: ChangeAction,
    /// None when deleted, and only then unless it was not read.
    pub document: Option<Document>,
    pub previous_revision: Revision,
    pub author: UserId,
    /// Who really wrote it, if not the author.
    pub actor: Option<UserId>,
    pub device: Option<DeviceId>,
    /// The place in the device's queue; 0 if it was not part of one.
    pub sequence: i64,
    pub mutation_id: MutationId,
    pub committed_at: OffsetDateTime,
    /// The time of its version.
    pub micros: i64,
    pub parents: Parents,
    /// The last writes of all other devices.
    pub others: History,
    /// What was settled, if it was concurrent with other writes.
    pub settlement: Option<Arc<Settlement>>,
    /// The last revision of the atomic batch that it is part of; 0 if of none.
    pub batch_end: Revision,
}

/// How a write that was concurrent with others took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The record became something of both sides.
    pub merged: bool,
    /// The time of the version that the write had claimed.
    pub claimed_micros: i64,
    /// The paths that it set, if the documents do not show them.
    pub claims: Option<Vec<Pointer>>,
    /// What it did if it was relative to whatever is there, and so passed them.
    pub passed: Vec<Transform>,
}

impl Change {
    /// One of a record, for tests that look at some of its fields only.
    #[cfg(test)]
    pub(crate) fn sample(revision: i64) -> Self {
        use super::{CollectionName, RecordId};
        let collection = CollectionName::parse("task").unwrap();
        Self {
            revision: Revision::new(revision).unwrap(),
            key: RecordKey { collection, id: RecordId::parse("1").unwrap() },
            action: ChangeAction::Updated,
            document: Some(Document::from_json(b"{}").unwrap()),
            previous_revision: Revision::ZERO,
            author: UserId::parse("alice").unwrap(),
            actor: None,
            device: None,
            sequence: 0,
            mutation_id: MutationId::parse("m").unwrap(),
            committed_at: OffsetDateTime::UNIX_EPOCH,
            micros: 0,
            parents: Parents::default(),
            others: History::default(),
            settlement: None,
            batch_end: Revision::ZERO,
        }
    }

    /// The record's version after it.
    pub fn version(&self) -> Version {
        self.version_at(self.micros)
    }

    /// The version that the write claimed for itself.
    pub fn claimed(&self) -> Version {
        let claimed = self.settlement.as_ref().map_or(self.micros, |it| it.claimed_micros);
        self.version_at(claimed)
    }

    fn version_at(&self, micros: i64) -> Version {
        Version { micros, device: self.device.clone(), sequence: self.sequence }
    }

    /// The last write of each device, this one included. Of nobody's writes it is
    /// the last, too, where those of forgotten devices count among them.
    pub fn history(&self) -> impl Iterator<Item = HistoryEntry> {
        let others = self.others.entries().iter().filter(|it| it.device != self.device);
        others.cloned().chain([self.entry()])
    }

    /// This write.
    pub fn entry(&self) -> HistoryEntry {
        let (sequence, revision) = (self.sequence, self.revision);
        HistoryEntry { device: self.device.clone(), sequence, revision }
    }

    /// Whether the record became something of both sides.
    pub fn is_merged(&self) -> bool {
        self.settlement.as_ref().is_some_and(|settlement| settlement.merged)
    }

    /// Whether more changes of the same atomic batch follow.
    pub fn goes_on(&self) -> bool {
        self.revision < self.batch_end
    }

    /// Whether its document was not read: see [`Way`](super::Way).
    pub(super) fn is_left_out(&self) -> bool {
        self.document.is_none() && self.action != ChangeAction::Deleted
    }

    /// The last revision that another device than its own gave the record.
    pub fn foreign_revision(&self) -> Revision {
        self.others.revision()
    }

    /// Whether any other device has written what `seen` does not cover: what a
    /// device queued behind its own writes does not conflict with them.
    pub fn is_unseen(&self, seen: &Seen, device: Option<&DeviceId>) -> bool {
        // A revision needs no look at each device: the last write of others counts.
        if let Seen::Revision(revision) = seen {
            let own = device.is_some() && device == self.device.as_ref();
            let last = if own { self.foreign_revision() } else { self.revision };
            return last > *revision;
        }
        self.writers_but(device).any(|write| !seen.covers(&write))
    }

    /// The last writes of all devices but this one; of all if there is none.
    pub(super) fn writers_but(
        &self,
        device: Option<&DeviceId>,
    ) -> impl Iterator<Item = HistoryEntry> {
        self.history().filter(move |it| device.is_none() || it.device.as_ref() != device)
    }

    /// Memory that the change holds, about.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.document.as_ref().map_or(0, |document| document.as_str().len())
            + self.key.id.as_str().len()
            + self.mutation_id.as_str().len()
            + self.parents.as_str().len()
            + size_of_val(self.others.entries())
    }
}

/// A record: what its last change left, and what waits for a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub change: Arc<Change>,
    /// Conflicts that are open.
    pub open_conflicts: i32,
}

impl Record {
    /// Does it live?
    pub fn lives(&self) -> bool {
        self.document.is_some()
    }
}

impl Deref for Record {
    type Target = Change;

    fn deref(&self) -> &Change {
        &self.change
    }
}
