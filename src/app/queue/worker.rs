//! Applies what is enqueued, lane by lane: each in its order, many at once. A worker that
//! dies leaves its lanes to others once their time has passed; what it had applied already
//! is found by mutation id.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::ParseMutation;
use crate::app::{App, Error};
use crate::chain::Chain;
use crate::domain::{
    Outcome, QueueFault, QueueOutcome, QueueStanding, QueueState, Queued, Refusal, Rejection,
    Request,
};
use crate::failpoint;
use crate::store::{self, Lane};

/// What other replicas have taken in, and what is to be tried again, is looked for so often.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// So long does a lane belong to a worker that says nothing more of it.
const LEASE: Duration = Duration::from_secs(30);
/// After so much of it, it is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(10);
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
    /// It is tried again after this.
    Wait(Duration),
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
                    if let Err(failure) = worker.go_through(&lane).await {
                        warn!(error = %Chain(&failure), "a lane of the queue was left; later");
                    }
                    drop(place);
                    // Perhaps there are more than there was room for.
                    worker.app.queue_bell.notify_one();
                }));
            }
        }
    }

    /// Applies what waits in a lane, and gives it back.
    async fn go_through(&self, lane: &Lane) -> Result<(), store::Error> {
        let store = &self.app.store;
        let mut renewed = Instant::now();
        let entries = store.pending(lane, ENTRIES_MAX, BYTES_MAX).await?;
        // Perhaps there are more: only a look that finds none ends it.
        let mut due_at = (!entries.is_empty()).then(|| self.app.clock.now_to_store());
        for entry in &entries {
            if renewed.elapsed() > RENEW_AFTER {
                let until = self.app.clock.now_to_store() + LEASE;
                if !store.hold_lane(lane, self.id, until).await? {
                    return Ok(());
                }
                renewed = Instant::now();
            }
            match self.apply(lane, entry).await? {
                Next::Entry => {}
                Next::Wait(wait) => {
                    due_at = Some(self.app.clock.now_to_store() + wait);
                    break;
                }
                Next::Leave => {
                    due_at = Some(self.app.clock.now_to_store());
                    break;
                }
            }
        }
        store.give_back(lane, self.id, due_at, self.app.clock.now_to_store()).await
    }

    /// Applies an entry and keeps what has become of it.
    async fn apply(&self, lane: &Lane, entry: &Queued) -> Result<Next, store::Error> {
        if self.stop.is_cancelled() {
            return Ok(Next::Leave);
        }
        let decided = match (self.parse)(&entry.payload, &entry.device) {
            Ok(mutation) => {
                let request = Request {
                    author: entry.author.clone(),
                    device: Some(entry.device.clone()),
                    atomic: false,
                    mutations: vec![mutation],
                };
                let bytes = entry.payload.len();
                self.app.mutate(lane.space.clone(), request, bytes).await
            }
            Err(violations) => Err(Error::Invalid(violations)),
        };
        failpoint::reach("queue.decided");
        let (standing, next) = match decided {
            Ok(mut results) => match results.pop() {
                Some(result) => (settled(&entry.standing, &result.outcome), Next::Entry),
                None => return Ok(Next::Leave),
            },
            Err(Error::Stopping) => return Ok(Next::Leave),
            Err(Error::Refused(Refusal::MutationIdReused { .. })) => {
                let message = "the id was used before, by a mutation with other content";
                (refused(&entry.standing, "MUTATION_ID_REUSED", message), Next::Entry)
            }
            Err(Error::Refused(Refusal::TooLarge { .. })) => {
                let message = "what becomes of the document is too large";
                (refused(&entry.standing, "REQUEST_TOO_LARGE", message), Next::Entry)
            }
            Err(Error::Invalid(_)) => {
                let message = "it cannot be understood any more; give a replacement";
                (refused(&entry.standing, "VALIDATION_ERROR", message), Next::Entry)
            }
            Err(failure) => {
                let (standing, wait) = entry.standing.failed(fault(&failure));
                (standing, wait.map_or(Next::Entry, Next::Wait))
            }
        };
        let (space, now) = (lane.space.id, self.app.clock.now_to_store());
        if self.app.store.settle(space, entry, &standing, now).await? {
            self.count(entry, &standing);
        }
        failpoint::reach("queue.settled");
        Ok(next)
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
    QueueStanding { state, outcome: Some(outcome), revision, fault, ..before.clone() }
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
    QueueStanding { state: QueueState::Failed, fault: Some(fault), ..before.clone() }
}

/// What stands in the way for now.
fn fault(failure: &Error) -> QueueFault {
    let (reason, message) = match failure {
        Error::Refused(Refusal::SequenceGap { expected, got }) => (
            "SEQUENCE_GAP",
            format!("device sequence {got} leaves a gap; the next one is {expected}"),
        ),
        Error::Overloaded => ("OVERLOADED", "too many requests are waiting".to_owned()),
        _ => ("SYNC_FAILED", "the database did not do it".to_owned()),
    };
    QueueFault { reason: reason.to_owned(), message }
}
