//! One stream: a task that owns its subscriptions, hears the client and sends
//! through one queue, so that order is a fact. It holds back nobody: while its
//! reader does not read, it goes on hearing, and its cursors wait. While there is
//! nothing to do but to tell what is live, its reader does that (`lending`).

mod access;
mod begin;
mod calls;
mod hear;
mod mutates;
mod rounds;

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status, Streaming};

use super::auth::unauthenticated;
use super::frames::{Ended, encode, going_away};
use super::outbox::{End, Frames, Gone, Outbox, Shared, outbox};
use super::proto::subscribe_response::Frame as Response;
use super::proto::{self, GoingAwayReason};
use super::rates::OpenStream;
use super::service::Service;
use super::status::{self, status};
use super::subscriptions::Subscriptions;
use super::to_proto;
use crate::app::{App, Hold};
use crate::auth::{Principal, RefusalClass, Verifier};
use crate::clock::Clock;
use crate::domain::Violation;
use calls::{Calls, Heeds};
use mutates::Mutates;
use rounds::Turns;

/// Shorter than the 15 s that are promised.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// A stream lives this much longer than its token, so that a client whose clock
/// is a little late can renew it.
pub(super) const EXPIRY_GRACE_SECONDS: i64 = 5;
/// When a client may come back to a server that has stopped: mostly to another one.
const RETURN_AFTER: Duration = Duration::from_secs(1);

/// What the client says on a stream.
pub(super) enum Inbound {
    Frames(Box<Streaming<proto::SubscribeRequest>>),
    /// One subscription, and nothing more.
    Watch(Box<proto::SubscribeFrame>),
}

/// Opens a session on a task of its own.
pub(super) fn open(
    service: &Service,
    principal: Principal,
    inbound: Inbound,
) -> Result<Frames, Status> {
    let open = service.limiters.open(principal.caller.really())?;
    let shared = Arc::new(Shared::default());
    let (out, ending, frames) = outbox(Arc::clone(&shared));
    let expires = sleep(time_left(&service.clock, &principal));
    let hold = service.app.hold_access(&principal.caller.user);
    let session = Session {
        open,
        app: Arc::clone(&service.app),
        verifier: Arc::clone(&service.verifier),
        clock: service.clock.clone(),
        principal,
        calls: Calls::new(service.stop.clone(), expires, Arc::clone(&shared), Arc::clone(&hold)),
        out,
        shared,
        subscriptions: Subscriptions::default(),
        mutates: Mutates::default(),
        turns: Turns::default(),
        next_view: 0,
        retry_at: None,
        watch: None,
        hold,
        access_due: None,
    };
    let task = async move {
        let end = match AssertUnwindSafe(session.run(inbound)).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(end)) => end,
            Err(_panic) => status::internal(&std::io::Error::other("a session panicked")).into(),
        };
        ending.with(end);
    };
    drop(service.streams.spawn("subscribe", task));
    Ok(frames)
}

/// Until a stream with this token ends.
fn time_left(clock: &Clock, principal: &Principal) -> Duration {
    let ends_at = principal.expires_at.saturating_add(EXPIRY_GRACE_SECONDS);
    let left = ends_at.saturating_sub(clock.unix_seconds()).max(0);
    let left = Duration::from_secs(left.unsigned_abs());
    // A token without a sensible end must not overflow the timer.
    clock.span(left.min(Duration::from_secs(365 * 86_400)))
}

struct Session {
    open: OpenStream,
    app: Arc<App>,
    verifier: Arc<Verifier>,
    clock: Clock,
    principal: Principal,
    calls: Calls,
    out: Outbox,
    shared: Arc<Shared>,
    /// There are none while they are lent.
    subscriptions: Subscriptions,
    mutates: Mutates,
    turns: Turns,
    /// The number of the next view that is not like another.
    next_view: usize,
    /// A page was read and it rests, or the store was away: it reads again then.
    retry_at: Option<Instant>,
    /// The stream has this one subscription, and ends like it.
    watch: Option<Watched>,
    /// Rings when the caller's memberships have changed.
    hold: Arc<Hold>,
    /// When they are to be asked for again.
    access_due: Option<Instant>,
}

/// The subscription of a stream that has only one.
enum Watched {
    Goes,
    Ended(String, Ended),
}

/// What woke a session.
enum Event {
    Stop,
    Expired,
    Room,
    Frame(Result<Option<proto::SubscribeRequest>, Status>),
    Answered(proto::MutatedFrame),
    Progress,
    /// Memberships have changed.
    Access,
    /// By the reader.
    Back,
    Moved,
}

impl Session {
    /// Runs to the stream's end: Ok if the client ended it, else how to end it.
    async fn run(mut self, inbound: Inbound) -> Result<(), End> {
        let mut ended = self.go_on(inbound).await;
        if let Err(end) = &mut ended
            && !end.abrupt
        {
            end.frames.splice(0..0, self.out.take());
        }
        ended
    }

    async fn go_on(&mut self, inbound: Inbound) -> Result<(), End> {
        match inbound {
            Inbound::Frames(frames) => self.calls.inbound = Some(frames),
            Inbound::Watch(frame) => {
                self.watch = Some(Watched::Goes);
                Box::pin(self.subscribe(*frame)).await?;
            }
        }
        let mut behind;
        loop {
            // What is not looked at now is looked at once there is room.
            behind = self.out.is_full() || self.round().await;
            if self.out.try_flush() == Err(Gone) || self.out.is_closed() {
                return Ok(());
            }
            if let Some(Watched::Ended(..)) = &self.watch {
                return Err(self.end_watch());
            }
            let idle = self.subscriptions.all.is_empty() && self.mutates.is_empty();
            if self.calls.inbound.is_none() && idle && !self.out.has_some() {
                return Ok(());
            }
            match self.next_event(behind).await {
                Event::Stop => return Err(going(GoingAwayReason::Shutdown)),
                Event::Expired => return Err(going(GoingAwayReason::TokenExpired)),
                // In a box, like all that is rare and large: a stream that waits is small.
                Event::Frame(Ok(Some(frame))) => Box::pin(self.hear(frame)).await?,
                // The client has nothing more to say, but goes on reading.
                Event::Frame(Ok(None)) => self.calls.inbound = None,
                Event::Frame(Err(fault)) => return heard_no_more(&fault).map_err(End::from),
                Event::Answered(answered) => self.out.push(encode(Response::Mutated(answered))),
                Event::Progress => self.send_progress(),
                Event::Access => Box::pin(self.heed_access()).await,
                Event::Room | Event::Back | Event::Moved => {}
            }
        }
    }

    async fn next_event(&mut self, behind: bool) -> Event {
        if !behind && self.is_only_live() {
            return self.lend().await;
        }
        let Self { calls, mutates, out, shared, retry_at, access_due, .. } = self;
        let access = async {
            match *access_due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let retry = async {
            match *retry_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let takes = !out.is_full();
        let heeds = Heeds { takes, hears: !out.is_overfull() && !mutates.is_full() };
        // Cancel: every branch only waits, or, with a frame, keeps what it has
        // received so far inside `calls`; an answer stays among the mutates.
        tokio::select! {
            biased;
            event = poll_fn(|context| calls.poll(context, mutates, heeds)) => event,
            () = out.room(), if out.has_some() => Event::Room,
            () = std::future::ready(()), if behind && takes => Event::Moved,
            () = shared.lending.moved.heard(), if takes => Event::Moved,
            () = retry, if takes => Event::Moved,
            () = access => Event::Access,
        }
    }

    /// Whether there is nothing to do but to tell what is live.
    fn is_only_live(&self) -> bool {
        let waits = self.retry_at.is_some() || self.access_due.is_some();
        let idle = self.mutates.is_empty() && !waits && !self.out.has_some();
        idle && self.subscriptions.are_live()
    }

    /// Lets the reader do that until there is more.
    async fn lend(&mut self) -> Event {
        let Self { calls, mutates, subscriptions, shared, .. } = self;
        let _loan = shared.lending.lend(subscriptions);
        let heeds = Heeds { takes: true, hears: true };
        poll_fn(|context| calls.poll(context, mutates, heeds)).await
    }

    /// The end of a stream whose one subscription has ended.
    fn end_watch(&mut self) -> End {
        match self.watch.take() {
            Some(Watched::Ended(id, ended)) => {
                let (frame, status) = ended.end(id);
                End { frames: frame.into_iter().collect(), status, abrupt: false }
            }
            Some(Watched::Goes) | None => Status::ok("").into(),
        }
    }

    /// Tells the client that a subscription has ended.
    fn end_subscription(&mut self, id: String, ended: Ended) {
        match &mut self.watch {
            Some(watch) => *watch = Watched::Ended(id, ended),
            None => self.out.answer(ended.frame(id)),
        }
    }

    fn send_progress(&mut self) {
        let left = self.principal.expires_at.saturating_sub(self.clock.unix_seconds());
        let mutates = &self.mutates;
        let subscriptions = self.subscriptions.all.iter_mut();
        let subscriptions =
            subscriptions.filter_map(|it| it.progress(mutates.bound(it.view.space)));
        let frame = proto::ProgressFrame {
            server_time: Some(to_proto::timestamp(self.clock.now())),
            store_ok: self.app.store_ok(),
            token_expires_in: Some(prost_types::Duration { seconds: left.max(0), nanos: 0 }),
            subscriptions: subscriptions.collect(),
        };
        self.answer(Response::Progress(frame));
    }

    fn answer(&mut self, frame: Response) {
        self.out.answer(encode(frame));
    }
}

fn invalid(field: &str, rule: impl AsRef<str>) -> Status {
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

/// How a stream ends that the server ends.
fn going(reason: GoingAwayReason) -> End {
    let (status, retry_after, abrupt) = match reason {
        GoingAwayReason::TokenExpired => {
            (unauthenticated(RefusalClass::Expired), Duration::ZERO, true)
        }
        GoingAwayReason::Shutdown | GoingAwayReason::Unspecified => {
            (status::stopping(), RETURN_AFTER, false)
        }
    };
    End { frames: vec![going_away(reason, retry_after)], status, abrupt }
}
