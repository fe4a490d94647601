//! What the engine is told. Names, counts, revisions and faults only; must not know documents,
//! the wire or the local file.
//!
//! What a local step led to is told before anything else. What the server says on the stream is
//! told in its order, and nothing of a stream after the link that it belonged to has ended.

use std::time::Duration;

use super::Fault;
use crate::domain::{CollectionName, Epoch, Revision, Sequence};

/// A space, by a number that the local file gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SpaceNo(pub(crate) u64);

/// What an answer belongs to: each action that has an answer has a number of its own, which
/// is never used again. Written in decimal it names subscriptions and batches on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestNo(pub(crate) u64);

/// What waits in a space's queue, as it is in the local file. What failed or was answered does
/// not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Entries at its front that have a sequence: they were sent, perhaps, and not answered.
    pub(crate) frozen: u64,
    /// Entries behind these, without a sequence.
    pub(crate) waiting: u64,
    /// The highest sequence that this file gave, or was told to go on from.
    pub(crate) last_sequence: Sequence,
}

/// A space as it is in the local file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpaceInfo {
    /// False: nobody follows it, but what waits in it is sent.
    pub(crate) wanted: bool,
    /// None as long as the server was never asked.
    pub(crate) epoch: Option<Epoch>,
    /// Up to where changes are stored.
    pub(crate) cursor: Revision,
    /// False: it has to be loaded by a snapshot first.
    pub(crate) loaded: bool,
    pub(crate) queue: Queue,
    /// How often the front entry was refused alone: see `Action::CountAttempt`.
    pub(crate) attempts: u32,
}

/// What the server says of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) epoch: Epoch,
    pub(crate) head: Revision,
    pub(crate) floor: Revision,
    /// The last sequence that it has of our device.
    pub(crate) device_sequence: Sequence,
    /// How many mutations it takes in a batch; 0 = it does not say.
    pub(crate) batch_max: u32,
}

/// What became of the entries of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) applied: u64,
    pub(crate) merged: u64,
    pub(crate) superseded: u64,
    pub(crate) conflicts: u64,
    pub(crate) failed: u64,
}

/// How far a call has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) up_to: Revision,
    pub(crate) head: Revision,
    /// There is more to read.
    pub(crate) more: bool,
}

/// Where one subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) space: SpaceNo,
    pub(crate) up_to: Revision,
    pub(crate) head: Revision,
}

/// Why now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Something was queued, perhaps by another process.
    Changed { space: SpaceNo },
    /// There is a network, or another one.
    Network,
    /// The app came to the front.
    Foreground,
    /// The system lets us work for a moment.
    Periodic,
    /// A person asked for it.
    Demand,
    /// Something told us that the space has moved.
    Hint { space: SpaceNo },
    /// The system says that there is no network.
    Offline,
}

/// Something has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A space is to be synced. One that is there already begins anew.
    SpaceAdded {
        space: SpaceNo,
        info: SpaceInfo,
    },
    /// Answers `Read`.
    SpaceRead {
        space: SpaceNo,
        request: RequestNo,
        info: SpaceInfo,
    },
    /// It is no longer to be synced.
    SpaceRemoved {
        space: SpaceNo,
    },
    Trigger(Trigger),
    /// Time has passed.
    Tick,

    /// Answers `FetchToken`: there is one, for whatever is called from here on.
    TokenReady {
        request: RequestNo,
    },
    /// Answers `FetchToken`.
    TokenFailed {
        request: RequestNo,
        message: String,
    },
    /// Answers `Connect`: the stream is open, or, without one, calls can be made.
    Connected {
        request: RequestNo,
    },
    /// The link could not be made, or has ended. Its number is that of `Connect`.
    LinkLost {
        request: RequestNo,
        fault: Fault,
    },

    /// Something came from the server that no other event tells of.
    Heard,
    /// The server's sign of life. The cursors are stored already.
    Progress {
        store_ok: bool,
        token_expires_in: Option<Duration>,
        places: Vec<Place>,
    },
    /// The server ends the link next.
    GoingAway {
        retry_after: Duration,
        token_expired: bool,
    },
    /// What we may has changed.
    AccessChanged {
        space: SpaceNo,
    },

    /// Answers `AskStatus`.
    StatusTold {
        space: SpaceNo,
        request: RequestNo,
        told: Told,
    },
    /// Entries got their sequences, from this one on, and go out: to a `Take`, or to an `Exchange`.
    /// None at all ends a `Take`.
    Taken {
        space: SpaceNo,
        request: RequestNo,
        count: u64,
        first: Sequence,
        queue: Queue,
    },
    /// The entries of a `Take` got their results, which are stored. Told whatever has become of
    /// the space meanwhile, as long as the link lasts.
    Answered {
        space: SpaceNo,
        request: RequestNo,
        settled: Settled,
        queue: Queue,
    },
    /// Answers `Exchange`: results and changes are stored.
    Exchanged {
        space: SpaceNo,
        request: RequestNo,
        settled: Settled,
        queue: Queue,
        page: Page,
    },
    /// The call, batch, load or subscription ended with this. A `resync_required` is one with
    /// `Fault::of_cursor`. Not told where `LinkLost` tells of it.
    Failed {
        space: SpaceNo,
        request: RequestNo,
        fault: Fault,
    },

    /// A subscription has begun.
    Subscribed {
        space: SpaceNo,
        request: RequestNo,
        head: Revision,
    },
    /// A range of changes is stored.
    Absorbed {
        space: SpaceNo,
        request: RequestNo,
        up_to: Revision,
        whole: bool,
    },
    /// A range does not follow on the one before, and was not stored.
    Missed {
        space: SpaceNo,
        request: RequestNo,
    },
    /// A subscription has caught up, and the cursor is stored.
    CaughtUp {
        space: SpaceNo,
        request: RequestNo,
        up_to: Revision,
    },
    /// What the subscription showed may no longer be seen.
    RemovedFromView {
        space: SpaceNo,
        request: RequestNo,
    },

    /// A part of a snapshot is stored, beside what is shown.
    LoadedPart {
        space: SpaceNo,
        request: RequestNo,
    },
    /// A snapshot is complete, and shown.
    Loaded {
        space: SpaceNo,
        request: RequestNo,
        revision: Revision,
    },
    /// Answers `CompareDigest`, if not with `Failed`; None: it could not be told, for instance
    /// because results that are stored are ahead of the digest.
    DigestCompared {
        space: SpaceNo,
        request: RequestNo,
        differing: Option<Vec<CollectionName>>,
    },

    /// The local file could not be read or written: for an action with this number, or for an
    /// answer to it. What was to be stored was not, and nothing more is told of that request.
    StoreFailed {
        space: SpaceNo,
        request: Option<RequestNo>,
        message: String,
    },
}
