//! What goes wrong in the simulation, and when.

use super::server::{Access, Poison};
use super::world::{Frame, Happening, World, millis};
use crate::client::engine::{Code, Event, Fault, SpaceNo, Trigger};
use crate::domain::CollectionName;

/// What holds for a while.
#[derive(Debug, Default)]
pub(super) struct Weather {
    /// Calls, batches and connections fail now and then.
    pub(super) bad: bool,
    pub(super) slow: bool,
    /// Nobody can connect.
    pub(super) down: bool,
    /// What is sent does not arrive, and nobody is told.
    pub(super) black: bool,
    pub(super) no_token: bool,
    pub(super) disk: bool,
    /// Nothing is written.
    pub(super) overloaded: bool,
}

/// What happens to a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chaos {
    Write(SpaceNo),
    Poison(SpaceNo, Poison),
    ForeignWrite(SpaceNo),
    Trigger(Trigger),
    BreakWire,
    Crash,
    /// In the middle of something, after so many actions.
    CrashIn(u64),
    /// Nobody follows the space any more.
    Leave(SpaceNo),
    Slow(bool),
    Down(bool),
    Black(bool),
    NoToken(bool),
    Disk(bool),
    Overloaded(bool),
    ExpireToken,
    GoAway,
    Copy(SpaceNo),
    Restore(SpaceNo),
    Compact(SpaceNo),
    Access(SpaceNo, Access),
    Corrupt(SpaceNo),
    /// The app adds the space once more, or takes it out and adds it.
    Again(SpaceNo, bool),
    /// From here on all is well.
    Calm,
}

/// What can begin, and ends again.
type Episode = fn(bool) -> Chaos;
const EPISODES: &[Episode] =
    &[Chaos::Slow, Chaos::Down, Chaos::Black, Chaos::NoToken, Chaos::Disk, Chaos::Overloaded];

impl World {
    /// Plans what goes wrong, for so many seconds.
    pub(super) fn plan(&mut self, seconds: u64) {
        let spaces = self.servers.len() as u64;
        for _ in 0..self.random.below(40) {
            let space = SpaceNo(self.random.below(spaces));
            let time = millis(self.random.below(seconds * 1_000));
            let chaos = self.some_chaos(space);
            self.at(time, Happening::Chaos(chaos));
        }
        for _ in 0..self.random.below(5) {
            let episode = EPISODES[self.below(EPISODES.len())];
            let begin = self.random.below(seconds * 1_000);
            let end = begin + self.random.below(50_000);
            self.at(millis(begin), Happening::Chaos(episode(true)));
            self.at(millis(end), Happening::Chaos(episode(false)));
        }
        self.at(millis(seconds * 1_000 + 50_000), Happening::Chaos(Chaos::Calm));
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).unwrap()
    }

    fn some_chaos(&mut self, space: SpaceNo) -> Chaos {
        match self.random.below(47) {
            0..=11 => Chaos::Write(space),
            12 => Chaos::Poison(space, Poison::Permanent),
            13 => Chaos::Poison(space, Poison::Stubborn),
            14 => Chaos::Poison(space, Poison::Passing(self.below(4).try_into().unwrap())),
            15..=19 => Chaos::ForeignWrite(space),
            20 => Chaos::Trigger(Trigger::Network),
            21 => Chaos::Trigger(Trigger::Foreground),
            22 => Chaos::Trigger(Trigger::Periodic),
            23 => Chaos::Trigger(Trigger::Demand),
            24 => Chaos::Trigger(Trigger::Hint { space }),
            25 => Chaos::Trigger(Trigger::Offline),
            26..=28 => Chaos::BreakWire,
            29..=30 => Chaos::Crash,
            31 => Chaos::ExpireToken,
            32 => Chaos::GoAway,
            33 => Chaos::Copy(space),
            34 => Chaos::Restore(space),
            35 => Chaos::Compact(space),
            36 => Chaos::Access(space, Access::None),
            37 => Chaos::Access(space, Access::Read),
            38 => Chaos::Access(space, Access::Write),
            39 => Chaos::Corrupt(space),
            40 => Chaos::Poison(space, Poison::Mute),
            41 => Chaos::Poison(space, Poison::Fatal),
            42 => Chaos::CrashIn(self.random.below(12)),
            43..=44 => Chaos::Leave(space),
            _ => Chaos::Again(space, self.random.below(2) == 0),
        }
    }

    pub(super) fn happen(&mut self, chaos: Chaos) {
        match chaos {
            Chaos::Write(space) => self.write(space, None),
            Chaos::Poison(space, poison) => self.write(space, Some(poison)),
            Chaos::ForeignWrite(space) => {
                self.server(space).history.head += 1;
                self.publish(space);
            }
            Chaos::Trigger(trigger) => {
                self.rates.trigger(self.now);
                self.hear(Event::Trigger(trigger));
            }
            Chaos::BreakWire => self.break_wire(Fault::new(Code::Unknown, "", "reset")),
            Chaos::Crash => self.start(),
            Chaos::CrashIn(actions) => self.crash_in = Some(actions),
            Chaos::Leave(space) => {
                self.rates.trigger(self.now);
                self.store(space).follow(false);
                self.tell_of(space);
            }
            Chaos::Slow(on) => self.weather.slow = on,
            Chaos::Down(on) => {
                self.weather.down = on;
                self.break_wire(Fault::new(Code::Unavailable, "", "the server is gone"));
            }
            Chaos::Black(on) => self.weather.black = on,
            Chaos::NoToken(on) => self.weather.no_token = on,
            Chaos::Disk(on) => self.weather.disk = on,
            Chaos::Overloaded(on) => self.weather.overloaded = on,
            Chaos::ExpireToken => {
                self.token_wanted += 1;
                self.break_wire(Fault::new(Code::Unauthenticated, "UNAUTHENTICATED", "expired"));
            }
            Chaos::GoAway => {
                let retry_after = millis(self.random.below(5_000));
                let token_expired = false;
                let frame = Event::GoingAway { retry_after, token_expired };
                self.deliver(Frame::Event(frame), true);
            }
            Chaos::Copy(space) => {
                let server = self.server(space);
                server.earlier = server.history.clone();
            }
            Chaos::Restore(space) => {
                self.server(space).restore();
                self.break_wire(Fault::new(Code::Unavailable, "", "restored"));
            }
            Chaos::Compact(space) => {
                let server = self.server(space);
                server.floor = server.history.head;
            }
            Chaos::Access(space, access) => self.set_access(space, access),
            Chaos::Corrupt(space) => {
                let name = CollectionName::parse("task").unwrap();
                self.store(space).wrong.insert(name);
            }
            Chaos::Again(space, removed) => {
                if removed {
                    // What it had in flight is no longer waited for.
                    self.in_flight.remove(&space);
                    self.hear(Event::SpaceRemoved { space });
                }
                self.store(space).follow(true);
                self.tell_of(space);
            }
            Chaos::Calm => self.calm(),
        }
    }

    fn write(&mut self, space: SpaceNo, mut poison: Option<Poison>) {
        let many = poison.is_none() && self.random.below(30) == 0;
        for _ in 0..=self.random.below(if many { 400 } else { 4 }) {
            self.entries += 1;
            let entry = self.entries;
            self.store(space).entries.push_back((entry, None));
            // What takes minutes of retries comes alone.
            if let Some(poison) =
                poison.take_if(|it| matches!(it, Poison::Mute | Poison::Fatal)).or(poison)
            {
                self.server(space).poison.insert(entry, poison);
            }
        }
        match self.engine.state().spaces.iter().any(|it| it.space == space) {
            true => self.hear(Event::Trigger(Trigger::Changed { space })),
            // Nobody wants it.
            false => self.tell_of(space),
        }
    }

    fn set_access(&mut self, space: SpaceNo, access: Access) {
        self.server(space).access = access;
        let Some(wire) = &mut self.wire else { return };
        let mut frames = Vec::new();
        if access == Access::None {
            let gone = |it: &(SpaceNo, i64)| it.0 == space;
            for (request, _) in wire.subscriptions.extract_if(.., |_, it| gone(it)) {
                frames.push(Event::RemovedFromView { space, request });
                let fault = Fault::new(Code::NotFound, "SPACE_NOT_FOUND", "gone");
                frames.push(Event::Failed { space, request, fault });
            }
        }
        frames.push(Event::AccessChanged { space });
        for frame in frames {
            self.deliver(Frame::Event(frame), true);
        }
    }

    fn calm(&mut self) {
        self.weather = Weather::default();
        // What was damaged since it was last compared shows only now.
        self.break_wire(Fault::new(Code::Unavailable, "", "the last of all faults"));
        for number in 0..self.servers.len() {
            let space = SpaceNo(number as u64);
            self.set_access(space, Access::Write);
            if !self.store(space).wanted {
                self.store(space).follow(true);
                self.tell_of(space);
            }
        }
    }
}
