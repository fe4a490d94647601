//! Why a use case failed. Expected outcomes of mutations are not here: they
//! are answers.

use std::sync::Arc;

use crate::domain::{
    CollectionName, CursorFault, Denied, Epoch, QueueState, RecordKey, Refusal, Revision, Right,
    Violation,
};
use crate::store;

/// A failure that the caller is told of.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no such space for this user.
    #[error("the space does not exist")]
    SpaceNotFound,
    /// The user may see the space, but not do this in it.
    #[error("the right is not granted: {0:?}")]
    NotGranted(Right),
    /// The user may do this in the space, but not in this collection.
    #[error("the membership does not extend to collection {0}")]
    CollectionNotGranted(CollectionName),
    /// The user may do this in some collections, and it concerns all.
    #[error("the membership does not extend to the whole space")]
    WholeSpaceNotGranted,
    /// What the user may see is not what it was when they began.
    #[error("the membership has changed")]
    AccessChanged,
    /// Another one has the id.
    #[error("the space is there already")]
    SpaceExists,
    /// The space is somebody's own.
    #[error("the space is private")]
    PrivateSpace,
    /// Nobody else could let anybody in.
    #[error("the last admin of a space stays")]
    LastAdmin,
    /// The space has as many members as it may, or the user as many spaces.
    #[error("there are too many members")]
    TooManyMembers,
    /// The space is followed by as many subscriptions as it may be.
    #[error("the space has too many subscriptions")]
    TooManySubscriptions,
    /// The record never was, or was deleted at a revision.
    #[error("the record does not exist")]
    RecordNotFound { deleted_at: Option<Revision> },
    /// The record did not live at that revision.
    #[error("the record did not live at revision {at}")]
    RecordNotThere { at: Revision },
    /// The document before a deletion is no longer kept.
    #[error("the document before revision {deleted_at} is no longer kept")]
    DocumentNotKept { deleted_at: Revision, floor: Revision },
    /// There is no such conflict, or it is no longer kept.
    #[error("the conflict does not exist")]
    ConflictNotFound,
    /// There is no such entry in the queue, or no longer.
    #[error("the queue has no such entry")]
    QueuedNotFound,
    /// An entry of the queue is not in a state that allows this; `answered` if its id has
    /// got its answer.
    #[error("the queued mutation is {state:?}")]
    QueuedState { state: QueueState, answered: bool },
    /// The queue of the space has as many entries as it may.
    #[error("the queue is full")]
    QueueFull,
    /// No policy is set for the collection, or there never was such a version.
    #[error("the policy does not exist")]
    PolicyNotFound,
    /// Another version than the expected one is set; 0 = none is.
    #[error("another policy is set: version {version}")]
    PolicyChanged { version: i64 },
    /// There are as many policies as there may be.
    #[error("there are too many policies")]
    TooManyPolicies,
    /// The whole request was refused; nothing of it was decided.
    #[error("the request was refused: {0:?}")]
    Refused(Refusal),
    /// The request breaks rules that show only in the whole of it.
    #[error("the request is not valid")]
    Invalid(Vec<Violation>),
    /// A record was sent twice in one replacement.
    #[error("a record was sent twice")]
    SentTwice(RecordKey),
    /// Somebody has written what the caller had not seen.
    #[error("the space has changed: it is at {head}")]
    SpaceChanged { head: Revision },
    /// The space is being replaced.
    #[error("the space is being replaced")]
    Replacing,
    /// The cursor cannot be resumed.
    #[error("the cursor cannot be resumed: {fault:?}")]
    Cursor { fault: CursorFault, epoch: Epoch, head: Revision, floor: Revision },
    /// A revision of the past cannot be read.
    #[error("the revision cannot be read: {fault:?}")]
    Revision { fault: CursorFault, epoch: Epoch, head: Revision, floor: Revision },
    /// Whoever wanted it has not fetched it.
    #[error("nothing was read for too long")]
    Unread,
    /// Too much waits already.
    #[error("too many requests are waiting")]
    Overloaded,
    /// The server is going away.
    #[error("the server is stopping")]
    Stopping,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Arc<store::Error>),
    /// The store takes too long.
    #[error("the store has not answered in time")]
    SlowStore,
    /// A bug of ours.
    #[error("a task panicked")]
    Panicked(#[source] Arc<tokio::task::JoinError>),
}

impl Error {
    /// Whether the store failed in a way that may pass.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(failure) => failure.is_retryable(),
            other => matches!(other, Self::SlowStore | Self::Replacing),
        }
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        match denied {
            // Whether a space is closed to somebody or does not exist cannot be told apart.
            Denied::Unseen => Self::SpaceNotFound,
            Denied::NotGranted(right) => Self::NotGranted(right),
            Denied::Collection(collection) => Self::CollectionNotGranted(collection),
            Denied::WholeSpace => Self::WholeSpaceNotGranted,
        }
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(panic: tokio::task::JoinError) -> Self {
        Self::Panicked(Arc::new(panic))
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Gone => Self::SpaceNotFound,
            other => Self::Store(Arc::new(other)),
        }
    }
}
