//! Mutations that the server holds for a client and applies by itself: what callers ask
//! for. `worker` applies them.

mod worker;

use std::sync::Arc;

use super::{App, Error};
use crate::domain::{
    DeviceId, Mutation, MutationId, QueueState, Queued, QueuedBy, Refusal, Space, Violation,
};
use crate::failpoint;
use crate::store::{Enqueued, NewQueued, QueueCounts, QueueQuery};

pub(super) use worker::work;

/// Understands a mutation as it was sent.
pub type ParseMutation = fn(&[u8], &DeviceId) -> Result<Mutation, Vec<Violation>>;

impl App {
    /// Takes mutations into the queue, all or none; they are on disk then. Cancel safe.
    pub async fn enqueue(
        &self,
        space: Space,
        (by, device): (QueuedBy, DeviceId),
        new: Vec<NewQueued>,
    ) -> Result<Vec<Queued>, Error> {
        let (store, now) = (self.store.clone(), self.clock.now_to_store());
        let enqueued = self.detached(async move {
            // It has to be there for the worker.
            store.create_spaces(&[&space]).await?;
            let enqueued = store.enqueue(space.id, (&by, &device), &new, now).await?;
            failpoint::reach("queue.enqueued");
            Ok(enqueued)
        });
        match enqueued.await? {
            Enqueued::Entries(entries) => {
                self.queue_bell.notify_one();
                Ok(entries)
            }
            Enqueued::Reused { index, id } => {
                Err(Error::Refused(Refusal::MutationIdReused { index, id }))
            }
            Enqueued::Full => Err(Error::QueueFull),
        }
    }

    /// A page of the queue, and whether there is more.
    pub async fn queue(
        &self,
        space: Space,
        query: QueueQuery,
    ) -> Result<(Vec<Queued>, bool), Error> {
        let store = self.store.clone();
        self.detached(async move { store.list_queued(space.id, &query).await }).await
    }

    /// How many entries wait and have failed.
    pub async fn queue_counts(
        &self,
        space: Space,
        device: Option<DeviceId>,
    ) -> Result<QueueCounts, Error> {
        let store = self.store.clone();
        self.detached(async move { store.queue_counts(space.id, device.as_ref()).await }).await
    }

    /// An entry of the queue.
    pub async fn queued(&self, space: Space, id: MutationId) -> Result<Queued, Error> {
        let store = self.store.clone();
        let found = self.detached(async move { store.queued(space.id, &id).await });
        found.await?.ok_or(Error::QueuedNotFound)
    }

    /// Lets an entry be tried again, behind what its device has enqueued since. What got
    /// an answer has it for ever: it cannot.
    pub async fn retry_queued(&self, space: Space, id: MutationId) -> Result<Queued, Error> {
        loop {
            let entry = self.queued(space.clone(), id.clone()).await?;
            let (state, outcome) = (entry.standing.state, entry.standing.outcome);
            match state {
                // Perhaps the answer to an earlier call was lost.
                QueueState::Pending => return Ok(entry),
                QueueState::Conflicted | QueueState::Failed if outcome.is_none() => {}
                QueueState::Conflicted | QueueState::Failed => {
                    return Err(Error::QueuedState { state, answered: true });
                }
                QueueState::Applied | QueueState::Synced => {
                    return Err(Error::QueuedState { state, answered: false });
                }
            }
            let (store, id, now) = (self.store.clone(), space.id, self.clock.now_to_store());
            let retried = self.detached(async move { store.retry_queued(id, &entry, now).await });
            // Otherwise it has moved since it was read.
            if let Some(retried) = retried.await? {
                self.queue_bell.notify_one();
                return Ok(retried);
            }
        }
    }

    /// Has another mutation applied in the place of an entry, as its author, behind what
    /// the device has enqueued since; the entry itself is dealt with.
    pub async fn edit_queued(
        &self,
        space: Space,
        mut entry: Queued,
        (by, edited): (QueuedBy, NewQueued),
    ) -> Result<Queued, Error> {
        loop {
            if let Some(there) = self.edited_before(&space, &entry, &edited).await? {
                return Ok(there);
            }
            let (id, now) = (entry.mutation_id.clone(), self.clock.now_to_store());
            let (store, of) = (self.store.clone(), space.id);
            let (by, edited) = (by.clone(), edited.clone());
            let edited = self
                .detached(async move { store.edit_queued(of, &entry, (&by, &edited), now).await });
            if let Some(edited) = edited.await? {
                self.queue_bell.notify_one();
                return Ok(edited);
            }
            // It has moved since it was read, or somebody has just edited it.
            entry = self.queued(space.clone(), id).await?;
        }
    }

    /// The other mutation, if it is in the place of the entry already; fails if it may not
    /// come there.
    async fn edited_before(
        &self,
        space: &Space,
        entry: &Queued,
        edited: &NewQueued,
    ) -> Result<Option<Queued>, Error> {
        let (id, state) = (edited.mutation_id.clone(), entry.standing.state);
        if id == entry.mutation_id {
            return Err(Error::QueuedState { state, answered: true });
        }
        match self.queued(space.clone(), id.clone()).await {
            // Perhaps the answer to an earlier call was lost.
            Ok(there) if there.fingerprint == edited.fingerprint => return Ok(Some(there)),
            Ok(_) => return Err(Error::Refused(Refusal::MutationIdReused { index: 0, id })),
            Err(Error::QueuedNotFound) => {}
            Err(error) => return Err(error),
        }
        if !matches!(state, QueueState::Conflicted | QueueState::Failed) {
            return Err(Error::QueuedState { state, answered: false });
        }
        // An attempt whose answer was lost may have taken effect: not both shall.
        let (store, space, id) = (self.store.clone(), space.id, entry.mutation_id.clone());
        let answer = self.detached(async move { store.answer(space, &id).await }).await?;
        let mine = answer.filter(|answer| answer.fingerprint == entry.fingerprint);
        if mine.is_some_and(|answer| answer.outcome.took_effect()) {
            let state = QueueState::Applied;
            return Err(Error::QueuedState { state, answered: false });
        }
        Ok(None)
    }

    /// Takes an entry out.
    pub async fn discard_queued(&self, space: Space, id: MutationId) -> Result<(), Error> {
        let (store, now) = (self.store.clone(), self.clock.now_to_store());
        let found = self.detached(async move { store.discard_queued(space.id, &id, now).await });
        if !found.await? {
            return Err(Error::QueuedNotFound);
        }
        self.queue_bell.notify_one();
        Ok(())
    }

    /// Marks entries as needing no more attention; how many.
    pub async fn mark_synced(&self, space: Space, ids: Vec<MutationId>) -> Result<i64, Error> {
        let (store, now) = (self.store.clone(), self.clock.now_to_store());
        let marked = self.detached(async move { store.mark_synced(space.id, &ids, now).await });
        let marked = marked.await?;
        self.queue_bell.notify_one();
        Ok(marked)
    }

    /// Takes out what is applied or was marked; how many entries.
    pub async fn clear_synced(&self, space: Space) -> Result<i64, Error> {
        let store = self.store.clone();
        self.detached(async move {
            let mut cleared = 0;
            loop {
                match store.clear_synced(space.id).await? {
                    0 => return Ok(cleared),
                    count => cleared += count,
                }
            }
        })
        .await
    }

    /// Begins to apply what is enqueued.
    pub(super) fn start_queue(self: &Arc<Self>, parse: ParseMutation) {
        let (app, stop) = (Arc::clone(self), self.tasks.token());
        drop(self.tasks.spawn("queue", work(app, parse, stop)));
    }
}
