//! How subscriptions begin.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tonic::{Code, Status};

use super::access::access;
use super::hear::broken_in;
use super::{Session, invalid};
use crate::app::{ConflictPlace, Error, SpaceHead};
use crate::domain::{Cursor, Epoch, Filter, Revision, Right, Scope, Space, limits};
use crate::hub::{Waker, Watch};
use crate::rpc::caller::bound;
use crate::rpc::frames::Ended;
use crate::rpc::from_proto::{Start, Wanted};
use crate::rpc::live::{Place, View};
use crate::rpc::proto::subscribe_response::Frame as Response;
use crate::rpc::rates::Kind;
use crate::rpc::status::status;
use crate::rpc::subscription::{Phase, Subscription};
use crate::rpc::{from_proto, proto, to_proto};

/// For the head of a space; then the subscription is to be tried again.
const WATCH_TIMEOUT: Duration = Duration::from_secs(3);

/// Where a subscription is when it begins.
struct Beginning {
    space: Space,
    /// To the collections that the caller may see.
    narrowed: bool,
    watch: Watch,
    at: SpaceHead,
    revision: Revision,
    phase: Phase,
}

impl Session {
    pub(super) async fn subscribe(&mut self, frame: proto::SubscribeFrame) -> Result<(), Status> {
        let name =
            from_proto::token_name(&frame.subscription_id, limits::SUBSCRIPTION_ID_BYTES_MAX);
        let field = if self.watch.is_some() { "subscription" } else { "subscribe" };
        let id = name.map_err(|rule| invalid(&format!("{field}.subscription_id"), rule))?;
        if self.subscriptions.all.iter().any(|open| open.id == id) {
            let rule = "is the name of an open subscription";
            return Err(invalid("subscribe.subscription_id", rule));
        }
        // That of a call with one subscription counts with the call.
        let admitted = if self.watch.is_some() { Ok(()) } else { self.admit(Kind::Opens) };
        if let Err(status) = admitted {
            self.end_subscription(id, status.into());
            return Ok(());
        }
        match self.begin(frame).await {
            Ok((subscription, subscribed)) => {
                self.next_view += 1;
                self.subscriptions.all.push(subscription);
                self.answer(Response::Subscribed(subscribed));
            }
            Err(ended) => self.end_subscription(id, ended),
        }
        Ok(())
    }

    /// A new subscription and the frame that says so, or why there is none.
    async fn begin(
        &mut self,
        frame: proto::SubscribeFrame,
    ) -> Result<(Subscription, proto::SubscribedFrame), Ended> {
        let caller = &self.principal.caller;
        let access = access(&self.app, caller, &frame.space, Right::Read).await?;
        let wanted = from_proto::subscription(&frame);
        let prefix = if self.watch.is_some() { "subscription" } else { "subscribe" };
        let wanted = wanted.map_err(|violations| broken_in(prefix, violations))?;
        let narrowed = access.collections.is_some() && wanted.scope == Scope::All;
        let scope = access.scope(wanted.scope.clone()).map_err(Error::from)?;
        if wanted.events {
            // Events are of the whole space.
            access.whole().map_err(Error::from)?;
        }
        let device = bound(&self.principal, wanted.device)?;
        let wanted = Wanted { scope, device, ..wanted };
        let space = access.space;
        self.room_for(&wanted)?;
        let Wanted { delta: deltas, events, .. } = wanted;
        let waker = Waker { bell: Arc::clone(&self.shared.lending.moved), deltas, events };
        // Cancel: who no longer waits for the head has not begun.
        let watching = timeout(WATCH_TIMEOUT, self.app.watch(&space, waker)).await;
        let (watch, at) = watching.unwrap_or(Err(Error::SlowStore))?;
        let subscribed = proto::SubscribedFrame {
            subscription_id: frame.subscription_id.clone(),
            space: space.name().to_owned(),
            epoch: at.epoch.to_string(),
            head: at.head.get(),
            floor: at.floor.get(),
            limits: Some(to_proto::limits(self.open.limiters().rates(), self.app.quotas())),
        };
        let (revision, phase) = begins_at(&wanted, at)?;
        let beginning = Beginning { space, narrowed, watch, at, revision, phase };
        Ok((self.begun(frame.subscription_id, wanted, beginning), subscribed))
    }

    /// Whether the stream may have one more like this.
    fn room_for(&self, wanted: &Wanted) -> Result<(), Status> {
        let full =
            |reason, message: &str| Err(status(Code::ResourceExhausted, reason, message, []));
        if self.subscriptions.all.len() >= limits::STREAM_SUBSCRIPTIONS_MAX {
            let message = "the stream has as many subscriptions as it may; see GetStatus";
            return full("TOO_MANY_SUBSCRIPTIONS", message);
        }
        let named = self.subscriptions.all.iter().map(|it| it.view.filter.scope.records());
        if wanted.scope.records() + named.sum::<usize>() > limits::STREAM_FILTER_RECORDS_MAX {
            let message = "the filters of the stream name too many records; see GetStatus";
            return full("TOO_MANY_KEYS", message);
        }
        Ok(())
    }

    fn begun(&self, id: String, wanted: Wanted, beginning: Beginning) -> Subscription {
        let Beginning { space, narrowed, watch, at, revision, phase } = beginning;
        // One name for all who follow the same.
        let known = self.subscriptions.all.iter().find(|it| it.view.space == space.id);
        let space = known.map_or(space, |it| it.space.clone());
        let Wanted { scope, device, echo, form, delta, events, conflicts, digest, told, .. } =
            wanted;
        let user = &self.principal.caller.user;
        let reader = device.map(|device| (user.clone(), device));
        let filter = Filter { scope, reader, echo };
        // Another epoch has other conflicts.
        let told = told.filter(|(epoch, _)| *epoch == at.epoch).map(|(_, place)| place);
        let nothing = revision == Revision::ZERO || matches!(phase, Phase::Snapshot(_));
        let began = ConflictPlace { moved_at: at.head, number: at.conflicts };
        let seen = match &phase {
            // Of what is there only what is open concerns it.
            Phase::Snapshot(_) => ConflictPlace::from(Revision::ZERO),
            Phase::CatchUp => ConflictPlace::from(revision),
            Phase::Live => began,
        };
        let view = View { space: space.id, epoch: at.epoch, filter, form, delta, conflicts };
        let alike = self.subscriptions.all.iter().find(|it| it.view == view);
        let view_number = alike.map_or(self.next_view, |it| it.view_number);
        // A cursor may come from the middle of a catch-up, whose pages left out what a
        // later change hid: nobody knows where that one began, nor how far it looked.
        let (since, looked_to) = match phase {
            Phase::CatchUp if revision == Revision::ZERO => (None, Revision::ZERO),
            Phase::CatchUp => (Some(Revision::ZERO), at.head),
            Phase::Snapshot(_) | Phase::Live => (Some(revision), Revision::ZERO),
        };
        let last_event = watch.last_event();
        Subscription {
            id,
            view,
            view_number,
            space,
            narrowed,
            watch,
            phase,
            place: Place {
                read_to: revision,
                told_to: revision,
                partial: false,
                conflicts: conflicts.then(|| told.unwrap_or(seen)),
            },
            since,
            began: (nothing && told.is_none()).then_some(began),
            looked_to,
            goal: Some(at.head),
            digest,
            proof: None,
            events: events.then_some(last_event),
            missed: 0,
        }
    }
}

/// Where a subscription begins in a space that is so.
fn begins_at(wanted: &Wanted, at: SpaceHead) -> Result<(Revision, Phase), Error> {
    let SpaceHead { epoch, head, floor, .. } = at;
    let check = |cursor: Cursor| {
        let checked = cursor.check(epoch, floor, head);
        checked.map_err(|fault| Error::Cursor { fault, epoch, head, floor })
    };
    let of = |epoch: Epoch, revision| Cursor { epoch: Some(epoch), revision };
    match &wanted.start {
        Start::Cursor(cursor) => {
            check(*cursor)?;
            // Who has everything needs nothing of the store.
            let there = cursor.revision == head && !wanted.conflicts;
            Ok((cursor.revision, if there { Phase::Live } else { Phase::CatchUp }))
        }
        Start::Now => Ok((head, Phase::Live)),
        Start::Snapshot(None) => Ok((head, Phase::Snapshot(None))),
        Start::Snapshot(Some(token)) => {
            check(of(token.epoch, token.at))?;
            Ok((token.at, Phase::Snapshot(Some(Box::new(token.after.clone())))))
        }
    }
}
