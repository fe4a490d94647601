//! What a client says on its stream. A frame that cannot be answered ends the stream;
//! one that breaks a rule otherwise ends the subscription that it is about.

use prost::Message;
use tonic::{Code, Status};

use super::{Session, invalid, time_left};
use crate::auth::TokenError;
use crate::domain::{
    DocumentForm, Event, MutationResult, Request, Revision, Right, Space, Violation, limits,
};
use crate::rpc::auth::unauthenticated;
use crate::rpc::frames::{closed, failure, removed_from_view};
use crate::rpc::outbox::End;
use crate::rpc::proto::subscribe_request::Frame as Heard;
use crate::rpc::status::{self, status};
use crate::rpc::subscription::Subscription;
use crate::rpc::{from_proto, proto, to_proto};

impl Session {
    pub(super) async fn hear(&mut self, frame: proto::SubscribeRequest) -> Result<(), End> {
        match frame.frame {
            Some(Heard::Subscribe(frame)) => self.subscribe(frame).await?,
            Some(Heard::Unsubscribe(frame)) => self.unsubscribe(&frame.subscription_id)?,
            Some(Heard::Mutate(frame)) => self.mutate(&frame)?,
            Some(Heard::Ack(frame)) => self.acknowledge(&frame),
            Some(Heard::RefreshToken(frame)) => self.refresh_token(&frame.token)?,
            Some(Heard::Publish(frame)) => self.publish(&frame)?,
            None => {
                return Err(invalid("frame", "must be one of the frames of this version").into());
            }
        }
        Ok(())
    }

    /// The open subscription of a name, or a word that there is none. What can be no
    /// name ends the stream.
    fn find(&mut self, frame: &str, id: &str) -> Result<Option<usize>, Status> {
        from_proto::token_name(id, limits::SUBSCRIPTION_ID_BYTES_MAX)
            .map_err(|rule| invalid(&format!("{frame}.subscription_id"), rule))?;
        let found = self.subscriptions.all.iter().position(|open| open.id == id);
        if found.is_none() {
            let none = "there is no open subscription of this name";
            let none = status(Code::NotFound, "SUBSCRIPTION_NOT_FOUND", none, []);
            self.out.answer(closed(id.to_owned(), &none));
        }
        Ok(found)
    }

    fn unsubscribe(&mut self, id: &str) -> Result<(), Status> {
        if let Some(index) = self.find("unsubscribe", id)? {
            self.drop_subscription(index, Status::ok("unsubscribed"));
        }
        Ok(())
    }

    fn drop_subscription(&mut self, index: usize, status: Status) {
        let id = self.subscriptions.all.swap_remove(index).id;
        self.end_subscription(id, status.into());
    }

    fn acknowledge(&mut self, frame: &proto::AckFrame) {
        // It may have ended before the client heard of that.
        let open = self.subscriptions.all.iter().position(|open| open.id == frame.subscription_id);
        let Some((index, subscription)) =
            open.and_then(|index| Some((index, self.subscriptions.all.get(index)?)))
        else {
            return;
        };
        let told = subscription.told_to();
        let revision = Revision::new(frame.revision).filter(|revision| *revision <= told);
        match (&subscription.view.filter.reader, revision) {
            (Some((user, device)), Some(revision)) => {
                let (user, device) = (user.clone(), device.clone());
                self.app.acknowledge(subscription.view.space, user, device, revision);
            }
            (None, _) => {
                let rule = "is of a subscription without a device";
                self.drop_subscription(index, invalid("ack.subscription_id", rule));
            }
            (Some(_), None) => {
                let rule = format!("must be 0 to {told}, up to which changes were sent");
                self.drop_subscription(index, invalid("ack.revision", rule));
            }
        }
    }

    /// Goes on with another token of the same user. What it does not allow ends.
    fn refresh_token(&mut self, token: &str) -> Result<(), Status> {
        let verified = self.verifier.verify(token, self.clock.unix_seconds());
        let principal = verified.map_err(TokenError::class).map_err(unauthenticated)?;
        if principal.caller.user != self.principal.caller.user {
            let message = "the token is of another subject: open another stream for it";
            return Err(status(Code::PermissionDenied, "OTHER_SUBJECT", message, []));
        }
        self.principal = principal;
        let left = time_left(&self.clock, &self.principal);
        self.calls.expires.as_mut().reset(tokio::time::Instant::now() + left);
        for index in (0..self.subscriptions.all.len()).rev() {
            let Some(subscription) = self.subscriptions.all.get(index) else { continue };
            let name = subscription.space.name();
            let allowed = self.app.space(&self.principal.caller, name, Right::Read);
            if let Err(error) = allowed {
                self.out.answer(removed_from_view(subscription.id.clone()));
                self.drop_subscription(index, error.into());
            }
        }
        self.send_progress();
        Ok(())
    }

    fn publish(&mut self, frame: &proto::PublishFrame) -> Result<(), Status> {
        let Some(index) = self.find("publish", &frame.subscription_id)? else { return Ok(()) };
        let Some(subscription) = self.subscriptions.all.get(index) else { return Ok(()) };
        match self.event(subscription, frame) {
            Ok(event) => {
                let Subscription { view, watch, .. } = subscription;
                self.app.publish(view.space, event, watch);
            }
            Err(status) => self.drop_subscription(index, status),
        }
        Ok(())
    }

    fn event(
        &self,
        subscription: &Subscription,
        frame: &proto::PublishFrame,
    ) -> Result<Event, Status> {
        let caller = &self.principal.caller;
        self.app.space(caller, subscription.space.name(), Right::Write)?;
        let event = from_proto::event(frame).map_err(|broken| broken_in("publish", broken))?;
        let (topic, document) = event;
        Ok(Event {
            topic,
            document,
            author: caller.user.clone(),
            device: subscription.view.filter.reader.as_ref().map(|(_, device)| device.clone()),
            published_at: self.clock.now_to_store(),
        })
    }

    fn mutate(&mut self, frame: &proto::MutateFrame) -> Result<(), Status> {
        let name = from_proto::token_name(&frame.request_id, limits::REQUEST_ID_BYTES_MAX);
        let request_id = name.map_err(|rule| invalid("mutate.request_id", rule))?;
        let answer = |results: Result<Vec<MutationResult>, Status>, form| match results {
            Ok(results) => proto::MutatedFrame {
                request_id,
                results: to_proto::results(&results, form),
                failure: None,
            },
            Err(status) => {
                let failure = Some(failure(&status));
                proto::MutatedFrame { request_id, results: Vec::new(), failure }
            }
        };
        match self.request(frame) {
            Ok((space, request, form)) => {
                // Who follows the space here knows a head that is not above it.
                let follower = self.subscriptions.all.iter().find(|it| it.view.space == space.id);
                let head = follower.map_or(Revision::ZERO, |it| it.watch.head());
                let writes = Some((space.id, head));
                // Handed over now, so that frames are decided in their order.
                let results = self.app.submit(space, request, frame.encoded_len());
                self.mutates.add(writes, frame.encoded_len(), async move {
                    let results = async { results?.await };
                    answer(results.await.map_err(Status::from), form)
                });
            }
            Err(status) => {
                let refused = answer(Err(status), DocumentForm::default());
                self.mutates.add(None, 0, std::future::ready(refused));
            }
        }
        Ok(())
    }

    fn request(
        &self,
        frame: &proto::MutateFrame,
    ) -> Result<(Space, Request, DocumentForm), Status> {
        let broken = |violations| broken_in("mutate", violations);
        let caller = &self.principal.caller;
        let space = self.app.space(caller, &frame.space, Right::Write)?;
        let (device, form) = from_proto::writer(frame).map_err(broken)?;
        let mutations = from_proto::mutations(&frame.mutations, device.as_ref(), frame.atomic);
        let mutations = mutations.map_err(broken)?;
        let author = caller.user.clone();
        let request = Request { author, device, atomic: frame.atomic, mutations };
        Ok((space, request, form))
    }
}

/// Violations as fields of a frame.
pub(super) fn broken_in(frame: &str, violations: Vec<Violation>) -> Status {
    let of_frame = |it: Violation| Violation::new(format!("{frame}.{}", it.field), it.description);
    status::invalid(violations.into_iter().map(of_frame).collect())
}
