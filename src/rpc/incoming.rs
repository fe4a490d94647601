//! Connections as they come in: counted, and closed if they do not begin to
//! speak. tonic itself keeps silent ones for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt, Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

/// An HTTP/2 client's first words. The shortest call of HTTP/1.1 is longer.
const PREFACE_BYTES: usize = 24;
/// They must have come by then.
const PREFACE_WITHIN: Duration = Duration::from_secs(5);
/// Wait after a failed accept: out of file descriptors, mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The connections of a listener, at most `max` at a time: further ones are
/// closed at once.
pub(super) fn incoming(
    listener: TcpListener,
    max: usize,
) -> impl Stream<Item = io::Result<Guarded>> {
    let room = Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)));
    stream::unfold((listener, room), |(listener, room)| async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    warn!(%error, "a connection was not accepted");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                warn!("too many connections; one was closed");
                continue;
            };
            // Small frames must not wait for each other.
            stream.set_nodelay(true).ok();
            return Some((Ok(Guarded::new(stream, permit)), (listener, room)));
        }
    })
}

/// A connection that must say as much as a preface in time.
pub(super) struct Guarded {
    stream: TcpStream,
    preface: Option<Preface>,
    /// The connection's place among those that are allowed.
    _permit: OwnedSemaphorePermit,
}

struct Preface {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Guarded {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        let deadline = Box::pin(sleep(PREFACE_WITHIN));
        let preface = Some(Preface { missing: PREFACE_BYTES, deadline });
        Self { stream, preface, _permit: permit }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(preface) = &mut self.preface else { return read };
        match read {
            Poll::Ready(Ok(())) => {
                preface.missing =
                    preface.missing.saturating_sub(buffer.filled().len().saturating_sub(before));
                if preface.missing == 0 {
                    self.preface = None;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                if preface.deadline.poll_unpin(context).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Guarded {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}
