//! What the server says on the stream: stored, then told to the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::absorb::Absorbing;
use super::{Session, local};
use crate::client::engine::{Code, Event, Fault, Place, RequestNo, SpaceNo};
use crate::client::replica::{self, Range};
use crate::client::store::{Need, StoreError};
use crate::client::{remote, wire};
use crate::domain::Revision;
use crate::rpc::proto::{self, subscribe_response::Frame};

type Told = Result<Vec<Event>, StoreError>;

impl Session {
    pub(super) async fn framed(&mut self, frame: Result<Option<proto::SubscribeResponse>, Fault>) {
        let Some(request) = self.link.as_ref().map(|link| link.request) else { return };
        let fault = match frame {
            Ok(Some(proto::SubscribeResponse { frame: None })) => return,
            Ok(Some(proto::SubscribeResponse { frame: Some(frame) })) => {
                for frame in each(frame) {
                    self.arrived(frame).await;
                }
                return;
            }
            Ok(None) => Fault::new(Code::Unavailable, "", "the server has ended the stream"),
            Err(fault) => fault,
        };
        self.hang_up();
        self.tell(Event::LinkLost { request, fault }).await;
    }

    /// Takes a frame in, unless it has to wait behind a range of its space.
    async fn arrived(&mut self, frame: Frame) {
        let space = self.space_of(&frame).map(|(_, space)| space);
        let link = self.link.as_mut();
        let reading = space.and_then(|space| link?.reading.get_mut(&space));
        match reading {
            None => self.take_frame(frame).await,
            Some(reading) => {
                reading.wait(frame);
                self.tell(Event::Heard).await;
            }
        }
    }

    pub(super) async fn take_frame(&mut self, frame: Frame) {
        let space = self.space_of(&frame);
        match self.take_in(frame).await {
            Ok(events) => {
                for event in events {
                    self.tell(event).await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the local file failed");
                if let Some((request, space)) = space {
                    let (request, message) = (Some(request), error.to_string());
                    self.tell(Event::StoreFailed { space, request, message }).await;
                }
            }
        }
    }

    /// A subscription by its name.
    fn subscription(&self, name: &str) -> Option<(RequestNo, SpaceNo)> {
        let request = RequestNo(name.parse().ok()?);
        let space = self.link.as_ref()?.subscriptions.get(&request)?;
        Some((request, *space))
    }

    /// Whose file work a frame is.
    fn space_of(&self, frame: &Frame) -> Option<(RequestNo, SpaceNo)> {
        let name = match frame {
            Frame::Subscribed(it) => &it.subscription_id,
            Frame::Changes(it) => it.subscription_ids.first()?,
            Frame::CaughtUp(it) => &it.subscription_id,
            Frame::Closed(it) => &it.subscription_id,
            Frame::ResyncRequired(it) => &it.subscription_id,
            Frame::Conflict(it) => &it.subscription_id,
            Frame::RemovedFromView(it) => &it.subscription_id,
            Frame::Mutated(it) => {
                let request = RequestNo(it.request_id.parse().ok()?);
                return self.sender(request).map(|space| (request, space));
            }
            Frame::Progress(_)
            | Frame::Snapshot(_)
            | Frame::Event(_)
            | Frame::GoingAway(_)
            | Frame::Access(_) => return None,
        };
        self.subscription(name)
    }

    /// The space whose batch this was.
    fn sender(&self, request: RequestNo) -> Option<SpaceNo> {
        let is = |sent: &super::Sent| sent.request == request;
        let mut spaces = self.spaces.iter();
        spaces.find(|(_, named)| named.sent.as_ref().is_some_and(is)).map(|(space, _)| *space)
    }

    async fn take_in(&mut self, frame: Frame) -> Told {
        match frame {
            Frame::Subscribed(it) => Ok(self.subscribed(&it)),
            Frame::Changes(it) => self.changes(it).await,
            Frame::CaughtUp(it) => self.caught_up(it).await,
            Frame::Progress(it) => self.progress(it).await,
            Frame::Closed(it) => Ok(self.ended_by(&it.subscription_id, wire::closed(&it))),
            Frame::ResyncRequired(it) => {
                Ok(self.ended_by(&it.subscription_id, wire::resync(it.reason())))
            }
            Frame::Conflict(it) => self.conflict(*it).await,
            Frame::Mutated(it) => self.mutated(it).await,
            Frame::RemovedFromView(it) => {
                let Some((request, space)) = self.subscription(&it.subscription_id) else {
                    return Ok(vec![Event::Heard]);
                };
                Ok(vec![Event::RemovedFromView { space, request }])
            }
            Frame::GoingAway(it) => Ok(vec![Event::GoingAway {
                retry_after: remote::duration(it.retry_after.as_ref()).unwrap_or_default(),
                token_expired: it.reason() == proto::GoingAwayReason::TokenExpired,
            }]),
            Frame::Access(it) => {
                let mut named = self.spaces.iter();
                let space = named.find(|(_, named)| named.name == it.space).map(|(no, _)| *no);
                match space {
                    Some(space) => Ok(vec![Event::AccessChanged { space }]),
                    None => Ok(vec![Event::Heard]),
                }
            }
            Frame::Snapshot(_) | Frame::Event(_) => Ok(vec![Event::Heard]),
        }
    }

    fn subscribed(&mut self, it: &proto::SubscribedFrame) -> Vec<Event> {
        match self.subscription(&it.subscription_id) {
            None => vec![Event::Heard],
            Some((request, space)) => {
                let head = Revision::new(it.head).unwrap_or_default();
                vec![Event::Subscribed { space, request, head }]
            }
        }
    }

    /// The server has ended a subscription.
    fn ended_by(&mut self, name: &str, fault: Fault) -> Vec<Event> {
        let Some((request, space)) = self.subscription(name) else { return vec![Event::Heard] };
        if let Some(link) = &mut self.link {
            link.subscriptions.remove(&request);
        }
        vec![Event::Failed { space, request, fault }]
    }

    async fn changes(&mut self, it: proto::ChangesFrame) -> Told {
        let mut events = vec![Event::Heard];
        let name = it.subscription_ids.first();
        let subscription = name.and_then(|name| self.subscription(name));
        let Some((request, space)) = subscription else { return Ok(events) };
        let read = || {
            Ok::<_, Fault>(Range {
                changes: it.changes.iter().map(wire::change).collect::<Result<_, _>>()?,
                after: wire::revision(it.after)?,
                up_to: wire::revision(it.up_to)?,
                partial: it.partial,
            })
        };
        events.extend(match read() {
            Err(fault) => self.failed(space, request, true, fault)?,
            Ok(range) => {
                let (range, fetched) = (Arc::new(range), BTreeMap::new());
                self.absorb(Absorbing { space, request, range, fetched, call: None }).await?
            }
        });
        Ok(events)
    }

    /// Everything up to there has come, also if nothing of it was for us.
    async fn advance(&self, space: SpaceNo, up_to: Revision) -> Result<(), StoreError> {
        let facts = self.facts(space).await?;
        if facts.place.cursor >= up_to {
            return Ok(());
        }
        let step = move |replica: &mut replica::Replica| replica.advance(up_to);
        crate::failpoint::reach("client.before_advance");
        self.store.step(local(space), Need::default(), step).await
    }

    async fn caught_up(&mut self, it: proto::CaughtUpFrame) -> Told {
        let Some((request, space)) = self.subscription(&it.subscription_id) else {
            return Ok(vec![Event::Heard]);
        };
        let up_to = Revision::new(it.up_to).unwrap_or_default();
        self.advance(space, up_to).await?;
        if !it.conflict_cursor.is_empty() {
            self.keep_conflicts(space, &[], Some(it.conflict_cursor)).await?;
        }
        if let Some(named) = self.spaces.get_mut(&space) {
            named.digest = it.digest;
        }
        self.read_conflicts(space);
        Ok(vec![Event::CaughtUp { space, request, up_to }])
    }

    async fn progress(&mut self, it: proto::ProgressFrame) -> Told {
        let (mut places, mut failed) = (Vec::new(), Vec::new());
        for at in &it.subscriptions {
            let Some((request, space)) = self.subscription(&at.subscription_id) else { continue };
            // It comes behind the range that is being taken in.
            if self.link.as_ref().is_some_and(|link| link.reading.contains_key(&space)) {
                continue;
            }
            let up_to = Revision::new(at.up_to).unwrap_or_default();
            let head = Revision::new(at.head).unwrap_or_default();
            match self.advance(space, up_to).await {
                Ok(()) => places.push(Place { space, up_to, head }),
                Err(error) => {
                    let (request, message) = (Some(request), error.to_string());
                    failed.push(Event::StoreFailed { space, request, message });
                }
            }
            self.read_conflicts(space);
        }
        let token_expires_in = remote::duration(it.token_expires_in.as_ref());
        let mut events = vec![Event::Progress { store_ok: it.store_ok, token_expires_in, places }];
        events.append(&mut failed);
        Ok(events)
    }

    async fn conflict(&mut self, it: proto::ConflictFrame) -> Told {
        if let Some((_, space)) = self.subscription(&it.subscription_id) {
            let told: Vec<_> = it.conflict.iter().collect();
            self.keep_conflicts(space, &told, Some(it.conflict_cursor)).await?;
        }
        Ok(vec![Event::Heard])
    }

    async fn mutated(&mut self, it: proto::MutatedFrame) -> Told {
        let request = it.request_id.parse().map(RequestNo).unwrap_or_default();
        let Some(space) = self.sender(request) else { return Ok(vec![Event::Heard]) };
        let results = match &it.failure {
            Some(failure) => Err(wire::failure(failure)),
            None => Ok(it.results),
        };
        let mut events = vec![Event::Heard];
        events.extend(self.results(space, request, results).await?);
        Ok(events)
    }
}

/// A frame of several subscriptions as one of each.
fn each(frame: Frame) -> Vec<Frame> {
    match frame {
        Frame::Changes(it) if it.subscription_ids.len() > 1 => {
            let ids = it.subscription_ids.iter().cloned();
            let of = |id| proto::ChangesFrame { subscription_ids: vec![id], ..it.clone() };
            ids.map(|id| Frame::Changes(of(id))).collect()
        }
        frame => vec![frame],
    }
}
