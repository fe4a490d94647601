//! A range of changes comes in. Either it makes the state whole, and is shown at once, or it
//! waits, staged, for those that do: what is shown goes from one whole state to the next.

use std::collections::BTreeMap;

use super::{Held, Local, Replica};
use crate::domain::{Change, Record, RecordKey, Revision};

/// All changes of what is followed in (`after`, `up_to`].
#[derive(Clone, Debug)]
pub(in crate::client) struct Range {
    pub(in crate::client) changes: Vec<SeenChange>,
    pub(in crate::client) after: Revision,
    pub(in crate::client) up_to: Revision,
    /// The state is not whole at its end.
    pub(in crate::client) partial: bool,
}

/// One change as it came.
#[derive(Clone, Debug)]
pub(in crate::client) struct SeenChange {
    pub(in crate::client) held: Held,
    /// It is this device's own, and came without its document.
    pub(in crate::client) marked: bool,
}

/// What became of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client) enum Absorbed {
    /// It is shown.
    Shown,
    /// It waits for more.
    Staged,
    /// It is the last of several: all that is staged is to be shown, see [`Replica::unstage`].
    Whole,
}

/// What a range cannot be taken in without. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) enum Lacking {
    /// What lies between the cursor and its beginning.
    Gap { cursor: Revision },
    /// These records as a whole.
    Documents(Vec<RecordKey>),
}

impl Replica {
    /// Takes a range in. `fetched` has records that were lacking before.
    pub(in crate::client) fn absorb(
        &mut self,
        range: &Range,
        fetched: &BTreeMap<RecordKey, Held>,
    ) -> Result<Absorbed, Lacking> {
        let cursor = self.place.cursor;
        if range.up_to <= cursor {
            return Ok(Absorbed::Shown);
        }
        if range.after > cursor {
            return Err(Lacking::Gap { cursor });
        }
        let latest = self.latest(range, fetched)?;
        let stages = range.partial || self.place.complete < cursor;
        for (key, held) in latest {
            if stages {
                self.stage(&key, held);
            } else {
                self.hold(&key, held);
                self.show(&key);
            }
        }
        self.place.cursor = range.up_to;
        Ok(match (range.partial, stages) {
            (true, _) => Absorbed::Staged,
            (false, true) => Absorbed::Whole,
            (false, false) => {
                self.place.complete = range.up_to;
                Absorbed::Shown
            }
        })
    }

    /// What each record becomes by the range, with its document.
    fn latest(
        &self,
        range: &Range,
        fetched: &BTreeMap<RecordKey, Held>,
    ) -> Result<BTreeMap<RecordKey, Held>, Lacking> {
        let mut latest: BTreeMap<RecordKey, Held> = BTreeMap::new();
        let mut lacking = Vec::new();
        // It may have been asked for when more was wanted.
        let wanted = range.changes.iter().filter(|it| self.place.scope.has(&it.held.record.key));
        for change in wanted {
            let (key, revision) = (change.held.record.key.clone(), change.held.revision());
            let newer = fetched.get(&key).filter(|held| held.revision() >= revision);
            let known = newer.or_else(|| latest.get(&key)).or_else(|| self.newest(&key));
            if let Some(known) = known.filter(|it| it.revision() >= revision) {
                latest.insert(key, known.clone());
                continue;
            }
            if !change.marked {
                latest.insert(key, change.held.clone());
                continue;
            }
            let document = self.foreseen(&key, known, revision);
            match document.filter(|it| Some(it.checksum()) == change.held.checksum) {
                None => lacking.push(key),
                Some(document) => {
                    let whole = Change {
                        document: Some(document),
                        ..Change::clone(&change.held.record.change)
                    };
                    let record = Record { change: whole.into(), open_conflicts: 0 };
                    latest.insert(key, Held { record, ..change.held.clone() });
                }
            }
        }
        lacking.dedup();
        if lacking.is_empty() { Ok(latest) } else { Err(Lacking::Documents(lacking)) }
    }

    /// The newest state of a record that is here.
    fn newest(&self, key: &RecordKey) -> Option<&Held> {
        let local = self.records.get(key)?;
        local.staged.as_ref().or(local.server.as_ref())
    }

    /// Keeps a state for when all is whole again.
    pub(super) fn stage(&mut self, key: &RecordKey, held: Held) {
        let local = self.records.entry(key.clone()).or_default();
        if local.server.as_ref().is_some_and(|it| it.revision() >= held.revision()) {
            return;
        }
        local.staged = Some(held);
        self.touched.records.insert(key.clone());
    }

    /// Shows what was staged of these records.
    pub(in crate::client) fn unstage(&mut self, keys: &[RecordKey]) {
        for key in keys {
            let Some(local) = self.records.get(key).cloned() else { continue };
            if let Some(held) = local.staged.clone() {
                let revision = held.revision();
                self.replace(key, Local { staged: None, ..local }, Some(held));
                self.cover(key, revision);
                self.show(key);
            }
        }
    }

    /// All that was staged is shown.
    pub(in crate::client) fn complete(&mut self) {
        self.place.complete = self.place.cursor;
    }

    /// Progress that brought no change.
    pub(in crate::client) fn advance(&mut self, up_to: Revision) {
        let is_whole = self.place.loaded.is_some() && self.place.complete == self.place.cursor;
        if is_whole && up_to > self.place.cursor {
            (self.place.cursor, self.place.complete) = (up_to, up_to);
        }
    }
}
