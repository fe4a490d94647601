//! What becomes of a request that is answered before it has come whole, over
//! HTTP/1.1: its rest is read and thrown away before the answer ends. Otherwise
//! the connection would be closed on somebody who is still sending, and who then
//! learns of a broken connection in place of the answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Either;
use http::{Request, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// More than any client sends that keeps to the limits; the rest of a larger one
/// is cut off.
const REST_BYTES_MAX: usize = 16 << 20;
/// The rest must have come by then.
const REST_WITHIN: Duration = Duration::from_secs(5);

/// Wraps everything that may answer early.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LingerLayer;

impl<S> Layer<S> for LingerLayer {
    type Service = Linger<S>;

    fn layer(&self, inner: S) -> Linger<S> {
        Linger { inner }
    }
}

/// The service that [`LingerLayer`] makes.
#[derive(Clone, Debug)]
pub(super) struct Linger<S> {
    inner: S,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Linger<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Answer<S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.version() >= Version::HTTP_2 {
            return Either::Left(self.inner.call(request));
        }
        let (back, mut rest) = oneshot::channel();
        let request = request.map(|body| Body::new(Lent { body, back: Some(back) }));
        let answer = self.inner.call(request);
        Either::Right(Box::pin(async move {
            let response = answer.await?;
            // A stream may still be reading: that one ends as it likes.
            Ok(match rest.try_recv() {
                Ok(rest) => response.map(|answer| Body::new(Lingering::new(answer, rest))),
                Err(_read_or_in_use) => response,
            })
        }))
    }
}

/// The body of a request, which comes back if it is dropped before its end.
struct Lent {
    body: Body,
    back: Option<oneshot::Sender<Body>>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.back = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let body = std::mem::take(&mut self.body);
        if let Some(back) = self.back.take().filter(|_| !body.is_end_stream()) {
            // If nobody takes it, the answer is on its way already.
            back.send(body).ok();
        }
    }
}

/// An answer that ends once the rest of its request has come.
struct Lingering {
    answer: Option<Body>,
    rest: Body,
    rest_bytes_max: usize,
    until: Option<Pin<Box<Sleep>>>,
}

impl Lingering {
    fn new(answer: Body, rest: Body) -> Self {
        Self { answer: Some(answer), rest, rest_bytes_max: REST_BYTES_MAX, until: None }
    }
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(answer) = &mut this.answer {
            if let Some(frame) = ready!(Pin::new(answer).poll_frame(context)) {
                return Poll::Ready(Some(frame));
            }
            this.answer = None;
        }
        let until = this.until.get_or_insert_with(|| Box::pin(sleep(REST_WITHIN)));
        while until.poll_unpin(context).is_pending() {
            let Some(Ok(frame)) = ready!(Pin::new(&mut this.rest).poll_frame(context)) else {
                break;
            };
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(left) = this.rest_bytes_max.checked_sub(bytes) else { break };
            this.rest_bytes_max = left;
        }
        Poll::Ready(None)
    }
}
