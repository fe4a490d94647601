//! Who wrote a record, and what a writer had seen of it: version vectors.

use std::sync::Arc;

use super::{DeviceId, Revision, limits};

/// The last write of one device to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// None stands for all writes without a device, and for those that a full
    /// history has forgotten.
    pub device: Option<DeviceId>,
    /// 0 if the write was not part of a queue.
    pub sequence: i64,
    /// 0 if only the sequence is known.
    pub revision: Revision,
}

/// One entry for each device, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(Option<Arc<[HistoryEntry]>>);

impl History {
    /// A history of these entries, of which no device has two.
    pub fn new(mut entries: Vec<HistoryEntry>) -> Self {
        entries.sort_by(|a, b| a.device.cmp(&b.device));
        Self((!entries.is_empty()).then(|| entries.into()))
    }

    /// The entries.
    pub fn entries(&self) -> &[HistoryEntry] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The last revision in it.
    pub fn revision(&self) -> Revision {
        self.entries().iter().map(|entry| entry.revision).max().unwrap_or_default()
    }

    /// The same without `device`, and with what `last` wrote.
    pub(super) fn after(&self, last: HistoryEntry, device: Option<&DeviceId>) -> Self {
        if last.device.as_ref() == device {
            return self.clone();
        }
        let kept = self.entries().iter().filter(|entry| entry.device.as_ref() != device);
        let mut entries: Vec<_> = kept.cloned().collect();
        entries.retain(|entry| entry.device != last.device);
        entries.push(last);
        // The entry of the writer itself comes on top.
        while entries.len() >= limits::HISTORY_DEVICES_MAX {
            forget_oldest(&mut entries);
        }
        Self::new(entries)
    }
}

/// The oldest write becomes one of nobody, which everybody else's base has to
/// cover: a conflict too many, never one too few.
fn forget_oldest(entries: &mut Vec<HistoryEntry>) {
    let nobody = entries.iter().position(|entry| entry.device.is_none());
    let named = entries.iter().enumerate().filter(|(_, entry)| entry.device.is_some());
    let oldest = named.min_by_key(|(_, entry)| entry.revision).map(|(index, _)| index);
    let Some(oldest) = oldest else { return };
    let gone = entries.get(oldest).map_or(Revision::ZERO, |entry| entry.revision);
    match nobody.and_then(|index| entries.get_mut(index)) {
        Some(nobody) => nobody.revision = nobody.revision.max(gone),
        None => entries.push(HistoryEntry { device: None, sequence: 0, revision: gone }),
    }
    entries.swap_remove(oldest);
}

/// What a writer had seen of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Everything up to this revision.
    Revision(Revision),
    /// For each device, everything up to these writes.
    Vector(History),
}

impl Seen {
    /// Whether this write was among it.
    pub fn covers(&self, write: &HistoryEntry) -> bool {
        match self {
            Self::Revision(revision) => *revision >= write.revision,
            Self::Vector(history) => history.entries().iter().any(|entry| {
                entry.device == write.device
                    && (entry.revision >= write.revision
                        || (write.sequence > 0 && entry.sequence >= write.sequence))
            }),
        }
    }

    /// A revision up to which everything was seen of a record that these wrote.
    pub(super) fn floor(&self, writers: impl Iterator<Item = HistoryEntry>) -> Revision {
        match self {
            Self::Revision(revision) => *revision,
            Self::Vector(history) => {
                let known = |writer: HistoryEntry| {
                    let mut entries = history.entries().iter();
                    let entry = entries.find(|entry| entry.device == writer.device);
                    entry.map_or(Revision::ZERO, |entry| entry.revision)
                };
                writers.filter(|it| !self.covers(it)).map(known).min().unwrap_or_default()
            }
        }
    }

    /// The highest revision that it names.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Revision(revision) => *revision,
            Self::Vector(history) => history.revision(),
        }
    }

    /// Whether nothing at all had been seen.
    pub fn is_nothing(&self) -> bool {
        match self {
            Self::Revision(revision) => *revision == Revision::ZERO,
            Self::Vector(history) => history.entries().is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(device: &str, sequence: i64, revision: i64) -> HistoryEntry {
        let device = (!device.is_empty()).then(|| DeviceId::parse(device).unwrap());
        HistoryEntry { device, sequence, revision: Revision::new(revision).unwrap() }
    }

    #[test]
    fn a_vector_covers_by_revision_or_by_sequence() {
        let seen = Seen::Vector(History::new(vec![entry("a", 3, 7), entry("b", 5, 0)]));
        for (write, covered) in [
            (entry("a", 0, 7), true),
            (entry("a", 0, 8), false),
            (entry("a", 3, 9), true),
            (entry("a", 4, 9), false),
            (entry("b", 5, 90), true),
            (entry("b", 0, 90), false),
            (entry("c", 1, 1), false),
            (entry("", 0, 1), false),
        ] {
            assert_eq!(seen.covers(&write), covered, "{write:?}");
        }
        let floor = |writers: &[HistoryEntry]| seen.floor(writers.iter().cloned()).get();
        assert_eq!(floor(&[entry("a", 4, 9)]), 7);
        assert_eq!(floor(&[entry("a", 4, 9), entry("c", 1, 10)]), 0);
    }

    #[test]
    fn a_full_history_forgets_towards_more_conflicts() {
        let mut history = History::default();
        let mut last = entry("device-000", 1, 1);
        for number in 1..200 {
            let next = entry(&format!("device-{number:03}"), 1, number + 1);
            history = history.after(last, next.device.as_ref());
            last = next;
        }
        assert_eq!(history.entries().len(), limits::HISTORY_DEVICES_MAX - 1);
        let nobody = history.entries().first().unwrap();
        assert_eq!((nobody.device.clone(), nobody.revision.get()), (None, 137));
        assert_eq!(history.revision().get(), 199);
    }
}
