//! Entries of a queue to the wire.

use bytes::Bytes;
use prost::Message;

use super::{entry, timestamp};
use crate::domain::{QueueFault, QueueOutcome, QueueState, Queued};
use crate::rpc::proto;

/// An entry without its mutation.
pub(in crate::rpc) fn queued(it: &Queued) -> proto::QueuedMutation {
    let standing = &it.standing;
    let fault = |it: &QueueFault| {
        let (reason, message) = (it.reason.clone(), it.message.clone());
        proto::QueueFault { reason, message }
    };
    proto::QueuedMutation {
        mutation: None,
        mutation_id: it.mutation_id.as_str().to_owned(),
        device: it.device.as_str().to_owned(),
        author: it.by.author.as_str().to_owned(),
        state: state(standing.state).into(),
        attempts: standing.attempts,
        fault: standing.fault.as_ref().map(fault),
        outcome: standing.outcome.map_or(proto::MutationOutcome::Unspecified, outcome).into(),
        revision: standing.revision.map_or(0, |revision| revision.get()),
        next_attempt_time: standing.due_at.map(timestamp),
        enqueue_time: Some(timestamp(it.enqueued_at)),
        update_time: Some(timestamp(it.updated_at)),
    }
}

/// An entry with its mutation, as an entry of a page.
pub(in crate::rpc) fn queued_entry(it: &Queued) -> Bytes {
    // What was taken in could be decoded then.
    let mutation = proto::Mutation::decode(it.payload.as_slice()).ok();
    entry(&proto::QueuedMutation { mutation, ..queued(it) })
}

fn state(state: QueueState) -> proto::QueueState {
    match state {
        QueueState::Pending => proto::QueueState::Pending,
        QueueState::Applied => proto::QueueState::Applied,
        QueueState::Conflicted => proto::QueueState::Conflicted,
        QueueState::Failed => proto::QueueState::Failed,
        QueueState::Synced => proto::QueueState::Synced,
    }
}

fn outcome(outcome: QueueOutcome) -> proto::MutationOutcome {
    match outcome {
        QueueOutcome::Applied => proto::MutationOutcome::Applied,
        QueueOutcome::Conflict => proto::MutationOutcome::Conflict,
        QueueOutcome::Rejected => proto::MutationOutcome::Rejected,
        QueueOutcome::Superseded => proto::MutationOutcome::Superseded,
        QueueOutcome::Merged => proto::MutationOutcome::Merged,
    }
}
