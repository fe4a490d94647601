//! The one queue of a stream. Frames are gathered and handed over together: a
//! stream with a hundred subscriptions wakes its connection once, not a hundred
//! times. What a reader who stops reading can hold is one batch here, one that
//! is being taken, and one that is being gathered.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::vec;

use futures_util::Stream;
use tokio::sync::mpsc;
use tonic::Status;

use super::encoded::Encoded;
use crate::domain::limits;

/// The sending side.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Batch>,
    gathered: Vec<Encoded>,
    bytes: usize,
}

/// The frames of a stream, as tonic takes them.
#[derive(Debug)]
pub(super) struct Frames {
    queue: mpsc::Receiver<Batch>,
    batch: vec::IntoIter<Encoded>,
    last_word: Option<Arc<OnceLock<Status>>>,
}

/// How a stream ends, whether or not its queue has room. The queue stays open
/// until this is dropped.
#[derive(Debug)]
pub(super) struct Ending {
    last_word: Arc<OnceLock<Status>>,
    _queue: mpsc::Sender<Batch>,
}

type Batch = Vec<Encoded>;

/// An empty queue.
pub(super) fn outbox() -> (Outbox, Ending, Frames) {
    let (sender, queue) = mpsc::channel(limits::STREAM_QUEUE_BATCHES_MAX);
    let last_word = Arc::new(OnceLock::new());
    let outbox = Outbox { queue: sender.clone(), gathered: Vec::new(), bytes: 0 };
    let ending = Ending { last_word: Arc::clone(&last_word), _queue: sender };
    let batch = Vec::new().into_iter();
    (outbox, ending, Frames { queue, batch, last_word: Some(last_word) })
}

impl Ending {
    /// Ends the stream with a status, after what is in its queue.
    pub(super) fn with(self, status: Status) {
        // There is one ending for each stream, and this consumes it.
        let _first = self.last_word.set(status);
    }
}

impl Outbox {
    /// Takes a frame. True if it is time to [`Outbox::flush`].
    pub(super) fn push(&mut self, frame: Encoded) -> bool {
        self.bytes += frame.0.len();
        self.gathered.push(frame);
        self.bytes >= limits::FRAME_CHANGE_BYTES_MAX
    }

    /// Hands over what was gathered, once there is room. Cancel safe: it stays
    /// gathered until then. False if the reader has gone.
    pub(super) async fn flush(&mut self) -> bool {
        if self.gathered.is_empty() {
            return true;
        }
        let Ok(room) = self.queue.reserve().await else { return false };
        room.send(std::mem::take(&mut self.gathered));
        self.bytes = 0;
        true
    }

    /// Waits until the reader has gone. Cancel safe.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }
}

impl Stream for Frames {
    type Item = Result<Encoded, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(frame) = self.batch.next() {
                return Poll::Ready(Some(Ok(frame)));
            }
            match self.queue.poll_recv(context) {
                Poll::Ready(Some(batch)) => self.batch = batch.into_iter(),
                Poll::Ready(None) => {
                    let last_word = self.last_word.take();
                    let status = last_word.as_deref().and_then(OnceLock::get);
                    return Poll::Ready(status.map(|status| Err(status.clone())));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
