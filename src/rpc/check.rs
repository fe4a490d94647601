//! A layer that looks at the head of each request, and answers what it refuses. Whoever asks
//! again at once, for ever, gets these answers a little later: they would take more of the
//! processor than what is let in.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use http::request::Parts;
use http::{Request, Response};
use tokio::time::sleep;
use tonic::{Code, Status};
use tower::{Layer, Service};

/// What is to be found out; it may change the request's extensions.
pub(super) type Check = Arc<dyn Fn(&mut Parts) -> Result<(), Status> + Send + Sync>;

/// An answer that asks to come back later is held for so long.
pub(super) const HOLD: Duration = Duration::from_millis(100);

/// Puts a [`CheckService`] in front of a service.
#[derive(Clone)]
pub(super) struct CheckLayer(Check);

impl CheckLayer {
    pub(super) fn new(
        check: impl Fn(&mut Parts) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(check))
    }
}

impl<S> Layer<S> for CheckLayer {
    type Service = CheckService<S>;

    fn layer(&self, inner: S) -> CheckService<S> {
        CheckService { check: Arc::clone(&self.0), inner }
    }
}

type Refused<R, E> = Pin<Box<dyn Future<Output = Result<R, E>> + Send>>;

/// The service that [`CheckLayer`] makes.
#[derive(Clone)]
pub(super) struct CheckService<S> {
    check: Check,
    inner: S,
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for CheckService<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
    ResponseBody: Default + Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Refused<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        match (self.check)(&mut parts) {
            Ok(()) => Either::Left(self.inner.call(Request::from_parts(parts, body))),
            Err(refused) => Either::Right(Box::pin(async move {
                if refused.code() == Code::ResourceExhausted {
                    // Nothing is waited for: the wait is the answer.
                    sleep(HOLD).await;
                }
                Ok(refused.into_http())
            })),
        }
    }
}
