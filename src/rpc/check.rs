//! A layer that looks at the head of each request, and answers what it refuses.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use http::request::Parts;
use http::{Request, Response};
use tonic::Status;
use tower::{Layer, Service};

/// What is to be found out; it may change the request's extensions.
pub(super) type Check = Arc<dyn Fn(&mut Parts) -> Result<(), Status> + Send + Sync>;

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

/// The service that [`CheckLayer`] makes.
#[derive(Clone)]
pub(super) struct CheckService<S> {
    check: Check,
    inner: S,
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for CheckService<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
    ResponseBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        match (self.check)(&mut parts) {
            Ok(()) => Either::Left(self.inner.call(Request::from_parts(parts, body))),
            Err(refused) => Either::Right(ready(Ok(refused.into_http()))),
        }
    }
}
