//! Results of mutations to the wire.

use prost::Message;

use super::{conflict, record, violations};
use crate::domain::{DocumentForm, MutationResult, Outcome, Rejection, RejectionReason, limits};
use crate::rpc::proto;

/// What a single result needs beside what it shows.
const HEADROOM_BYTES: usize = 64 << 10;

/// Results, in order. What they show is shown as long as the message has room for
/// it; after that a result says what became of its mutation, and little more.
pub(in crate::rpc) fn results(
    results: &[MutationResult],
    form: DocumentForm,
) -> Vec<proto::MutationResult> {
    // What a result cannot do without takes more than half of a batch's message.
    let mut room = match results {
        [_] => limits::MESSAGE_BYTES_MAX - HEADROOM_BYTES,
        _ => limits::MESSAGE_BYTES_MAX / 3,
    };
    let shown = |it: &MutationResult| {
        let mut wire = result(it, form);
        let bytes = shown_bytes(&wire);
        if bytes > room {
            shorten(&mut wire);
        } else {
            room -= bytes;
        }
        wire
    };
    results.iter().map(shown).collect()
}

fn shown_bytes(wire: &proto::MutationResult) -> usize {
    let rejection = wire.rejection.as_ref();
    wire.record.as_ref().map_or(0, Message::encoded_len)
        + wire.conflict.as_ref().map_or(0, Message::encoded_len)
        + rejection.map_or(0, |it| it.violations.iter().map(Message::encoded_len).sum())
}

fn shorten(wire: &mut proto::MutationResult) {
    wire.record = None;
    if let Some(conflict) = &mut wire.conflict {
        *conflict = proto::Conflict {
            id: std::mem::take(&mut conflict.id),
            state: conflict.state,
            relation: conflict.relation,
            decision: conflict.decision,
            ..proto::Conflict::default()
        };
    }
    if let Some(rejection) = &mut wire.rejection {
        rejection.violations.truncate(limits::REJECTION_VIOLATIONS_MAX);
    }
}

fn result(result: &MutationResult, form: DocumentForm) -> proto::MutationResult {
    let mut wire = proto::MutationResult {
        mutation_id: result.mutation_id.as_str().to_owned(),
        replayed: result.replayed,
        conflict: result.outcome.conflict().map(|it| conflict(it, form, true)),
        ..Default::default()
    };
    let (outcome, shown) = match &result.outcome {
        Outcome::Applied(revision, _) => {
            wire.revision = revision.get();
            (proto::MutationOutcome::Applied, None)
        }
        Outcome::Merged(becomes, _) => (proto::MutationOutcome::Merged, Some(becomes)),
        Outcome::Superseded(stays, _) => (proto::MutationOutcome::Superseded, Some(stays)),
        Outcome::Conflict(stays, _) => (proto::MutationOutcome::Conflict, Some(stays)),
        Outcome::Rejected(why) => {
            wire.rejection = Some(rejection(why));
            (proto::MutationOutcome::Rejected, None)
        }
    };
    wire.set_outcome(outcome);
    if let Some(shown) = shown {
        wire.revision = shown.revision.get();
        // How many conflicts are open changes; an answer does not.
        wire.record = Some(proto::Record { open_conflicts: 0, ..record(shown, form) });
    }
    wire
}

fn rejection(rejection: &Rejection) -> proto::Rejection {
    let reason = match rejection.reason {
        RejectionReason::Invalid => proto::RejectionReason::Invalid,
        RejectionReason::AlreadyExists => proto::RejectionReason::AlreadyExists,
        RejectionReason::NotFound => proto::RejectionReason::NotFound,
        RejectionReason::BatchAborted => proto::RejectionReason::BatchAborted,
        RejectionReason::SequenceUsed => proto::RejectionReason::SequenceUsed,
        RejectionReason::Schema => proto::RejectionReason::Schema,
        RejectionReason::ConflictClosed => proto::RejectionReason::ConflictClosed,
        RejectionReason::RecordChanged => proto::RejectionReason::RecordChanged,
        RejectionReason::RecordGone => proto::RejectionReason::RecordGone,
        RejectionReason::NotGranted => proto::RejectionReason::NotGranted,
    };
    proto::Rejection {
        reason: reason.into(),
        message: rejection.message.clone(),
        violations: violations(&rejection.violations),
    }
}
