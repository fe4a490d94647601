//! The one queue of a stream. Frames are gathered and handed over together: a
//! stream with a hundred subscriptions wakes its connection once, not a hundred
//! times. Bounded by bytes: what a reader who stops reading can hold.

use std::pin::Pin;
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
}

/// Frames, or the stream's end.
type Batch = Result<Vec<Encoded>, Status>;

/// An empty queue, and a sender for the stream's last word.
pub(super) fn outbox() -> (Outbox, mpsc::Sender<Batch>, Frames) {
    let (sender, queue) = mpsc::channel(limits::STREAM_QUEUE_BATCHES_MAX);
    let outbox = Outbox { queue: sender.clone(), gathered: Vec::new(), bytes: 0 };
    (outbox, sender, Frames { queue, batch: Vec::new().into_iter() })
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
        room.send(Ok(std::mem::take(&mut self.gathered)));
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
                Poll::Ready(Some(Ok(batch))) => self.batch = batch.into_iter(),
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
