//! One space on its way from the local file to being live: its steps, and what ends them. What
//! it is told of itself is in `place`, what it may in `access`, what it sends in `push`, how it
//! follows in `follow`, what it shows in `show`. Must not know other spaces.

use std::time::Duration;

use super::fault::{FaultKind, kind};
use super::follow::{Following, Healing, Polling};
use super::push::{Batch, Push};
use super::turn::{Turn, Wait};
use super::{Action, Fault, HaltReason, Mode, Queue, Report, RequestNo, SpaceInfo, SpaceNo};
use crate::client::backoff::Backoff;
use crate::domain::{CursorFault, Epoch, Revision, Sequence};

/// For a call that answers at once or not at all.
pub(super) const CALL_MAX: Duration = Duration::from_secs(15);
/// How often a space that may not be seen is looked at.
pub(super) const ACCESS_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Space {
    pub(super) no: SpaceNo,
    /// False: it sends what waits, and that is all.
    pub(super) wanted: bool,
    pub(super) epoch: Option<Epoch>,
    pub(super) loaded: bool,
    pub(super) up_to: Revision,
    pub(super) head: Revision,
    pub(super) queue: Queue,
    /// How often the front entry was refused alone.
    pub(super) attempts: u32,
    pub(super) step: Step,
    pub(super) push: Push,
    pub(super) batch: Batch,
    /// Of everything but pushing.
    pub(super) backoff: Backoff,
    pub(super) push_backoff: Backoff,
    store_backoff: Backoff,
    pub(super) healing: Healing,
    /// What was sent from this sequence on does not fit, says the server: sequences are given anew
    /// as soon as that is safe.
    pub(super) gap: Option<Sequence>,
    /// The link has ended for what was sent on it, which may be ours: until something of it is
    /// answered it is sent while no other suspect is.
    pub(super) suspected: bool,
    /// The front entry has ended the link too often: it fails, unless the server has it.
    pub(super) blamed: Option<Fault>,
    /// Writes are refused.
    pub(super) read_only: Option<Wait>,
    /// The space cannot be seen: what is queued fails as soon as nothing of it is in flight.
    pub(super) park: Option<Fault>,
    /// As it was last told.
    pub(super) access: bool,
    pub(super) fault: Option<Fault>,
    pub(super) store_error: Option<String>,
}

#[derive(Debug)]
pub(super) enum Step {
    /// Then the server is asked where the space is: every way begins with that.
    Resting(Wait),
    Asking {
        request: RequestNo,
        until: Duration,
    },
    /// Until nothing is frozen; then on to whatever comes next.
    Settling,
    Loading {
        request: RequestNo,
        until: Duration,
        healing: bool,
    },
    Following(Following),
    Polling(Polling),
    NoAccess(Wait),
    Halted(HaltReason),
    /// Nobody wants it, and nothing waits in it.
    Left,
    /// The local file failed.
    Broken(Wait),
    Reading {
        request: RequestNo,
        until: Duration,
    },
}

impl Space {
    pub(super) fn new(no: SpaceNo, info: SpaceInfo, now: Duration) -> Self {
        Self {
            no,
            wanted: info.wanted,
            epoch: info.epoch,
            loaded: info.loaded,
            up_to: info.cursor,
            head: info.cursor,
            queue: info.queue,
            attempts: info.attempts,
            step: Step::Resting(Wait::none(now)),
            push: Push::Idle(Wait::none(now)),
            batch: Batch::new(),
            backoff: Backoff::default(),
            push_backoff: Backoff::default(),
            store_backoff: Backoff::default(),
            healing: Healing::default(),
            gap: None,
            suspected: false,
            blamed: None,
            read_only: None,
            park: None,
            access: true,
            fault: None,
            store_error: None,
        }
    }

    /// It takes the place of another one, of the same space: what that has in flight is waited for.
    pub(super) fn succeed(&mut self, before: &mut Self, turn: &mut Turn) {
        before.unfollow(turn);
        before.push.store_failed(None, turn.now);
        std::mem::swap(&mut self.push, &mut before.push);
    }

    /// What time, and what has become possible, ask for.
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        // A step leads to another one a few times at most.
        for _ in 0..4 {
            if !self.advance_once(turn) {
                return;
            }
        }
    }

    /// True if another step was begun, which may have something to do at once.
    fn advance_once(&mut self, turn: &mut Turn) -> bool {
        let now = turn.now;
        self.advance_leaving(turn);
        match &mut self.step {
            Step::Resting(wait) => {
                let due = wait.is_over(now) && turn.open && turn.status_slots > 0;
                // An answer that is on its way would look like a gap, or like a foreign file.
                if due && self.push.is_idle() {
                    let request = turn.ask_status(self.no);
                    self.step = Step::Asking { request, until: now + CALL_MAX };
                }
                self.watch_push(turn);
                false
            }
            Step::Asking { until, .. } | Step::Loading { until, .. } if now >= *until => {
                turn.hang_up(Fault::silence("a call was not answered in time"));
                false
            }
            Step::Settling => self.advance_settling(turn),
            Step::Following(_) => self.advance_following(turn),
            Step::Polling(_) => self.advance_polling(turn),
            Step::NoAccess(wait) => {
                let due = wait.is_over(now);
                self.watch_push(turn);
                self.park_all(turn);
                if due && self.park.is_none() {
                    self.step = Step::Resting(Wait::none(now));
                }
                due && self.park.is_none()
            }
            Step::Broken(wait) if wait.is_over(now) => {
                self.watch_push(turn);
                let request = turn.request();
                turn.act(Action::Read { space: self.no, request });
                self.step = Step::Reading { request, until: now + CALL_MAX };
                false
            }
            Step::Reading { until, .. } if now >= *until => {
                let message = "the local file could not be read in time".to_owned();
                self.store_failed(None, message, turn);
                false
            }
            Step::Broken(_) | Step::Reading { .. } => {
                self.watch_push(turn);
                false
            }
            Step::Asking { .. } | Step::Loading { .. } | Step::Halted(_) | Step::Left => false,
        }
    }

    /// What nobody wants ends with the last that was queued.
    fn advance_leaving(&mut self, turn: &mut Turn) {
        let ends = match self.step {
            Step::Resting(_) | Step::Asking { .. } | Step::Settling | Step::NoAccess(_) => true,
            Step::Loading { .. }
            | Step::Following(_)
            | Step::Polling(_)
            | Step::Halted(_)
            | Step::Left
            | Step::Broken(_)
            | Step::Reading { .. } => false,
        };
        let queued = self.queue.frozen + self.queue.waiting > 0;
        if !self.wanted && ends && !queued && self.push.is_idle() {
            turn.act(Action::Leave { space: self.no });
            self.step = Step::Left;
        }
    }

    fn advance_settling(&mut self, turn: &mut Turn) -> bool {
        if self.queue.frozen > 0 || !self.push.is_idle() || !self.wanted {
            self.advance_push(turn);
            return false;
        }
        if !turn.open {
            return false;
        }
        if !self.loaded || self.healing.is_due() {
            self.begin_load(turn);
            return false;
        }
        self.begin_to_follow(turn);
        true
    }

    /// A call, a batch, a load or a subscription has failed.
    pub(super) fn failed(&mut self, request: RequestNo, fault: Fault, turn: &mut Turn) {
        match &self.step {
            Step::Asking { request: it, .. } if *it == request => {
                if !turn.called_in_vain(&fault) {
                    self.trouble(fault, turn);
                }
            }
            Step::Loading { request: it, .. } if *it == request => self.trouble(fault, turn),
            Step::Following(following) if following.request == request => {
                self.step = Step::Settling;
                self.trouble(fault, turn);
            }
            _ if self.compares(request) => {
                if !turn.called_in_vain(&fault) {
                    self.compared(request, None, turn);
                }
            }
            _ => self.push_failed(request, fault, turn),
        }
    }

    /// Something other than a batch has failed: the way begins anew, later.
    pub(super) fn trouble(&mut self, fault: Fault, turn: &mut Turn) {
        match kind(&fault) {
            FaultKind::NoAccess | FaultKind::NotPermitted => {
                self.lose_access(fault, turn);
                return;
            }
            FaultKind::Token => turn.hang_up(fault.clone()),
            FaultKind::Cursor(CursorFault::EpochChanged) => {}
            FaultKind::Cursor(cursor) => self.reset(cursor, turn),
            FaultKind::Link
            | FaultKind::Limited
            | FaultKind::Permanent
            | FaultKind::Temporary
            | FaultKind::SequenceGap => {}
        }
        // A cursor that is too old is nobody's failure, if it is not so again and again.
        let first = self.backoff.failures() == 0;
        let wait = turn.after(&mut self.backoff, &fault);
        let at_once = first && matches!(kind(&fault), FaultKind::Cursor(_));
        self.fault = Some(fault);
        self.rest(if at_once { Wait::none(turn.now) } else { wait }, turn);
    }

    pub(super) fn rest(&mut self, wait: Wait, turn: &mut Turn) {
        self.unfollow(turn);
        self.step = Step::Resting(wait);
    }

    /// Something says that it is worth trying now.
    pub(super) fn hurry(&mut self, now: Duration) {
        match &mut self.step {
            Step::Resting(wait) | Step::Broken(wait) => wait.hurry(now),
            Step::Polling(polling) => polling.next.hurry(now),
            Step::Asking { .. }
            | Step::Settling
            | Step::Loading { .. }
            | Step::Following(_)
            | Step::NoAccess(_)
            | Step::Halted(_)
            | Step::Left
            | Step::Reading { .. } => {}
        }
        if let Push::Idle(wait) = &mut self.push {
            wait.hurry(now);
        }
        self.backoff.reset();
        self.push_backoff.reset();
    }

    /// Something went well.
    pub(super) fn well(&mut self, turn: &mut Turn) {
        turn.useful = true;
        self.fault = None;
        self.store_error = None;
        self.store_backoff.reset();
    }

    /// The link is no longer there, and what was asked on it is not answered any more.
    pub(super) fn link_lost(&mut self, fault: Option<&Fault>, turn: &mut Turn) {
        self.healing.link_lost();
        self.push_lost(fault, turn);
        let now = turn.now;
        match self.step {
            Step::Asking { .. } | Step::Settling | Step::Following(_) | Step::Polling(_) => {
                self.step = Step::Resting(Wait::none(now));
            }
            // It may be swapped in already, and nobody has heard of that.
            Step::Loading { .. } => self.step = Step::Broken(Wait::none(now)),
            Step::Resting(_)
            | Step::NoAccess(_)
            | Step::Halted(_)
            | Step::Left
            | Step::Broken(_)
            | Step::Reading { .. } => {}
        }
    }

    /// The local file failed: nobody knows what of the last actions it has.
    pub(super) fn store_failed(
        &mut self,
        request: Option<RequestNo>,
        message: String,
        turn: &mut Turn,
    ) {
        self.unfollow(turn);
        turn.report(Report::StoreFailed { space: self.no, message: message.clone() });
        self.store_error = Some(message);
        self.push.store_failed(request, turn.now);
        let wait = self.store_backoff.failed(&mut turn.random);
        self.step = Step::Broken(Wait::long(turn.now, wait));
    }

    /// The local file was read anew.
    pub(super) fn read(&mut self, request: RequestNo, info: &SpaceInfo, turn: &Turn) {
        if !matches!(self.step, Step::Reading { request: it, .. } if it == request) {
            return;
        }
        self.wanted = info.wanted;
        self.epoch = info.epoch;
        self.loaded = info.loaded;
        self.up_to = info.cursor;
        self.queue = info.queue;
        self.attempts = info.attempts;
        self.healing.link_lost();
        self.step = Step::Resting(Wait::none(turn.now));
    }

    /// Something is to be sent.
    pub(super) fn changed(&mut self, now: Duration) {
        self.queue.waiting = self.queue.waiting.max(1);
        if matches!(self.step, Step::Left) {
            self.step = Step::Resting(Wait::none(now));
        }
    }

    /// How the space follows in this mode.
    pub(super) fn begin_to_follow(&mut self, turn: &mut Turn) {
        self.step = match turn.mode {
            Mode::Live => Step::Following(Following::begin(self.no, self.up_to, turn)),
            Mode::Poll { .. } => Step::Polling(Polling::begin(self.up_to, turn.now)),
        };
    }
}
