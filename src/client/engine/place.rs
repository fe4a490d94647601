//! Whether what the server says of a space fits to what the local file has: its history, its
//! cursor, and the device's queue.

use super::push::Push;
use super::space::{Space, Step};
use super::turn::{Turn, Wait};
use super::{Action, HaltReason, Report, RequestNo, Told};
use crate::domain::{Cursor, CursorFault, Epoch, Sequence};

impl Space {
    /// The server has said where the space is.
    pub(super) fn told(&mut self, request: RequestNo, told: &Told, turn: &mut Turn) {
        let asked = matches!(self.step, Step::Asking { request: it, .. } if it == request);
        if !asked {
            self.checked(request, told, turn);
            return;
        }
        self.access = true;
        self.head = told.head;
        self.batch.limit(told.batch_max);
        let (acknowledged, device_sequence) = (self.acknowledged(), told.device_sequence);
        let same = self.epoch == Some(told.epoch);
        if same && device_sequence > self.queue.last_sequence {
            self.halt(device_sequence, turn);
            return;
        }
        // What lies between was sent before, perhaps also decided: also by the history that a
        // restored server goes on from. It is sent again as it was.
        let fits = (acknowledged..=self.queue.last_sequence).contains(&device_sequence);
        let gap = self.gap.take().is_some_and(|first| device_sequence < first);
        // What went out is based on more than there is, and none of it was decided: as it was it
        // would be refused. It goes out once the state that there is was loaded.
        let ahead = self.up_to > told.head && self.queue.frozen > 0;
        if !fits || gap || (ahead && device_sequence == acknowledged) {
            self.renumber(told, turn);
            turn.report(Report::Renumbered { space: self.no, device_sequence });
        } else if !same {
            turn.act(Action::Adopt { space: self.no, epoch: told.epoch });
        }
        if !same {
            self.adopt(told.epoch, turn);
        }
        let cursor = Cursor { epoch: self.epoch, revision: self.up_to };
        if self.wanted
            && self.loaded
            && let Err(fault) = cursor.check(told.epoch, told.floor, told.head)
        {
            self.reset(fault, turn);
        }
        self.step = Step::Settling;
    }

    /// The space has another history than the state that is stored.
    fn adopt(&mut self, epoch: Epoch, turn: &mut Turn) {
        let before = self.epoch.replace(epoch);
        self.loaded = false;
        if self.wanted && before.is_some() {
            turn.report(Report::Reset { space: self.no, fault: CursorFault::EpochChanged });
        }
    }

    /// The last sequence that was answered, by what this file knows.
    pub(super) fn acknowledged(&self) -> Sequence {
        let frozen = i64::try_from(self.queue.frozen).unwrap_or(i64::MAX);
        let last = self.queue.last_sequence.get().saturating_sub(frozen);
        Sequence::new(last).unwrap_or_default()
    }

    /// The device's queue goes on where the server has it.
    pub(super) fn renumber(&mut self, told: &Told, turn: &mut Turn) {
        let (epoch, device_sequence) = (told.epoch, told.device_sequence);
        turn.act(Action::Renumber { space: self.no, epoch, device_sequence });
        self.queue.waiting += self.queue.frozen;
        self.queue.frozen = 0;
        self.queue.last_sequence = device_sequence;
    }

    pub(super) fn halt(&mut self, device_sequence: Sequence, turn: &mut Turn) {
        self.unfollow(turn);
        let last_sequence = self.queue.last_sequence;
        turn.report(Report::FileIsBehind { space: self.no, last_sequence, device_sequence });
        self.push = Push::Idle(Wait::none(turn.now));
        self.step = Step::Halted(HaltReason::FileIsBehind { last_sequence, device_sequence });
    }

    /// The state has to be loaded anew; the queue stays.
    pub(super) fn reset(&mut self, fault: CursorFault, turn: &mut Turn) {
        self.loaded = false;
        if fault == CursorFault::Ahead {
            turn.act(Action::Distrust { space: self.no });
        }
        turn.report(Report::Reset { space: self.no, fault });
    }
}
