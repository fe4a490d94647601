//! What a space sends: one batch at a time, how large, and what is done when it is refused.

use std::time::Duration;

use super::fault::{FaultKind, kind, may_have_happened};
use super::space::{ACCESS_EVERY, CALL_MAX, Space, Step};
use super::turn::{Turn, Wait};
use super::{Action, Fault, Parked, Queue, RequestNo, Settled, Told};
use crate::client::backoff::full_wait;
use crate::domain::{CursorFault, Sequence};

/// For a batch.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Answers that come sooner let batches grow, those that come later make them smaller.
const QUICK: Duration = Duration::from_millis(500);
const SLOW: Duration = Duration::from_secs(2);
const BATCH_FIRST: u32 = 100;
const BATCH_MAX: u32 = 1_000;
/// How often an entry is refused alone before it fails.
const ATTEMPTS_MAX: u32 = 5;
/// The same if the server has its sequence: then it was decided, and its answer is still hoped for.
const DECIDED_ATTEMPTS_MAX: u32 = 10;

/// How many entries are sent together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) entries: u32,
    max: u32,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { entries: BATCH_FIRST, max: BATCH_MAX }
    }

    /// What the server takes; 0 = it does not say.
    pub(super) fn limit(&mut self, max: u32) {
        self.max = if max == 0 { BATCH_MAX } else { max.min(BATCH_MAX) };
        self.entries = self.entries.min(self.max);
    }

    fn answered(&mut self, count: u64, took: Duration) {
        if took > SLOW {
            self.halve(count);
        } else if took < QUICK && count >= u64::from(self.entries) {
            self.entries = self.entries.saturating_mul(2).min(self.max);
        }
    }

    /// Half of what was sent.
    fn halve(&mut self, count: u64) {
        let sent = u32::try_from(count).unwrap_or(u32::MAX).min(self.entries);
        self.entries = (sent / 2).max(1);
    }
}

#[derive(Debug)]
pub(super) enum Push {
    Idle(Wait),
    InFlight {
        request: RequestNo,
        since: Duration,
        /// How many went out, as far as it was told.
        count: u64,
        /// The sequence of the first of them.
        first: Sequence,
        exchange: bool,
    },
    /// Before the front entry fails the server is asked whether it has it nevertheless.
    Checking {
        request: RequestNo,
        until: Duration,
        fault: Fault,
    },
}

impl Push {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle(_))
    }

    pub(super) fn is_checking(&self) -> bool {
        matches!(self, Self::Checking { .. })
    }

    /// When its answer is missed.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self {
            Self::Idle(_) => None,
            Self::InFlight { since, .. } => Some(*since + ANSWER_MAX),
            Self::Checking { until, .. } => Some(*until),
        }
    }

    fn is(&self, number: RequestNo) -> bool {
        match self {
            Self::Idle(_) => false,
            Self::InFlight { request, .. } | Self::Checking { request, .. } => *request == number,
        }
    }

    /// What is in flight is waited for, or its answer would come unexpected; but not if that is
    /// what could not be stored.
    pub(super) fn store_failed(&mut self, failed: Option<RequestNo>, now: Duration) {
        let waits = match self {
            Self::InFlight { request, count, .. } => *count > 0 && Some(*request) != failed,
            Self::Idle(_) => true,
            Self::Checking { .. } => false,
        };
        if !waits {
            *self = Self::Idle(Wait::none(now));
        }
    }

    /// How many entries are in flight.
    fn sent(&self) -> u64 {
        match self {
            Self::InFlight { count, .. } => *count,
            Self::Idle(_) | Self::Checking { .. } => 0,
        }
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self, Self::InFlight { .. })
    }
}

impl Space {
    /// An answer that does not come ends the link.
    pub(super) fn watch_push(&self, turn: &mut Turn) {
        if self.push.deadline().is_some_and(|deadline| turn.now >= deadline) {
            turn.hang_up(Fault::silence("a batch was not answered in time"));
        }
    }

    /// How many entries may be sent now.
    pub(super) fn entries_max(&self, now: Duration) -> u32 {
        let Queue { frozen, waiting, .. } = self.queue;
        let denied = self.read_only.is_some_and(|wait| !wait.is_over(now));
        if denied || frozen + waiting == 0 {
            return 0;
        }
        // Before it goes on with something else, only what was sent before.
        let settles = self.wanted || frozen > 0;
        if matches!(self.step, Step::Settling) && settles || self.healing.is_due() {
            let frozen = u32::try_from(frozen).unwrap_or(u32::MAX);
            return self.batch.entries.min(frozen);
        }
        self.batch.entries
    }

    /// Sends, if there is something to send and nothing in flight. In `Step::Polling` it also
    /// reads, if that is due.
    pub(super) fn advance_push(&mut self, turn: &mut Turn) {
        self.watch_push(turn);
        let Push::Idle(wait) = self.push else { return };
        if !turn.open || !wait.is_over(turn.now) {
            return;
        }
        let (space, entries_max) = (self.no, self.entries_max(turn.now));
        let exchange = matches!(self.step, Step::Polling(_));
        let due = matches!(&self.step, Step::Polling(it) if it.next.is_over(turn.now));
        if entries_max == 0 && !due {
            return;
        }
        if let Some(fault) = self.blamed.take() {
            self.check(fault, turn);
            return;
        }
        if !turn.take_push_slot(self.no, self.suspected) {
            return;
        }
        let request = turn.request();
        turn.act(if exchange {
            Action::Exchange { space, request, entries_max }
        } else {
            Action::Take { space, request, entries_max }
        });
        let (since, count, first) = (turn.now, 0, Sequence::ZERO);
        self.push = Push::InFlight { request, since, count, first, exchange };
    }

    /// Entries got their sequences and go out.
    pub(super) fn taken(
        &mut self,
        number: RequestNo,
        (count, first): (u64, Sequence),
        queue: Queue,
        turn: &mut Turn,
    ) {
        self.queue = queue;
        let Push::InFlight { request, count: sent, first: from, exchange, .. } = &mut self.push
        else {
            return;
        };
        if *request != number {
            return;
        }
        (*sent, *from) = (count, first);
        if count == 0 && !*exchange {
            // Nothing can be taken, whatever was thought.
            self.queue.waiting = 0;
            let wait = Wait::long(turn.now, self.push_backoff.failed(&mut turn.random));
            self.push = Push::Idle(wait);
        }
    }

    /// A batch has got its results.
    pub(super) fn answered(
        &mut self,
        number: RequestNo,
        settled: &Settled,
        queue: Queue,
        turn: &mut Turn,
    ) {
        self.queue = queue;
        // What the server is being asked was perhaps answered before this.
        if matches!(self.step, Step::Asking { .. }) {
            self.step = Step::Resting(Wait::none(turn.now));
        }
        let Push::InFlight { request, since, count, .. } = self.push else { return };
        if request != number {
            return;
        }
        if count > 0 {
            self.suspected = false;
            self.batch.answered(count, turn.now.saturating_sub(since));
            self.attempts = 0;
            self.read_only = None;
        }
        self.push_backoff.reset();
        self.push = Push::Idle(Wait::none(turn.now));
        if *settled != Settled::default() {
            self.well(turn);
        }
    }

    /// A batch was refused as a whole, or the question before it fails was.
    pub(super) fn push_failed(&mut self, number: RequestNo, fault: Fault, turn: &mut Turn) {
        if !self.push.is(number) || turn.called_in_vain(&fault) {
            return;
        }
        let sent = self.push.sent();
        let first = match self.push {
            Push::InFlight { first, count, .. } if count > 0 => Some(first),
            _ => None,
        };
        let checking = self.push.is_checking();
        self.push = Push::Idle(Wait::none(turn.now));
        self.fault = Some(fault.clone());
        if matches!(self.step, Step::Halted(_) | Step::Broken(_) | Step::Reading { .. }) {
            self.push = Push::Idle(turn.after(&mut self.push_backoff, &fault));
            return;
        }
        if sent > 0 && may_have_happened(&fault) {
            self.settle(turn);
        }
        match kind(&fault) {
            FaultKind::Link => {
                if sent > 0 {
                    self.batch.halve(sent);
                }
                self.push_later(&fault, turn);
            }
            FaultKind::Limited => self.push_later(&fault, turn),
            FaultKind::Token => turn.hang_up(fault),
            FaultKind::Permanent | FaultKind::Temporary if sent > 1 => self.batch.halve(sent),
            FaultKind::Permanent if sent == 1 => self.check(fault, turn),
            FaultKind::Temporary if sent == 1 => self.count_attempt(fault, turn),
            FaultKind::Permanent | FaultKind::Temporary => self.push_later(&fault, turn),
            FaultKind::NotPermitted if sent > 0 => self.deny(fault, turn),
            FaultKind::NotPermitted | FaultKind::NoAccess => self.lose_access(fault, turn),
            FaultKind::SequenceGap => {
                self.gap = first;
                let wait = turn.after(&mut self.push_backoff, &fault);
                let once = self.push_backoff.failures() == 1;
                self.rest(if once { Wait::none(turn.now) } else { wait }, turn);
            }
            // A check has no cursor.
            FaultKind::Cursor(_) if checking => self.push_later(&fault, turn),
            FaultKind::Cursor(_) => {
                self.settle(turn);
                self.trouble(fault, turn);
            }
        }
    }

    /// The link has ended. If the server ended it because of something that was sent, it may be
    /// what is in flight: that is sent in smaller parts, then alone, and fails at last.
    pub(super) fn push_lost(&mut self, fault: Option<&Fault>, turn: &mut Turn) {
        let sent = self.push.sent();
        if !self.push.is_idle() {
            self.push = Push::Idle(Wait::none(turn.now));
        }
        let Some(fault) = fault.filter(|_| sent > 0) else { return };
        self.batch.halve(sent);
        if !matches!(kind(fault), FaultKind::Permanent | FaultKind::Temporary) {
            return;
        }
        self.suspected = true;
        if sent == 1 {
            self.attempts = self.attempts.saturating_add(1);
            turn.act(Action::CountAttempt { space: self.no });
            self.blamed = Some(fault.clone()).filter(|_| self.attempts >= ATTEMPTS_MAX);
        }
    }

    fn push_later(&mut self, fault: &Fault, turn: &mut Turn) {
        self.push = Push::Idle(turn.after(&mut self.push_backoff, fault));
    }

    /// What was sent has to be answered before anything else goes on: a change of our own must
    /// not come before its answer.
    fn settle(&mut self, turn: &mut Turn) {
        if matches!(self.step, Step::Following(_) | Step::Polling(_)) {
            self.unfollow(turn);
            self.step = Step::Settling;
        }
    }

    /// The front entry was refused alone. Perhaps it is taken another time.
    fn count_attempt(&mut self, fault: Fault, turn: &mut Turn) {
        self.attempts = self.attempts.saturating_add(1);
        turn.act(Action::CountAttempt { space: self.no });
        if self.attempts < ATTEMPTS_MAX {
            // Of this entry, whatever had failed before it.
            let wait = Wait::long(turn.now, turn.random.jittered(full_wait(self.attempts)));
            // Not for as long as the server asks: everything behind it would wait as well, and
            // after a few times it is set aside.
            self.push = Push::Idle(wait);
        } else {
            self.check(fault, turn);
        }
    }

    fn check(&mut self, fault: Fault, turn: &mut Turn) {
        let request = turn.ask_status(self.no);
        self.push = Push::Checking { request, until: turn.now + CALL_MAX, fault };
    }

    /// The server has said whether it has the front entry.
    pub(super) fn checked(&mut self, number: RequestNo, told: &Told, turn: &mut Turn) {
        let Push::Checking { request, fault, .. } = &self.push else { return };
        if *request != number {
            return;
        }
        let fault = fault.clone();
        self.push = Push::Idle(Wait::none(turn.now));
        if self.epoch != Some(told.epoch) {
            self.trouble(Fault::of_cursor(CursorFault::EpochChanged), turn);
        } else if told.device_sequence > self.queue.last_sequence {
            self.halt(told.device_sequence, turn);
        } else if told.device_sequence <= self.acknowledged() {
            let Queue { frozen, waiting, .. } = self.queue;
            let last_sequence = self.acknowledged();
            self.act_park(Parked::Front, fault, turn);
            self.queue =
                Queue { frozen: 0, waiting: (waiting + frozen).saturating_sub(1), last_sequence };
        } else if kind(&fault) == FaultKind::Permanent || self.attempts >= DECIDED_ATTEMPTS_MAX {
            self.act_park(Parked::Decided, fault, turn);
            self.queue.frozen = self.queue.frozen.saturating_sub(1);
        } else {
            self.push_later(&fault, turn);
        }
    }

    /// We may see the space, but not write: what is queued is the app's to decide about.
    fn deny(&mut self, fault: Fault, turn: &mut Turn) {
        turn.report(super::Report::AccessLost { space: self.no, fault: fault.clone() });
        self.read_only = Some(Wait::long(turn.now, turn.random.jittered(ACCESS_EVERY)));
        self.act_park(Parked::All, fault, turn);
        self.queue.frozen = 0;
        self.queue.waiting = 0;
        // The sequences that were given and not used show as a gap there.
        self.rest(Wait::none(turn.now), turn);
    }
}
