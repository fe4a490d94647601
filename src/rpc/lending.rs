//! What a session lends to its reader. While all that a stream has to do is to tell
//! what is live, the reader takes that itself, whenever it is ready for more: no task
//! stands between a change and its connection, and nothing is queued for who does not
//! read. For all else the session takes its subscriptions back. So they are in one
//! hand at a time, and frames stay in order: what the reader has taken goes out
//! before what the session queues later, and the reader takes nothing before it has
//! emptied that queue.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::task::coop::poll_proceed;

use super::outbox::{Batch, Gathered};
use super::subscriptions::Subscriptions;
use crate::bell::Bell;

/// Between a session and its reader.
#[derive(Debug, Default)]
pub(super) struct Lending {
    lent: Mutex<Option<Lent>>,
    /// The reader, who looks again when something is lent.
    reader: AtomicWaker,
    /// Rung when a space has moved; who has the subscriptions listens.
    pub(super) moved: Arc<Bell>,
    /// Rung when the reader goes, or was lent what the session has to go on with.
    pub(super) back: Bell,
}

/// What is lent comes back when this is dropped, and then the reader goes on to the
/// end of the queue.
#[derive(Debug)]
pub(super) struct Loan<'l> {
    lending: &'l Lending,
    subscriptions: &'l mut Subscriptions,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let lent = self.lending.lent.lock().take();
        *self.subscriptions = lent.map(|lent| lent.subscriptions).unwrap_or_default();
    }
}

#[derive(Debug)]
struct Lent {
    subscriptions: Subscriptions,
    /// The reader has emptied the queue, to which nothing comes meanwhile.
    queue_was_empty: bool,
    /// Some may go on at once.
    behind: bool,
    events_first: bool,
}

impl Lending {
    /// Lends subscriptions that are live, and whose last round left nothing behind.
    pub(super) fn lend<'l>(&'l self, subscriptions: &'l mut Subscriptions) -> Loan<'l> {
        let lent = Lent {
            subscriptions: std::mem::take(subscriptions),
            queue_was_empty: false,
            behind: false,
            events_first: false,
        };
        *self.lent.lock() = Some(lent);
        self.reader.wake();
        Loan { lending: self, subscriptions }
    }

    /// What the queue has, or else the next frames of what is lent; None at the end of
    /// the queue.
    pub(super) fn poll_next(
        &self,
        context: &mut Context<'_>,
        poll_queue: impl FnOnce(&mut Context<'_>) -> Poll<Option<Batch>>,
    ) -> Poll<Option<Batch>> {
        // Held until both were looked at: nothing comes to the queue of who has lent.
        let mut lent = self.lent.lock();
        if !lent.as_ref().is_some_and(|lent| lent.queue_was_empty)
            && let Poll::Ready(queued) = poll_queue(context)
        {
            return Poll::Ready(queued);
        }
        // Whatever it waits for: the session may have listened to the bell meanwhile.
        self.reader.register(context.waker());
        let Some(lent) = lent.as_mut() else { return Poll::Pending };
        lent.queue_was_empty = true;
        loop {
            let budget = ready!(poll_proceed(context));
            if self.moved.poll_heard(context).is_pending() && !lent.behind {
                return Poll::Pending;
            }
            budget.made_progress();
            let mut out = Gathered::default();
            if lent.round(&mut out) {
                self.back.ring();
            }
            if !out.is_empty() {
                return Poll::Ready(Some(out.take()));
            }
        }
    }
}

impl Lent {
    /// True if the session has to go on with some.
    fn round(&mut self, out: &mut Gathered) -> bool {
        let mut ended = Vec::new();
        self.behind = false;
        self.events_first = !self.events_first;
        for events in [self.events_first, !self.events_first] {
            self.behind |= if events {
                self.subscriptions.round_of_events(out)
            } else {
                // Who writes over the stream has not lent anything.
                self.subscriptions.round_of_live(out, |_space| None, &mut ended)
            };
        }
        // Those that ended are found again by the session.
        !ended.is_empty() || !self.subscriptions.are_live()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures_util::FutureExt;

    use super::*;

    /// Somebody who waits, and a bell that tells whether he was woken.
    fn waiting() -> (Arc<Bell>, Waker) {
        let bell = Arc::<Bell>::default();
        (Arc::clone(&bell), bell.into())
    }

    fn was_woken(bell: &Bell) -> bool {
        bell.heard().now_or_never().is_some()
    }

    #[test]
    fn a_reader_hears_of_each_loan_and_looks_at_the_queue_once_in_it() {
        let lending = Lending::default();
        let mut subscriptions = Subscriptions::default();
        let (reader, waker) = waiting();
        let (_session, session_waker) = waiting();
        let mut looks = 0;
        let mut poll = || {
            let next = lending.poll_next(&mut Context::from_waker(&waker), |_context| {
                looks += 1;
                Poll::Pending
            });
            assert!(next.is_pending());
            looks
        };
        assert_eq!(poll(), 1);
        for looks in [2, 3] {
            let loan = lending.lend(&mut subscriptions);
            assert!(was_woken(&reader), "by the loan");
            assert_eq!((poll(), poll()), (looks, looks));
            lending.moved.ring();
            assert!(was_woken(&reader), "by the space");
            assert_eq!(poll(), looks);
            drop(loan);
            // What is its own again the session waits for itself.
            let mut context = Context::from_waker(&session_waker);
            assert!(lending.moved.poll_heard(&mut context).is_pending());
        }
        assert_eq!(poll(), 4);
    }
}
