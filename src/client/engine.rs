//! What to do next, and when: a machine without I/O, clock or randomness of its own. It owns the
//! link's and each space's state, waits and deadlines; must not know documents, the wire or the
//! local file. `session` does what it asks for, and tells it what came of that.

mod action;
mod event;
mod fault;
mod state;

use std::time::Duration;

pub(super) use action::{Action, Parked, Report};
pub(super) use event::{
    Event, Place, Queue, RequestNo, Settled, SpaceInfo, SpaceNo, Told, Trigger,
};
pub(super) use state::{EngineState, SpaceStanding};

pub use fault::{Code, Fault};
pub use state::{HaltReason, LinkState, Phase, TokenTrouble};

/// How changes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// On a stream, as they happen.
    Live,
    /// By calls, as often as that, and when there is something to send.
    Poll { every: Duration },
}

/// What the engine is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub(super) mode: Mode,
}
