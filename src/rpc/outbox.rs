//! The one queue of a stream. Frames are gathered and handed over together: a
//! stream with a hundred subscriptions wakes its connection once, not a hundred
//! times. What a reader who stops reading can hold is one batch here, one that
//! is being taken, and one that is being gathered.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::vec;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tonic::Status;

use super::encoded::Encoded;
use super::lending::Lending;
use crate::domain::limits;

/// The sending side.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Batch>,
    pub(super) gathered: Gathered,
    /// The bytes among them that the client has brought about itself.
    answer_bytes: usize,
}

/// Frames to send together.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    frames: Batch,
    bytes: usize,
}

impl Gathered {
    pub(super) fn push(&mut self, frame: Encoded) {
        self.bytes += frame.0.len();
        self.frames.push(frame);
    }

    /// Whether there is enough for now of what can also be sent later.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= limits::FRAME_CHANGE_BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn take(&mut self) -> Batch {
        std::mem::take(self).frames
    }
}

/// The frames of a stream, as tonic takes them.
#[derive(Debug)]
pub(super) struct Frames {
    queue: mpsc::Receiver<Batch>,
    batch: vec::IntoIter<Encoded>,
    shared: Arc<Shared>,
    /// How many of the last frames were given.
    last: Option<usize>,
}

/// What both sides share beside the queue: in one place, so that a change touches
/// little memory.
#[derive(Debug, Default)]
pub(super) struct Shared {
    end: OnceLock<End>,
    pub(super) lending: Lending,
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.queue.close();
        self.shared.lending.back.ring();
    }
}

/// How a stream ends, whether or not its queue has room. The queue stays open
/// until this is dropped.
#[derive(Debug)]
pub(super) struct Ending {
    shared: Arc<Shared>,
    _queue: mpsc::Sender<Batch>,
}

/// The end of a stream.
#[derive(Debug)]
pub(super) struct End {
    /// After all others.
    pub(super) frames: Vec<Encoded>,
    pub(super) status: Status,
    /// What is still in the queue must not be sent any more.
    pub(super) abrupt: bool,
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self { frames: Vec::new(), status, abrupt: false }
    }
}

/// Frames that are handed over together.
pub(super) type Batch = Vec<Encoded>;

/// An empty queue, whose reader also takes what it is lent.
pub(super) fn outbox(shared: Arc<Shared>) -> (Outbox, Ending, Frames) {
    let (sender, queue) = mpsc::channel(limits::STREAM_QUEUE_BATCHES_MAX);
    let gathered = Gathered::default();
    let outbox = Outbox { queue: sender.clone(), gathered, answer_bytes: 0 };
    let ending = Ending { shared: Arc::clone(&shared), _queue: sender };
    (outbox, ending, Frames { queue, batch: Vec::new().into_iter(), shared, last: None })
}

impl Ending {
    /// Ends the stream.
    pub(super) fn with(self, end: End) {
        // There is one ending for each stream, and this consumes it.
        let _first = self.shared.end.set(end);
    }
}

/// The reader has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl Outbox {
    /// Takes a frame.
    pub(super) fn push(&mut self, frame: Encoded) {
        self.gathered.push(frame);
    }

    /// Takes a frame that the client has brought about: it comes even if there is
    /// enough.
    pub(super) fn answer(&mut self, frame: Encoded) {
        self.answer_bytes += frame.0.len();
        self.push(frame);
    }

    /// Whether there is enough for now of what can also be sent later.
    pub(super) fn is_full(&self) -> bool {
        self.gathered.is_full()
    }

    /// Whether there is too much even to hear what the client says: its answers
    /// would have to wait as well. All else is bounded by itself, and one frame of it
    /// can be larger than answers may be together.
    pub(super) fn is_overfull(&self) -> bool {
        self.answer_bytes >= limits::STREAM_ANSWER_BYTES_MAX
    }

    /// Whether something waits to be handed over.
    pub(super) fn has_some(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// What was gathered and not handed over.
    pub(super) fn take(&mut self) -> Vec<Encoded> {
        self.answer_bytes = 0;
        self.gathered.take()
    }

    /// Hands over what was gathered, if there is room.
    pub(super) fn try_flush(&mut self) -> Result<(), Gone> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        match self.queue.try_reserve() {
            Ok(room) => {
                self.answer_bytes = 0;
                room.send(self.gathered.take());
            }
            Err(TrySendError::Full(())) => {}
            Err(TrySendError::Closed(())) => return Err(Gone),
        }
        Ok(())
    }

    /// Waits until there is room. Cancel safe.
    pub(super) async fn room(&self) {
        // Whether the reader has gone shows when it is used.
        let _room = self.queue.reserve().await;
    }

    /// Whether the reader has gone.
    pub(super) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

impl Frames {
    fn last_words(&mut self) -> Option<Result<Encoded, Status>> {
        let shared = Arc::clone(&self.shared);
        let (end, number) = (shared.end.get()?, self.last.unwrap_or(0));
        self.last = Some(number + 1);
        match end.frames.get(number) {
            Some(frame) => Some(Ok(frame.clone())),
            None => (number == end.frames.len()).then(|| Err(end.status.clone())),
        }
    }
}

impl Stream for Frames {
    type Item = Result<Encoded, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.last.is_some() || self.shared.end.get().is_some_and(|end| end.abrupt) {
                return Poll::Ready(self.last_words());
            }
            if let Some(frame) = self.batch.next() {
                return Poll::Ready(Some(Ok(frame)));
            }
            let Self { queue, batch, shared, .. } = &mut *self;
            let next = shared.lending.poll_next(context, |context| queue.poll_recv(context));
            match ready!(next) {
                Some(next) => *batch = next.into_iter(),
                None => return Poll::Ready(self.last_words()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn frame(text: &'static str) -> Encoded {
        Encoded(text.into())
    }

    async fn all(frames: Frames) -> Vec<String> {
        let show = |it: Result<Encoded, Status>| match it {
            Ok(frame) => String::from_utf8(frame.0.to_vec()).unwrap(),
            Err(status) => format!("{:?}", status.code()),
        };
        frames.map(show).collect().await
    }

    #[tokio::test]
    async fn frames_come_in_order_and_the_end_after_them() {
        let (mut outbox, ending, frames) = outbox(Arc::default());
        outbox.push(frame("a"));
        outbox.push(frame("b"));
        assert_eq!(outbox.try_flush(), Ok(()));
        outbox.push(frame("c"));
        assert_eq!(outbox.try_flush(), Ok(()));
        assert!(outbox.has_some(), "the first batch has not been taken");
        let frames_left = outbox.take().into_iter().chain([frame("bye")]).collect();
        drop(outbox);
        let end = End { frames: frames_left, status: Status::aborted(""), abrupt: false };
        ending.with(end);
        assert_eq!(all(frames).await, ["a", "b", "c", "bye", "Aborted"]);
    }

    #[test]
    fn only_answers_make_it_too_much_to_hear_more() {
        let (mut outbox, _ending, _frames) = outbox(Arc::default());
        let frame = |bytes| Encoded(vec![0; bytes].into());
        outbox.push(frame(limits::MESSAGE_BYTES_MAX));
        assert!(outbox.is_full() && !outbox.is_overfull());
        outbox.answer(frame(limits::STREAM_ANSWER_BYTES_MAX));
        assert!(outbox.is_overfull());
        assert_eq!(outbox.try_flush(), Ok(()));
        assert!(!outbox.is_full() && !outbox.is_overfull());
    }

    #[tokio::test]
    async fn an_abrupt_end_takes_back_what_waits() {
        let (mut outbox, ending, mut frames) = outbox(Arc::default());
        outbox.push(frame("a"));
        outbox.push(frame("b"));
        assert_eq!(outbox.try_flush(), Ok(()));
        assert_eq!(frames.next().await.unwrap().unwrap(), frame("a"));
        drop(outbox);
        let last = vec![frame("bye")];
        ending.with(End { frames: last, status: Status::aborted(""), abrupt: true });
        assert_eq!(all(frames).await, ["bye", "Aborted"]);
    }

    #[tokio::test]
    async fn without_a_last_word_a_stream_ends_well() {
        let (outbox, ending, frames) = outbox(Arc::default());
        drop((outbox, ending));
        assert_eq!(all(frames).await, Vec::<String>::new());
    }
}
