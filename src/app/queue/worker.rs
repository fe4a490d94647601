//! Applies what is enqueued, lane by lane: each in its order, many at once. A worker that
//! dies leaves its lanes to others once their time has passed; what it had applied already
//! is found by mutation id.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::ParseMutation;
use crate::app::{App, Error};
use crate::chain::Chain;
use crate::domain::{
    Caller, MutationResult, Outcome, QueueFault, QueueOutcome, QueueStanding, QueueState, Queued,
    QueuedBy, Refusal, Rejection, Request, Right,
};
use crate::failpoint;
use crate::store::{self, Held, Lane};

/// What other replicas have taken in, and what is to be tried again, is looked for so often.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// So long does a lane belong to a worker that says nothing more of it.
const LEASE: Duration = Duration::from_secs(30);
/// After the store has failed.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Lanes that are gone through at once.
const LANES_MAX: usize = 8;
/// Entries that are read at once; a lane that has more has its next turn behind others.
const ENTRIES_MAX: i64 = 100;
const BYTES_MAX: i64 = 1 << 20;

/// Applies until `stop`.
pub(in crate::app) async fn work(app: Arc<App>, parse: ParseMutation, stop: CancellationToken) {
    let worker = Worker { id: Uuid::nil(), app, parse, stop };
    let room = Arc::new(Semaphore::new(LANES_MAX));
    loop {
        let worker = worker.clone();
        // Cancel: both only wait; a bell that was rung meanwhile is heard the next time.
        tokio::select! {
            biased;
            () = worker.stop.cancelled() => return,
            _rung = timeout(POLL_INTERVAL, worker.app.queue_bell.notified()) => {}
        }
        if let Err(failure) = worker.take_lanes(&room).await {
            warn!(error = %Chain(&failure), "the queue was not looked at; later");
        }
    }
}

/// One replica's.
#[derive(Clone)]
struct Worker {
    /// Of the lanes that it has taken.
    id: Uuid,
    app: Arc<App>,
    parse: ParseMutation,
    stop: CancellationToken,
}

/// What is to happen to a lane after an entry.
enum Next {
    Entry,
    /// It is tried again then.
    Wait(OffsetDateTime),
    /// It belongs to somebody else, or the server stops.
    Leave,
}

impl Worker {
    /// Takes all lanes that are due, as long as there is room for them.
    async fn take_lanes(&self, room: &Arc<Semaphore>) -> Result<(), store::Error> {
        loop {
            let free = i64::try_from(room.available_permits()).unwrap_or(0);
            if free == 0 || self.stop.is_cancelled() {
                return Ok(());
            }
            // Each taking has a name of its own: who comes late gives back nothing.
            let (id, now) = (Uuid::new_v4(), self.app.clock.now_to_store());
            let lanes = self.app.store.take_lanes(id, now, now + LEASE, free).await?;
            if lanes.is_empty() {
                return Ok(());
            }
            failpoint::reach("queue.claimed");
            for lane in lanes {
                let Ok(place) = Arc::clone(room).acquire_owned().await else { return Ok(()) };
                let worker = Self { id, ..self.clone() };
                drop(self.app.tasks.spawn("lane", async move {
                    worker.go_through(&lane).await;
                    drop(place);
                    // Perhaps there are more than there was room for.
                    worker.app.queue_bell.notify_one();
                }));
            }
        }
    }

    /// Applies what waits in a lane, and gives it back.
    async fn go_through(&self, lane: &Lane) {
        let store = &self.app.store;
        let applied = self.apply_pending(lane).await;
        let now = self.app.clock.now_to_store();
        let given = match applied {
            Ok(due_at) => store.give_back(lane, self.id, due_at, now).await,
            Err(failure) => {
                warn!(error = %Chain(&failure), "a lane of the queue was left; later");
                // If that fails as well, it is free when its time has passed.
                store.give_back(lane, self.id, Some(now + STORE_RETRY), now).await
            }
        };
        if let Err(failure) = given {
            warn!(error = %Chain(&failure), "a lane of the queue was not given back");
        }
    }

    /// Applies what waits; when to look again, unless there is nothing more.
    async fn apply_pending(&self, lane: &Lane) -> Result<Option<OffsetDateTime>, store::Error> {
        let entries = self.app.store.pending(lane, ENTRIES_MAX, BYTES_MAX).await?;
        for entry in &entries {
            match self.apply(lane, entry).await? {
                Next::Entry => {}
                Next::Wait(due_at) => return Ok(Some(due_at)),
                Next::Leave => break,
            }
        }
        // Perhaps there are more: only a look that finds none ends it.
        Ok((!entries.is_empty()).then(|| self.app.clock.now_to_store()))
    }

    /// Applies an entry and keeps what has become of it. Somebody else may do so at the
    /// same time, if this takes longer than the lane is held: then it is decided once.
    async fn apply(&self, lane: &Lane, entry: &Queued) -> Result<Next, store::Error> {
        let now = self.app.clock.now_to_store();
        if let Some(due_at) = entry.standing.due_at.filter(|due_at| *due_at > now) {
            return Ok(Next::Wait(due_at));
        }
        if self.stop.is_cancelled() {
            return Ok(Next::Leave);
        }
        match self.app.store.hold_lane(lane, self.id, now + LEASE, entry).await? {
            Held::Lost => return Ok(Next::Leave),
            Held::Gone => return Ok(Next::Entry),
            Held::Waits => {}
        }
        let decided = self.decide(lane, entry).await;
        failpoint::reach("queue.decided");
        let now = self.app.clock.now_to_store();
        let standing = match decided {
            Ok(mut results) => match results.pop() {
                Some(result) => settled(&entry.standing, &result.outcome),
                None => return Ok(Next::Leave),
            },
            // Otherwise the answer was lost, perhaps in a panic.
            Err(Error::Stopping) if self.stop.is_cancelled() => return Ok(Next::Leave),
            Err(Error::Refused(Refusal::MutationIdReused { .. })) => {
                let message = "the id was used before, by a mutation with other content";
                refused(&entry.standing, "MUTATION_ID_REUSED", message)
            }
            Err(Error::SpaceNotFound | Error::NotGranted(_)) => {
                let message = "whoever enqueued it may no longer write in the space";
                refused(&entry.standing, "PERMISSION_DENIED", message)
            }
            Err(Error::Refused(Refusal::TooLarge { .. })) => {
                let message = "what becomes of the document is too large";
                refused(&entry.standing, "REQUEST_TOO_LARGE", message)
            }
            Err(Error::Invalid(_)) => {
                let message = "it cannot be understood any more; try again with an edited one";
                refused(&entry.standing, "VALIDATION_ERROR", message)
            }
            Err(failure) => entry.standing.failed(fault(&failure), now),
        };
        let pending = self.app.store.settle(lane.space.id, entry, &standing, now).await?;
        failpoint::reach("queue.settled");
        if !pending {
            return Ok(Next::Entry);
        }
        self.count(entry, &standing);
        Ok(standing.due_at.map_or(Next::Entry, Next::Wait))
    }

    /// Decides it, if whoever enqueued it may still write there.
    async fn decide(&self, lane: &Lane, entry: &Queued) -> Result<Vec<MutationResult>, Error> {
        let parsed = (self.parse)(&entry.payload, &entry.device);
        let mutation = parsed.map_err(Error::Invalid)?;
        let QueuedBy { author, actor, by_grant } = entry.by.clone();
        let collections = if by_grant {
            None
        } else {
            let author = Caller::of(author.clone());
            self.app.access(&author, lane.space.name(), Right::Write).await?.collections
        };
        let (device, mutations) = (Some(entry.device.clone()), vec![mutation]);
        let request = Request { author, actor, device, atomic: false, mutations, collections };
        self.app.mutate(lane.space.clone(), request, entry.payload.len()).await
    }

    fn count(&self, entry: &Queued, standing: &QueueStanding) {
        match standing.state {
            QueueState::Failed => {
                let reason = standing.fault.as_ref().map_or("", |fault| &fault.reason);
                error!(mutation_id = %entry.mutation_id, reason, "a queued mutation has failed");
                self.app.metrics.queue_failed.inc();
            }
            QueueState::Applied => {
                self.app.metrics.queue_applied.inc();
            }
            QueueState::Conflicted => {
                self.app.metrics.queue_conflicted.inc();
            }
            QueueState::Pending | QueueState::Synced => {
                self.app.metrics.queue_retried.inc();
            }
        }
    }
}

/// After the mutation was decided.
fn settled(before: &QueueStanding, outcome: &Outcome) -> QueueStanding {
    let (state, outcome, revision, fault) = match outcome {
        Outcome::Applied(revision, _) => {
            (QueueState::Applied, QueueOutcome::Applied, Some(*revision), None)
        }
        Outcome::Merged(record, _) => {
            (QueueState::Applied, QueueOutcome::Merged, Some(record.revision), None)
        }
        Outcome::Superseded(record, _) => {
            (QueueState::Applied, QueueOutcome::Superseded, Some(record.revision), None)
        }
        Outcome::Conflict(record, _) => {
            (QueueState::Conflicted, QueueOutcome::Conflict, Some(record.revision), None)
        }
        Outcome::Rejected(rejection) => {
            let fault = QueueFault { reason: "REJECTED".into(), message: said(rejection) };
            (QueueState::Failed, QueueOutcome::Rejected, None, Some(fault))
        }
    };
    let (outcome, due_at) = (Some(outcome), None);
    QueueStanding { state, outcome, revision, fault, due_at, ..before.clone() }
}

/// What a rejection says, with the fields.
fn said(rejection: &Rejection) -> String {
    let violations = rejection.violations.iter();
    let violations = violations.map(|it| format!("; {} {}", it.field, it.description));
    std::iter::once(rejection.message.clone()).chain(violations).collect()
}

/// It can never succeed.
fn refused(before: &QueueStanding, reason: &str, message: &str) -> QueueStanding {
    let fault = QueueFault { reason: reason.into(), message: message.into() };
    let (state, due_at) = (QueueState::Failed, None);
    QueueStanding { state, fault: Some(fault), due_at, ..before.clone() }
}

/// What stands in the way for now.
fn fault(failure: &Error) -> QueueFault {
    let (reason, message) = match failure {
        Error::Refused(Refusal::SequenceGap { expected, got }) => (
            "SEQUENCE_GAP",
            format!("device sequence {got} leaves a gap; the next one is {expected}"),
        ),
        Error::Refused(Refusal::OverQuota { .. }) => {
            ("QUOTA_EXCEEDED", "the space holds as much as it may".to_owned())
        }
        Error::Overloaded => ("OVERLOADED", "too many requests are waiting".to_owned()),
        _ => ("SYNC_FAILED", "the database did not do it".to_owned()),
    };
    QueueFault { reason: reason.to_owned(), message }
}
