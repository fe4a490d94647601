//! An engine on a desk, for scripts: what it is told, when, and what it asked for.

use std::time::Duration;

use super::server::{revision, sequence};
use crate::client::engine::{
    Action, Code, Config, EngineState, Event, Fault, LinkState, Mode, Phase, Queue, Report,
    RequestNo, Settled, SpaceInfo, SpaceNo, SpaceStanding, Told, Trigger,
};
use crate::domain::{Epoch, Sequence};

pub(super) const SPACE: SpaceNo = SpaceNo(1);
pub(super) const HERE: Epoch = Epoch(uuid::Uuid::from_u128(1));
pub(super) const ELSEWHERE: Epoch = Epoch(uuid::Uuid::from_u128(2));

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn fault(reason: &str) -> Fault {
    Fault::new(Code::FailedPrecondition, reason, "of a script")
}

pub(super) fn queue(frozen: u64, waiting: u64, last: i64) -> Queue {
    Queue { frozen, waiting, last_sequence: sequence(last) }
}

/// A space that is loaded, at revision 10, with this queue.
pub(super) fn info(queue: Queue) -> SpaceInfo {
    let (epoch, cursor) = (Some(HERE), revision(10));
    SpaceInfo { wanted: true, epoch, cursor, loaded: true, queue, attempts: 0 }
}

/// What the server says of it.
pub(super) fn told(device_sequence: i64) -> Told {
    let (head, floor) = (revision(10), revision(0));
    Told { epoch: HERE, head, floor, device_sequence: sequence(device_sequence), batch_max: 0 }
}

/// The sequence of the front entry of such a queue.
pub(super) fn first(count: u64, queue: &Queue) -> Sequence {
    let sent = queue.frozen.max(count).cast_signed();
    sequence(queue.last_sequence.get() - sent + 1)
}

pub(super) struct Desk {
    pub(super) engine: crate::client::engine::Engine,
    pub(super) now: Duration,
    /// What it has asked for since that was last looked at.
    pub(super) asked: Vec<Action>,
}

impl Desk {
    pub(super) fn new(mode: Mode) -> Self {
        let engine = crate::client::engine::Engine::new(Config { mode }, 1);
        Self { engine, now: Duration::ZERO, asked: Vec::new() }
    }

    /// With one space, and a link that is up: its status was asked.
    pub(super) fn up(mode: Mode, info: SpaceInfo) -> Self {
        let mut desk = Self::new(mode);
        desk.on(Event::SpaceAdded { space: SPACE, info });
        desk.connect();
        desk
    }

    /// The same, live and with nothing to do.
    pub(super) fn live(queue: Queue) -> Self {
        let mut desk = Self::up(Mode::Live, info(queue));
        desk.tell(told(queue.last_sequence.get()));
        desk.catch_up();
        desk
    }

    pub(super) fn on(&mut self, event: Event) {
        let actions = self.engine.on(event, self.now);
        self.asked.extend(actions);
        self.engine.assert_awake();
    }

    pub(super) fn trigger(&mut self, trigger: Trigger) {
        self.on(Event::Trigger(trigger));
    }

    /// Time passes; the engine is woken whenever it wants to be.
    pub(super) fn wait(&mut self, wait: Duration) {
        let end = self.now + wait;
        while let Some(wake) = self.engine.next_wake().filter(|wake| *wake <= end) {
            self.now = wake;
            self.on(Event::Tick);
        }
        self.now = end;
    }

    /// Waits until it has asked for this; how long that took.
    pub(super) fn wait_for(&mut self, what: fn(&Action) -> bool) -> Duration {
        let begin = self.now;
        while !self.asked.iter().any(what) {
            self.now = self.engine.next_wake().expect("it sleeps for ever");
            assert!(self.now < begin + seconds(1_000), "{:?}", self.asked);
            self.on(Event::Tick);
        }
        self.now - begin
    }

    /// The same, while the server gives signs of life.
    pub(super) fn wait_for_while_heard(&mut self, what: fn(&Action) -> bool) -> Duration {
        let begin = self.now;
        while !self.has(what) {
            self.on(Event::Heard);
            assert!(self.now < begin + seconds(1_000), "{:?}", self.asked);
            self.now =
                self.engine.next_wake().expect("it sleeps for ever").min(self.now + seconds(15));
            self.on(Event::Tick);
        }
        self.now - begin
    }

    /// The number of the last request of a kind.
    pub(super) fn last(&self, what: impl Fn(&Action) -> Option<RequestNo>) -> RequestNo {
        let found = self.asked.iter().rev().find_map(what);
        found.unwrap_or_else(|| panic!("it was not asked for: {:?}", self.asked))
    }

    /// Forgets what was asked for so far.
    pub(super) fn look(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.asked)
    }

    pub(super) fn token(&self) -> RequestNo {
        self.last(|it| match it {
            Action::FetchToken { request, .. } => Some(*request),
            _ => None,
        })
    }

    pub(super) fn link(&self) -> RequestNo {
        self.last(|it| match it {
            Action::Connect { request } => Some(*request),
            _ => None,
        })
    }

    pub(super) fn status(&self) -> RequestNo {
        self.last(|it| match it {
            Action::AskStatus { request, .. } => Some(*request),
            _ => None,
        })
    }

    pub(super) fn batch(&self) -> RequestNo {
        self.last(|it| match it {
            Action::Take { request, .. } | Action::Exchange { request, .. } => Some(*request),
            _ => None,
        })
    }

    pub(super) fn subscription(&self) -> RequestNo {
        self.last(|it| match it {
            Action::Subscribe { request, .. } => Some(*request),
            _ => None,
        })
    }

    pub(super) fn load(&self) -> RequestNo {
        self.last(|it| match it {
            Action::Load { request, .. } => Some(*request),
            _ => None,
        })
    }

    pub(super) fn digest(&self) -> RequestNo {
        self.last(|it| match it {
            Action::CompareDigest { request, .. } => Some(*request),
            _ => None,
        })
    }

    pub(super) fn connect(&mut self) {
        self.wait_for(|it| matches!(it, Action::FetchToken { .. }));
        self.on(Event::TokenReady { request: self.token() });
        self.on(Event::Connected { request: self.link() });
    }

    /// The link ends, if there is one.
    pub(super) fn lose_link_of_nobody(&mut self) {
        for request in 0..self.engine.last_request.0 {
            let (request, fault) = (RequestNo(request), fault(""));
            self.on(Event::LinkLost { request, fault });
        }
    }

    pub(super) fn lose_link(&mut self, reason: &str) {
        let fault = Fault { code: Code::Unavailable, ..fault(reason) };
        self.on(Event::LinkLost { request: self.link(), fault });
    }

    pub(super) fn tell(&mut self, told: Told) {
        self.on(Event::StatusTold { space: SPACE, request: self.status(), told });
    }

    pub(super) fn fail(&mut self, request: RequestNo, fault: Fault) {
        self.on(Event::Failed { space: SPACE, request, fault });
    }

    pub(super) fn fail_status_with(&mut self, fault: Fault) {
        let request = self.engine.last_request;
        self.fail(request, fault);
    }

    /// Forgets what was asked for tokens so far.
    pub(super) fn look_at_tokens(&mut self) {
        self.asked.retain(|it| !matches!(it, Action::FetchToken { .. }));
    }

    pub(super) fn catch_up(&mut self) {
        let (request, head) = (self.subscription(), revision(10));
        self.on(Event::Subscribed { space: SPACE, request, head });
        self.on(Event::CaughtUp { space: SPACE, request, up_to: head });
        let request = self.digest();
        let differing = Some(Vec::new());
        self.on(Event::DigestCompared { space: SPACE, request, differing });
        self.look_but_keep_numbers();
    }

    /// Requests are still found, but no longer looked at as new.
    pub(super) fn look_but_keep_numbers(&mut self) {
        let keep = |it: &Action| matches!(it, Action::Connect { .. } | Action::Subscribe { .. });
        self.asked.retain(keep);
    }

    /// The entries of the last batch go out.
    pub(super) fn take(&mut self, count: u64, queue: Queue) {
        let first = first(count, &queue);
        self.on(Event::Taken { space: SPACE, request: self.batch(), count, first, queue });
    }

    pub(super) fn answer(&mut self, queue: Queue) {
        let settled = Settled { applied: 1, ..Settled::default() };
        self.on(Event::Answered { space: SPACE, request: self.batch(), settled, queue });
    }

    /// How many entries the last batch may have.
    pub(super) fn entries_max(&self) -> u32 {
        let found = self.asked.iter().rev().find_map(|it| match it {
            Action::Take { entries_max, .. } | Action::Exchange { entries_max, .. } => {
                Some(*entries_max)
            }
            _ => None,
        });
        found.expect("nothing was sent")
    }

    pub(super) fn state(&self) -> EngineState {
        self.engine.state()
    }

    pub(super) fn standing(&self) -> SpaceStanding {
        self.state().spaces.remove(0)
    }

    pub(super) fn phase(&self) -> Phase {
        self.standing().phase
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state().link, LinkState::Up { .. })
    }

    pub(super) fn has(&self, what: fn(&Action) -> bool) -> bool {
        self.asked.iter().any(what)
    }

    pub(super) fn has_report(&self, what: fn(&Report) -> bool) -> bool {
        self.asked.iter().any(|it| matches!(it, Action::Report(report) if what(report)))
    }
}
