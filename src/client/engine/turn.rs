//! One turn of the engine: what all of its parts share while an event is handled, and waits. Must
//! not know what is waited for.

use std::time::Duration;

use super::fault::{FaultKind, kind};
use super::{Action, Fault, Mode, Report, RequestNo, SpaceNo};
use crate::client::backoff::{Backoff, Random};

/// What a server may ask us to wait at most.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// No trigger makes a retry come sooner than that after the failure.
const HURRY: Duration = Duration::from_secs(1);
/// Spaces whose status is asked at the same time.
const STATUS_SLOTS: usize = 8;
/// Spaces that are loaded at the same time: each stages its records.
const LOAD_SLOTS: usize = 2;
/// Batches that are in flight at the same time: a server reads on only after an answer if they
/// are too many.
pub(super) const PUSH_SLOTS: usize = 16;

/// A moment to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) until: Duration,
    /// Not even a trigger cuts it shorter.
    at_least: Duration,
}

impl Wait {
    /// Not at all.
    pub(super) fn none(now: Duration) -> Self {
        Self { until: now, at_least: now }
    }

    /// So long, unless a trigger comes.
    pub(super) fn long(now: Duration, wait: Duration) -> Self {
        Self { until: now + wait, at_least: now + wait.min(HURRY) }
    }

    /// So long, whatever comes.
    pub(super) fn fixed(now: Duration, wait: Duration) -> Self {
        Self { until: now + wait, at_least: now + wait }
    }

    /// Whichever is longer.
    pub(super) fn and(self, other: Self) -> Self {
        Self { until: self.until.max(other.until), at_least: self.at_least.max(other.at_least) }
    }

    /// Something says that it is worth trying now.
    pub(super) fn hurry(&mut self, now: Duration) {
        self.until = self.until.min(now.max(self.at_least));
    }

    /// Until then, or until a trigger comes; but what it had to wait for at least it still does.
    pub(super) fn put_off(self, until: Duration) -> Self {
        Self { until: until.max(self.at_least), ..self }
    }

    /// Whether somebody has asked for it.
    #[cfg(debug_assertions)]
    pub(super) fn is_told(self, now: Duration) -> bool {
        self.at_least > now + HURRY
    }

    pub(super) fn is_over(self, now: Duration) -> bool {
        now >= self.until
    }
}

/// What an event is handled with.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) now: Duration,
    pub(super) mode: Mode,
    /// New things may be asked of the server: the link is up, and is not about to end.
    pub(super) open: bool,
    pub(super) random: Random,
    pub(super) last_request: RequestNo,
    pub(super) actions: Vec<Action>,
    pub(super) status_slots: usize,
    pub(super) load_slots: usize,
    push_slots: usize,
    /// Whether a batch is in flight that may end the link.
    suspect: bool,
    /// The space that was last given one of these.
    pub(super) served: Option<SpaceNo>,
    /// Something useful was answered on the link.
    pub(super) useful: bool,
    /// The link has to go, because of this.
    pub(super) broken: Option<Fault>,
}

impl Turn {
    pub(super) fn new(now: Duration, mode: Mode, random: Random, last_request: RequestNo) -> Self {
        Self {
            now,
            mode,
            open: false,
            random,
            last_request,
            actions: Vec::new(),
            status_slots: STATUS_SLOTS,
            load_slots: LOAD_SLOTS,
            push_slots: PUSH_SLOTS,
            suspect: false,
            served: None,
            useful: false,
            broken: None,
        }
    }

    /// A number that was never used.
    pub(super) fn request(&mut self) -> RequestNo {
        self.last_request = RequestNo(self.last_request.0.saturating_add(1));
        self.last_request
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn report(&mut self, report: Report) {
        self.actions.push(Action::Report(report));
    }

    /// Whether this fault of a call ends the link: without a stream nothing else shows that
    /// nobody is there.
    pub(super) fn called_in_vain(&mut self, fault: &Fault) -> bool {
        let unspoken = fault.reason.is_empty() && kind(fault) == FaultKind::Link;
        let in_vain = unspoken && self.mode != Mode::Live;
        if in_vain {
            self.hang_up(fault.clone());
        }
        in_vain
    }

    /// The link is not as it should be: it is closed at the end of the turn.
    pub(super) fn hang_up(&mut self, fault: Fault) {
        self.broken.get_or_insert(fault);
    }

    /// So many calls are under way already.
    pub(super) fn limit_slots(&mut self, asking: usize, loading: usize, pushing: usize) {
        self.status_slots = STATUS_SLOTS.saturating_sub(asking);
        self.load_slots = LOAD_SLOTS.saturating_sub(loading);
        self.push_slots = PUSH_SLOTS.saturating_sub(pushing);
    }

    /// Whether a batch that may end the link is in flight.
    pub(super) fn limit_suspects(&mut self, in_flight: bool) {
        self.suspect = in_flight;
    }

    /// Whether one more batch may go out now.
    pub(super) fn take_push_slot(&mut self, space: SpaceNo, suspected: bool) -> bool {
        let free = self.push_slots > 0 && !(suspected && self.suspect);
        if free {
            self.push_slots -= 1;
            self.suspect |= suspected;
            self.served = Some(space);
        }
        free
    }

    /// Asks for the status of a space.
    pub(super) fn ask_status(&mut self, space: SpaceNo) -> RequestNo {
        self.status_slots = self.status_slots.saturating_sub(1);
        self.served = Some(space);
        let request = self.request();
        self.act(Action::AskStatus { space, request });
        request
    }

    /// How long to wait after one more failure.
    pub(super) fn after(&mut self, backoff: &mut Backoff, fault: &Fault) -> Wait {
        let wait = Wait::long(self.now, backoff.failed(&mut self.random));
        wait.and(self.told_to_wait(fault.retry_after))
    }

    /// How long the server wants us to wait.
    pub(super) fn told_to_wait(&self, retry_after: Option<Duration>) -> Wait {
        Wait::fixed(self.now, retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }
}
