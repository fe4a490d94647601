//! Errors to gRPC statuses: the only place that does it, and that logs failed
//! requests, once, with all causes. No inner text reaches a client.

mod space;

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tracing::error;
use uuid::Uuid;

use crate::app::Error;
use crate::auth::Grant;
use crate::chain::Chain;
use crate::domain::{
    CursorFault, DeviceId, Epoch, QueueState, RecordKey, Refusal, Revision, Violation, limits,
};
use crate::store;

/// Stands in every ErrorInfo of this service.
pub(super) const DOMAIN: &str = "syncline.v1";
/// Headers are limited, by us and by others: details stay below this.
const VIOLATION_BYTES_MAX: usize = 2_000;
/// When a client may try again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The same where somebody has to make room first.
const QUOTA_RETRY: Duration = Duration::from_secs(60);

/// A status with its reason.
pub(super) fn status<const N: usize>(
    code: Code,
    reason: &str,
    message: impl Into<String>,
    metadata: [(&str, String); N],
) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, map(metadata));
    Status::with_error_details(code, message, details)
}

fn map<const N: usize>(metadata: [(&str, String); N]) -> HashMap<String, String> {
    metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn retryable(code: Code, reason: &str, message: &str) -> Status {
    retry_after(code, reason, message, RETRY_AFTER, [])
}

/// A status that says when to try again.
pub(super) fn retry_after<const N: usize>(
    code: Code,
    reason: &str,
    message: impl Into<String>,
    after: Duration,
    metadata: [(&str, String); N],
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, map(metadata));
    details.set_retry_info(Some(after));
    Status::with_error_details(code, message, details)
}

/// A request that breaks rules.
pub(super) fn invalid(violations: Vec<Violation>) -> Status {
    let mut details = ErrorDetails::with_error_info("VALIDATION_ERROR", DOMAIN, map([]));
    let mut message = match violations.first() {
        Some(first) => format!("{} {}", first.field, first.description),
        None => "the request is not valid".into(),
    };
    match violations.len() {
        0 | 1 => {}
        2 => message.push_str(", and 1 more violation"),
        total => message.push_str(&format!(", and {} more violations", total - 1)),
    }
    let mut bytes = 0;
    for Violation { field, description } in violations {
        bytes += field.len() + description.len();
        if bytes > VIOLATION_BYTES_MAX {
            break;
        }
        details.add_bad_request_violation(field, description);
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// A caller whose token does not grant what they ask for.
pub(super) fn not_granted(grant: &Grant) -> Status {
    let grant = grant.to_string();
    let message = format!("the token must have {grant:?} among its `grants`");
    status(Code::PermissionDenied, "PERMISSION_DENIED", message, [("grant", grant)])
}

/// A stream or request that the server cannot go on with because it stops.
pub(super) fn stopping() -> Status {
    retryable(Code::Unavailable, "SYNC_FAILED", "the server is stopping; try again")
}

/// A request from another device than the token is for.
pub(super) fn other_device(bound: &DeviceId) -> Status {
    let message = "the token is bound to another device than the request names";
    let device = [("device", bound.to_string())];
    status(Code::PermissionDenied, "PERMISSION_DENIED", message, device)
}

/// An answer that its reader left lying.
fn unread() -> Status {
    let message = "nothing was read for a minute; what came before is not the whole answer";
    status(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message, [])
}

/// Too much waits already.
pub(super) fn overloaded() -> Status {
    let message = "too many requests are waiting; try again later";
    retryable(Code::ResourceExhausted, "OVERLOADED", message)
}

/// The database does not answer, or not in time.
fn away() -> Status {
    let message = "the database is not available; whether a write happened is unknown, \
                   so send it again with the same id";
    retryable(Code::Unavailable, "SYNC_FAILED", message)
}

/// A bug of ours. The id leads from the client's report to the log.
pub(super) fn internal(cause: &(dyn std::error::Error + 'static)) -> Status {
    let id = Uuid::now_v7().simple().to_string();
    error!(error = %Chain(cause), id, "internal error");
    let message = format!("internal error; report it with id {id}");
    status(Code::Internal, "INTERNAL", message, [("id", id)])
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::SpaceNotFound => not_found(
                "SPACE_NOT_FOUND",
                "the space does not exist; leave `space` empty for your own",
            ),
            Error::NotGranted(right) => space::right_not_granted(right),
            Error::CollectionNotGranted(collection) => space::collection_not_granted(&collection),
            Error::WholeSpaceNotGranted => space::whole_space_not_granted(),
            Error::AccessChanged => space::access_changed(),
            Error::SpaceExists => space::exists(),
            Error::PrivateSpace => space::private(),
            Error::LastAdmin => space::last_admin(),
            Error::TooManyMembers => space::too_many_members(),
            Error::TooManySubscriptions => space::too_many_subscriptions(),
            Error::RecordNotFound { deleted_at } => record_not_found(deleted_at),
            Error::RecordNotThere { at } => record_not_there(at),
            Error::DocumentNotKept { deleted_at, floor } => document_not_kept(deleted_at, floor),
            Error::Revision { fault, epoch, head, floor } => revision(fault, epoch, head, floor),
            Error::ConflictNotFound => {
                not_found("CONFLICT_NOT_FOUND", "the conflict does not exist, or is no longer kept")
            }
            Error::QueuedNotFound => queued_not_found(),
            Error::QueuedState { state, answered } => queued_state(state, answered),
            Error::QueueFull => status(
                Code::ResourceExhausted,
                "QUEUE_FULL",
                format!(
                    "the queue has {} entries that are not dealt with; look at those that failed",
                    limits::QUEUE_ENTRIES_MAX
                ),
                [],
            ),
            Error::PolicyNotFound => {
                not_found("POLICY_NOT_FOUND", "the collection has no such policy; see ListPolicies")
            }
            Error::PolicyChanged { version } => status(
                Code::FailedPrecondition,
                "POLICY_CHANGED",
                format!("version {version} of the policy is set (0 = none is); look at it again"),
                [("version", version.to_string())],
            ),
            Error::TooManyPolicies => {
                let max = limits::POLICIES_MAX;
                let message = format!("there are {max} policies already; delete one, or use *");
                status(Code::FailedPrecondition, "TOO_MANY_POLICIES", message, [])
            }
            Error::Refused(refusal) => refused(refusal),
            Error::Invalid(violations) => invalid(violations),
            Error::SentTwice(RecordKey { collection, id }) => {
                let field = format!("records[{collection}/{id}]");
                invalid(vec![Violation::new(field, "was sent twice")])
            }
            Error::SpaceChanged { head } => space_changed(head),
            Error::Replacing => retryable(
                Code::Unavailable,
                "SYNC_FAILED",
                "the space is being replaced as a whole; try again",
            ),
            Error::Cursor { fault, epoch, head, floor } => cursor(fault, epoch, head, floor),
            Error::Unread => unread(),
            Error::Overloaded => overloaded(),
            Error::Stopping => stopping(),
            Error::SlowStore => away(),
            Error::Store(failure) => store_failed(&failure),
            Error::Panicked(panic) => internal(panic.as_ref()),
        }
    }
}

fn space_changed(head: Revision) -> Status {
    let message = format!("the space is at revision {head}; see what has changed, and decide anew");
    status(Code::FailedPrecondition, "SPACE_CHANGED", message, [("head", head.to_string())])
}

fn queued_not_found() -> Status {
    not_found("QUEUED_NOT_FOUND", "the queue has no such entry, or no longer")
}

fn queued_state(state: QueueState, answered: bool) -> Status {
    let state = match state {
        QueueState::Pending => "pending",
        QueueState::Applied => "applied",
        QueueState::Conflicted => "conflicted",
        QueueState::Failed => "failed",
        QueueState::Synced => "marked as synced",
    };
    let message = if answered {
        format!(
            "the entry is {state}, and its id has got its answer: try again with an edited \
             mutation that has an id of its own"
        )
    } else {
        format!("the entry is {state}; only what has failed or conflicted can be tried again")
    };
    status(Code::FailedPrecondition, "QUEUED_STATE", message, [("state", state.to_owned())])
}

fn store_failed(failure: &store::Error) -> Status {
    match failure {
        store::Error::Unavailable(_)
        | store::Error::TimedOut(_)
        | store::Error::Moved
        | store::Error::Repeated
        | store::Error::Busy(_) => away(),
        store::Error::Refused(_)
        | store::Error::Gone
        | store::Error::TooMuch { .. }
        | store::Error::Corrupt(_)
        | store::Error::Url(_)
        | store::Error::Unfit { .. }
        | store::Error::Migrate(_) => internal(failure),
    }
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::MutationIdReused { index, id } => status(
            Code::FailedPrecondition,
            "MUTATION_ID_REUSED",
            format!("mutation id {id} was used before, with other content or in another batch"),
            [("mutation_id", id.to_string()), ("index", index.to_string())],
        ),
        Refusal::OverQuota { used, quota } => space::over_quota(used, quota),
        Refusal::TooLarge { bytes } => status(
            Code::ResourceExhausted,
            "REQUEST_TOO_LARGE",
            format!("what becomes of the documents would take {bytes} bytes; send fewer at once"),
            [],
        ),
        Refusal::SequenceGap { expected, got } => status(
            Code::FailedPrecondition,
            "SEQUENCE_GAP",
            format!("device sequence {got} leaves a gap; the next one is {expected}"),
            [("expected", expected.to_string()), ("got", got.to_string())],
        ),
    }
}

/// A cursor that cannot be resumed, and where the space is.
fn cursor(fault: CursorFault, epoch: Epoch, head: Revision, floor: Revision) -> Status {
    let (reason, message) = cursor_fault(fault);
    let places =
        [("epoch", epoch.to_string()), ("head", head.to_string()), ("floor", floor.to_string())];
    let message = format!("{message}; begin again from revision 0");
    status(Code::FailedPrecondition, reason, message, places)
}

/// A revision of the past that cannot be read, and where the space is.
fn revision(fault: CursorFault, epoch: Epoch, head: Revision, floor: Revision) -> Status {
    let (reason, message) = cursor_fault(fault);
    let message = match fault {
        CursorFault::Expired => format!(
            "that revision is no longer kept, or lies too far back; the space's floor is {floor}"
        ),
        CursorFault::Ahead => format!("the revision is ahead of the space's head {head}"),
        CursorFault::EpochChanged => message.to_owned(),
    };
    let places =
        [("epoch", epoch.to_string()), ("head", head.to_string()), ("floor", floor.to_string())];
    status(Code::FailedPrecondition, reason, message, places)
}

fn record_not_found(deleted_at: Option<Revision>) -> Status {
    match deleted_at {
        None => not_found("RECORD_NOT_FOUND", "the record does not exist"),
        Some(revision) => {
            let message = format!("the record was deleted at revision {revision}");
            let deleted_at = [("deleted_at", revision.to_string())];
            status(Code::NotFound, "RECORD_NOT_FOUND", message, deleted_at)
        }
    }
}

fn record_not_there(at: Revision) -> Status {
    let message = format!("the record did not live at revision {at}; see ListRecordHistory");
    status(Code::NotFound, "RECORD_NOT_FOUND", message, [("revision", at.to_string())])
}

fn document_not_kept(deleted_at: Revision, floor: Revision) -> Status {
    let message = format!(
        "the document before the deletion at revision {deleted_at} is no longer kept; \
         create the record anew, with a document of your own"
    );
    let places = [("deleted_at", deleted_at.to_string()), ("floor", floor.to_string())];
    status(Code::FailedPrecondition, "DOCUMENT_NOT_KEPT", message, places)
}

fn not_found(reason: &'static str, message: &str) -> Status {
    status(Code::NotFound, reason, message, [])
}

/// The reason and the words for a cursor that cannot be resumed.
fn cursor_fault(fault: CursorFault) -> (&'static str, &'static str) {
    match fault {
        CursorFault::Expired => {
            ("CURSOR_EXPIRED", "the changes after the cursor are no longer kept")
        }
        CursorFault::Ahead => ("CURSOR_AHEAD", "the cursor is ahead of the space's head"),
        CursorFault::EpochChanged => {
            ("EPOCH_CHANGED", "the cursor is of another epoch: the space's history was replaced")
        }
    }
}
