//! The last changes of a space, without gaps, bounded by bytes.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Ahead;
use crate::domain::{Change, DocumentForm, Revision};

/// A change, with its bytes on the wire once somebody has needed them.
#[derive(Debug)]
pub struct Entry {
    /// The change.
    pub change: Arc<Change>,
    encoded: [OnceLock<Bytes>; 2],
}

impl Entry {
    /// An entry that nobody has encoded yet.
    pub fn new(change: Arc<Change>) -> Self {
        Self { change, encoded: [OnceLock::new(), OnceLock::new()] }
    }

    /// The change's bytes in this form: encoded for the first reader, shared by
    /// the others.
    pub fn encoded(&self, form: DocumentForm, encode: impl FnOnce(&Change) -> Bytes) -> &Bytes {
        let [fields, json] = &self.encoded;
        let slot = match form {
            DocumentForm::Struct => fields,
            DocumentForm::Json => json,
        };
        slot.get_or_init(|| encode(&self.change))
    }

    /// Memory that the entry may come to hold, about: the document as text and
    /// in both forms.
    fn size_bytes(&self) -> usize {
        3 * self.change.size_bytes()
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

    pub(super) fn end(&self) -> Revision {
        self.end
    }

    /// Whether changes that follow `after` leave no gap behind the end.
    pub(super) fn joins(&self, after: Revision) -> bool {
        after <= self.end
    }

    /// Appends changes that join; those that are here already are left out.
    pub(super) fn append(&mut self, changes: &[Arc<Change>], bytes_max: usize) {
        for change in changes {
            if change.revision != self.end.next() {
                continue;
            }
            let entry = Arc::new(Entry::new(Arc::clone(change)));
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

    /// What comes after a cursor that is before the end.
    pub(super) fn after(&self, cursor: Revision, bytes_max: usize) -> Ahead {
        if cursor < self.start {
            return Ahead::InStore;
        }
        let skip = usize::try_from(cursor.since(self.start)).unwrap_or(usize::MAX);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.iter().skip(skip) {
            bytes += entry.change.size_bytes();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(Arc::clone(entry));
        }
        let up_to = entries.last().map_or(cursor, |entry| entry.change.revision);
        Ahead::Entries(entries, up_to)
    }
}
