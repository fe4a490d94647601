//! What the engine shows of itself: for a status that an app can read. Must not be read to decide.

use std::time::Duration;

use super::{Fault, SpaceNo};
use crate::domain::{Revision, Sequence};

/// The engine at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineState {
    pub(crate) link: LinkState,
    /// What is wrong with tokens, until one is taken.
    pub(crate) token: Option<TokenTrouble>,
    /// False while the server says that its store does not answer: what is shown may be old.
    pub(crate) store_ok: bool,
    /// By number.
    pub(crate) spaces: Vec<SpaceStanding>,
}

/// The connection to the server. Times are since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Nothing is to be synced.
    Idle,
    /// The system says that there is no network; tried nevertheless at `until`.
    Offline {
        until: Duration,
    },
    /// Tried again at `until`, after so many failures in a row.
    Waiting {
        until: Duration,
        attempt: u32,
        why: Option<Fault>,
    },
    /// The app is asked for a token.
    FetchingToken,
    Connecting,
    Up {
        since: Duration,
    },
}

/// Why there is no good token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenTrouble {
    /// The app gives none.
    Failed { message: String },
    /// The server refuses what the app gives, also after it was asked for another one.
    Refused { fault: Fault },
}

/// A space at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpaceStanding {
    pub(crate) space: SpaceNo,
    pub(crate) phase: Phase,
    /// The last thing that went wrong, until something goes well.
    pub(crate) fault: Option<Fault>,
    /// The local disk's last error, until it works.
    pub(crate) store_error: Option<String>,
    /// Writes are refused, while the space may be read.
    pub(crate) read_only: bool,
    /// Entries sent and not answered, and entries not sent yet.
    pub(crate) frozen: u64,
    pub(crate) waiting: u64,
    /// How many entries a batch takes at most, as it is now.
    pub(crate) batch_entries: u32,
    /// Up to where changes are stored, and how far the server is.
    pub(crate) up_to: Revision,
    pub(crate) head: Revision,
}

/// Where a space is on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// For the link, or, until then, after a failure of its own.
    Waiting { until: Option<Duration> },
    /// The server is asked where the space is.
    Status,
    /// What was sent before is answered first.
    Settling,
    /// A snapshot is loaded; `healing`: of some collections, which differ.
    Loading { healing: bool },
    /// Changes come that were made while we were away.
    CatchingUp { from: Revision, up_to: Revision, head: Revision },
    /// Changes come as they happen, or, without a stream, as often as asked.
    Live,
    /// The space may not be seen. Looked at again at `until`.
    NoAccess { until: Duration },
    /// Nothing is done any more.
    Halted(HaltReason),
    /// The local file failed. Read again at `until`.
    Broken { until: Duration },
}

/// Why nothing is done any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaltReason {
    /// The server has sequences of our device that this file did not give: the file is an
    /// older copy, or another installation uses its device id.
    FileIsBehind { last_sequence: Sequence, device_sequence: Sequence },
}
