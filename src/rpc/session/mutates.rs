//! The `mutate` frames of a stream that are not answered yet. Their answers go out in
//! the order of the frames, and before any range that covers what they did.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;

use crate::domain::{Revision, SpaceId, limits};
use crate::rpc::proto::MutatedFrame;

#[derive(Default)]
pub(super) struct Mutates {
    waiting: FuturesOrdered<BoxFuture<'static, MutatedFrame>>,
    /// Of each the space that it writes to, with the head when it came, as far as that
    /// was known: what it does gets a higher revision. None if it writes nothing.
    spaces: VecDeque<Option<(SpaceId, Revision)>>,
    /// Of the requests, in the same order.
    sizes: VecDeque<usize>,
}

impl Mutates {
    pub(super) fn is_empty(&self) -> bool {
        self.spaces.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.spaces.len() >= limits::STREAM_MUTATES_MAX
            || self.sizes.iter().sum::<usize>() >= limits::STREAM_MUTATE_BYTES_MAX
    }

    /// Takes one that was handed over, if it writes, to a space whose head was this.
    pub(super) fn add(
        &mut self,
        space: Option<(SpaceId, Revision)>,
        size_bytes: usize,
        answer: impl Future<Output = MutatedFrame> + Send + 'static,
    ) {
        self.waiting.push_back(Box::pin(answer));
        self.spaces.push_back(space);
        self.sizes.push_back(size_bytes);
    }

    /// How far subscriptions of this space may go now; None = as far as they like.
    pub(super) fn bound(&self, space: SpaceId) -> Option<Revision> {
        let writing = self.spaces.iter().flatten();
        writing.filter(|(of, _)| *of == space).map(|(_, head)| *head).min()
    }

    /// The next answer; never, if none is waited for.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<MutatedFrame> {
        match ready!(self.waiting.poll_next_unpin(context)) {
            Some(answer) => {
                self.spaces.pop_front();
                self.sizes.pop_front();
                Poll::Ready(answer)
            }
            None => Poll::Pending,
        }
    }
}
