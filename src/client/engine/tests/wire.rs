//! The server's side of the simulation's wire: what arrives, and what is sent for it.

use super::server::{Batch, ServerSpace, index, revision};
use super::world::{Frame, Happening, Message, World, millis};
use crate::client::engine::{Code, Event, Fault, Place, RequestNo, SpaceNo};

/// Where a range, or a page, ends: a part of what there is to read.
fn end(after: i64, head: i64) -> i64 {
    head.min(after + 3.max((head - after) / 3))
}

impl World {
    /// Something arrives at the server, on a connection that the client may have left.
    pub(super) fn arrive(
        &mut self,
        link: u64,
        space: SpaceNo,
        request: RequestNo,
        message: Message,
    ) {
        let connected = self.wire.as_ref().is_some_and(|wire| wire.number == link);
        if self.is_black() || !connected && self.random.below(2) == 0 {
            return;
        }
        match message {
            Message::Mutate(batch) if self.server(space).is_fatal(&batch) => {
                if connected {
                    self.break_wire(Fault::new(Code::Internal, "INTERNAL", "a bug"));
                }
            }
            Message::Mutate(batch) => {
                let result = self.decide(space, &batch);
                if connected {
                    let epoch = self.server(space).epoch;
                    self.deliver(
                        answer(
                            result,
                            |_| Frame::Answer { space, request, batch, epoch },
                            space,
                            request,
                        ),
                        true,
                    );
                }
                self.publish(space);
            }
            Message::Exchange { .. } | Message::Status | Message::Load { .. } if !connected => {}
            Message::Status => {
                let result = self.unlucky_call().and_then(|()| self.server(space).status());
                let told = |told| Frame::Event(Event::StatusTold { space, request, told });
                self.deliver(answer(result, told, space, request), false);
            }
            Message::Exchange { batch, epoch, cursor } => {
                let result = self.server(space).resume(epoch, cursor);
                let result = result.and_then(|()| match batch.is_empty() {
                    true => self.unlucky_call(),
                    false => self.decide(space, &batch),
                });
                let server = self.server(space);
                let (epoch, head) = (server.epoch, server.history.head);
                let up_to = end(cursor, head);
                let page =
                    |()| Frame::Page { space, request, batch, epoch, after: cursor, up_to, head };
                self.deliver(answer(result, page, space, request), false);
                self.publish(space);
            }
            Message::Load { epoch, healing } => self.load(space, request, epoch, healing),
            Message::Subscribe { epoch, cursor } if connected => {
                let result = self.unlucky_call();
                let result = result.and_then(|()| self.server(space).resume(epoch, cursor));
                self.subscribe(space, request, cursor, result);
            }
            Message::Unsubscribe => {
                if let Some(wire) = &mut self.wire {
                    wire.subscriptions.remove(&request);
                }
            }
            Message::Subscribe { .. } => {}
        }
    }

    /// Whether what is sent now is lost; then so is all that follows on the same connection.
    fn is_black(&mut self) -> bool {
        let black = self.weather.black;
        self.wire.as_mut().map_or(black, |wire| {
            wire.black |= black;
            wire.black
        })
    }

    pub(super) fn server(&mut self, space: SpaceNo) -> &mut ServerSpace {
        &mut self.servers[index(space)]
    }

    fn decide(&mut self, space: SpaceNo, batch: &Batch) -> Result<(), Fault> {
        if self.weather.overloaded || self.unlucky(8) {
            return Err(Fault::new(Code::ResourceExhausted, "OVERLOADED", "later"));
        }
        if self.unlucky(4) {
            let retry_after = Some(millis(1_000 + self.random.below(9_000)));
            let fault = Fault::new(Code::ResourceExhausted, "RATE_LIMITED", "later");
            return Err(Fault { retry_after, ..fault });
        }
        let lost = Fault::new(Code::Unavailable, "SYNC_FAILED", "nobody knows");
        if self.unlucky(5) {
            return Err(lost);
        }
        self.server(space).decide(batch)?;
        if self.unlucky(5) { Err(lost) } else { Ok(()) }
    }

    fn unlucky_call(&mut self) -> Result<(), Fault> {
        match self.unlucky(12) {
            true => Err(Fault::new(Code::Unavailable, "SYNC_FAILED", "the database is away")),
            false => Ok(()),
        }
    }

    fn load(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        epoch: crate::domain::Epoch,
        healing: bool,
    ) {
        let result = self.unlucky_call();
        let server = self.server(space);
        let up_to = server.history.head;
        let result = result.and_then(|()| server.readable()).and_then(|()| {
            let fault = crate::domain::CursorFault::EpochChanged;
            if server.epoch == epoch { Ok(()) } else { Err(Fault::of_cursor(fault)) }
        });
        if result.is_ok() {
            self.deliver(Frame::Event(Event::LoadedPart { space, request }), true);
        }
        let loaded = |()| Frame::Loaded { space, request, epoch, up_to, healing };
        self.deliver(answer(result, loaded, space, request), true);
    }

    fn subscribe(
        &mut self,
        space: SpaceNo,
        request: RequestNo,
        cursor: i64,
        result: Result<(), Fault>,
    ) {
        let head = self.server(space).history.head;
        let fine = result.is_ok();
        let subscribed =
            |()| Frame::Event(Event::Subscribed { space, request, head: revision(head) });
        self.deliver(answer(result, subscribed, space, request), true);
        if let Some(wire) = &mut self.wire
            && fine
        {
            wire.subscriptions.insert(request, (space, cursor));
            self.publish(space);
            self.deliver(Frame::CaughtUp { space, request, up_to: head }, true);
        }
    }

    /// Tells all subscriptions of a space what they do not have.
    pub(super) fn publish(&mut self, space: SpaceNo) {
        let head = self.server(space).history.head;
        let Some(wire) = &mut self.wire else { return };
        let mut ranges = Vec::new();
        for (request, (of, at)) in &mut wire.subscriptions {
            while *of == space && *at < head {
                let (after, up_to) = (*at, end(*at, head));
                ranges.push(Frame::Range {
                    space,
                    request: *request,
                    after,
                    up_to,
                    whole: up_to == head,
                });
                *at = up_to;
            }
        }
        for range in ranges {
            self.deliver(range, true);
        }
    }

    /// The sign of life.
    pub(super) fn progress(&mut self, link: u64) {
        if self.wire.as_ref().is_none_or(|wire| wire.number != link) {
            return;
        }
        self.at(self.now + millis(15_000), Happening::Progress { link });
        if self.is_black() || self.mode != crate::client::engine::Mode::Live {
            return;
        }
        let place = |(space, at): (SpaceNo, i64)| {
            let head = revision(self.servers[index(space)].history.head);
            Place { space, up_to: revision(at), head }
        };
        let wire = self.wire.as_ref().filter(|it| it.number == link);
        let places = wire.map(|it| it.subscriptions.values().copied().map(place).collect());
        let places: Vec<Place> = places.unwrap_or_default();
        let left = Some(millis(1_000 * (20 + self.random.below(600))));
        let frame = Event::Progress { store_ok: true, token_expires_in: left, places };
        self.deliver(Frame::Event(frame), true);
    }

    /// What the client gets, unless it has left the connection.
    pub(super) fn delivered(&mut self, link: u64, frame: Frame) {
        let connected = self.wire.as_ref().is_some_and(|wire| wire.number == link);
        if connected && !self.is_black() {
            self.receive(frame);
        }
    }
}

fn answer<T>(
    result: Result<T, Fault>,
    frame: impl FnOnce(T) -> Frame,
    space: SpaceNo,
    request: RequestNo,
) -> Frame {
    match result {
        Ok(value) => frame(value),
        Err(fault) => Frame::Event(Event::Failed { space, request, fault }),
    }
}
