//! Digests: whether what is here is what the server has.

use std::collections::BTreeMap;

use super::{Session, local};
use crate::client::engine::{Event, RequestNo, SpaceNo};
use crate::client::store::StoreError;
use crate::domain::{CollectionName, Scope, Tally};
use crate::rpc::proto;

/// Collections whose digests a server tells at most.
const DIGESTS_MAX: usize = 1_000;

impl Session {
    /// Compares the digest that came last with what is here.
    pub(super) async fn compare(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
    ) -> Result<Vec<Event>, StoreError> {
        match self.spaces.get_mut(&space).and_then(|named| named.digest.take()) {
            Some(digest) => {
                let differing = self.differing(space, &digest).await?;
                Ok(vec![Event::DigestCompared { space, request, differing }])
            }
            None => {
                self.ask_status(space, request, true);
                Ok(Vec::new())
            }
        }
    }

    /// The collections that are not as on the server; None if that cannot be told now.
    pub(super) async fn differing(
        &self,
        space: SpaceNo,
        digest: &proto::SpaceDigest,
    ) -> Result<Option<Vec<CollectionName>>, StoreError> {
        let place = self.facts(space).await?.place;
        let is_there = place.complete.get() == digest.revision && place.cursor == place.complete;
        // Results may have brought a record that is ahead.
        if !is_there || place.newest > place.complete {
            return Ok(None);
        }
        let own = self.store.tallies(local(space)).await?;
        Ok(Some(differing(own, digest, &place.scope)))
    }
}

/// The collections of a scope that are not as the server tells.
fn differing(
    mut own: BTreeMap<CollectionName, Tally>,
    digest: &proto::SpaceDigest,
    scope: &Scope,
) -> Vec<CollectionName> {
    let mut differing = Vec::new();
    for told in &digest.collections {
        let collection = CollectionName::from_stored(&told.collection);
        let tally = own.remove(&collection).unwrap_or_default();
        let same = tally.records == told.records
            && tally.digest.to_bytes().as_slice() == told.digest.as_ref();
        if scope.has_collection(&collection) && !same {
            differing.push(collection);
        }
    }
    // What the server has never heard of, unless its list was cut.
    if digest.collections.len() < DIGESTS_MAX {
        let left = own.into_iter().filter(|(_, tally)| tally.records != 0).map(|it| it.0);
        differing.extend(left.filter(|it| scope.has_collection(it)));
    }
    differing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> CollectionName {
        CollectionName::parse(name).unwrap()
    }

    fn told(names: impl Iterator<Item = String>) -> proto::SpaceDigest {
        let empty = Tally::default().digest.to_bytes().to_vec();
        let digest = |collection| proto::CollectionDigest {
            collection,
            records: 0,
            digest: empty.clone().into(),
        };
        proto::SpaceDigest { collections: names.map(digest).collect(), ..Default::default() }
    }

    fn own(names: &[&str]) -> BTreeMap<CollectionName, Tally> {
        let tally = Tally { records: 1, ..Tally::default() };
        names.iter().map(|it| (name(it), tally)).collect()
    }

    #[test]
    fn what_the_server_does_not_tell_differs_only_where_it_is_wanted() {
        let task = Scope::Collections(vec![name("task")]);
        let some = || ["note".to_owned()].into_iter();
        assert_eq!(differing(own(&["task"]), &told(some()), &task), [name("task")]);
        assert_eq!(differing(own(&["other", "note"]), &told(some()), &task), []);
        assert_eq!(differing(own(&["note"]), &told(some()), &Scope::All), [name("note")]);
    }

    #[test]
    fn of_a_list_that_was_cut_the_rest_is_not_known() {
        let many = told((0..1_000).map(|it| format!("a{it}")));
        assert_eq!(differing(own(&["task"]), &many, &Scope::All), []);
        let fewer = told((0..999).map(|it| format!("a{it}")));
        assert_eq!(differing(own(&["task"]), &fewer, &Scope::All), [name("task")]);
    }
}
