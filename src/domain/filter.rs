//! Which changes a reader wants.

use super::{Change, CollectionName, DeviceId};

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
        let wanted =
            self.collections.is_empty() || self.collections.contains(&change.key.collection);
        let own = self.not_by.is_some() && self.not_by == change.device;
        wanted && !own
    }
}
