//! Which part of a space a step needs: the store loads it, with all that belongs to it.

use std::collections::HashMap;

use crate::domain::{MutationId, RecordKey, Revision};

/// Which entries, beside those of the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::client) enum Wanted {
    #[default]
    None,
    /// As many as these that wait, from the front.
    Front(usize),
    /// The first that waits, with its record.
    First,
    /// That, and those that went out and were not answered, with their records.
    FirstAndSyncing,
    /// Those that went out and were not answered, and those whose changes have not come, with
    /// their records.
    Sent,
    /// All that wait, with their records.
    Open,
    /// Those that were answered and whose changes have not come.
    Answered,
    /// With these ids, of which the server has told what became of them: at which revision they
    /// simply took effect, or something else. With the records that show it.
    Told(HashMap<MutationId, Option<Revision>>),
    /// With this number, and its record.
    Number(i64),
}

/// Which part of a space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::client) struct Need {
    /// With all entries that stand on top of them.
    pub(in crate::client) records: Vec<RecordKey>,
    pub(in crate::client) entries: Wanted,
}

impl Need {
    /// These records.
    pub(in crate::client) fn records(records: Vec<RecordKey>) -> Self {
        Self { records, entries: Wanted::None }
    }

    /// These entries.
    pub(in crate::client) fn entries(entries: Wanted) -> Self {
        Self { records: Vec::new(), entries }
    }
}
