//! What can go wrong for an app, and what to do about it.

use super::engine::Fault;
use super::entry::Trouble;
use super::store::StoreError;

/// Why a call of the client failed. Nothing was changed then, unless a server was asked and did
/// not answer in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name, a document, a path or a setting breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// The edit could never take effect, so it was not queued.
    #[error("the edit can never take effect: {}", .0.message)]
    Hopeless(Trouble),
    /// There is no such entry, or it does not wait for the app.
    #[error("there is no such edit that was set aside")]
    NotParked,
    /// The entry may be on its way.
    #[error("the edit is being sent; wait for what becomes of it")]
    BeingSent,
    /// The edit may have taken effect: the same again would do so twice.
    #[error("the edit may have taken effect; look at the record, then discard it, or edit it")]
    Decided,
    /// There is no such conflict here.
    #[error("there is no such open conflict here")]
    NoConflict,
    /// Only the process that syncs a file has the memory for sensitive values.
    #[error("sensitive values can be written only by the process that syncs this file")]
    NotLeading,
    /// The client was opened without a server.
    #[error("there is no server; open the client with one")]
    NoServer,
    /// The server refused, or could not be reached.
    #[error("{0}")]
    Server(Fault),
    /// The local file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    pub(super) fn invalid(why: impl std::fmt::Display) -> Self {
        Self::Invalid(why.to_string())
    }
}

impl From<super::replica::Refused> for Error {
    fn from(refused: super::replica::Refused) -> Self {
        use super::replica::Refused;
        match refused {
            Refused::NotFailed => Self::NotParked,
            Refused::BeingSent => Self::BeingSent,
            Refused::Decided => Self::Decided,
            Refused::Hopeless(rejection) => {
                let violations = rejection.violations.into_iter();
                Self::Hopeless(Trouble {
                    reason: reason(rejection.reason).into(),
                    message: rejection.message,
                    violations: violations.map(|it| (it.field, it.description)).collect(),
                })
            }
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        Self::Hopeless(trouble)
    }
}

/// As the contract names it.
fn reason(reason: crate::domain::RejectionReason) -> &'static str {
    use crate::domain::RejectionReason as Reason;
    match reason {
        Reason::Invalid => "INVALID",
        Reason::AlreadyExists => "ALREADY_EXISTS",
        Reason::NotFound => "NOT_FOUND",
        Reason::BatchAborted => "BATCH_ABORTED",
        Reason::SequenceUsed => "SEQUENCE_USED",
        Reason::Schema => "SCHEMA",
        Reason::ConflictClosed => "CONFLICT_CLOSED",
        Reason::RecordChanged => "RECORD_CHANGED",
        Reason::RecordGone => "RECORD_GONE",
        Reason::NotGranted => "NOT_GRANTED",
    }
}

/// What cannot fail needs no error.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
