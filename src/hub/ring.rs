//! The last changes of a space, without gaps, bounded by bytes.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{Ahead, Arrival};
use crate::domain::{Change, DocumentForm, Revision, limits};

/// A change, with its bytes on the wire once somebody has needed them.
#[derive(Debug)]
pub struct Entry {
    /// The change.
    pub change: Arc<Change>,
    /// That of its record before it, if it is kept for differences.
    before: Option<Arc<Change>>,
    whole: [OnceLock<Bytes>; 2],
    /// None where the whole is smaller.
    delta: [OnceLock<Option<Bytes>>; 2],
}

impl Entry {
    /// An entry that nobody has encoded yet.
    pub fn new(change: Arc<Change>, before: Option<Arc<Change>>) -> Self {
        Self { change, before, whole: Default::default(), delta: Default::default() }
    }

    /// The change's bytes in this form: encoded for the first reader, shared by
    /// the others.
    pub fn whole(&self, form: DocumentForm, encode: impl FnOnce(&Change) -> Bytes) -> &Bytes {
        slot(&self.whole, form).get_or_init(|| encode(&self.change))
    }

    /// The same of its difference from the change before, if there is one that is
    /// worth it.
    pub fn delta(
        &self,
        form: DocumentForm,
        encode: impl FnOnce(&Change, &Change) -> Option<Bytes>,
    ) -> Option<&Bytes> {
        let before = self.before.as_deref()?;
        slot(&self.delta, form).get_or_init(|| encode(before, &self.change)).as_ref()
    }

    /// Memory that the entry may come to hold, about: the document as text and
    /// in both forms.
    pub fn size_bytes(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |before| before.size_bytes());
        3 * self.change.size_bytes() + before
    }
}

fn slot<T>([fields, json]: &[T; 2], form: DocumentForm) -> &T {
    match form {
        DocumentForm::Struct => fields,
        DocumentForm::Json => json,
    }
}

/// Covers the revisions (`start`, `end`].
#[derive(Debug)]
pub(super) struct Ring {
    start: Revision,
    end: Revision,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
}

impl Ring {
    pub(super) fn new(head: Revision) -> Self {
        Self { start: head, end: head, entries: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn start(&self) -> Revision {
        self.start
    }

    pub(super) fn end(&self) -> Revision {
        self.end
    }

    /// Whether changes that follow `after` leave no gap behind the end.
    pub(super) fn joins(&self, after: Revision) -> bool {
        after <= self.end
    }

    /// Appends changes that join; those that are here already are left out.
    pub(super) fn append(&mut self, changes: &[Arrival], keep_before: bool, bytes_max: usize) {
        for Arrival { change, before } in changes {
            if change.revision != self.end.next() {
                continue;
            }
            let before = before.clone().filter(|_| keep_before);
            let entry = Arc::new(Entry::new(Arc::clone(change), before));
            self.end = change.revision;
            self.bytes += entry.size_bytes();
            self.entries.push_back(entry);
        }
        self.trim(bytes_max);
    }

    /// Forgets the oldest changes.
    pub(super) fn trim(&mut self, bytes_max: usize) {
        // The newest stays, however large: readers who are there shall find it.
        while self.bytes > bytes_max
            && self.entries.len() > 1
            && let Some(oldest) = self.entries.pop_front()
        {
            self.start = oldest.change.revision;
            self.bytes = self.bytes.saturating_sub(oldest.size_bytes());
        }
    }

    /// What comes after a cursor that is before the end: about `bytes_max` of it, but
    /// an atomic batch as a whole, if that is not much larger.
    pub(super) fn after(&self, cursor: Revision, bytes_max: usize) -> Ahead {
        if cursor < self.start {
            return Ahead::InStore;
        }
        let skip = usize::try_from(cursor.since(self.start)).unwrap_or(usize::MAX);
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.iter().skip(skip) {
            bytes += entry.change.size_bytes();
            let goes_on = entries.last().is_some_and(|last| last.change.goes_on());
            let bound =
                if goes_on { limits::FRAME_BATCH_BYTES_MAX.max(bytes_max) } else { bytes_max };
            if bytes > bound && !entries.is_empty() {
                break;
            }
            entries.push(Arc::clone(entry));
        }
        Ahead::Entries(entries, self.end)
    }
}
