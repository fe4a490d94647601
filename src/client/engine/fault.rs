//! What went wrong, and what kind of thing that is: the one place that reads reasons of the
//! contract. Must not know what is done about it.

use crate::domain::CursorFault;

pub use crate::client::remote::{Code, Fault};

impl Fault {
    /// Of a cursor that cannot be resumed: what `resync_required` says.
    pub fn of_cursor(fault: CursorFault) -> Self {
        let (reason, message) = match fault {
            CursorFault::Expired => ("CURSOR_EXPIRED", "the changes since are no longer kept"),
            CursorFault::Ahead => ("CURSOR_AHEAD", "the cursor is ahead of the server"),
            CursorFault::EpochChanged => ("EPOCH_CHANGED", "the space's history was replaced"),
        };
        Self::new(Code::FailedPrecondition, reason, message)
    }

    /// Of something that took too long: nobody knows whether it happened.
    pub(super) fn silence(message: &str) -> Self {
        Self::new(Code::DeadlineExceeded, "", message)
    }
}

/// What a fault means for what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// The way to the server, or all of the server: the same again later.
    Link,
    /// Too much of it: the same again, when told.
    Limited,
    /// The token is not good.
    Token,
    /// What was sent can never be taken.
    Permanent,
    /// What was sent was not taken; perhaps it will be.
    Temporary,
    /// The space may be seen, but this must not be done in it.
    NotPermitted,
    /// The space may not be seen, or is not there.
    NoAccess,
    /// Mutations of the device are missing before this one.
    SequenceGap,
    /// The cursor cannot be resumed.
    Cursor(CursorFault),
}

/// What kind of thing a fault is.
pub(crate) fn kind(fault: &Fault) -> FaultKind {
    match fault.reason.as_str() {
        "SYNC_FAILED"
        | "OVERLOADED"
        | "DEADLINE_EXCEEDED"
        | "ACCESS_CHANGED"
        | "SUBSCRIPTION_NOT_FOUND"
        | "TOO_MANY_SUBSCRIPTIONS"
        | "TOO_MANY_KEYS" => FaultKind::Link,
        "RATE_LIMITED" => FaultKind::Limited,
        "UNAUTHENTICATED" | "OTHER_SUBJECT" => FaultKind::Token,
        "VALIDATION_ERROR" | "MUTATION_ID_REUSED" | "REQUEST_TOO_LARGE" | "MALFORMED_REQUEST" => {
            FaultKind::Permanent
        }
        "PERMISSION_DENIED" => FaultKind::NotPermitted,
        "SPACE_NOT_FOUND" => FaultKind::NoAccess,
        "SEQUENCE_GAP" => FaultKind::SequenceGap,
        "CURSOR_EXPIRED" => FaultKind::Cursor(CursorFault::Expired),
        "CURSOR_AHEAD" => FaultKind::Cursor(CursorFault::Ahead),
        "EPOCH_CHANGED" => FaultKind::Cursor(CursorFault::EpochChanged),
        "" => kind_without_reason(fault.code),
        // QUOTA_EXCEEDED, INTERNAL, and what a newer server may say.
        _ => FaultKind::Temporary,
    }
}

/// Without a reason it was not Syncline that spoke, but a library, a proxy or the wall of a
/// guest network. Nothing that those say is a judgement of what was sent.
fn kind_without_reason(code: Code) -> FaultKind {
    match code {
        Code::Unauthenticated => FaultKind::Token,
        // Messages beyond what a library takes: smaller ones may pass.
        Code::OutOfRange | Code::ResourceExhausted => FaultKind::Temporary,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => FaultKind::Link,
    }
}

/// Whether what was sent may have taken effect nevertheless.
pub(crate) fn may_have_happened(fault: &Fault) -> bool {
    match kind(fault) {
        FaultKind::Link => fault.reason != "OVERLOADED",
        FaultKind::Temporary => fault.reason != "QUOTA_EXCEEDED",
        FaultKind::Limited
        | FaultKind::Token
        | FaultKind::Permanent
        | FaultKind::NotPermitted
        | FaultKind::NoAccess
        | FaultKind::SequenceGap
        | FaultKind::Cursor(_) => false,
    }
}

#[cfg(test)]
mod tests;
