//! One queued edit, from the call that made it to what became of it. Owns its states and what
//! may be done in each; must not know of files or the wire. Pure.

use serde::{Deserialize, Serialize};

use super::edit::Edit;
use crate::domain::{
    Content, Document, Fingerprint, Mutation, MutationId, RecordKey, Revision, Seen, Sequence,
};

/// Where a queued edit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryState {
    /// It waits to be sent; nobody but this file knows of it.
    Pending,
    /// It was sent, perhaps: it goes out again unchanged until it is answered.
    Syncing,
    /// It took effect.
    Applied,
    /// The record became something of it and another write.
    Merged,
    /// The policy kept another write; the conflict log has this one.
    Superseded,
    /// Somebody has to decide between it and another write.
    Conflict,
    /// It was refused, and waits for the app to retry, edit or discard it.
    Failed,
}

impl EntryState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Syncing,
        Self::Applied,
        Self::Merged,
        Self::Superseded,
        Self::Conflict,
        Self::Failed,
    ];

    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Syncing => "syncing",
            Self::Applied => "applied",
            Self::Merged => "merged",
            Self::Superseded => "superseded",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }

    /// From what [`EntryState::as_str`] gave.
    pub(super) fn from_stored(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether the server has not answered yet.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Syncing)
    }
}

/// Why an edit was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// For programs: a reason of the contract, such as `QUOTA_EXCEEDED` or `NOT_FOUND`.
    pub reason: String,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// Fields that break a rule, each with the rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<(String, String)>,
}

impl Trouble {
    /// Trouble that no field explains.
    pub(super) fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into(), violations: Vec::new() }
    }
}

/// A queued edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its place in its space's queue.
    pub(super) number: i64,
    pub(super) id: MutationId,
    pub(super) key: RecordKey,
    pub(super) edit: Edit,
    /// What had been seen of the record.
    pub(super) base: Revision,
    /// The record as it was then, once it has become another; see [`Kept`].
    pub(super) kept: Option<Kept>,
    /// When the user made it, by this device's clock.
    pub(super) client_micros: i64,
    /// Of the app, which may upcast what an older version of it has queued.
    pub(super) schema_version: i64,
    /// Given when it is first sent, so that what never goes out leaves no gap.
    pub(super) sequence: Option<Sequence>,
    pub(super) state: EntryState,
    /// Of what became of it.
    pub(super) revision: Revision,
    /// What became of it is in the server's state as we have it: its edit is not needed.
    pub(super) done: bool,
    /// The sequence and the base with which it first went out, as long as no answer has come:
    /// it may have taken effect with these, whatever numbers it has now.
    pub(super) sent: Option<(Sequence, Revision)>,
    /// Sensitive values of it were in the memory of a process that is gone.
    pub(super) incomplete: bool,
    pub(super) trouble: Option<Trouble>,
}

/// A record as it was when it was edited, kept from the moment when others have changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Of the record's last change then; 0 if there was none.
    pub(super) revision: Revision,
    /// None if it did not live.
    pub(super) document: Option<Document>,
}

impl Entry {
    /// Whether what is shown has it on top of the server's state: it is not in that yet.
    pub(super) fn is_shown(&self) -> bool {
        match self.state {
            EntryState::Pending | EntryState::Syncing => true,
            // Answered, but the change itself has not come.
            EntryState::Applied | EntryState::Merged => !self.done,
            EntryState::Superseded | EntryState::Conflict | EntryState::Failed => false,
        }
    }

    /// Whether it may have taken effect with other numbers than it has now.
    pub(super) fn is_renumbered(&self) -> bool {
        self.sent
            .is_some_and(|(sequence, base)| self.sequence != Some(sequence) || self.base != base)
    }

    /// Nothing is to come of it any more.
    pub(super) fn finish(&mut self) {
        self.done = true;
        self.kept = None;
        self.sent = None;
    }

    /// As the rules that decide know it.
    pub(super) fn mutation(&self) -> Mutation {
        let content = Content {
            key: self.key.clone(),
            operation: self.edit.operation(),
            base: Some(Seen::Revision(self.base)),
            client_micros: Some(self.client_micros),
        };
        Mutation {
            id: self.id.clone(),
            device_sequence: self.sequence,
            // Nobody compares it here.
            fingerprint: Fingerprint([0; 32]),
            content: Ok(content),
        }
    }
}
