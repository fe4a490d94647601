//! One Subscribe stream: a task that owns its subscriptions, hears the client
//! and sends through one queue, so that order is a fact. It holds back nobody:
//! while its reader does not read, it waits, and its cursors wait with it.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::auth::unauthenticated;
use super::encoded::Encoded;
use super::live::{self, Place, Step, View};
use super::outbox::{Frames, Outbox, outbox};
use super::proto::subscribe_request::Frame as Request;
use super::proto::subscribe_response::Frame as Response;
use super::service::Service;
use super::status::{self, status};
use super::subscription::{Phase, Subscription, closed, encode, ending};
use super::{from_proto, proto, to_proto};
use crate::app::{App, ConflictPlace, Error};
use crate::auth::{Principal, RefusalClass};
use crate::clock::Clock;
use crate::domain::{CursorFault, Filter, Revision, Space, Violation, limits};

/// Shorter than the 15 s that are promised.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// Between attempts to read a store that is away.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// A step that takes longer is begun again later, so that a store that does not
/// answer does not keep the stream from saying so.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);
/// A stream lives this much longer than its token, so that a client whose clock
/// is a little late can end it by itself.
const EXPIRY_GRACE: Duration = Duration::from_secs(5);

/// Opens a session on a task of its own.
pub(super) fn open(
    service: &Service,
    principal: Principal,
    inbound: Streaming<proto::SubscribeRequest>,
) -> Frames {
    let (out, ending, frames) = outbox();
    let left = principal.expires_at.saturating_sub(service.clock.unix_seconds());
    let left = Duration::from_secs(left.max(0).unsigned_abs()) + EXPIRY_GRACE;
    // A token without a sensible end must not overflow the timer.
    let expires = Box::pin(sleep(left.min(Duration::from_secs(365 * 86_400))));
    let mut progress = interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let session = Session {
        app: Arc::clone(&service.app),
        clock: service.clock.clone(),
        principal,
        expires,
        stop: service.stop.clone(),
        out,
        wake: Arc::new(Notify::new()),
        progress,
        subscriptions: Vec::new(),
        next_view: 0,
        retry_at: None,
    };
    let task = async move {
        let status = match AssertUnwindSafe(session.run(inbound)).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(status)) => status,
            Err(_panic) => status::internal(&std::io::Error::other("a session panicked")),
        };
        ending.with(status);
    };
    drop(service.streams.spawn("subscribe", task));
    frames
}

struct Session {
    app: Arc<App>,
    clock: Clock,
    principal: Principal,
    expires: Pin<Box<Sleep>>,
    stop: CancellationToken,
    out: Outbox,
    wake: Arc<Notify>,
    progress: Interval,
    subscriptions: Vec<Subscription>,
    /// The number of the next view that is not like another.
    next_view: usize,
    /// The store was away; read it again then.
    retry_at: Option<Instant>,
}

/// Subscriptions that a round ended, by their indices, and why.
type Ended = Vec<(usize, Error)>;

/// What woke a session.
enum Event {
    Stop,
    Expired,
    ReaderGone,
    Frame(Result<Option<proto::SubscribeRequest>, Status>),
    Progress,
    Moved,
}

impl Session {
    /// Runs to the stream's end: Ok if the client ended it, else with the status
    /// to end it with.
    async fn run(mut self, mut inbound: Streaming<proto::SubscribeRequest>) -> Result<(), Status> {
        let mut listening = true;
        let mut behind = false;
        loop {
            match self.next_event(&mut inbound, listening, behind).await {
                Event::Stop => return Err(status::stopping()),
                Event::Expired => return Err(unauthenticated(RefusalClass::Expired)),
                Event::ReaderGone => return Ok(()),
                Event::Frame(Ok(Some(frame))) => self.hear(frame).await?,
                Event::Frame(Ok(None)) if self.subscriptions.is_empty() => return Ok(()),
                // The client has nothing more to say, but goes on reading.
                Event::Frame(Ok(None)) => listening = false,
                Event::Frame(Err(fault)) => return heard_no_more(&fault),
                Event::Progress => self.send_progress().await?,
                Event::Moved => {}
            }
            behind = self.round().await?;
            self.flush().await?;
            if !listening && self.subscriptions.is_empty() {
                return Ok(());
            }
        }
    }

    async fn next_event(
        &mut self,
        inbound: &mut Streaming<proto::SubscribeRequest>,
        listening: bool,
        behind: bool,
    ) -> Event {
        let retry_at = self.retry_at;
        let retry = async {
            match retry_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // Cancel: every branch only waits, or, with a frame, keeps what it has
        // received so far inside `inbound`.
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Event::Stop,
            () = &mut self.expires => Event::Expired,
            () = self.out.closed() => Event::ReaderGone,
            frame = inbound.message(), if listening => Event::Frame(frame),
            _ = self.progress.tick() => Event::Progress,
            () = std::future::ready(()), if behind => Event::Moved,
            () = self.wake.notified() => Event::Moved,
            () = retry => Event::Moved,
        }
    }

    /// Lets every subscription go one step. True if some may go on at once.
    async fn round(&mut self) -> Result<bool, Status> {
        let mut ended = Vec::new();
        let caught_up = self.round_of_catch_up(&mut ended).await?;
        let went_live = self.round_of_live(&mut ended).await?;
        ended.sort_by_key(|(index, _)| *index);
        for (index, error) in ended.into_iter().rev() {
            let id = self.subscriptions.swap_remove(index).id;
            self.send(ending(id, error)).await?;
        }
        Ok(caught_up || went_live)
    }

    async fn round_of_catch_up(&mut self, ended: &mut Ended) -> Result<bool, Status> {
        self.retry_at = self.retry_at.filter(|at| Instant::now() < *at);
        let app = Arc::clone(&self.app);
        let mut behind = false;
        for index in 0..self.subscriptions.len() {
            // The store is away for one: then only what is live goes on.
            if self.retry_at.is_some() {
                break;
            }
            let Some(subscription) = self.subscriptions.get_mut(index) else { break };
            if subscription.phase == Phase::Live {
                continue;
            }
            // Cancel: what waits for the store has changed nothing yet.
            match timeout(STEP_TIMEOUT, subscription.catch_up(&app)).await {
                Ok(Ok(frames)) => {
                    behind = true;
                    for frame in frames {
                        self.send(frame).await?;
                    }
                }
                Ok(Err(error)) if !error.is_retryable() => ended.push((index, error)),
                // The store comes back, and the cursor is still good.
                Err(_) | Ok(Err(_)) => self.retry_at = Some(Instant::now() + STORE_RETRY),
            }
        }
        Ok(behind)
    }

    async fn round_of_live(&mut self, ended: &mut Ended) -> Result<bool, Status> {
        let mut behind = false;
        for party in live::parties(&self.subscriptions) {
            match live::step(&mut self.subscriptions, &party) {
                Step::Stay => {}
                Step::Go(frame) => {
                    behind = true;
                    if let Some(frame) = frame {
                        self.send(frame).await?;
                    }
                }
                Step::Replaced(epoch, head) => ended.extend(party.into_iter().map(|index| {
                    let (fault, floor) = (CursorFault::EpochChanged, Revision::ZERO);
                    (index, Error::Cursor { fault, epoch, head, floor })
                })),
            }
        }
        Ok(behind)
    }

    /// Takes a frame into the queue, and waits if that is full.
    async fn send(&mut self, frame: Encoded) -> Result<(), Status> {
        if self.out.push(frame) { self.flush().await } else { Ok(()) }
    }

    /// Hands over all frames, however long the reader takes for those before.
    async fn flush(&mut self) -> Result<(), Status> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(status::stopping()),
            () = &mut self.expires => Err(unauthenticated(RefusalClass::Expired)),
            // Cancel safe: what is not handed over stays.
            there = self.out.flush() => {
                if there { Ok(()) } else { Err(Status::cancelled("the reader has gone")) }
            }
        }
    }

    async fn send_progress(&mut self) -> Result<(), Status> {
        let left = self.principal.expires_at.saturating_sub(self.clock.unix_seconds());
        let frame = proto::ProgressFrame {
            server_time: Some(to_proto::timestamp(self.clock.now())),
            store_ok: self.app.store_ok(),
            token_expires_in: Some(prost_types::Duration { seconds: left.max(0), nanos: 0 }),
            subscriptions: self.subscriptions.iter_mut().map(Subscription::progress).collect(),
        };
        self.send(encode(Response::Progress(frame))).await
    }

    async fn hear(&mut self, frame: proto::SubscribeRequest) -> Result<(), Status> {
        match frame.frame {
            Some(Request::Subscribe(frame)) => self.subscribe(frame).await,
            Some(Request::Unsubscribe(frame)) => self.unsubscribe(frame).await,
            None => Err(invalid("frame", "must be one of the frames of this version")),
        }
    }

    async fn unsubscribe(&mut self, frame: proto::UnsubscribeFrame) -> Result<(), Status> {
        let id = frame.subscription_id;
        let open = self.subscriptions.iter().position(|open| open.id == id);
        let closed = match open {
            Some(index) => {
                drop(self.subscriptions.swap_remove(index));
                closed(id, &Status::ok("unsubscribed"))
            }
            None => {
                let none = "there is no open subscription of this name";
                closed(id, &status(Code::NotFound, "SUBSCRIPTION_NOT_FOUND", none, []))
            }
        };
        self.send(closed).await
    }

    async fn subscribe(&mut self, frame: proto::SubscribeFrame) -> Result<(), Status> {
        let id = frame.subscription_id.clone();
        let bytes = id.len();
        let valid = (1..=limits::SUBSCRIPTION_ID_BYTES_MAX).contains(&bytes)
            && id.bytes().all(|byte| byte.is_ascii_graphic());
        if !valid {
            let rule = "must be 1 to 64 visible ASCII characters";
            return Err(invalid("subscribe.subscription_id", rule));
        }
        if self.subscriptions.iter().any(|open| open.id == id) {
            let rule = "is the name of an open subscription";
            return Err(invalid("subscribe.subscription_id", rule));
        }
        match self.begin(frame).await {
            Ok((subscription, subscribed)) => {
                self.next_view += 1;
                self.subscriptions.push(subscription);
                self.send(encode(Response::Subscribed(subscribed))).await
            }
            Err(ended) => self.send(ended).await,
        }
    }

    /// A new subscription and the frame that says so, or the frame that says
    /// why not.
    async fn begin(
        &self,
        frame: proto::SubscribeFrame,
    ) -> Result<(Subscription, proto::SubscribedFrame), Encoded> {
        let id = frame.subscription_id.clone();
        let broken = |violations: Vec<Violation>| {
            let of_frame =
                |it: Violation| Violation::new(format!("subscribe.{}", it.field), it.description);
            let violations = violations.into_iter().map(of_frame).collect();
            closed(id.clone(), &status::invalid(violations))
        };
        let failed = |error| ending(id.clone(), error);
        if self.subscriptions.len() >= limits::STREAM_SUBSCRIPTIONS_MAX {
            let message = "the stream has as many subscriptions as it may; see GetStatus";
            let full = status(Code::ResourceExhausted, "TOO_MANY_SUBSCRIPTIONS", message, []);
            return Err(closed(id, &full));
        }
        let space: Space = self.app.space(&self.principal.user, &frame.space).map_err(failed)?;
        let cursor = from_proto::cursor(frame.cursor.as_ref()).map_err(broken)?;
        let collections = from_proto::collections(&frame.collections).map_err(broken)?;
        let device = from_proto::device(&frame.device).map_err(broken)?;
        let form = from_proto::document_form(frame.document_form).map_err(broken)?;
        let told = from_proto::conflict_cursor(&frame.conflict_cursor).map_err(broken)?;
        let waker = Arc::clone(&self.wake);
        let (watch, at) = self.app.watch(space.clone(), waker).await.map_err(failed)?;
        if let Err(fault) = cursor.check(at.epoch, at.floor, at.head) {
            let (epoch, head, floor) = (at.epoch, at.head, at.floor);
            return Err(failed(Error::Cursor { fault, epoch, head, floor }));
        }
        // Another epoch has other conflicts.
        let told = told.filter(|(epoch, _)| *epoch == at.epoch).map(|(_, place)| place);
        let subscribed = proto::SubscribedFrame {
            subscription_id: frame.subscription_id,
            space: space.name().to_owned(),
            epoch: at.epoch.to_string(),
            head: at.head.get(),
            floor: at.floor.get(),
        };
        let view = View {
            space: space.id,
            epoch: at.epoch,
            filter: Filter { collections, not_by: device.filter(|_| !frame.echo) },
            form,
            conflicts: frame.conflicts,
        };
        let alike = self.subscriptions.iter().find(|it| it.view == view);
        let view_number = alike.map_or(self.next_view, |it| it.view_number);
        let subscription = Subscription {
            id: subscribed.subscription_id.clone(),
            view,
            view_number,
            space,
            watch,
            phase: Phase::CatchUp,
            place: Place {
                read_to: cursor.revision,
                told_to: cursor.revision,
                conflicts: frame
                    .conflicts
                    .then(|| told.unwrap_or_else(|| ConflictPlace::from(cursor.revision))),
            },
            since: cursor.revision,
            began: (cursor.revision == Revision::ZERO && told.is_none())
                .then_some(ConflictPlace { moved_at: at.head, number: at.conflicts }),
        };
        Ok((subscription, subscribed))
    }
}

fn invalid(field: &str, rule: &str) -> Status {
    status::invalid(vec![Violation::new(field, rule)])
}

/// The end of a stream whose inbound half broke. A client that went away is no
/// news; one that sent what cannot be read is told.
fn heard_no_more(fault: &Status) -> Result<(), Status> {
    match fault.code() {
        Code::Cancelled | Code::Unknown | Code::Unavailable => Ok(()),
        Code::OutOfRange | Code::ResourceExhausted => {
            let message = "a frame is larger than the server accepts; see GetStatus";
            Err(status(Code::ResourceExhausted, "REQUEST_TOO_LARGE", message, []))
        }
        _ => Err(invalid("frame", "cannot be decoded")),
    }
}
