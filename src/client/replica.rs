//! What one file knows of one space, or as much of it as is being worked on: the server's
//! state as last seen, the queue, and what is shown, which is the first with the second on
//! top. Owns every rule about how these move; the store loads what a step needs, lets it
//! happen here, and writes down what was touched. Must not know of files, the wire, time or
//! connections. Pure.

mod absorb;
mod enqueue;
mod load;
mod send;
mod settle;
mod shown;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{Entry, EntryState, Kept, Trouble};
use crate::domain::{
    CollectionName, DeviceId, Digest, Document, Epoch, PolicySet, Record, RecordKey, Revision,
    Scope, Sequence, Space, Tally, UserId,
};

pub(super) use absorb::{Absorbed, Lacking, Range, SeenChange};
pub(super) use enqueue::{Again, Refused, Upcast};
pub(super) use settle::{Answer, AnswerKind, Settled};
pub(super) use shown::{Told, from_micros};

/// Whose file it is, and what is known of the rules.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) policies: Arc<PolicySet>,
}

/// Where a space is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) space: Space,
    /// What of it is wanted.
    pub(super) scope: Scope,
    /// The collections that are here; None = nothing yet, not even a part.
    pub(super) loaded: Option<Scope>,
    pub(super) epoch: Option<Epoch>,
    /// Everything up to here is in the file.
    pub(super) cursor: Revision,
    /// Everything up to here is shown; behind the cursor while a state would not be whole.
    pub(super) complete: Revision,
    /// The last sequence that was given to an entry.
    pub(super) last_sequence: Sequence,
    /// The last number of an entry.
    pub(super) last_entry: i64,
    /// A snapshot that is being loaded.
    pub(super) loading: Option<Loading>,
    /// Up to where conflicts have come.
    pub(super) conflict_cursor: String,
    /// The number of the last snapshot.
    pub(super) generation: i64,
    /// The queue was made on another history than the one that is here, or that is to come.
    pub(super) replaced: bool,
    /// No record of the server's state is newer; results may bring some that are ahead of the
    /// cursor.
    pub(super) newest: Revision,
    /// No entry before this number is open.
    pub(super) front: i64,
    /// Rises whenever something else is shown.
    pub(super) moved: i64,
    pub(super) counts: Counts,
}

/// How many entries are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) pending: i64,
    pub(super) syncing: i64,
    pub(super) failed: i64,
    /// Answered, and their changes have not come.
    pub(super) answered: i64,
}

impl Counts {
    /// That count in which an entry is.
    fn of(&mut self, entry: &Entry) -> Option<&mut i64> {
        match entry.state {
            EntryState::Pending => Some(&mut self.pending),
            EntryState::Syncing => Some(&mut self.syncing),
            EntryState::Failed => Some(&mut self.failed),
            EntryState::Applied | EntryState::Merged if !entry.done => Some(&mut self.answered),
            EntryState::Applied
            | EntryState::Merged
            | EntryState::Superseded
            | EntryState::Conflict => None,
        }
    }

    fn add(&mut self, entry: &Entry, count: i64) {
        if let Some(of) = self.of(entry) {
            *of += count;
        }
    }
}

/// A snapshot that is being loaded, as far as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loading {
    pub(super) scope: Scope,
    pub(super) epoch: Epoch,
    pub(super) revision: Revision,
    /// Where it can go on.
    pub(super) token: String,
    /// The mark of records that it has brought.
    pub(super) generation: i64,
    /// It is of all that is wanted, and not only to mend or to add a part.
    pub(super) whole: bool,
}

impl Place {
    /// A space of which nothing is known.
    #[cfg(test)]
    pub(super) fn new(space: Space, scope: Scope) -> Self {
        Self {
            space,
            scope,
            loaded: None,
            epoch: None,
            cursor: Revision::ZERO,
            complete: Revision::ZERO,
            last_sequence: Sequence::ZERO,
            last_entry: 0,
            loading: None,
            conflict_cursor: String::new(),
            generation: 0,
            replaced: false,
            newest: Revision::ZERO,
            front: 0,
            moved: 0,
            counts: Counts::default(),
        }
    }

    /// Whether all that is wanted is here.
    pub(super) fn is_loaded(&self) -> bool {
        self.missing().is_none()
    }

    /// Whether a change of a record is not in the state that is shown, and will come: what is
    /// not wanted never does.
    pub(super) fn is_to_come(&self, key: &RecordKey, revision: Revision) -> bool {
        let is_loaded = self.loaded.as_ref().is_some_and(|loaded| loaded.has(key));
        self.scope.has(key) && !(is_loaded && revision <= self.complete)
    }

    /// What is wanted and not here.
    pub(super) fn missing(&self) -> Option<Scope> {
        match (&self.scope, &self.loaded) {
            (_, Some(Scope::All)) => None,
            (Scope::Collections(wanted), Some(Scope::Collections(loaded))) => {
                let missing: Vec<_> =
                    wanted.iter().filter(|it| !loaded.contains(it)).cloned().collect();
                (!missing.is_empty()).then_some(Scope::Collections(missing))
            }
            (scope, _) => Some(scope.clone()),
        }
    }
}

/// A record as this file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Local {
    /// As the server had it when it was last shown; None = it is not known to be.
    pub(super) server: Option<Held>,
    /// As the server had it later, for when the state is whole again.
    pub(super) staged: Option<Held>,
    /// What the app sees.
    pub(super) shown: Option<Document>,
    /// Whether edits stand on top of the server's state.
    pub(super) dirty: bool,
    /// The snapshot that has last brought it.
    pub(super) generation: i64,
}

/// A server's record, and the checksum of its whole document: fields that are not kept on
/// disk may be missing from the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) record: Record,
    pub(super) checksum: Option<[u8; 32]>,
}

impl Held {
    pub(super) fn revision(&self) -> Revision {
        self.record.revision
    }

    /// What it adds to its collection's digest.
    fn tally(&self) -> Tally {
        match self.checksum {
            None => Tally::default(),
            Some(checksum) => {
                Tally { records: 1, digest: Digest::of_checksum(&self.record.key, checksum) }
            }
        }
    }
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    identity: Arc<Identity>,
    pub(super) place: Place,
    records: BTreeMap<RecordKey, Local>,
    entries: BTreeMap<i64, Entry>,
    /// The numbers of each record's entries.
    by_key: BTreeMap<RecordKey, BTreeSet<i64>>,
    touched: Touched,
}

/// What has to be written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) records: BTreeSet<RecordKey>,
    /// Of these another document is shown.
    pub(super) shown: BTreeSet<RecordKey>,
    pub(super) entries: BTreeMap<i64, Touch>,
    /// Entries that are gone.
    pub(super) removed: BTreeSet<i64>,
    /// Conflicts are of a history that is no more.
    pub(super) conflicts: bool,
    /// How far the digests of the server's state move.
    pub(super) tallies: BTreeMap<CollectionName, Tally>,
}

/// How much of an entry has to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Touch {
    /// Where it is in the queue, and what became of it.
    Moved,
    /// That, and its edit.
    Edited,
    /// What became of it, and that its edit is not needed any more.
    Finished,
    /// All of it: it is new.
    New,
}

impl Replica {
    /// A space, with the records and entries that the next steps need: of each record all
    /// entries that are shown.
    pub(super) fn new(
        identity: Arc<Identity>,
        place: Place,
        records: impl IntoIterator<Item = (RecordKey, Local)>,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Self {
        let mut replica = Self {
            identity,
            place,
            records: records.into_iter().collect(),
            entries: BTreeMap::new(),
            by_key: BTreeMap::new(),
            touched: Touched::default(),
        };
        entries.into_iter().for_each(|entry| replica.put_entry(entry));
        replica
    }

    /// Puts a new entry at the end of the queue.
    fn add_entry(&mut self, entry: Entry) {
        self.place.last_entry = entry.number;
        self.place.counts.add(&entry, 1);
        self.touched.entries.insert(entry.number, Touch::New);
        self.put_entry(entry);
    }

    fn put_entry(&mut self, entry: Entry) {
        self.by_key.entry(entry.key.clone()).or_default().insert(entry.number);
        self.entries.insert(entry.number, entry);
    }

    /// The entries of a record, in their order.
    fn entries_of(&self, key: &RecordKey) -> impl Iterator<Item = &Entry> {
        let numbers = self.by_key.get(key).into_iter().flatten();
        numbers.filter_map(|number| self.entries.get(number))
    }

    /// The numbers of those entries of a record that are so.
    fn numbers_of(&self, key: &RecordKey, are: impl Fn(&Entry) -> bool) -> Vec<i64> {
        self.entries_of(key).filter(|entry| are(entry)).map(|entry| entry.number).collect()
    }

    /// What was touched since this was asked last.
    pub(super) fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    pub(super) fn record(&self, key: &RecordKey) -> Option<&Local> {
        self.records.get(key)
    }

    pub(super) fn entry(&self, number: i64) -> Option<&Entry> {
        self.entries.get(&number)
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    #[cfg(test)]
    pub(super) fn records(&self) -> impl Iterator<Item = (&RecordKey, &Local)> {
        self.records.iter()
    }

    /// Changes an entry, so much of it.
    fn with_entry(&mut self, number: i64, touch: Touch, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entries.get_mut(&number) {
            self.place.counts.add(entry, -1);
            change(entry);
            self.place.counts.add(entry, 1);
            let touched = self.touched.entries.entry(number).or_insert(touch);
            *touched = touch.max(*touched);
        }
    }

    /// Nothing is to come of an entry any more.
    fn finish(&mut self, number: i64) {
        self.with_entry(number, Touch::Finished, Entry::finish);
    }

    /// Takes an entry out of the queue.
    fn remove_entry(&mut self, number: i64) {
        if let Some(entry) = self.entries.remove(&number) {
            self.place.counts.add(&entry, -1);
            if let Some(numbers) = self.by_key.get_mut(&entry.key) {
                numbers.remove(&number);
            }
            self.touched.entries.remove(&number);
            self.touched.removed.insert(number);
        }
    }

    /// Puts an entry aside, for the app to look at.
    fn fail(&mut self, number: i64, trouble: Trouble) {
        self.with_entry(number, Touch::Moved, |entry| {
            entry.state = EntryState::Failed;
            entry.sequence = None;
            entry.trouble = Some(trouble);
        });
        if let Some(key) = self.entries.get(&number).map(|it| it.key.clone()) {
            self.show(&key);
        }
    }
}
