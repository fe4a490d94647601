//! Records that a committer has seen lately. Safe on any number of replicas: a
//! space's head is read with every group, and what is cached of the space counts
//! only if it was cached at exactly that head.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::{Epoch, Record, RecordKey, Revision, SpaceId};
use crate::store::SpaceHead;

/// Memory for one committer's records.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// Two generations: what is used moves to the young one; when that is full it
/// becomes the old one, and the old one goes.
#[derive(Debug, Default)]
pub(super) struct Cache {
    young: HashMap<SpaceId, CachedSpace>,
    old: HashMap<SpaceId, CachedSpace>,
    young_bytes: usize,
}

#[derive(Debug)]
struct CachedSpace {
    epoch: Epoch,
    head: Revision,
    records: HashMap<RecordKey, Arc<Record>>,
}

impl Cache {
    /// A record as it was when its space was last cached.
    pub(super) fn get(&self, space: SpaceId, key: &RecordKey) -> Option<&Arc<Record>> {
        self.space(space)?.records.get(key)
    }

    /// Whether what is cached of the space is how it is now.
    pub(super) fn holds(&self, space: SpaceId, now: &SpaceHead) -> bool {
        self.space(space).is_some_and(|cached| cached.head == now.head && cached.epoch == now.epoch)
    }

    fn space(&self, space: SpaceId) -> Option<&CachedSpace> {
        self.young.get(&space).or_else(|| self.old.get(&space))
    }

    /// Caches what a committed group knows of the space.
    pub(super) fn keep<'r>(
        &mut self,
        space: SpaceId,
        before: &SpaceHead,
        head: Revision,
        records: impl Iterator<Item = &'r Arc<Record>>,
    ) {
        let valid =
            |cached: &CachedSpace| cached.head == before.head && cached.epoch == before.epoch;
        let known = self.young.remove(&space).or_else(|| self.old.remove(&space)).filter(valid);
        let known = known.map(|cached| cached.records).unwrap_or_default();
        let mut cached = CachedSpace { epoch: before.epoch, head, records: known };
        for record in records {
            self.young_bytes += record.size_bytes();
            cached.records.insert(record.key.clone(), Arc::clone(record));
        }
        self.young.insert(space, cached);
        if self.young_bytes > CACHE_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    /// Forgets a space.
    pub(super) fn forget(&mut self, space: SpaceId) {
        self.young.remove(&space);
        self.old.remove(&space);
    }
}
