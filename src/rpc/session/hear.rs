//! What a client says on its stream. A frame that cannot be answered ends the stream;
//! one that breaks a rule otherwise ends the subscription that it is about.

use prost::Message;
use time::OffsetDateTime;
use tonic::{Code, Status};

use super::access::access;
use super::{Session, invalid, time_left};
use crate::app::{App, Error};
use crate::auth::{Principal, TokenError};
use crate::domain::{
    Caller, DocumentForm, Event, MutationResult, Request, Revision, Right, Space, Violation, limits,
};
use crate::rpc::auth::unauthenticated;
use crate::rpc::caller::{bound, of_caller};
use crate::rpc::check::HOLD;
use crate::rpc::frames::{closed, failure};
use crate::rpc::outbox::End;
use crate::rpc::proto::subscribe_request::Frame as Heard;
use crate::rpc::rates::Kind;
use crate::rpc::status::{self, status};
use crate::rpc::subscription::Subscription;
use crate::rpc::{from_proto, proto, to_proto};

impl Session {
    pub(super) async fn hear(&mut self, frame: proto::SubscribeRequest) -> Result<(), End> {
        match frame.frame {
            Some(Heard::Subscribe(frame)) => self.subscribe(frame).await?,
            Some(Heard::Unsubscribe(frame)) => self.unsubscribe(&frame.subscription_id)?,
            Some(Heard::Mutate(frame)) => self.mutate(&frame).await?,
            Some(Heard::Ack(frame)) => self.acknowledge(&frame),
            Some(Heard::RefreshToken(frame)) => self.refresh_token(&frame.token).await?,
            Some(Heard::Publish(frame)) => self.publish(&frame).await?,
            None => {
                return Err(invalid("frame", "must be one of the frames of this version").into());
            }
        }
        Ok(())
    }

    /// Whether the caller may send one more frame like this now.
    pub(super) fn admit(&self, kind: Kind) -> Result<(), Status> {
        let admitted = self.open.limiters().admit(self.principal.caller.really(), kind);
        admitted.inspect_err(|_refused| self.app.count_limited())
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

    pub(super) fn drop_subscription(&mut self, index: usize, status: Status) {
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
    async fn refresh_token(&mut self, token: &str) -> Result<(), Status> {
        self.admit(Kind::Opens)?;
        let now = self.clock.unix_seconds();
        // Cancel: a key that does not come in time is not known.
        let verified = self.verifier.verify_when_refreshed(token, now).await;
        let principal = verified.map_err(TokenError::class).map_err(unauthenticated)?;
        let Caller { user, actor, .. } = &self.principal.caller;
        let same = principal.caller.user == *actor.as_ref().unwrap_or(user)
            && principal.device == self.principal.device;
        let acting = actor.as_ref().map(|_| principal.acting_for(user));
        let principal = acting.unwrap_or(Some(principal)).filter(|_| same);
        let Some(principal) = principal else {
            let message = "the token is of another subject or device: open another stream for it";
            return Err(status(Code::PermissionDenied, "OTHER_SUBJECT", message, []));
        };
        self.principal = principal;
        let left = time_left(&self.clock, &self.principal);
        self.calls.expires.as_mut().reset(tokio::time::Instant::now() + left);
        self.review().await;
        self.send_progress();
        Ok(())
    }

    async fn publish(&mut self, frame: &proto::PublishFrame) -> Result<(), Status> {
        let Some(index) = self.find("publish", &frame.subscription_id)? else { return Ok(()) };
        let Some(subscription) = self.subscriptions.all.get(index) else { return Ok(()) };
        // Nobody is promised an event, and what one has to say too often is not worth more.
        if self.admit(Kind::Writes).is_err() {
            return Ok(());
        }
        let caller = &self.principal.caller;
        match event(&self.app, caller, subscription, (frame, self.clock.now_to_store())).await {
            Ok(event) => {
                let Subscription { view, watch, .. } = subscription;
                self.app.publish(view.space, event, watch);
            }
            Err(status) => self.drop_subscription(index, status),
        }
        Ok(())
    }

    async fn mutate(&mut self, frame: &proto::MutateFrame) -> Result<(), Status> {
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
        let request = match self.admit(Kind::Writes) {
            Ok(()) => request(&self.app, &self.principal, frame).await,
            Err(status) => Err(status),
        };
        match request {
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
                let hold = status.code() == Code::ResourceExhausted;
                let refused = answer(Err(status), DocumentForm::default());
                self.mutates.add(None, 0, async move {
                    if hold {
                        // Whoever sends too much is heard more slowly: the wait is the answer.
                        tokio::time::sleep(HOLD).await;
                    }
                    refused
                });
            }
        }
        Ok(())
    }
}

/// The event that a frame publishes to those who follow the space of a subscription.
async fn event(
    app: &App,
    caller: &Caller,
    subscription: &Subscription,
    (frame, published_at): (&proto::PublishFrame, OffsetDateTime),
) -> Result<Event, Status> {
    let access = access(app, caller, subscription.space.name(), Right::Write).await?;
    // Events are of the whole space.
    access.whole().map_err(Error::from)?;
    let event = from_proto::event(frame).map_err(|broken| broken_in("publish", broken))?;
    let (topic, document) = event;
    Ok(Event {
        topic,
        document,
        author: caller.user.clone(),
        device: subscription.view.filter.reader.as_ref().map(|(_, device)| device.clone()),
        published_at,
    })
}

/// What a frame asks to be written.
async fn request(
    app: &App,
    principal: &Principal,
    frame: &proto::MutateFrame,
) -> Result<(Space, Request, DocumentForm), Status> {
    let broken = |violations| broken_in("mutate", violations);
    let access = access(app, &principal.caller, &frame.space, Right::Write).await?;
    let (device, form) = from_proto::writer(frame).map_err(broken)?;
    let device = bound(principal, device)?;
    let mutations = from_proto::mutations(&frame.mutations, device.as_ref(), frame.atomic);
    let mutations = mutations.map_err(broken)?;
    let (space, request) = of_caller(principal, access, device, frame.atomic, mutations);
    Ok((space, request, form))
}

/// Violations as fields of a frame.
pub(super) fn broken_in(frame: &str, violations: Vec<Violation>) -> Status {
    let of_frame = |it: Violation| Violation::new(format!("{frame}.{}", it.field), it.description);
    status::invalid(violations.into_iter().map(of_frame).collect())
}
