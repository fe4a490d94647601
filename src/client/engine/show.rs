//! What a space shows of itself, and when time asks something of it. Must not change anything.

use std::time::Duration;

use super::push::Push;
use super::space::{Space, Step};
use super::{Phase, SpaceStanding};

impl Space {
    pub(super) fn show(&self) -> SpaceStanding {
        SpaceStanding {
            space: self.no,
            phase: self.phase(),
            fault: self.fault.clone(),
            store_error: self.store_error.clone(),
            read_only: self.read_only.is_some(),
            frozen: self.queue.frozen,
            waiting: self.queue.waiting,
            batch_entries: self.batch.entries,
            up_to: self.up_to,
            head: self.head,
        }
    }

    fn phase(&self) -> Phase {
        let catching_up = |from| Phase::CatchingUp { from, up_to: self.up_to, head: self.head };
        match &self.step {
            Step::Resting(wait) => Phase::Waiting { until: Some(wait.until) },
            Step::Asking { .. } => Phase::Status,
            Step::Settling | Step::Left => Phase::Settling,
            Step::Loading { healing, .. } => Phase::Loading { healing: *healing },
            Step::Following(it) if !it.caught_up => catching_up(it.from),
            Step::Polling(it) if !it.caught_up => catching_up(it.from),
            Step::Following(_) | Step::Polling(_) => Phase::Live,
            Step::NoAccess(wait) => Phase::NoAccess { until: wait.until },
            Step::Halted(reason) => Phase::Halted(*reason),
            Step::Broken(wait) => Phase::Broken { until: wait.until },
            Step::Reading { until, .. } => Phase::Broken { until: *until },
        }
    }

    /// The moments that something is done at.
    pub(super) fn wakes(&self) -> impl Iterator<Item = Duration> {
        let step = match &self.step {
            Step::Resting(wait) | Step::NoAccess(wait) | Step::Broken(wait) => Some(wait.until),
            Step::Asking { until, .. }
            | Step::Loading { until, .. }
            | Step::Reading { until, .. } => Some(*until),
            Step::Following(following) => following.wake(),
            Step::Polling(polling) => Some(polling.wake()),
            Step::Settling | Step::Halted(_) | Step::Left => None,
        };
        let queued = self.queue.frozen + self.queue.waiting > 0;
        let push = match &self.push {
            Push::Idle(wait) => queued.then_some(wait.until),
            Push::InFlight { .. } | Push::Checking { .. } => self.push.deadline(),
        };
        let reads = match &self.push {
            // A call that only reads waits for the same.
            Push::Idle(wait) if matches!(self.step, Step::Polling(_)) => Some(wait.until),
            _ => None,
        };
        let read_only = self.read_only.filter(|_| queued).map(|wait| wait.until);
        [step, push, reads, read_only].into_iter().flatten()
    }

    /// Whether nothing of it is to be synced any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.step, Step::Halted(_) | Step::Left)
    }

    /// Whether a call for its status is under way.
    pub(super) fn asks(&self) -> bool {
        matches!(self.step, Step::Asking { .. }) || self.push.is_checking()
    }

    pub(super) fn pushes(&self) -> bool {
        self.push.is_sent()
    }

    pub(super) fn loads(&self) -> bool {
        matches!(self.step, Step::Loading { .. })
    }

    /// While the link is up: that nothing can be forgotten, nor waits for long; without a stream
    /// others' changes are read so often. `busy`: other spaces have something under way; `full`:
    /// as much as there may be.
    #[cfg(debug_assertions)]
    pub(super) fn assert_awake(
        &self,
        now: Duration,
        every: Duration,
        open: bool,
        (busy, full): (bool, bool),
    ) {
        let queued = self.queue.frozen + self.queue.waiting > 0;
        let asked = match (&self.step, &self.push) {
            (Step::Resting(wait), _) if wait.is_told(now) => true,
            (_, Push::Idle(wait)) => wait.is_told(now),
            _ => false,
        };
        let bound = match &self.step {
            _ if asked => super::ASKED,
            Step::Polling(_) if !queued => every,
            _ => super::SOON,
        };
        let timed = self.wakes().any(|wake| wake > now && wake <= now + bound);
        let waits = full || busy && self.suspected;
        match &self.step {
            // Until the link has ended, which has a deadline.
            _ if !open => {}
            Step::Halted(_) | Step::Left => {}
            Step::Following(it) if it.caught_up && !queued => {}
            // Behind others, which have deadlines.
            Step::Resting(_) | Step::Settling if busy => {}
            Step::Following(_) | Step::Polling(_) if waits => {}
            _ => assert!(timed, "space {} sleeps: {self:?}", self.no),
        }
        if let Push::Idle(wait) = &self.push
            && matches!(self.step, Step::Following(_) | Step::Polling(_))
        {
            let sends = self.entries_max(now) > 0 && wait.is_over(now) && !waits;
            assert!(!sends || !open, "space {} could send and does not: {self:?}", self.no);
        }
    }
}
