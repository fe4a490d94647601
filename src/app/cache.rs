//! Records that a committer has seen lately. Safe on any number of replicas: a
//! space's head is read with every group, and what is cached of the space counts
//! only if it was cached at exactly that head.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::{Epoch, Record, RecordKey, Revision, SpaceId};
use crate::store::SpaceHead;

/// Memory for one committer's records, both generations together.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// Two generations: what is written goes into the young one; when that is full
/// it becomes the old one, and the old one goes.
#[derive(Debug, Default)]
pub(super) struct Cache {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    spaces: HashMap<SpaceId, CachedSpace>,
    bytes: usize,
}

/// What is known of a space at one head.
#[derive(Debug)]
struct CachedSpace {
    epoch: Epoch,
    head: Revision,
    records: HashMap<RecordKey, Arc<Record>>,
}

impl CachedSpace {
    fn is_at(&self, at: &SpaceHead) -> bool {
        self.head == at.head && self.epoch == at.epoch
    }
}

impl Cache {
    /// A record as it was when its space was last cached.
    pub(super) fn get(&self, space: SpaceId, key: &RecordKey) -> Option<&Arc<Record>> {
        let mut generations = [&self.young, &self.old].into_iter();
        generations.find_map(|generation| generation.spaces.get(&space)?.records.get(key))
    }

    /// Whether what is cached of the space is how it is now.
    pub(super) fn holds(&self, space: SpaceId, now: &SpaceHead) -> bool {
        let of = |generation: &Generation| {
            generation.spaces.get(&space).is_none_or(|cached| cached.is_at(now))
        };
        of(&self.young) && of(&self.old)
    }

    /// Caches what a committed group knows of the space.
    pub(super) fn keep<'r>(
        &mut self,
        space: SpaceId,
        before: &SpaceHead,
        head: Revision,
        records: impl Iterator<Item = &'r Arc<Record>>,
    ) {
        if self.young.bytes > CACHE_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        if !self.holds(space, before) {
            self.forget(space);
        }
        // The old generation's records of the space are still right, unless
        // this group changed them: then the young ones are found first.
        if let Some(old) = self.old.spaces.get_mut(&space) {
            old.head = head;
        }
        let empty = || CachedSpace { epoch: before.epoch, head, records: HashMap::new() };
        let young = self.young.spaces.entry(space).or_insert_with(empty);
        young.head = head;
        for record in records {
            self.young.bytes += record.size_bytes();
            if let Some(replaced) = young.records.insert(record.key.clone(), Arc::clone(record)) {
                self.young.bytes = self.young.bytes.saturating_sub(replaced.size_bytes());
            }
        }
    }

    /// Forgets a space.
    pub(super) fn forget(&mut self, space: SpaceId) {
        for generation in [&mut self.young, &mut self.old] {
            let gone = generation.spaces.remove(&space);
            let records = gone.iter().flat_map(|cached| cached.records.values());
            let bytes: usize = records.map(|record| record.size_bytes()).sum();
            generation.bytes = generation.bytes.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{CollectionName, Document, RecordId, UserId};

    const SPACE: SpaceId = SpaceId(Uuid::from_u128(1));

    fn at(head: i64) -> SpaceHead {
        let (epoch, floor) = (Epoch(Uuid::from_u128(2)), Revision::ZERO);
        SpaceHead { epoch, head: Revision::new(head).unwrap(), floor }
    }

    fn record(id: &str, revision: i64, bytes: usize) -> Arc<Record> {
        let text = format!("{{\"text\":\"{}\"}}", "x".repeat(bytes));
        Arc::new(Record {
            key: RecordKey {
                collection: CollectionName::parse("task").unwrap(),
                id: RecordId::parse(id).unwrap(),
            },
            revision: Revision::new(revision).unwrap(),
            document: Some(Document::from_canonical(text)),
            author: UserId::parse("alice").unwrap(),
            device: None,
            updated_at: OffsetDateTime::UNIX_EPOCH,
            foreign_revision: Revision::ZERO,
        })
    }

    #[test]
    fn a_space_that_is_always_written_does_not_grow_for_ever() {
        let mut cache = Cache::default();
        for number in 1..=10_000 {
            let written = record(&number.to_string(), number, 10 << 10);
            cache.keep(SPACE, &at(number - 1), at(number).head, std::iter::once(&written));
        }
        let held = |generation: &Generation| -> usize {
            let spaces = generation.spaces.values();
            let records = spaces.flat_map(|space| space.records.values());
            records.map(|record| record.size_bytes()).sum()
        };
        assert!(held(&cache.young) + held(&cache.old) < CACHE_BYTES_MAX + (1 << 20));
        assert!(cache.get(SPACE, &record("10000", 1, 0).key).is_some());
        assert!(cache.get(SPACE, &record("1", 1, 0).key).is_none());
        assert!(cache.holds(SPACE, &at(10_000)) && !cache.holds(SPACE, &at(10_001)));
    }

    #[test]
    fn what_another_replica_changed_is_forgotten() {
        let mut cache = Cache::default();
        let (first, other) = (record("a", 1, 10), record("b", 3, 10));
        cache.keep(SPACE, &at(0), at(1).head, std::iter::once(&first));
        // Revision 2 was written elsewhere; it may have been record a.
        cache.keep(SPACE, &at(2), at(3).head, std::iter::once(&other));
        assert!(cache.get(SPACE, &first.key).is_none());
        assert_eq!(cache.get(SPACE, &other.key).unwrap().revision, other.revision);
    }
}
