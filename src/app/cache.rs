//! What a committer has seen lately of its spaces. Safe on any number of
//! replicas: what is cached of a space counts only if the space is still where
//! it was then, which every group finds out, at the latest when it writes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::{OwnDevice, Record, RecordKey, Sequence, SpaceId, SpaceState};
use crate::store::Standing;

/// Memory for one committer's records, both generations together.
const CACHE_BYTES_MAX: usize = 16 << 20;

/// What a space takes without its records and sequences.
const SPACE_BYTES: usize = size_of::<(SpaceId, CachedSpace)>();
/// After so many records in a row that were new, the next is expected to be.
const NEWS_MIN: u32 = 16;

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

/// What is known of a space at one standing.
#[derive(Debug)]
struct CachedSpace {
    standing: Standing,
    news: u32,
    records: HashMap<RecordKey, Arc<Record>>,
    sequences: HashMap<OwnDevice, Sequence>,
}

/// What a committed group has learned of a space.
#[derive(Debug)]
pub(super) struct Learned<'g> {
    pub(super) before: Standing,
    pub(super) after: Standing,
    /// All records and sequences that it named, as they are now.
    pub(super) state: &'g SpaceState,
    /// How many records that were not cached turned out to be new; None if one
    /// of them was there.
    pub(super) news: Option<u32>,
}

impl Cache {
    /// Where the space was when it was last cached.
    pub(super) fn standing(&self, space: SpaceId) -> Option<Standing> {
        self.generations().find_map(|it| it.spaces.get(&space)).map(|cached| cached.standing)
    }

    /// A record as it was when its space was last cached.
    pub(super) fn record(&self, space: SpaceId, key: &RecordKey) -> Option<&Arc<Record>> {
        self.generations().find_map(|it| it.spaces.get(&space)?.records.get(key))
    }

    /// A device's last sequence as it was when its space was last cached.
    pub(super) fn sequence(&self, space: SpaceId, device: &OwnDevice) -> Option<Sequence> {
        self.generations().find_map(|it| it.spaces.get(&space)?.sequences.get(device)).copied()
    }

    /// Whether records of the space that are not cached and are written for the
    /// first time, so far as the request shows, may be taken for new.
    pub(super) fn expects_new(&self, space: SpaceId) -> bool {
        let news = self.generations().find_map(|it| it.spaces.get(&space)).map(|it| it.news);
        news.is_some_and(|news| news >= NEWS_MIN)
    }

    /// Whether what is cached of the space, if anything, is how it is now.
    pub(super) fn holds(&self, space: SpaceId, now: &Standing) -> bool {
        let mut cached = self.generations().filter_map(|it| it.spaces.get(&space));
        cached.all(|cached| cached.standing.is_still(now))
    }

    /// Caches what a committed group knows of the space.
    pub(super) fn keep(&mut self, space: SpaceId, learned: &Learned<'_>) {
        if self.young.bytes > CACHE_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        if !self.holds(space, &learned.before) {
            self.forget(space);
        }
        let known = self.generations().find_map(|it| it.spaces.get(&space)).map_or(0, |it| it.news);
        let news = learned.news.map_or(0, |more| known.saturating_add(more));
        // The old generation's records of the space are still right, unless
        // this group changed them: then the young ones are found first.
        if let Some(old) = self.old.spaces.get_mut(&space) {
            old.standing = learned.after;
        }
        let young = self.young.spaces.entry(space).or_insert_with(|| {
            self.young.bytes += SPACE_BYTES;
            CachedSpace {
                standing: learned.after,
                news,
                records: HashMap::new(),
                sequences: HashMap::new(),
            }
        });
        (young.standing, young.news) = (learned.after, news);
        for record in learned.state.records() {
            self.young.bytes += record.size_bytes();
            if let Some(replaced) = young.records.insert(record.key.clone(), Arc::clone(record)) {
                self.young.bytes = self.young.bytes.saturating_sub(replaced.size_bytes());
            }
        }
        for (device, sequence) in learned.state.sequences() {
            if let Some(known) = young.sequences.get_mut(device) {
                *known = sequence;
            } else {
                self.young.bytes += sequence_bytes(device);
                young.sequences.insert(device.clone(), sequence);
            }
        }
    }

    /// Forgets a space.
    pub(super) fn forget(&mut self, space: SpaceId) {
        for generation in [&mut self.young, &mut self.old] {
            let Some(gone) = generation.spaces.remove(&space) else { continue };
            let records: usize = gone.records.values().map(|record| record.size_bytes()).sum();
            let sequences: usize = gone.sequences.keys().map(sequence_bytes).sum();
            let bytes = SPACE_BYTES + records + sequences;
            generation.bytes = generation.bytes.saturating_sub(bytes);
        }
    }

    fn generations(&self) -> impl Iterator<Item = &Generation> {
        [&self.young, &self.old].into_iter()
    }
}

/// Memory that a cached sequence holds, about.
fn sequence_bytes(own: &OwnDevice) -> usize {
    size_of::<(OwnDevice, Sequence)>() + own.user.as_str().len() + own.device.as_str().len()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        Change, CollectionName, DeviceId, Document, Epoch, Known, RecordId, Revision, Rules, Usage,
        UserId,
    };
    use crate::store::SpaceHead;

    const SPACE: SpaceId = SpaceId(Uuid::from_u128(1));

    fn at(head: i64) -> Standing {
        let (epoch, floor) = (Epoch(Uuid::from_u128(2)), Revision::ZERO);
        let head = Revision::new(head).unwrap();
        let at = SpaceHead { epoch, head, floor, conflicts: 0 };
        Standing { at, answered: 0, usage: Usage::default() }
    }

    fn record(id: &str, revision: i64, bytes: usize) -> Arc<Record> {
        let text = format!("{{\"text\":\"{}\"}}", "x".repeat(bytes));
        let change = Change {
            key: RecordKey {
                collection: CollectionName::parse("task").unwrap(),
                id: RecordId::parse(id).unwrap(),
            },
            document: Some(Document::from_canonical(text)),
            ..Change::sample(revision)
        };
        Arc::new(Record { change: Arc::new(change), open_conflicts: 0 })
    }

    fn phone() -> OwnDevice {
        let user = UserId::parse("alice").unwrap();
        OwnDevice { user, device: DeviceId::parse("phone").unwrap() }
    }

    fn learn(cache: &mut Cache, before: i64, record: &Arc<Record>, news: Option<u32>) {
        let (before, after) = (at(before), at(before + 1));
        let records = [Arc::clone(record)];
        let sequence = Sequence::new(before.at.head.get() + 1);
        let sequences = sequence.map(|sequence| (phone(), sequence)).into_iter().collect();
        let (head, records) = (after.at.head, records.into());
        let known = Known { head, records, sequences, ..Known::default() };
        let state = &SpaceState::new(known, Rules::default());
        cache.keep(SPACE, &Learned { before, after, state, news });
    }

    #[test]
    fn a_space_that_is_always_written_does_not_grow_for_ever() {
        let mut cache = Cache::default();
        for number in 1..=10_000 {
            let written = record(&number.to_string(), number, 10 << 10);
            learn(&mut cache, number - 1, &written, Some(1));
        }
        let held = |generation: &Generation| -> usize {
            let spaces = generation.spaces.values();
            let records = spaces.flat_map(|space| space.records.values());
            records.map(|record| record.size_bytes()).sum()
        };
        assert!(held(&cache.young) + held(&cache.old) < CACHE_BYTES_MAX + (1 << 20));
        assert!(cache.record(SPACE, &record("10000", 1, 0).key).is_some());
        assert!(cache.record(SPACE, &record("1", 1, 0).key).is_none());
        assert_eq!(cache.sequence(SPACE, &phone()), Sequence::new(10_000));
        assert!(cache.holds(SPACE, &at(10_000)) && !cache.holds(SPACE, &at(10_001)));
        cache.forget(SPACE);
        assert_eq!(cache.young.bytes + cache.old.bytes, 0, "what was forgotten is not counted");
    }

    #[test]
    fn spaces_without_records_do_not_grow_for_ever() {
        let mut cache = Cache::default();
        let state = &SpaceState::new(Known::default(), Rules::default());
        for number in 0..1_000_000 {
            let (before, after) = (at(0), at(0));
            let learned = Learned { before, after, state, news: Some(0) };
            cache.keep(SpaceId(Uuid::from_u128(number)), &learned);
        }
        let spaces = cache.young.spaces.len() + cache.old.spaces.len();
        assert!(spaces * SPACE_BYTES <= CACHE_BYTES_MAX + SPACE_BYTES, "{spaces}");
    }

    #[test]
    fn what_another_replica_changed_is_forgotten() {
        let mut cache = Cache::default();
        let (first, other) = (record("a", 1, 10), record("b", 3, 10));
        learn(&mut cache, 0, &first, Some(1));
        // Revision 2 was written elsewhere; it may have been record a.
        learn(&mut cache, 2, &other, Some(1));
        assert!(cache.record(SPACE, &first.key).is_none());
        assert_eq!(cache.record(SPACE, &other.key).unwrap().revision, other.revision);
    }

    #[test]
    fn an_answer_or_another_epoch_makes_a_space_another() {
        let mut cache = Cache::default();
        for elsewhere in [
            Standing { answered: 1, ..at(1) },
            Standing { at: SpaceHead { epoch: Epoch(Uuid::nil()), ..at(1).at }, ..at(1) },
        ] {
            learn(&mut cache, 0, &record("a", 1, 10), Some(1));
            assert!(cache.standing(SPACE).unwrap().is_still(&at(1)));
            assert!(!cache.holds(SPACE, &elsewhere));
        }
    }

    #[test]
    fn new_records_are_expected_after_new_records() {
        let mut cache = Cache::default();
        for number in 0..i64::from(NEWS_MIN) {
            assert!(!cache.expects_new(SPACE), "after {number}");
            learn(&mut cache, number, &record(&number.to_string(), number + 1, 0), Some(1));
        }
        assert!(cache.expects_new(SPACE));
        learn(&mut cache, 16, &record("there before", 17, 0), None);
        assert!(!cache.expects_new(SPACE));
    }
}
