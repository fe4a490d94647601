//! Edits that an older version of the app has queued, brought to the form of this one. What
//! was sent already stays as it is: the server may have it.

use tracing::warn;

use super::Error;
use super::entry::{Entry, Trouble};
use super::options::Options;
use super::replica::{Replica, Upcast};
use super::store::{Need, Store, Wanted};

/// Brings all entries up to date that may still be changed.
pub(super) async fn all(store: &Store, options: &Options) -> Result<(), Error> {
    if options.upcast.is_none() {
        return Ok(());
    }
    for facts in store.facts().await? {
        let mut after = Some(0);
        while let Some(number) = after {
            let old = store.old_entries(facts.no, options.schema_version, number).await?;
            after = old.last().map(|it| it.entry.number);
            let casts: Vec<_> = old.into_iter().filter_map(|it| cast(it.entry, options)).collect();
            let ids = casts.iter().map(|it| (it.before.id.clone(), None)).collect();
            let step = move |replica: &mut Replica| replica.upcast(casts);
            crate::failpoint::reach("client.before_upcast");
            store.step(facts.no, Need::entries(Wanted::Told(ids)), step).await?;
        }
    }
    Ok(())
}

/// What one of them becomes; None if the app does not say.
pub(super) fn cast(before: Entry, options: &Options) -> Option<Upcast> {
    let (upcast, version) = (options.upcast.as_ref()?, options.schema_version);
    let collection = before.key.collection.as_str();
    let edit = upcast(collection, before.schema_version, before.edit.clone());
    if let Err(why) = &edit {
        warn!(collection, why, "an edit of an older version is set aside");
    }
    let edit = edit.map_err(|why| Trouble::new("NOT_UPCAST", why));
    Some(Upcast { before, edit, schema_version: version })
}
