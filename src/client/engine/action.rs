//! What the engine asks for. Whoever drives it does these things in their order; if the local file
//! fails at one, the others of that space that came with it are left out, and `StoreFailed` is
//! told. Must not know how they are done.

use std::fmt;

use super::{Fault, RequestNo, SpaceNo};
use crate::domain::{CollectionName, CursorFault, Epoch, Revision, Sequence};

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Get a token from the app: `TokenReady` or `TokenFailed`. With `force` not the one that it
    /// gave before.
    FetchToken { request: RequestNo, force: bool },
    /// Open the link, with the token: `Connected`, then or instead `LinkLost`.
    Connect { request: RequestNo },
    /// Close the link at once. `LinkLost` need not follow.
    Hangup,
    /// Go on with the token that was fetched, on the stream that is open.
    RefreshToken,

    /// Ask where the space is, with our device: `StatusTold` or `Failed`.
    AskStatus { space: SpaceNo, request: RequestNo },
    /// Give sequences to as many entries, durably, and send them as one batch: those that are
    /// frozen first and unchanged. `Taken`, then `Answered` or `Failed`.
    Take { space: SpaceNo, request: RequestNo, entries_max: u32 },
    /// The same, and read a page of changes, in one call: `Taken` if there are entries, then
    /// `Exchanged` or `Failed`. With 0 entries it only reads.
    Exchange { space: SpaceNo, request: RequestNo, entries_max: u32 },
    /// Follow the space from the cursor that is stored: `Subscribed`, and so on, until `Failed`.
    Subscribe { space: SpaceNo, request: RequestNo },
    /// No longer. Nothing of it is told any more.
    Unsubscribe { space: SpaceNo, request: RequestNo },
    /// Say that everything up to there is stored.
    Ack { space: SpaceNo, request: RequestNo, revision: Revision },
    /// Load a snapshot beside what is shown and swap it in at its end; None = of all that is
    /// wanted. One that was interrupted goes on. `LoadedPart`, at last `Loaded` or `Failed`: with
    /// EPOCH_CHANGED if the snapshot is of another epoch than this. Not swapped in if the epoch
    /// that is stored has become another one, or the space is loaded once more meanwhile.
    Load {
        space: SpaceNo,
        request: RequestNo,
        epoch: Epoch,
        collections: Option<Vec<CollectionName>>,
    },
    /// Compare the digest that came with the last `CaughtUp`, or, if that was compared, or without
    /// a stream, that of `GetStatus`: `DigestCompared` or `Failed`.
    CompareDigest { space: SpaceNo, request: RequestNo },

    /// Store the epoch. If another one was stored, or none, the state is no longer loaded from this
    /// moment on, in the same transaction.
    Adopt { space: SpaceNo, epoch: Epoch },
    /// The server has lost what the state that is stored was made of: it is no longer loaded, and
    /// its revisions say nothing.
    Distrust { space: SpaceNo },
    /// Store the epoch as by `Adopt`; and take the sequences from all entries that have one: the next that is given is
    /// the one after `device_sequence`.
    Renumber { space: SpaceNo, epoch: Epoch, device_sequence: Sequence },
    /// Entries fail, for the app to edit, to retry or to discard.
    Park { space: SpaceNo, what: Parked, fault: Fault },
    /// The front entry was refused alone once more.
    CountAttempt { space: SpaceNo },
    /// Drop the state that is stored, not the queue: the space is no longer loaded.
    Forget { space: SpaceNo },
    /// Read the space from the local file anew: `SpaceRead` or `StoreFailed`.
    Read { space: SpaceNo, request: RequestNo },
    /// All that waited in a space that nobody wants was sent: `SpaceRemoved`, unless more waits.
    Leave { space: SpaceNo },

    /// Tell it: to the log, and where status is shown.
    Report(Report),
}

impl Action {
    /// Whose file it works on.
    pub(crate) fn space(&self) -> Option<SpaceNo> {
        match self {
            Self::FetchToken { .. }
            | Self::Connect { .. }
            | Self::Hangup
            | Self::RefreshToken
            | Self::Report(_) => None,
            Self::AskStatus { space, .. }
            | Self::Take { space, .. }
            | Self::Exchange { space, .. }
            | Self::Subscribe { space, .. }
            | Self::Unsubscribe { space, .. }
            | Self::Ack { space, .. }
            | Self::Load { space, .. }
            | Self::CompareDigest { space, .. }
            | Self::Adopt { space, .. }
            | Self::Renumber { space, .. }
            | Self::Park { space, .. }
            | Self::CountAttempt { space }
            | Self::Distrust { space }
            | Self::Forget { space }
            | Self::Leave { space }
            | Self::Read { space, .. } => Some(*space),
        }
    }
}

impl Action {
    /// What its answer belongs to.
    pub(crate) fn request(&self) -> Option<RequestNo> {
        match self {
            Self::FetchToken { request, .. }
            | Self::Connect { request }
            | Self::AskStatus { request, .. }
            | Self::Take { request, .. }
            | Self::Exchange { request, .. }
            | Self::Subscribe { request, .. }
            | Self::Unsubscribe { request, .. }
            | Self::Ack { request, .. }
            | Self::Load { request, .. }
            | Self::CompareDigest { request, .. }
            | Self::Read { request, .. } => Some(*request),
            Self::Hangup
            | Self::RefreshToken
            | Self::Adopt { .. }
            | Self::Renumber { .. }
            | Self::Park { .. }
            | Self::CountAttempt { .. }
            | Self::Distrust { .. }
            | Self::Forget { .. }
            | Self::Leave { .. }
            | Self::Report(_) => None,
        }
    }
}

/// Which entries fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parked {
    /// The first, whose sequence was not used: it and all behind it lose theirs, and the next that
    /// is given is its.
    Front,
    /// The first, which the server has decided, though it does not tell what became of it: it may
    /// have taken effect. Those behind it keep their sequences.
    Decided,
    /// All. They lose their sequences.
    All,
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The link has ended, or could not be made.
    LinkLost { fault: Fault },
    /// The server does not take the tokens of the app.
    TokenRefused { fault: Fault },
    /// The app gives no token.
    TokenFailed { message: String },
    /// What is stored differs from what the server has; these are loaded again.
    Healing { space: SpaceNo, collections: Vec<CollectionName> },
    /// They are as on the server.
    Healed { space: SpaceNo, collections: Vec<CollectionName> },
    /// They differ each time. They are left so until the next link.
    HealingInVain { space: SpaceNo, collections: Vec<CollectionName> },
    /// The state is loaded anew, because the cursor cannot be resumed.
    Reset { space: SpaceNo, fault: CursorFault },
    /// The device's queue was not where the server has it, and goes on from there.
    Renumbered { space: SpaceNo, device_sequence: Sequence },
    /// Entries have failed.
    Parked { space: SpaceNo, what: Parked, fault: Fault },
    /// The space may not be seen, or not be written.
    AccessLost { space: SpaceNo, fault: Fault },
    /// The server has sequences of our device that this file did not give.
    FileIsBehind { space: SpaceNo, last_sequence: Sequence, device_sequence: Sequence },
    /// The local file could not be read or written.
    StoreFailed { space: SpaceNo, message: String },
}

impl Report {
    /// In which space.
    pub(crate) fn space(&self) -> Option<SpaceNo> {
        match self {
            Self::LinkLost { .. } | Self::TokenRefused { .. } | Self::TokenFailed { .. } => None,
            Self::Healing { space, .. }
            | Self::Healed { space, .. }
            | Self::HealingInVain { space, .. }
            | Self::Reset { space, .. }
            | Self::Renumbered { space, .. }
            | Self::Parked { space, .. }
            | Self::AccessLost { space, .. }
            | Self::FileIsBehind { space, .. }
            | Self::StoreFailed { space, .. } => Some(*space),
        }
    }
}

impl fmt::Display for SpaceNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RequestNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
