//! Mutations that wait on the server, and what becomes of them.

use std::time::Duration;

use time::OffsetDateTime;

use super::{DeviceId, Fingerprint, MutationId, Revision, UserId};

/// What has become of a queued mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    Pending,
    Applied,
    Conflicted,
    Failed,
    Synced,
}

/// What became of its mutation, without what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOutcome {
    Applied,
    Conflict,
    Rejected,
    Superseded,
    Merged,
}

/// An entry of a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Queued {
    pub mutation_id: MutationId,
    /// Its place.
    pub number: i64,
    pub device: DeviceId,
    pub by: QueuedBy,
    /// The mutation as it was sent.
    pub payload: Vec<u8>,
    pub fingerprint: Fingerprint,
    pub enqueued_at: OffsetDateTime,
    pub updated_at: OffsetDateTime,
    pub standing: QueueStanding,
}

/// Who had it put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedBy {
    pub author: UserId,
    /// Who really did it, if not the author.
    pub actor: Option<UserId>,
    /// A grant of a token let them in, so that they need not be a member when it is
    /// applied.
    pub by_grant: bool,
}

/// What moves of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStanding {
    pub state: QueueState,
    /// How often it was tried without coming to an end.
    pub attempts: i32,
    /// When it is tried again; None if nothing has stood in its way.
    pub due_at: Option<OffsetDateTime>,
    pub outcome: Option<QueueOutcome>,
    pub revision: Option<Revision>,
    pub fault: Option<QueueFault>,
}

/// What stands in its way, or why it has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFault {
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// So often is an entry tried.
const ATTEMPTS_MAX: i32 = 5;
const RETRY_SECONDS_MAX: u64 = 60;

impl QueueStanding {
    /// That of a new entry.
    pub const PENDING: Self = Self {
        state: QueueState::Pending,
        attempts: 0,
        due_at: None,
        outcome: None,
        revision: None,
        fault: None,
    };

    /// After an attempt that has just come to nothing.
    pub fn failed(&self, fault: QueueFault, now: OffsetDateTime) -> Self {
        let attempts = self.attempts.saturating_add(1);
        let again = attempts < ATTEMPTS_MAX;
        let state = if again { QueueState::Pending } else { QueueState::Failed };
        let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(63);
        let wait = Duration::from_secs((1_u64 << doublings).min(RETRY_SECONDS_MAX));
        let due_at = again.then(|| now + wait);
        Self { state, attempts, due_at, fault: Some(fault), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_tried_five_times_with_longer_and_longer_waits() {
        let fault = || QueueFault { reason: "AWAY".into(), message: String::new() };
        let (mut standing, mut waits) = (QueueStanding::PENDING, Vec::new());
        let now = OffsetDateTime::UNIX_EPOCH;
        loop {
            standing = standing.failed(fault(), now);
            let Some(due_at) = standing.due_at else { break };
            waits.push((due_at - now).whole_seconds());
            assert_eq!(standing.state, QueueState::Pending);
        }
        assert_eq!((waits, standing.attempts), (vec![1, 2, 4, 8], 5));
        assert_eq!(standing.state, QueueState::Failed);
        let damaged = QueueStanding { attempts: -100, ..standing }.failed(fault(), now);
        assert_eq!(damaged.due_at, Some(now + Duration::from_secs(1)), "whatever is stored");
    }
}
