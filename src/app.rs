//! The use cases: what a caller may ask for, once it is known who they are and
//! what they want is valid. Knows the domain, the store and the hub; knows
//! nothing of the wire.

mod access;
mod acks;
mod basis;
mod cache;
mod committer;
mod compaction;
mod error;
mod exchange;
mod export;
mod feeder;
mod following;
mod group;
mod heads;
mod history;
mod noted;
mod pause;
mod places;
mod policies;
mod produced;
mod queue;
mod reading;
mod replacing;
mod shared;
mod snapshot;
mod spaces;
mod things;
mod wakeup;

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use uuid::Uuid;

use crate::clock::Clock;
use crate::domain::{
    CollectionName, MutationResult, Policy, Quotas, Request, Retention, Space, limits,
};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::store::{self, Store};
use crate::tasks::Tasks;
use access::Members;
use acks::Acks;
use committer::{Committer, Job, Parts};
use compaction::keep_compacting;
use feeder::Feeder;
use following::{ConflictKey, PageKey, SharedConflicts, SnapshotKey};
use heads::Heads;
use noted::Noted;
use places::Places;
use policies::Policies;
use replacing::ClosedSpaces;
use shared::Shared;
use wakeup::Wakeup;

pub use crate::store::{
    AuditQuery, Condition, ConflictPlace, ConflictQuery, Erased, Member, NewPolicy, NewQueued,
    QueueCounts, QueueQuery, Replaced, Seat, SharedSpace, SnapshotPlace, SpaceHead, SpaceStatus,
    StepsQuery, StoredEntry, StoredPolicy, Tallies,
};
pub use access::Hold;
pub use compaction::{Forgotten, compact_once};
pub use error::Error;
pub use export::{EXPORT_FORMAT, Parts as ExportParts, Whole};
pub use following::{ConflictsAhead, Following, SharedPage, SharedSnapshot};
pub use history::Undeletable;
pub use produced::{Outlet, Produced};
pub use queue::ParseMutation;
pub use reading::Reading;
pub use replacing::{Begun, Replacement, Replacing};
pub use snapshot::{PageSize, Snapshot};

/// How to run the service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Spaces are spread over this many committers, each with a connection.
    pub committers: usize,
    /// Memory that live changes share.
    pub ring_bytes_max: usize,
    /// Memory that waiting requests share.
    pub queue_bytes_max: usize,
    /// How far a client's clock may be ahead of ours.
    pub clock_skew: Duration,
    /// Digests are not kept: to tell what they cost.
    pub without_digests: bool,
    pub retention: Retention,
    /// Understands what is in the queue.
    pub parse: ParseMutation,
    pub metrics: Arc<Metrics>,
    /// Between two rounds of compaction.
    pub compaction_interval: Duration,
    pub quotas: Quotas,
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
    wakeup: Arc<Wakeup>,
    policies: Arc<Policies>,
    heads: Arc<Heads>,
    acks: Arc<Acks>,
    closed: Arc<ClosedSpaces>,
    replacements: Places,
    exports: Places,
    /// Rung when something may wait in the queue.
    queue_bell: Notify,
    metrics: Arc<Metrics>,
    members: Arc<Members>,
    noted: Arc<Noted>,
    quotas: Quotas,
    shared: SharedReads,
    clock: Clock,
    tasks: Tasks,
}

/// What subscribers who come back together read together.
struct SharedReads {
    pages: Shared<PageKey, SharedPage>,
    conflicts: Shared<ConflictKey, SharedConflicts>,
    snapshots: Shared<SnapshotKey, SharedSnapshot>,
}

impl SharedReads {
    fn new(tasks: &Tasks) -> Self {
        Self {
            pages: Shared::new(limits::SHARED_PAGES_BYTES_MAX, tasks.clone()),
            conflicts: Shared::new(limits::SHARED_PAGES_BYTES_MAX / 4, tasks.clone()),
            snapshots: Shared::new(limits::SHARED_PAGES_BYTES_MAX, tasks.clone()),
        }
    }
}

impl fmt::Debug for SharedReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedReads").finish_non_exhaustive()
    }
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
            without_digests: settings.without_digests,
            quota: settings.quotas.usage,
        };
        let committers = start_committers(settings.committers, &parts, &tasks)?;
        let token = tasks.token();
        tasks.spawn_thread("waker", Arc::clone(&feeder).wake(token.clone()))?;
        drop(tasks.spawn("turns", Arc::clone(&feeder).take_turns(token.clone())));
        drop(tasks.spawn("feeder", Arc::clone(&feeder).feed(token.clone())));
        drop(tasks.spawn("notifier", Arc::clone(&wakeup).notify(store.clone(), token.clone())));
        drop(tasks.spawn("policies", Arc::clone(&policies).follow(store.clone(), token.clone())));
        let (pace, known) = ((settings.retention, settings.compaction_interval), &policies);
        let (known, clock_too) = (Arc::clone(known), clock.clone());
        let compacting = keep_compacting(store.clone(), known, pace, clock_too, token.clone());
        drop(tasks.spawn("compaction", compacting));
        let (members, noted) = (Arc::new(Members::default()), Arc::new(Noted::default()));
        drop(tasks.spawn("seats", Arc::clone(&members).answer(store.clone(), token.clone())));
        drop(tasks.spawn("members", Arc::clone(&members).follow(store.clone(), token.clone())));
        let noting = Arc::clone(&noted).keep_noting(store.clone(), clock.clone(), token.clone());
        drop(tasks.spawn("audit", noting));
        let (heads, acks) = (Arc::new(Heads::default()), Arc::new(Acks::default()));
        drop(tasks.spawn("heads", Arc::clone(&heads).answer(store.clone(), token.clone())));
        let writing = Arc::clone(&acks).write(store.clone(), clock.clone(), token.clone());
        drop(tasks.spawn("acks", writing));
        let listening = Arc::clone(&wakeup).listen(store.clone(), Arc::clone(&feeder), token);
        drop(tasks.spawn("listener", listening));
        let queue_kib = (settings.queue_bytes_max >> 10).min(Semaphore::MAX_PERMITS);
        let queue_space = Arc::new(Semaphore::new(queue_kib));
        let clock = clock.clone();
        let shared = SharedReads::new(&tasks);
        let app = Arc::new(Self {
            store,
            hub,
            committers,
            queue_space,
            feeder,
            wakeup,
            policies,
            heads,
            acks,
            closed: Arc::default(),
            replacements: Places::new(limits::REPLACEMENTS_MAX),
            exports: Places::new(limits::EXPORTS_MAX),
            queue_bell: Notify::new(),
            metrics: settings.metrics,
            members,
            noted,
            quotas: settings.quotas,
            shared,
            clock,
            tasks,
        });
        app.start_queue(settings.parse);
        Ok(app)
    }

    /// What spaces may take.
    pub fn quotas(&self) -> Quotas {
        self.quotas
    }

    /// How many subscriptions follow a space on this replica.
    pub fn subscriptions(&self, space: &Space) -> usize {
        self.hub.watchers(space.id)
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
        self.submit(space, request, size_bytes)?.await
    }

    /// The same, in two steps: once this returns, the request has its place before all
    /// later ones of its space. Never waits.
    pub fn submit(
        &self,
        space: Space,
        request: Request,
        size_bytes: usize,
    ) -> Result<impl Future<Output = Result<Vec<MutationResult>, Error>> + Send + use<>, Error>
    {
        if self.closed.is_closed(space.id) {
            return Err(Error::Replacing);
        }
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
        Ok(async { answer.await.unwrap_or(Err(Error::Stopping)) })
    }

    /// Runs work of the store on a task of its own, so that a caller who goes
    /// away cannot drop it half-way. Cancel safe.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, store::Error>> + Send + 'static,
    ) -> Result<T, Error> {
        match self.tasks.spawn("read", work).await {
            Ok(result) => Ok(result?),
            Err(panic) => Err(panic.into()),
        }
    }
}

/// So many of them, each on a thread of its own.
fn start_committers(
    count: usize,
    parts: &Parts,
    tasks: &Tasks,
) -> io::Result<Vec<mpsc::Sender<Job>>> {
    let start = |_number| {
        let (sender, queue) = mpsc::channel(limits::COMMITTER_QUEUE_REQUESTS_MAX);
        let committer = Committer::new(parts.clone());
        tasks.spawn_thread("committer", committer.run(queue, tasks.token()))?;
        Ok(sender)
    };
    (0..count.max(1)).map(start).collect()
}
