//! What has become of an edit.

use super::edit::Edit;
use super::entry::{EntryState, Trouble};
use super::store::FoundEntry;

/// A queued edit, or what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The name that the call which made it gave.
    pub id: String,
    /// Of which record.
    pub collection: String,
    pub record: String,
    /// Where it is.
    pub state: EntryState,
    /// The operation; None once it is done.
    pub edit: Option<Edit>,
    /// Of the change that came of it; 0 if none did.
    pub revision: i64,
    /// Why it was set aside.
    pub trouble: Option<Trouble>,
}

impl From<FoundEntry> for Outcome {
    fn from(found: FoundEntry) -> Self {
        let entry = found.entry;
        Self {
            id: entry.id.as_str().to_owned(),
            collection: entry.key.collection.as_str().to_owned(),
            record: entry.key.id.as_str().to_owned(),
            state: entry.state,
            edit: (!entry.done).then_some(entry.edit),
            revision: entry.revision.get(),
            trouble: entry.trouble,
        }
    }
}
