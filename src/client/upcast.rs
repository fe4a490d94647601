//! Edits that an older version of the app has queued, brought to the form of this one. What
//! was sent already stays as it is: the server may have it.

use tracing::warn;

use super::Error;
use super::entry::{EntryState, Trouble};
use super::options::Options;
use super::store::{Need, Store, Wanted};

/// Brings all entries up to date that may still be changed.
pub(super) async fn all(store: &Store, options: &Options) -> Result<(), Error> {
    let Some(upcast) = &options.upcast else { return Ok(()) };
    let version = options.schema_version;
    for facts in store.facts().await? {
        let states = [EntryState::Pending, EntryState::Failed];
        let found = store.entries(facts.no, &states, i64::MAX).await?;
        for entry in found.into_iter().map(|found| found.entry) {
            if entry.schema_version >= version || entry.sent.is_some() {
                continue;
            }
            let collection = entry.key.collection.as_str();
            let edit = upcast(collection, entry.schema_version, entry.edit.clone());
            if let Err(why) = &edit {
                warn!(collection, why, "an edit of an older version is set aside");
            }
            let edit = edit.map_err(|why| Trouble::new("NOT_UPCAST", why));
            let number = entry.number;
            let need = Need::entries(Wanted::Number(number));
            store
                .step(facts.no, need, move |replica| replica.upcast(number, edit, version))
                .await?;
        }
    }
    Ok(())
}
