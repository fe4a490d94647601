//! A bell: rung from anywhere and any number of times, and heard once by the one
//! task that listens. It is also a waker, so that a task can know which of the
//! things it waits for have called, and need not ask the others.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};

use futures_util::task::AtomicWaker;

/// Wakes one task.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicBool,
    listener: AtomicWaker,
}

impl Bell {
    /// Wakes who listens, now or later.
    pub fn ring(&self) {
        // Once is enough until it is heard.
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.listener.wake();
        }
    }

    /// Ready if it was rung since it was last heard. Only otherwise is the task of
    /// `context` woken when it is.
    pub fn poll_heard(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.hear() {
            return Poll::Ready(());
        }
        self.listener.register(context.waker());
        // It may have been rung just before.
        if self.hear() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn hear(&self) -> bool {
        // Mostly it was not, and a look is cheaper than a swap.
        self.rung.load(Ordering::Acquire) && self.rung.swap(false, Ordering::AcqRel)
    }

    /// Waits until it is rung. Cancel safe.
    pub async fn heard(&self) {
        poll_fn(|context| self.poll_heard(context)).await;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn many_rings_are_heard_once() {
        let bell = Bell::default();
        assert_eq!(bell.heard().now_or_never(), None);
        bell.ring();
        bell.ring();
        assert_eq!(bell.heard().now_or_never(), Some(()));
        assert_eq!(bell.heard().now_or_never(), None);
    }

    /// Each ring is answered before the next: one that got lost would end it here.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_ring_is_lost() {
        let [there, back] = [Arc::<Bell>::default(), Arc::default()];
        let mut tasks = JoinSet::new();
        let (heard, answers) = (Arc::clone(&there), Arc::clone(&back));
        tasks.spawn(async move {
            for _ in 0..50_000 {
                heard.heard().await;
                answers.ring();
            }
        });
        for _ in 0..50_000 {
            Arc::clone(&there).wake();
            back.heard().await;
        }
        tasks.join_all().await;
    }
}
