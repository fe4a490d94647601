//! The world of the simulation: time, the wire with all that can go wrong on it, and a driver that
//! does what the engine asks for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::server::{Batch, ServerSpace, index};
use super::store::StoreSpace;
use crate::client::backoff::Random;
use crate::client::engine::{Action, Code, Config, Engine, Event, Fault, Mode, RequestNo, SpaceNo};
use crate::domain::Epoch;

pub(super) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What is on its way to the server.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Status,
    Mutate(Batch),
    Exchange { batch: Batch, epoch: Option<Epoch>, cursor: i64 },
    Subscribe { epoch: Option<Epoch>, cursor: i64 },
    Unsubscribe,
    Load { epoch: Epoch, healing: bool },
}

/// What is on its way to the client.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    Event(Event),
    Answer {
        space: SpaceNo,
        request: RequestNo,
        batch: Batch,
        epoch: Epoch,
    },
    Page {
        space: SpaceNo,
        request: RequestNo,
        batch: Batch,
        epoch: Epoch,
        after: i64,
        up_to: i64,
        head: i64,
    },
    Range {
        space: SpaceNo,
        request: RequestNo,
        after: i64,
        up_to: i64,
        whole: bool,
    },
    CaughtUp {
        space: SpaceNo,
        request: RequestNo,
        up_to: i64,
    },
    Loaded {
        space: SpaceNo,
        request: RequestNo,
        epoch: Epoch,
        up_to: i64,
        healing: bool,
    },
}

/// What happens at some moment.
#[derive(Clone, Debug)]
pub(super) enum Happening {
    Arrive {
        link: u64,
        space: SpaceNo,
        request: RequestNo,
        message: Message,
    },
    Deliver {
        link: u64,
        frame: Frame,
    },
    /// Without a link: tokens, and connections that are made.
    Tell {
        run: u64,
        event: Event,
    },
    Connect {
        run: u64,
        request: RequestNo,
    },
    Progress {
        link: u64,
    },
    Chaos(super::chaos::Chaos),
}

/// A connection, as the server has it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) number: u64,
    pub(super) request: RequestNo,
    /// Where each subscription is.
    pub(super) subscriptions: BTreeMap<RequestNo, (SpaceNo, i64)>,
    /// Something was lost on it: no more comes through, and nobody is told.
    pub(super) black: bool,
    /// Nothing overtakes on a stream.
    to_client: Duration,
    to_server: Duration,
}

pub(super) struct World {
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) happenings: BTreeMap<(Duration, u64), Happening>,
    pub(super) next_number: u64,
    pub(super) mode: Mode,
    pub(super) engine: Engine,
    /// How often the client was started.
    pub(super) run: u64,
    pub(super) wire: Option<Wire>,
    pub(super) servers: Vec<ServerSpace>,
    pub(super) stores: Vec<StoreSpace>,
    pub(super) weather: super::chaos::Weather,
    pub(super) token: u64,
    pub(super) token_wanted: u64,
    pub(super) local: VecDeque<Event>,
    /// Subscriptions whose frames the driver still wants.
    pub(super) followed: BTreeMap<RequestNo, SpaceNo>,
    /// Batches that the client waits for.
    pub(super) in_flight: BTreeMap<SpaceNo, RequestNo>,
    /// Spaces of which nothing more is done in this turn.
    pub(super) broken: BTreeSet<SpaceNo>,
    /// What happened, if that is to be told.
    pub(super) trace: Option<Vec<String>>,
    pub(super) events: u64,
    /// What was reported.
    pub(super) seen: BTreeSet<&'static str>,
    /// The program ends after so many actions.
    pub(super) crash_in: Option<u64>,
    /// Entries that were queued, in all.
    pub(super) entries: u64,
    pub(super) rates: super::checks::Rates,
}

impl World {
    pub(super) fn new(seed: u64, spaces: usize, mode: Mode, mut random: Random) -> Self {
        let servers = (0..spaces)
            .map(|number| ServerSpace::new(number as u128 + 1, random.below(6).cast_signed()))
            .collect();
        Self {
            now: Duration::ZERO,
            random,
            happenings: BTreeMap::new(),
            next_number: 0,
            mode,
            engine: Engine::new(Config { mode }, seed),
            run: 0,
            wire: None,
            servers,
            stores: vec![StoreSpace::new(); spaces],
            weather: super::chaos::Weather::default(),
            token: 0,
            token_wanted: 0,
            local: VecDeque::new(),
            followed: BTreeMap::new(),
            broken: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            trace: None,
            events: 0,
            seen: BTreeSet::new(),
            crash_in: None,
            entries: 0,
            rates: super::checks::Rates::default(),
        }
    }

    pub(super) fn at(&mut self, time: Duration, happening: Happening) {
        self.next_number += 1;
        self.happenings.insert((time, self.next_number), happening);
    }

    pub(super) fn latency(&mut self) -> Duration {
        let most = if self.weather.slow { 4_000 } else { 60 };
        millis(2 + self.random.below(most))
    }

    /// True in so many of a hundred cases, while the weather is bad.
    pub(super) fn unlucky(&mut self, percent: u64) -> bool {
        self.weather.bad && self.random.below(100) < percent
    }

    /// The client starts, with what the file has.
    pub(super) fn start(&mut self) {
        self.run += 1;
        self.cut_wire();
        self.local.clear();
        self.engine = Engine::new(Config { mode: self.mode }, self.random.number());
        self.crash_in = None;
        for number in 0..self.stores.len() {
            self.tell_of(SpaceNo(number as u64));
        }
    }

    /// The driver looks at a space in the file: what nobody wants is sent to its end.
    pub(super) fn tell_of(&mut self, space: SpaceNo) {
        let info = self.store(space).info();
        let over = !info.wanted && info.queue.frozen + info.queue.waiting == 0;
        self.hear(match over {
            true => Event::SpaceRemoved { space },
            false => Event::SpaceAdded { space, info },
        });
    }

    /// Whether the program ends here, with the rest of what it was about to do.
    fn crashes(&mut self) -> bool {
        match &mut self.crash_in {
            None => false,
            Some(0) => true,
            Some(actions) => {
                *actions -= 1;
                false
            }
        }
    }

    /// Tells the engine, and does what it asks for, until nothing is left.
    pub(super) fn hear(&mut self, event: Event) {
        self.local.push_back(event);
        while let Some(event) = self.local.pop_front() {
            self.events += 1;
            self.note(|| format!("  hears {event:?}"));
            self.broken.clear();
            for action in self.engine.on(event, self.now) {
                if self.crashes() {
                    self.note(|| "    is killed".to_owned());
                    return self.start();
                }
                self.note(|| format!("    does {action:?}"));
                if let Action::Report(report) = &action {
                    self.seen.insert(super::checks::name(report));
                }
                self.rates.count(&action, self.now);
                self.obey(action);
            }
            self.engine.assert_awake();
        }
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {}", self.now.as_secs_f64(), line()));
        }
    }

    pub(super) fn store(&mut self, space: SpaceNo) -> &mut StoreSpace {
        &mut self.stores[index(space)]
    }

    pub(super) fn both(&mut self, space: SpaceNo) -> (&mut StoreSpace, &mut ServerSpace) {
        let number = index(space);
        (&mut self.stores[number], &mut self.servers[number])
    }

    /// To the server; on the stream in order.
    pub(super) fn send(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        message: Message,
        stream: bool,
    ) {
        let mut time = self.now + self.latency();
        let Some(wire) = &mut self.wire else { return };
        if stream {
            time = time.max(wire.to_server);
            wire.to_server = time;
        }
        let link = wire.number;
        self.at(time, Happening::Arrive { link, space, request, message });
    }

    /// To the client; on the stream in order.
    pub(super) fn deliver(&mut self, frame: Frame, stream: bool) {
        let mut time = self.now + self.latency();
        let lost = self.unlucky(1) && !stream;
        let Some(wire) = self.wire.as_mut().filter(|_| !lost) else { return };
        if stream {
            time = time.max(wire.to_client);
            wire.to_client = time;
        }
        let link = wire.number;
        // Driven by calls, an answer may come twice, and overtake another.
        if !stream && self.unlucky(5) {
            let again = time + self.latency();
            self.at(again, Happening::Deliver { link, frame: frame.clone() });
        }
        self.at(time, Happening::Deliver { link, frame });
    }

    /// The client has no connection any more.
    pub(super) fn cut_wire(&mut self) -> Option<Wire> {
        self.in_flight.clear();
        self.followed.clear();
        self.wire.take()
    }

    /// The connection breaks; the client may hear of it.
    pub(super) fn break_wire(&mut self, fault: Fault) {
        if let Some(wire) = self.cut_wire() {
            self.hear(Event::LinkLost { request: wire.request, fault });
        }
    }

    pub(super) fn connect(&mut self, request: RequestNo) {
        if self.weather.black || self.unlucky(2) {
            return;
        }
        if self.weather.down || self.unlucky(10) {
            let fault = Fault::new(Code::Unavailable, "", "connection refused");
            return self.hear(Event::LinkLost { request, fault });
        }
        if self.token < self.token_wanted {
            let fault = Fault::new(Code::Unauthenticated, "UNAUTHENTICATED", "expired");
            return self.hear(Event::LinkLost { request, fault });
        }
        self.next_number += 1;
        let number = self.next_number;
        let (to_client, to_server) = (self.now, self.now);
        let (subscriptions, black) = (BTreeMap::new(), false);
        self.wire = Some(Wire { number, request, subscriptions, black, to_client, to_server });
        self.at(self.now + millis(15_000), Happening::Progress { link: number });
        self.hear(Event::Connected { request });
    }
}
