//! What to do next, and when: a machine without I/O, clock or randomness of its own. It owns the
//! link's and each space's state, waits and deadlines; must not know documents, the wire or the
//! local file. Its driver does what it asks for, and tells it what came of that.

mod access;
mod action;
mod event;
mod fault;
mod follow;
mod hear;
mod link;
mod place;
mod push;
mod show;
mod space;
mod state;
mod turn;
mod up;

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use link::Link;
use space::Space;
use turn::Turn;

use super::backoff::Random;

pub(super) use action::{Action, Parked, Report};
pub(super) use event::{
    Event, Page, Place, Queue, RequestNo, Settled, SpaceInfo, SpaceNo, Told, Trigger,
};
pub(super) use state::{EngineState, SpaceStanding};

pub use fault::{Code, Fault};
pub use state::{HaltReason, LinkState, Phase, TokenTrouble};

/// The longest wait that we make, and some.
#[cfg(debug_assertions)]
const SOON: Duration = Duration::from_secs(65);
/// The longest that a server may ask for, and half of it, so that not all come at once.
#[cfg(debug_assertions)]
const ASKED: Duration = Duration::from_secs(450);

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

/// The machine.
#[derive(Debug)]
pub(super) struct Engine {
    config: Config,
    random: Random,
    last_request: RequestNo,
    link: Link,
    spaces: BTreeMap<SpaceNo, Space>,
    /// The space that was last given something of which there is not enough for all at once.
    served: SpaceNo,
    /// When it was last told something.
    now: Duration,
}

impl Engine {
    /// One that knows no space yet. Times are since the start of whoever drives it.
    pub(super) fn new(config: Config, seed: u64) -> Self {
        Self {
            config,
            random: Random::new(seed),
            last_request: RequestNo::default(),
            link: Link::new(),
            spaces: BTreeMap::new(),
            served: SpaceNo(u64::MAX),
            now: Duration::ZERO,
        }
    }

    /// Takes a server for gone that says nothing for so long.
    pub(super) fn bear_silence(&mut self, silence: Duration) {
        self.link.silence = silence;
    }

    /// Something has happened: what is to be done, in this order.
    pub(super) fn on(&mut self, event: Event, now: Duration) -> Vec<Action> {
        // A clock that goes back would let deadlines pass twice.
        self.now = self.now.max(now);
        let mut turn =
            Turn::new(self.now, self.config.mode, self.random.clone(), self.last_request);
        self.hear(event, &mut turn);
        self.advance(&mut turn);
        if let Some(fault) = turn.broken.take() {
            if self.link.has_connection() {
                turn.act(Action::Hangup);
                self.lose_link(fault, &mut turn);
            }
            self.advance(&mut turn);
        }
        self.random = turn.random;
        self.last_request = turn.last_request;
        turn.actions
    }

    /// When it must be given `Event::Tick`, at the latest; None = not before something happens.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        let link = self.link.wake(self.is_wanted(), self.config.mode);
        let spaces = self.spaces.values().flat_map(Space::wakes);
        // What is due and was not done waits for something else, which has a time of its own.
        link.into_iter().chain(spaces).filter(|wake| *wake > self.now).min()
    }

    /// What it is doing.
    pub(super) fn state(&self) -> EngineState {
        EngineState {
            link: self.link.show(self.is_wanted(), self.config.mode),
            token: self.link.trouble().cloned(),
            store_ok: self.link.store_ok(),
            spaces: self.spaces.values().map(Space::show).collect(),
        }
    }

    /// Holds after every event: nothing can be forgotten. What waits is in flight, and missed at
    /// some time, or is looked at again soon.
    #[cfg(debug_assertions)]
    pub(crate) fn assert_awake(&self) {
        if !self.is_wanted() {
            return;
        }
        let asked = self.link.is_told_to_wait(self.now);
        let bound = self.now + if asked { ASKED } else { SOON };
        let is_up = self.link.is_up();
        if !is_up || self.config.mode == Mode::Live {
            let wake = self.link.wake(true, self.config.mode);
            let awake = wake.is_some_and(|wake| wake > self.now && wake <= bound);
            assert!(awake, "the link sleeps until {wake:?}, now {:?}: {:?}", self.now, self.link);
        }
        let busy = self.spaces.values().any(|it| it.asks() || it.loads() || it.pushes());
        let full = self.spaces.values().filter(|it| it.pushes()).count() >= turn::PUSH_SLOTS;
        for space in self.spaces.values().filter(|_| is_up) {
            let every = match self.config.mode {
                Mode::Live => SOON,
                Mode::Poll { every } => every.max(SOON),
            };
            space.assert_awake(self.now, every, self.link.is_open(), (busy, full));
        }
    }

    fn is_wanted(&self) -> bool {
        self.spaces.values().any(|space| !space.is_over())
    }

    /// Whatever has become possible, or is due.
    fn advance(&mut self, turn: &mut Turn) {
        if turn.useful {
            self.link.useful();
        }
        turn.open = self.link.is_open();
        let asking = self.spaces.values().filter(|space| space.asks()).count();
        let loading = self.spaces.values().filter(|space| space.loads()).count();
        let pushing = self.spaces.values().filter(|space| space.pushes()).count();
        turn.limit_slots(asking, loading, pushing);
        turn.limit_suspects(self.spaces.values().any(|it| it.suspected && it.pushes()));
        self.link.advance(self.is_wanted(), turn);
        // Whoever was served last waits for all others, or those with low numbers would come first
        // each time.
        let last = self.served;
        for (_, space) in self.spaces.range_mut((Excluded(last), Unbounded)) {
            space.advance(turn);
        }
        for (_, space) in self.spaces.range_mut(..=last) {
            space.advance(turn);
        }
        self.served = turn.served.unwrap_or(last);
    }

    fn lose_link(&mut self, fault: Fault, turn: &mut Turn) {
        self.spaces.values_mut().for_each(|space| space.link_lost(Some(&fault), turn));
        self.link.lost(fault, turn);
    }

    fn hear(&mut self, event: Event, turn: &mut Turn) {
        match event {
            Event::Tick => {}
            Event::Trigger(trigger) => self.triggered(trigger, turn),
            Event::TokenReady { request } => self.link.token_ready(request, turn),
            Event::TokenFailed { request, message } => {
                self.link.token_failed(request, message, turn);
            }
            Event::Connected { request } if self.link.is(request) => self.link.connected(turn),
            Event::LinkLost { request, fault } if self.link.is(request) => {
                self.lose_link(fault, turn);
            }
            Event::Connected { .. } | Event::LinkLost { .. } => {}
            Event::Heard => self.link.heard(turn.now),
            Event::Progress { store_ok, token_expires_in, places } => {
                self.link.heard(turn.now);
                self.link.progress(store_ok, token_expires_in, turn.now);
                for Place { space, up_to, head } in places {
                    self.with(space, |it| it.placed(up_to, head, turn));
                }
            }
            Event::GoingAway { retry_after, token_expired } => {
                self.link.going_away(retry_after, token_expired, turn.now);
            }
            Event::AccessChanged { space } => {
                self.link.heard(turn.now);
                self.with(space, |it| it.access_changed(turn.now));
            }
            Event::SpaceAdded { space, info } => {
                let mut new = Space::new(space, info, turn.now);
                self.with(space, |it| new.succeed(it, turn));
                self.spaces.insert(space, new);
            }
            Event::SpaceRemoved { space } => {
                self.with(space, |it| it.unfollow(turn));
                self.spaces.remove(&space);
                self.close_unused(turn);
            }
            event => self.hear_of_space(event, turn),
        }
    }

    /// Without a space there is no use for a link.
    fn close_unused(&mut self, turn: &mut Turn) {
        if self.spaces.is_empty() {
            self.link.close(turn);
        }
    }

    fn with(&mut self, space: SpaceNo, what: impl FnOnce(&mut Space)) {
        if let Some(space) = self.spaces.get_mut(&space) {
            what(space);
        }
    }

    fn triggered(&mut self, trigger: Trigger, turn: &mut Turn) {
        let now = turn.now;
        match trigger {
            Trigger::Changed { space } => self.with(space, |it| it.changed(now)),
            Trigger::Offline => {
                self.link.offline(turn);
                self.spaces.values_mut().for_each(|space| space.link_lost(None, turn));
            }
            Trigger::Hint { space } => {
                self.link.hurry(true, now);
                self.with(space, |it| {
                    it.hurry(now);
                    it.access_changed(now);
                });
            }
            Trigger::Network | Trigger::Foreground | Trigger::Periodic | Trigger::Demand => {
                let sure = matches!(trigger, Trigger::Network | Trigger::Demand);
                self.link.hurry(sure, now);
                for space in self.spaces.values_mut() {
                    space.hurry(now);
                    if sure {
                        space.access_changed(now);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
