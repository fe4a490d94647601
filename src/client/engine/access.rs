//! What becomes of a space that may not be seen, and of what is queued in it.

use std::time::Duration;

use super::space::{ACCESS_EVERY, Space, Step};
use super::turn::{Turn, Wait};
use super::{Action, Code, Fault, Parked, Queue, Report, RequestNo};

impl Space {
    /// The space may not be seen. What is queued is the app's to decide about.
    pub(super) fn lose_access(&mut self, fault: Fault, turn: &mut Turn) {
        self.unfollow(turn);
        if self.access {
            turn.report(Report::AccessLost { space: self.no, fault: fault.clone() });
        }
        self.access = false;
        self.fault = Some(fault.clone());
        self.park = Some(fault);
        let wait = Wait::long(turn.now, turn.random.jittered(ACCESS_EVERY));
        self.step = Step::NoAccess(wait);
        self.park_all(turn);
    }

    /// What the subscription showed may no longer be seen.
    pub(super) fn removed_from_view(&mut self, request: RequestNo, turn: &mut Turn) {
        if matches!(&self.step, Step::Following(it) if it.request == request) {
            self.unfollow(turn);
            turn.act(Action::Forget { space: self.no });
            self.loaded = false;
            let message = "the space may no longer be seen";
            let fault = Fault::new(Code::NotFound, "SPACE_NOT_FOUND", message);
            self.lose_access(fault, turn);
        }
    }

    /// All that is queued fails, unless something of it is in flight.
    pub(super) fn park_all(&mut self, turn: &mut Turn) {
        if !self.push.is_idle() {
            return;
        }
        if let Some(fault) = self.park.take()
            && self.queue.frozen + self.queue.waiting > 0
        {
            self.act_park(Parked::All, fault, turn);
            self.queue = Queue { frozen: 0, waiting: 0, ..self.queue };
        }
    }

    pub(super) fn act_park(&mut self, what: Parked, fault: Fault, turn: &mut Turn) {
        self.attempts = 0;
        self.suspected = false;
        self.blamed = None;
        self.push_backoff.reset();
        turn.report(Report::Parked { space: self.no, what, fault: fault.clone() });
        turn.act(Action::Park { space: self.no, what, fault });
    }

    /// What we may has changed.
    pub(super) fn access_changed(&mut self, now: Duration) {
        if let Step::NoAccess(wait) = &mut self.step {
            wait.hurry(now);
        }
        if let Some(wait) = &mut self.read_only {
            wait.hurry(now);
        }
    }
}
