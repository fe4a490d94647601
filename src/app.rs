//! The use cases: what a caller may ask for, once it is known who they are and
//! what they want is valid. Knows the domain, the store and the hub; knows
//! nothing of the wire.

mod basis;
mod cache;
mod committer;
mod error;
mod feeder;
mod group;
mod policies;
mod retention;
mod wakeup;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use uuid::Uuid;

use crate::clock::Clock;
use crate::domain::{
    Answer, CollectionName, Conflict, Cursor, DeviceId, Filter, Fingerprint, MutationId,
    MutationResult, Policy, Record, RecordId, RecordKey, Refusal, Request, Sequence, Space, UserId,
    limits,
};
use crate::hub::{Hint, Hub, Watch};
use crate::store::{
    self, ChangesPage, ChangesQuery, ConflictsPage, MovedQuery, RecordsPage, Store,
};
use crate::tasks::Tasks;
use committer::{Committer, Job, Parts};
use feeder::Feeder;
use policies::Policies;
use wakeup::Wakeup;

pub use crate::store::{
    Condition, ConflictPlace, ConflictQuery, NewPolicy, SpaceHead, StoredPolicy,
};
pub use error::Error;

/// How to run the service.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Spaces are spread over this many committers, each with a connection.
    pub committers: usize,
    /// Memory that live changes share.
    pub ring_bytes_max: usize,
    /// Memory that waiting requests share.
    pub queue_bytes_max: usize,
    /// How far a client's clock may be ahead of ours.
    pub clock_skew: Duration,
}

/// The service behind the wire.
#[derive(Debug)]
pub struct App {
    store: Store,
    hub: Arc<Hub>,
    committers: Vec<mpsc::Sender<Job>>,
    /// Bounds the memory of waiting requests, in KiB.
    queue_space: Arc<Semaphore>,
    feeder: Arc<Feeder>,
    policies: Arc<Policies>,
    clock: Clock,
    tasks: Tasks,
}

impl App {
    /// Starts the background tasks; [`Tasks::shutdown`] ends them. Requests that
    /// committers have taken are still decided and answered then. `bootstrap` are
    /// policies to set where nobody has set one. Not cancel safe.
    pub async fn start(
        store: Store,
        settings: Settings,
        bootstrap: &[(CollectionName, Policy)],
        clock: &Clock,
        tasks: Tasks,
    ) -> io::Result<Arc<Self>> {
        let policies = Arc::new(Policies::default());
        policies::bootstrap(&store, bootstrap, clock.now()).await.map_err(io::Error::other)?;
        policies.read(&store).await.map_err(io::Error::other)?;
        let hub = Arc::new(Hub::new(settings.ring_bytes_max));
        let wakeup = Arc::new(Wakeup::new(Uuid::new_v4()));
        let feeder = Arc::new(Feeder::new(store.clone(), Arc::clone(&hub)));
        let parts = Parts {
            store: store.clone(),
            clock: clock.clone(),
            hub: Arc::clone(&hub),
            wakeup: Arc::clone(&wakeup),
            policies: Arc::clone(&policies),
            clock_skew: settings.clock_skew,
        };
        let committers = (0..settings.committers.max(1))
            .map(|_| {
                let (sender, queue) = mpsc::channel(limits::COMMITTER_QUEUE_REQUESTS_MAX);
                let committer = Committer::new(parts.clone());
                tasks.spawn_thread("committer", committer.run(queue, tasks.token()))?;
                Ok(sender)
            })
            .collect::<io::Result<_>>()?;
        let token = tasks.token();
        drop(tasks.spawn("feeder", Arc::clone(&feeder).run(token.clone())));
        drop(tasks.spawn("notifier", Arc::clone(&wakeup).notify(store.clone(), token.clone())));
        drop(tasks.spawn("policies", Arc::clone(&policies).follow(store.clone(), token.clone())));
        let forgetting = retention::forget_conflicts(store.clone(), clock.clone(), token.clone());
        drop(tasks.spawn("retention", forgetting));
        drop(tasks.spawn("listener", wakeup.listen(store.clone(), Arc::clone(&feeder), token)));
        let queue_kib = (settings.queue_bytes_max >> 10).min(Semaphore::MAX_PERMITS);
        let queue_space = Arc::new(Semaphore::new(queue_kib));
        let clock = clock.clone();
        Ok(Arc::new(Self { store, hub, committers, queue_space, feeder, policies, clock, tasks }))
    }

    /// The space that a user means by a name; empty = their own. Whether a space
    /// is another's or does not exist cannot be told apart.
    pub fn space(&self, user: &UserId, name: &str) -> Result<Space, Error> {
        let own = Space::private(user);
        if name.is_empty() || name == own.name() { Ok(own) } else { Err(Error::SpaceNotFound) }
    }

    /// Decides a request; the answer is durable. `size_bytes` is what the
    /// request holds in memory, about.
    ///
    /// Cancel safe: a request that a committer has taken is decided anyway.
    pub async fn mutate(
        &self,
        space: Space,
        request: Request,
        size_bytes: usize,
    ) -> Result<Vec<MutationResult>, Error> {
        let kib = u32::try_from(size_bytes >> 10).unwrap_or(u32::MAX).saturating_add(1);
        let room = Arc::clone(&self.queue_space).try_acquire_many_owned(kib);
        let room = room.map_err(|_full| Error::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        let job = Job { space, request, size_bytes, reply, room };
        let number = job.space.id.0.as_u64_pair().1 % self.committers.len().max(1) as u64;
        let committer = usize::try_from(number).ok().and_then(|it| self.committers.get(it));
        committer.ok_or(Error::Stopping)?.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::Stopping,
        })?;
        answer.await.unwrap_or(Err(Error::Stopping))
    }

    /// One living record.
    pub async fn record(&self, space: Space, key: RecordKey) -> Result<Arc<Record>, Error> {
        let store = self.store.clone();
        let found = self.detached(async move { store.record(space.id, &key).await }).await?;
        match found {
            Some(record) if record.lives() => Ok(record),
            Some(tombstone) => Err(Error::RecordNotFound { deleted_at: Some(tombstone.revision) }),
            None => Err(Error::RecordNotFound { deleted_at: None }),
        }
    }

    /// A page of a collection's living records.
    pub async fn records(
        &self,
        space: Space,
        collection: CollectionName,
        after: Option<RecordId>,
        entries_max: usize,
    ) -> Result<RecordsPage, Error> {
        let store = self.store.clone();
        self.detached(async move {
            loop {
                let page = store.records(space.id, &collection, after.as_ref(), entries_max);
                if let Some(page) = page.await? {
                    return Ok(page);
                }
                store.status(&space, None).await?;
            }
        })
        .await
    }

    /// A page of the changes after a cursor, or why it cannot be resumed.
    pub async fn changes(
        &self,
        space: Space,
        cursor: Cursor,
        filter: &Filter,
        every_step: bool,
        (entries_max, bytes_max): (usize, usize),
    ) -> Result<ChangesPage, Error> {
        let store = self.store.clone();
        let collections = filter.collections.clone();
        let page = self.detached(async move {
            let query = ChangesQuery {
                space: space.id,
                after: cursor.revision,
                collections: &collections,
                every_step,
                entries_max,
                bytes_max,
            };
            loop {
                if let Some(page) = store.changes(query).await? {
                    return Ok(page);
                }
                store.status(&space, None).await?;
            }
        });
        let page = page.await?;
        let SpaceHead { epoch, head, floor, conflicts: _ } = page.space;
        match cursor.check(epoch, floor, head) {
            Ok(()) => Ok(page),
            Err(fault) => Err(Error::Cursor { fault, epoch, head, floor }),
        }
    }

    /// Where a space is, and the device's last sequence in it.
    pub async fn status(
        &self,
        space: Space,
        device: Option<DeviceId>,
    ) -> Result<(SpaceHead, Sequence), Error> {
        let store = self.store.clone();
        self.detached(async move { store.status(&space, device.as_ref()).await }).await
    }

    /// Watches a space: `waker` is notified when it moves. The status is read
    /// after the watch has begun, so nothing lies between the two.
    pub async fn watch(
        &self,
        space: Space,
        waker: Arc<Notify>,
    ) -> Result<(Watch, SpaceHead), Error> {
        let watch = self.hub.watch(space.id, waker);
        let (status, _sequence) = self.status(space, None).await?;
        let SpaceHead { epoch, head, floor: _, conflicts } = status;
        watch.begin(epoch, Hint { head, conflicts });
        Ok((watch, status))
    }

    /// A page of conflicts, the latest first.
    pub async fn conflicts(
        &self,
        space: Space,
        query: ConflictQuery,
    ) -> Result<ConflictsPage<i64>, Error> {
        let store = self.store.clone();
        self.detached(async move { store.conflicts(space.id, &query).await }).await
    }

    /// A page of the conflicts that were opened or closed after a place, up to
    /// the one of a number.
    pub async fn moved_conflicts(
        &self,
        space: Space,
        after: ConflictPlace,
        number_max: i64,
        collections: Vec<CollectionName>,
        open_only: bool,
    ) -> Result<ConflictsPage<ConflictPlace>, Error> {
        let store = self.store.clone();
        self.detached(async move {
            let (space, collections) = (space.id, collections.as_slice());
            let query = MovedQuery { space, after, number_max, collections, open_only };
            store.moved_conflicts(query).await
        })
        .await
    }

    /// One conflict, and its record as it is now.
    pub async fn conflict(
        &self,
        space: Space,
        id: MutationId,
    ) -> Result<(Conflict, Option<Arc<Record>>), Error> {
        let store = self.store.clone();
        let found = self.detached(async move {
            let Some(conflict) = store.conflict(space.id, &id).await? else { return Ok(None) };
            let record = store.record(space.id, &conflict.key).await?;
            Ok(Some((conflict, record)))
        });
        found.await?.ok_or(Error::ConflictNotFound)
    }

    /// The first answer of a mutation of this content, if it was decided before.
    pub async fn first_answer(
        &self,
        space: Space,
        id: MutationId,
        fingerprint: Fingerprint,
    ) -> Result<Option<MutationResult>, Error> {
        let (store, mutation_id) = (self.store.clone(), id.clone());
        let found = self.detached(async move { store.answer(space.id, &mutation_id).await });
        match found.await? {
            Some(answer) if answer.fingerprint != fingerprint => {
                Err(Error::Refused(Refusal::MutationIdReused { index: 0, id }))
            }
            Some(Answer { outcome, .. }) => {
                Ok(Some(MutationResult { mutation_id: id, outcome, replayed: true }))
            }
            None => Ok(None),
        }
    }

    /// How many conflicts of the space wait for a decision.
    pub async fn open_conflicts(&self, space: Space) -> Result<i64, Error> {
        let store = self.store.clone();
        self.detached(async move { store.open_conflicts(space.id).await }).await
    }

    /// Whether the store has answered lately.
    pub fn store_ok(&self) -> bool {
        self.feeder.store_ok()
    }

    /// Runs work of the store on a task of its own, so that a caller who goes
    /// away cannot drop it half-way. Cancel safe.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, store::Error>> + Send + 'static,
    ) -> Result<T, Error> {
        match self.tasks.spawn("read", work).await {
            Ok(result) => Ok(result?),
            Err(panic) => Err(Error::Panicked(panic)),
        }
    }
}
