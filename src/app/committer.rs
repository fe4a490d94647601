//! Takes requests of many callers and decides them in groups, each committed as
//! one. No timer: a group is what arrived while the last one was being
//! committed. Owns its connection, and nothing that it awaits is ever dropped
//! half-way, but together with that connection.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::Error;
use super::basis;
use super::cache::Cache;
use super::group::{self, Commit, Committed, Group, Mode, Undecided};
use super::policies::Policies;
use super::wakeup::Wakeup;
use crate::chain::Chain;
use crate::clock::Clock;
use crate::domain::{
    Content, Mutation, MutationResult, Operation, Refusal, Request, Revision, Rules, Space,
    SpaceId, Usage, limits,
};
use crate::hub::{Hint, Hub};
use crate::store::{self, Store, Writer};

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) space: Space,
    pub(super) request: Request,
    pub(super) size_bytes: usize,
    pub(super) reply: oneshot::Sender<Result<Vec<MutationResult>, Error>>,
    /// Its share of the queue's memory, held until it is answered.
    pub(super) room: OwnedSemaphorePermit,
}

/// The answer to a job.
pub(super) type Verdict = Result<Vec<MutationResult>, Refusal>;

/// The answer to each job of a group, in order.
pub(super) type Verdicts = Vec<Verdict>;

/// A transaction that takes longer is given up, with its connection.
const GROUP_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// What made one group need a later mode is likely to come again: conflicts,
/// replays, another replica that writes the same spaces.
const CAREFUL_GROUPS: u32 = 8;
/// Waits between attempts when others were in the way.
const BUSY_RETRIES: [Duration; 4] = [
    Duration::from_millis(2),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
];

/// What all committers share.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) hub: Arc<Hub>,
    pub(super) wakeup: Arc<Wakeup>,
    pub(super) policies: Arc<Policies>,
    pub(super) clock_skew: Duration,
    pub(super) without_digests: bool,
    pub(super) quota: Usage,
}

pub(super) struct Committer {
    store: Store,
    clock: Clock,
    hub: Arc<Hub>,
    wakeup: Arc<Wakeup>,
    policies: Arc<Policies>,
    skew_micros: i64,
    without_digests: bool,
    cache: Cache,
    writer: Option<Writer>,
    /// So many groups begin in this mode: one before them needed it.
    careful_groups: u32,
    careful_mode: Mode,
    quota: Usage,
}

impl Committer {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { store, clock, hub, wakeup, policies, clock_skew, without_digests, quota } =
            parts;
        Self {
            quota,
            store,
            clock,
            hub,
            wakeup,
            policies,
            skew_micros: i64::try_from(clock_skew.as_micros()).unwrap_or(i64::MAX),
            without_digests,
            cache: Cache::default(),
            writer: None,
            careful_groups: 0,
            careful_mode: Mode::Read,
        }
    }

    /// Runs until `stop`, then decides what is in the queue and ends.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Job>, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled(), if !queue.is_closed() => {
                    queue.close();
                    continue;
                }
                // Cancel safe: a job that was not returned is still in the queue.
                job = queue.recv() => job,
            };
            let Some(first) = first else { break };
            let jobs = gather(first, &mut queue);
            if AssertUnwindSafe(self.settle(jobs)).catch_unwind().await.is_err() {
                // The callers are told, their replies being dropped. Nothing that
                // the panic may have left half-way is used again.
                error!("a committer panicked; going on with a new connection");
                self.writer = None;
                self.cache = Cache::default();
            }
        }
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.close().await
        {
            warn!(error = %Chain(&error), "a committer's connection did not close cleanly");
        }
    }

    /// Decides a group and answers it. What the database refuses is found by
    /// deciding each request alone, so that it does not fail its neighbours.
    async fn settle(&mut self, jobs: Vec<Job>) {
        match self.decide(&jobs).await {
            Err(error) if jobs.len() > 1 && !error.is_retryable() => {
                warn!(error = %Chain(&error), requests = jobs.len(), "a group was refused; deciding singly");
                for job in jobs {
                    let decided = self.decide(std::slice::from_ref(&job)).await;
                    self.conclude(vec![job], decided);
                }
            }
            decided => self.conclude(jobs, decided),
        }
    }

    /// Answers, and then tells those who follow: they are many, and the callers do not
    /// wait behind them.
    fn conclude(&self, jobs: Vec<Job>, decided: Result<Committed, store::Error>) {
        match decided {
            Ok(Committed { verdicts, commits, heads }) => {
                answer(jobs, verdicts);
                self.tell(&commits, &heads);
            }
            Err(store::Error::TooMuch { bytes }) => {
                let verdicts = jobs.iter().map(|_| Err(Refusal::TooLarge { bytes })).collect();
                answer(jobs, verdicts);
            }
            Err(error) => fail(jobs, error),
        }
    }

    fn tell(&self, commits: &[Commit], heads: &[(SpaceId, Revision)]) {
        for Commit { space, after, to, changes } in commits {
            self.hub.publish((*space, to.epoch), *after, changes, to.conflicts);
            self.wakeup.moved(*space, Hint { head: to.head, conflicts: to.conflicts });
        }
        for (space, head) in heads {
            self.hub.hint(*space, Hint { head: *head, conflicts: 0 });
        }
    }

    /// Decides a group, with as many attempts as make sense. An attempt that
    /// finds the group committed by an earlier one, whose outcome had been
    /// unknown, gives the same answers: they are found by mutation id.
    async fn decide(&mut self, jobs: &[Job]) -> Result<Committed, store::Error> {
        let mut unsure: Option<Verdicts> = None;
        let mut waits = BUSY_RETRIES.iter();
        let mut lost = 0;
        let mut mode = self.first_mode(jobs);
        loop {
            let mut decided = None;
            let failure = match self.attempt(jobs, mode, &mut decided).await {
                Ok(committed) => {
                    let verdicts = first_answers(committed.verdicts, unsure.as_ref());
                    return Ok(Committed { verdicts, ..committed });
                }
                Err(Undecided::Again(next)) if next > mode => {
                    (self.careful_groups, self.careful_mode) = (CAREFUL_GROUPS, next);
                    mode = next;
                    continue;
                }
                // Under locks nobody can have been in the way.
                Err(Undecided::Again(_)) => return Err(store::Error::Moved),
                Err(Undecided::Failed(failure)) => failure,
            };
            // Whoever was too busy has surely written nothing.
            if !matches!(failure, store::Error::Busy(_)) {
                unsure = decided.or(unsure);
            }
            // The cache is empty now, so there is nothing to rely on.
            mode = mode.max(Mode::Read);
            jobs.iter().for_each(|job| self.cache.forget(job.space.id));
            match &failure {
                store::Error::Busy(_) => match waits.next() {
                    // Whoever was in the way needs time to finish.
                    Some(wait) => sleep(*wait).await,
                    None => return Err(failure),
                },
                store::Error::Unavailable(_) | store::Error::TimedOut(_) => {
                    self.writer = None;
                    lost += 1;
                    if lost > 1 {
                        return Err(failure);
                    }
                    // With the answers of what may have been committed.
                    mode = Mode::Locked;
                }
                _ => return Err(failure),
            }
        }
    }

    /// The cheapest mode that may do.
    fn first_mode(&mut self, jobs: &[Job]) -> Mode {
        if self.careful_groups > 0 {
            self.careful_groups -= 1;
            self.careful_mode
        } else if basis::is_known(&self.cache, jobs) {
            Mode::Cached
        } else {
            Mode::Read
        }
    }

    /// One attempt; `decided` gets the verdicts before they are committed.
    async fn attempt(
        &mut self,
        jobs: &[Job],
        mode: Mode,
        decided: &mut Option<Verdicts>,
    ) -> Result<Committed, Undecided> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => timeout(CONNECT_TIMEOUT, Writer::connect(&self.store))
                .await
                .map_err(|_slow| store::Error::TimedOut("connecting"))??,
        };
        let writer = self.writer.insert(writer);
        let now = self.clock.now_to_store();
        let rules = Rules {
            policies: self.policies.current(),
            skew_micros: self.skew_micros,
            without_digests: self.without_digests,
            quota: self.quota,
        };
        let group = Group { jobs, rules: &rules, now };
        let deciding = group::decide(writer, mode, &mut self.cache, &group, decided);
        match timeout(GROUP_TIMEOUT, deciding).await {
            Ok(result) => result,
            Err(_slow) => {
                // The connection goes with the future: nobody gets it half-way.
                self.writer = None;
                Err(store::Error::TimedOut("a transaction").into())
            }
        }
    }
}

/// What has arrived, up to the bounds of one transaction.
fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut mutations = first.request.mutations.len();
    let mut bytes = produced_bytes(&first);
    let mut jobs = vec![first];
    while mutations < limits::GROUP_MUTATIONS_MAX && bytes < limits::GROUP_DOCUMENT_BYTES_MAX {
        let Ok(job) = queue.try_recv() else { break };
        mutations += job.request.mutations.len();
        bytes += produced_bytes(&job);
        jobs.push(job);
    }
    jobs
}

/// At most what the documents have that a job produces. What a patch makes of a
/// document is known only later.
fn produced_bytes(job: &Job) -> usize {
    let patches =
        |it: &&Mutation| matches!(&it.content, Ok(Content { operation: Operation::Patch(_), .. }));
    let patches = job.request.mutations.iter().filter(patches).count();
    let patched = patches.saturating_mul(limits::DOCUMENT_BYTES_MAX);
    job.size_bytes.saturating_add(patched)
}

/// Verdicts found by a second look at a commit whose outcome was unknown are
/// first answers all the same, not replays.
fn first_answers(mut verdicts: Verdicts, unsure: Option<&Verdicts>) -> Verdicts {
    for (found, decided) in verdicts.iter_mut().zip(unsure.into_iter().flatten()) {
        if let (Ok(found), Ok(decided)) = (found, decided) {
            for (found, decided) in found.iter_mut().zip(decided) {
                found.replayed &= decided.replayed;
            }
        }
    }
    verdicts
}

fn answer(jobs: Vec<Job>, verdicts: Verdicts) {
    for (job, verdict) in jobs.into_iter().zip(verdicts) {
        // The caller may have gone; its mutation is decided all the same.
        let _gone = job.reply.send(verdict.map_err(Error::Refused));
        drop(job.room);
    }
}

fn fail(jobs: Vec<Job>, failure: store::Error) {
    if matches!(failure, store::Error::Gone) {
        for job in jobs {
            let _gone = job.reply.send(Err(Error::SpaceNotFound));
        }
        return;
    }
    error!(error = %Chain(&failure), requests = jobs.len(), "a group of mutations failed");
    let failure = Arc::new(failure);
    for job in jobs {
        let _gone = job.reply.send(Err(Error::Store(Arc::clone(&failure))));
    }
}
