//! Which changes a reader wants, and how they see them.

use std::collections::BTreeSet;

use super::{Change, CollectionName, DeviceId, RecordKey, Revision, UserId};

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
    /// Memory that it holds, about.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Collections(names) => names.iter().map(|name| name.as_str().len() + 16).sum(),
            Self::Records(keys) => {
                let size = |key: &RecordKey| key.collection.as_str().len() + key.id.as_str().len();
                keys.iter().map(|key| size(key) + size_of::<RecordKey>() + 32).sum()
            }
        }
    }

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

impl Scope {
    /// May records of this collection be a part of it?
    pub fn has_collection(&self, collection: &CollectionName) -> bool {
        match self {
            Self::All => true,
            Self::Collections(collections) => collections.contains(collection),
            Self::Records(keys) => keys.iter().any(|key| key.collection == *collection),
        }
    }

    /// Is all of another one a part of it?
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (_, Self::All) | (Self::Records(_), Self::Collections(_)) => false,
            (_, Self::Collections(names)) => names.iter().all(|name| self.has_collection(name)),
            (_, Self::Records(keys)) => keys.iter().all(|key| self.has(key)),
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
    /// Who reads, and on which device.
    pub reader: Option<(UserId, DeviceId)>,
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
    /// of another device after `since`. None is somebody who begins from nothing, and
    /// has nothing, not even what it wrote itself.
    pub fn sight_coalesced(&self, change: &Change, since: Option<Revision>) -> Sight {
        let knows = since.is_some_and(|since| change.foreign_revision() <= since);
        self.of(change, !change.is_merged() && knows)
    }

    /// `foreseen`: the device knows what its own write has led to.
    fn of(&self, change: &Change, foreseen: bool) -> Sight {
        if !self.scope.has(&change.key) {
            return Sight::Not;
        }
        let own = self.reader.as_ref().is_some_and(|(user, device)| {
            change.device.as_ref() == Some(device) && change.author == *user
        });
        match self.echo {
            Echo::LeaveOut if own && foreseen => Sight::Not,
            Echo::Mark if own && foreseen => Sight::Marked,
            Echo::LeaveOut | Echo::Mark | Echo::Send => Sight::Whole,
        }
    }
}
