//! The policies, as this replica knows them: read before it serves, then whenever
//! there is something new, and at once after it has set one itself.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{App, ConflictQuery, Error};
use crate::chain::Chain;
use crate::domain::{Actor, CollectionName, Policy, PolicySet, Preview, SetPolicy, Space};
use crate::store::{self, Condition, NewPolicy, SetOutcome, Store, StoredPolicies, StoredPolicy};

/// A policy that another replica has set is this late at most.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// All policies that are set.
#[derive(Debug, Default)]
pub(super) struct Policies(Mutex<Known>);

#[derive(Clone, Debug, Default)]
struct Known {
    set: Arc<PolicySet>,
    /// Of the last one that was set or deleted.
    number: i64,
}

impl Policies {
    /// The policies that hold now.
    pub(super) fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.0.lock().set)
    }

    /// Reads them. What is known stays if they cannot be read. Not cancel safe.
    pub(super) async fn read(&self, store: &Store) -> Result<(), store::Error> {
        let StoredPolicies { readable, unreadable, number } = store.policies().await?;
        let mut set = PolicySet::default();
        for it in readable {
            let StoredPolicy { collection, version, policy, .. } = it;
            if let Some(policy) = policy {
                set.set(Arc::new(SetPolicy { collection, policy, version }));
            }
        }
        let mut known = self.0.lock();
        for (collection, version, fault) in unreadable {
            let name = collection.as_str();
            error!(
                collection = name,
                error = %Chain(&fault),
                "a policy cannot be read; the last one that is known holds, or MANUAL: set it anew"
            );
            // Without one, nothing is to be lost by what holds for all others.
            let last = known.set.own(&collection).cloned();
            let policy = Policy::default();
            set.set(last.unwrap_or_else(|| Arc::new(SetPolicy { collection, policy, version })));
        }
        // Another task may have read later, and been faster.
        if number >= known.number {
            *known = Known { set: Arc::new(set), number };
        }
        Ok(())
    }

    /// Looks for what is new, until `stop`.
    pub(super) async fn follow(self: Arc<Self>, store: Store, stop: CancellationToken) {
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            // Cancel: both only wait.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = poll.tick() => {}
            }
            match self.look(&store).await {
                Ok(()) => failing = false,
                // Once is enough: the database says the same every second.
                Err(_) if failing => {}
                Err(failure) => {
                    failing = true;
                    if failure.is_retryable() {
                        warn!(error = %Chain(&failure), "policies were not read; those known stay");
                    } else {
                        error!(error = %Chain(&failure), "policies cannot be read; those known stay");
                    }
                }
            }
        }
    }

    async fn look(&self, store: &Store) -> Result<(), store::Error> {
        if store.policies_number().await? != self.0.lock().number {
            self.read(store).await?;
            info!(number = self.0.lock().number, "policies have changed");
        }
        Ok(())
    }
}

impl App {
    /// A version of a collection's policy; None = the one that is set now.
    pub async fn policy(
        &self,
        collection: CollectionName,
        version: Option<i64>,
    ) -> Result<StoredPolicy, Error> {
        let store = self.store.clone();
        let found = self.detached(async move { store.policy(&collection, version).await }).await?;
        found.filter(|it| it.policy.is_some()).ok_or(Error::PolicyNotFound)
    }

    /// A page of the policies that are set, by collection, and the collection after
    /// which the next page begins.
    pub async fn policies(
        &self,
        after: String,
        entries_max: usize,
    ) -> Result<(Vec<StoredPolicy>, Option<String>), Error> {
        let store = self.store.clone();
        self.detached(async move { store.policies_page(&after, entries_max).await }).await
    }

    /// Sets or deletes a policy. It holds for whatever this replica decides
    /// afterwards, unless the store goes away right then; the others follow
    /// within seconds.
    pub async fn set_policy(&self, new: NewPolicy) -> Result<StoredPolicy, Error> {
        let (store, policies) = (self.store.clone(), Arc::clone(&self.policies));
        let deletes = new.policy.is_none();
        let outcome = self.detached(async move {
            let outcome = store.set_policies(&[new]).await?.pop();
            // It is set all the same, and the next look finds it.
            if let Err(failure) = policies.read(&store).await {
                warn!(error = %Chain(&failure), "a policy was set, and not read again; later");
            }
            Ok(outcome)
        });
        match outcome.await? {
            Some(SetOutcome::Stored(stored)) => Ok(stored),
            Some(SetOutcome::Refused { version: 0 }) if deletes => Err(Error::PolicyNotFound),
            Some(SetOutcome::Refused { version }) => Err(Error::PolicyChanged { version }),
            Some(SetOutcome::TooMany) | None => Err(Error::TooManyPolicies),
        }
    }

    /// What a policy would have done with the last conflicts and writes of its
    /// collection, at most so many of each.
    pub async fn preview(
        &self,
        space: Space,
        collection: CollectionName,
        policy: Policy,
        entries_max: usize,
    ) -> Result<Preview, Error> {
        let (store, now) = (self.store.clone(), self.clock.now());
        self.detached(async move {
            let mut preview = Preview::new(policy, now);
            let mut query =
                ConflictQuery { collection: Some(collection.clone()), ..ConflictQuery::default() };
            let mut left = entries_max;
            while left > 0 {
                query.entries_max = left;
                let page = store.conflicts(space.id, &query).await?;
                let conflicts = || page.conflicts.iter().map(|(_, conflict)| conflict);
                let results: Vec<_> = conflicts().map(|it| it.result_revision).collect();
                let became = store.checksums(space.id, &results).await?;
                for conflict in conflicts() {
                    preview.conflict(conflict, became.get(&conflict.result_revision).copied());
                }
                left = left.saturating_sub(page.conflicts.len());
                query.before = page.conflicts.last().map(|(found, _)| *found);
                if !page.has_more || query.before.is_none() {
                    break;
                }
            }
            let mut before = None;
            let mut left = entries_max;
            while left > 0 {
                let writes = store.last_writes(space.id, &collection, before, left).await?;
                let Some(last) = writes.last() else { break };
                before = Some(last.revision);
                left = left.saturating_sub(writes.len());
                writes.iter().for_each(|write| preview.write(write));
            }
            Ok(preview)
        })
        .await
    }
}

/// Sets the policies that the configuration file has, where nobody has set
/// another one since. Not cancel safe.
pub(super) async fn bootstrap(
    store: &Store,
    policies: &[(CollectionName, Policy)],
    now: OffsetDateTime,
) -> Result<(), store::Error> {
    let new = |(collection, policy): &(CollectionName, Policy)| NewPolicy {
        collection: collection.clone(),
        policy: Some(policy.clone()),
        author: None,
        set_at: now,
        condition: Condition::FromFile,
        by: Actor::default(),
    };
    let new: Vec<_> = policies.iter().map(new).collect();
    if new.is_empty() {
        return Ok(());
    }
    for (outcome, new) in store.set_policies(&new).await?.iter().zip(&new) {
        let collection = new.collection.as_str();
        match outcome {
            SetOutcome::Stored(stored) => {
                info!(collection, version = stored.version, "a policy of the configuration is set");
            }
            SetOutcome::Refused { version } => {
                debug!(collection, version, "a policy of the configuration is not needed");
            }
            SetOutcome::TooMany => warn!(collection, "there are too many policies for this one"),
        }
    }
    Ok(())
}
