//! A record's state, and what happened to it at one revision.

use time::OffsetDateTime;

use super::{DeviceId, Document, MutationId, RecordKey, Revision, UserId};

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
    /// None exactly when deleted.
    pub document: Option<Document>,
    pub previous_revision: Revision,
    pub author: UserId,
    pub device: Option<DeviceId>,
    pub mutation_id: MutationId,
    pub committed_at: OffsetDateTime,
}

impl Change {
    /// Memory that the change holds, about.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>()
            + self.document.as_ref().map_or(0, |document| document.as_str().len())
            + self.key.id.as_str().len()
            + self.mutation_id.as_str().len()
    }
}

/// A record, as its last change left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: RecordKey,
    pub revision: Revision,
    /// None = a tombstone.
    pub document: Option<Document>,
    pub author: UserId,
    pub device: Option<DeviceId>,
    pub updated_at: OffsetDateTime,
    /// The last revision that another device than `device` gave the record.
    pub foreign_revision: Revision,
}

impl Record {
    /// Does it live?
    pub fn lives(&self) -> bool {
        self.document.is_some()
    }

    /// The last revision that this device did not write itself: what a device
    /// queued behind its own writes does not conflict with them.
    pub fn revision_not_by(&self, device: Option<&DeviceId>) -> Revision {
        if device.is_some() && device == self.device.as_ref() {
            self.foreign_revision
        } else {
            self.revision
        }
    }

    /// Memory that the record holds, about.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.document.as_ref().map_or(0, |document| document.as_str().len())
    }
}
