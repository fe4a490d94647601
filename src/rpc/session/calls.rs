//! What seldom wakes a session: its end, its client and reader, and time. Each is asked only
//! once one of them has called, so that a session that is woken for changes all the
//! time need not look at all of them each time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval_at};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Streaming;

use super::mutates::Mutates;
use super::{Event, PROGRESS_INTERVAL};
use crate::app::Hold;
use crate::bell::Bell;
use crate::rpc::outbox::Shared;
use crate::rpc::proto::SubscribeRequest;

pub(super) struct Calls {
    /// Made once, and not for each wait: all streams share what is behind it.
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    pub(super) expires: Pin<Box<Sleep>>,
    progress: Interval,
    /// None once the client has said all.
    pub(super) inbound: Option<Box<Streaming<SubscribeRequest>>>,
    shared: Arc<Shared>,
    hold: Arc<Hold>,
    /// Rung when one of them calls.
    bell: Arc<Bell>,
    /// All are to be asked, whoever called.
    ask_all: bool,
    heeds: Heeds,
}

/// Which calls count now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heeds {
    /// There is room for more to send.
    pub(super) takes: bool,
    /// There is room for the answers to what the client says.
    pub(super) hears: bool,
}

impl Calls {
    pub(super) fn new(
        stop: CancellationToken,
        expires: Sleep,
        shared: Arc<Shared>,
        hold: Arc<Hold>,
    ) -> Self {
        let mut progress = interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stop: Box::pin(stop.cancelled_owned()),
            expires: Box::pin(expires),
            progress,
            inbound: None,
            shared,
            hold,
            bell: Arc::default(),
            ask_all: true,
            heeds: Heeds::default(),
        }
    }

    /// The next call, an answer to the client's writes among them.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        mutates: &mut Mutates,
        heeds: Heeds,
    ) -> Poll<Event> {
        let asks = std::mem::take(&mut self.ask_all) || heeds != self.heeds;
        self.heeds = heeds;
        if self.bell.poll_heard(context).is_pending() && !asks {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.bell));
        let event = self.ask(&mut Context::from_waker(&waker), mutates);
        // What comes of it may be waited for, and the others were not asked.
        self.ask_all = event.is_ready();
        // From now on the bell wakes the task. Who has called meanwhile is asked when it
        // runs again, so that it stops for others if it is to.
        if event.is_pending() && self.bell.poll_heard(context).is_ready() {
            self.ask_all = true;
            context.waker().wake_by_ref();
        }
        event
    }

    fn ask(&mut self, context: &mut Context<'_>, mutates: &mut Mutates) -> Poll<Event> {
        let Heeds { takes, hears } = self.heeds;
        if self.stop.poll_unpin(context).is_ready() {
            return Poll::Ready(Event::Stop);
        }
        if self.expires.poll_unpin(context).is_ready() {
            return Poll::Ready(Event::Expired);
        }
        if self.hold.bell.poll_heard(context).is_ready() {
            return Poll::Ready(Event::Access);
        }
        if self.shared.lending.back.poll_heard(context).is_ready() {
            return Poll::Ready(Event::Back);
        }
        if takes && let Poll::Ready(answered) = mutates.poll_next(context) {
            return Poll::Ready(Event::Answered(answered));
        }
        if takes && self.progress.poll_tick(context).is_ready() {
            return Poll::Ready(Event::Progress);
        }
        match &mut self.inbound {
            Some(inbound) if hears => {
                let frame = ready!(inbound.poll_next_unpin(context));
                Poll::Ready(Event::Frame(frame.transpose()))
            }
            Some(_) | None => Poll::Pending,
        }
    }
}
