//! Which changes a reader wants, and how they see them.

use std::collections::BTreeSet;

use super::{Change, CollectionName, DeviceId, RecordKey, Revision};

/// The part of a space that a reader follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    #[default]
    All,
    /// Never empty.
    Collections(Vec<CollectionName>),
    /// Never empty.
    Records(BTreeSet<RecordKey>),
}

impl Scope {
    /// How many records it names.
    pub fn records(&self) -> usize {
        match self {
            Self::All | Self::Collections(_) => 0,
            Self::Records(keys) => keys.len(),
        }
    }

    /// Is this record a part of it?
    pub fn has(&self, key: &RecordKey) -> bool {
        match self {
            Self::All => true,
            Self::Collections(collections) => collections.contains(&key.collection),
            Self::Records(keys) => keys.contains(key),
        }
    }
}

/// What becomes of changes that the reader's device made itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Echo {
    #[default]
    LeaveOut,
    Send,
    /// They are sent without their documents.
    Mark,
}

/// What a reader wants to see of a space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub scope: Scope,
    /// The reader's own.
    pub device: Option<DeviceId>,
    pub echo: Echo,
}

/// How a reader sees a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    Not,
    Whole,
    /// That it took place, but not its document.
    Marked,
}

impl Filter {
    /// How the reader sees this change.
    pub fn sight(&self, change: &Change) -> Sight {
        self.of(change, !change.is_merged())
    }

    /// The same where the change may stand for earlier ones of its record that the
    /// reader has not seen: an own change is as good as another's if it hides one
    /// of another device after `since`.
    pub fn sight_coalesced(&self, change: &Change, since: Revision) -> Sight {
        self.of(change, !change.is_merged() && change.foreign_revision() <= since)
    }

    /// `foreseen`: the device knows what its own write has led to.
    fn of(&self, change: &Change, foreseen: bool) -> Sight {
        if !self.scope.has(&change.key) {
            return Sight::Not;
        }
        let own = self.device.is_some() && self.device == change.device;
        match self.echo {
            Echo::LeaveOut if own && foreseen => Sight::Not,
            Echo::Mark if own && foreseen => Sight::Marked,
            Echo::LeaveOut | Echo::Mark | Echo::Send => Sight::Whole,
        }
    }
}
