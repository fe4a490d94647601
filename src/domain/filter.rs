//! Which changes a reader wants.

use super::{Change, CollectionName, DeviceId, Revision};

/// What a reader wants to see of a space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these; empty = all.
    pub collections: Vec<CollectionName>,
    /// Not the changes that this device made itself.
    pub not_by: Option<DeviceId>,
}

impl Filter {
    /// Does this change pass?
    pub fn passes(&self, change: &Change) -> bool {
        self.wants(change) && !self.is_own(change)
    }

    /// Does this change pass, where it may stand for earlier ones of its record
    /// that the reader has not seen? An own change does if it hides one of
    /// another device after `since`.
    pub fn passes_coalesced(&self, change: &Change, since: Revision) -> bool {
        self.wants(change) && (!self.is_own(change) || change.foreign_revision() > since)
    }

    fn wants(&self, change: &Change) -> bool {
        self.collections.is_empty() || self.collections.contains(&change.key.collection)
    }

    fn is_own(&self, change: &Change) -> bool {
        self.not_by.is_some() && self.not_by == change.device
    }
}
