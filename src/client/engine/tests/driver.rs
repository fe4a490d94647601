//! The driver in the simulation: does what the engine asks for, and stores what comes from the
//! server before it tells of it, as a real one has to.

use super::server::{Batch, index, revision, sequence};
use super::store::StoreSpace;
use super::world::{Frame, Happening, Message, World};
use crate::client::engine::{Action, Event, Page, Place, RequestNo, Settled, SpaceNo};

impl World {
    /// Does what was asked for, unless the file has failed for the same space in this turn.
    pub(super) fn obey(&mut self, action: Action) {
        if space_of(&action).is_none_or(|space| !self.broken.contains(&space)) {
            self.perform(action);
        }
    }

    /// Something of the local file goes wrong.
    fn store_fails(&mut self, space: SpaceNo, request: Option<RequestNo>) -> bool {
        let fails = self.weather.disk && self.random.below(3) == 0;
        if fails {
            self.broken.insert(space);
            let message = "the disk is full".to_owned();
            self.local.push_back(Event::StoreFailed { space, request, message });
        }
        fails
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::FetchToken { request, force } => self.fetch_token(request, force),
            Action::Connect { request } => {
                let time = self.now + self.latency();
                let run = self.run;
                self.at(time, Happening::Connect { run, request });
            }
            Action::Hangup => drop(self.cut_wire()),
            Action::RefreshToken | Action::Ack { .. } | Action::Report(_) => {}
            Action::AskStatus { space, request } => {
                self.assert_idle(space);
                self.send(space, request, Message::Status, false)
            }
            Action::Take { space, request, entries_max } => {
                if !self.store_fails(space, Some(request)) {
                    let batch = self.take(space, request, entries_max, false);
                    if !batch.is_empty() {
                        self.send(space, request, Message::Mutate(batch), true);
                    }
                }
            }
            Action::Exchange { space, request, entries_max } => {
                if !self.store_fails(space, Some(request)) {
                    let batch = self.take(space, request, entries_max, true);
                    let StoreSpace { epoch, cursor, .. } = *self.store(space);
                    let message = Message::Exchange { batch, epoch, cursor };
                    self.send(space, request, message, false);
                }
            }
            Action::Subscribe { space, request } => {
                let store = self.store(space);
                assert!(store.wanted, "followed for nobody");
                assert_eq!(store.queue().frozen, 0, "followed before what was sent is answered");
                let (epoch, cursor) = (store.epoch, store.cursor);
                self.followed.insert(request, space);
                self.send(space, request, Message::Subscribe { epoch, cursor }, true);
            }
            Action::Unsubscribe { space, request } => {
                self.followed.remove(&request);
                self.send(space, request, Message::Unsubscribe, true);
            }
            Action::Load { space, request, epoch, collections } => {
                self.assert_idle(space);
                assert!(self.store(space).wanted, "loaded for nobody");
                assert_eq!(self.store(space).queue().frozen, 0, "loaded too early");
                let message = Message::Load { epoch, healing: collections.is_some() };
                self.send(space, request, message, false);
            }
            action => self.perform_locally(action),
        }
    }

    fn perform_locally(&mut self, action: Action) {
        match action {
            Action::CompareDigest { space, request } => {
                let differing = self.store(space).wrong.iter().cloned().collect();
                let differing = (!self.unlucky(20)).then_some(differing);
                self.local.push_back(Event::DigestCompared { space, request, differing });
            }
            Action::Read { space, request } => {
                if !self.store_fails(space, Some(request)) {
                    let info = self.store(space).info();
                    self.local.push_back(Event::SpaceRead { space, request, info });
                }
            }
            Action::Renumber { space, epoch, device_sequence } => {
                if !self.store_fails(space, None) {
                    let (store, server) = self.both(space);
                    store.renumber(epoch, device_sequence, server);
                }
            }
            Action::Distrust { space } => {
                if !self.store_fails(space, None) {
                    self.store(space).loaded = false;
                }
            }
            Action::Adopt { space, epoch } => {
                if !self.store_fails(space, None) {
                    self.store(space).adopt(epoch);
                }
            }
            Action::Park { space, what, .. } => {
                self.assert_idle(space);
                if !self.store_fails(space, None) {
                    let (store, server) = self.both(space);
                    store.park(what, server);
                }
            }
            Action::Leave { space } => {
                assert!(!self.store(space).wanted, "somebody wants it");
                if self.store(space).entries.is_empty() {
                    self.local.push_back(Event::SpaceRemoved { space });
                }
            }
            Action::CountAttempt { space } => self.store(space).count_attempt(),
            Action::Forget { space } => {
                if !self.store_fails(space, None) {
                    self.store(space).forget();
                }
            }
            other => panic!("{other:?} is not local"),
        }
    }

    fn take(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        entries_max: u32,
        exchange: bool,
    ) -> Batch {
        self.assert_idle(space);
        let follows = exchange || self.followed.values().any(|it| *it == space);
        let store = self.store(space);
        let (before, wanted) = (store.queue().frozen, store.wanted);
        let batch = store.take(entries_max);
        let new = batch.len() as u64 > before;
        assert!(
            !new || follows || !wanted,
            "something new is sent before what was sent is settled"
        );
        if !batch.is_empty() && self.wire.is_some() {
            self.in_flight.insert(space, request);
        }
        let store = self.store(space);
        let (count, queue) = (batch.len() as u64, store.queue());
        let first = batch.first().map_or(0, |(_, sequence)| *sequence);
        let first = sequence(first);
        self.local.push_back(Event::Taken { space, request, count, first, queue });
        batch
    }

    /// Nothing of the space is in flight, whose answer could cross another.
    fn assert_idle(&self, space: SpaceNo) {
        let request = self.in_flight.get(&space);
        assert!(request.is_none(), "space {space} did not wait for {request:?}");
    }

    fn landed(&mut self, space: SpaceNo, request: RequestNo) {
        self.in_flight.retain(|of, it| *of != space || *it != request);
    }

    fn fetch_token(&mut self, request: RequestNo, force: bool) {
        let time = self.now + self.latency();
        let run = self.run;
        if self.unlucky(2) {
            return;
        }
        let event = if self.weather.no_token || self.unlucky(5) {
            Event::TokenFailed { request, message: "nobody is signed in".into() }
        } else {
            if force {
                self.token = self.token_wanted;
            }
            Event::TokenReady { request }
        };
        self.at(time, Happening::Tell { run, event });
    }

    /// The driver gets something from the server: stores it, then tells of it.
    pub(super) fn receive(&mut self, frame: Frame) {
        match frame {
            Frame::Event(Event::Progress { store_ok, token_expires_in, places }) => {
                let stored = |place: &Place| {
                    let store = &mut self.stores[index(place.space)];
                    store.loaded && store.cursor == place.up_to.get()
                };
                let places: Vec<Place> = places.into_iter().filter(stored).collect();
                self.hear(Event::Progress { store_ok, token_expires_in, places });
            }
            Frame::Event(event) => {
                if let Event::Failed { space, request, .. } = &event {
                    self.landed(*space, *request);
                }
                self.hear(event);
            }
            Frame::Answer { space, request, batch, epoch } => {
                self.landed(space, request);
                if !self.told_to_fail(space, request) {
                    let settled = Settled { applied: batch.len() as u64, ..Settled::default() };
                    let store = self.store(space);
                    store.answer(&batch, epoch);
                    let queue = store.queue();
                    self.hear(Event::Answered { space, request, settled, queue });
                }
            }
            Frame::Page { space, request, batch, epoch, after, up_to, head } => {
                self.landed(space, request);
                if !self.told_to_fail(space, request) {
                    let settled = Settled { applied: batch.len() as u64, ..Settled::default() };
                    let (store, server) = self.both(space);
                    store.answer(&batch, epoch);
                    // One that was given up may come late: then only its results count.
                    let fits = store.loaded && store.epoch == Some(epoch);
                    let fits = fits && store.absorb(after, up_to, server);
                    let queue = store.queue();
                    let page =
                        Page { up_to: revision(up_to), head: revision(head), more: up_to < head };
                    self.hear(if fits {
                        Event::Exchanged { space, request, settled, queue, page }
                    } else {
                        Event::Answered { space, request, settled, queue }
                    });
                }
            }
            Frame::Range { space, request, after, up_to, whole } => {
                if self.followed.contains_key(&request) && !self.told_to_fail(space, request) {
                    let (store, server) = self.both(space);
                    let up_to_revision = revision(up_to);
                    let event = if store.absorb(after, up_to, server) {
                        Event::Absorbed { space, request, up_to: up_to_revision, whole }
                    } else {
                        Event::Missed { space, request }
                    };
                    self.hear(event);
                }
            }
            Frame::CaughtUp { space, request, up_to } => {
                let up_to = revision(up_to);
                self.hear(Event::CaughtUp { space, request, up_to });
            }
            Frame::Loaded { space, request, epoch, up_to, healing } => {
                let store = self.store(space);
                let fits = store.wanted && store.epoch == Some(epoch);
                if fits && !self.told_to_fail(space, request) {
                    self.store(space).load(up_to, healing);
                    let revision = revision(up_to);
                    self.hear(Event::Loaded { space, request, revision });
                }
            }
        }
    }

    fn told_to_fail(&mut self, space: SpaceNo, request: RequestNo) -> bool {
        let fails = self.store_fails(space, Some(request));
        if let Some(event) = self.local.pop_front() {
            self.hear(event);
        }
        fails
    }
}

fn space_of(action: &Action) -> Option<SpaceNo> {
    match action {
        Action::Take { space, .. }
        | Action::Exchange { space, .. }
        | Action::Subscribe { space, .. }
        | Action::Load { space, .. }
        | Action::Renumber { space, .. }
        | Action::Adopt { space, .. }
        | Action::Park { space, .. }
        | Action::Distrust { space }
        | Action::Forget { space } => Some(*space),
        _ => None,
    }
}
