//! What lets browsers in: which requests are a call at all, gRPC or gRPC-Web,
//! and which pages may read the answers. Knows HTTP only, no call and no token.

use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use tonic::body::Body;
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// What a page may send. By the Fetch standard `*` would not stand for `authorization`.
const REQUEST_HEADERS: [HeaderName; 5] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
    HeaderName::from_static("grpc-timeout"),
];
/// What a page may read: a status is in the headers where there is no message.
const ANSWER_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];
/// How long a browser need not ask again; most ask earlier by themselves.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(86_400);
/// What tonic-web translates, letter by letter.
const GRPC_WEB_TYPES: [&[u8]; 4] = [
    b"application/grpc-web",
    b"application/grpc-web+proto",
    b"application/grpc-web-text",
    b"application/grpc-web-text+proto",
];

/// Answers preflights and lets the pages of these origins read; without any, there is no layer, and
/// a preflight is refused as any other request that is no call.
pub(super) fn cors(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let allowed = match origins {
        [] => return None,
        [all] if all == "*" => AllowOrigin::any(),
        listed => AllowOrigin::list(listed.iter().filter(|origin| *origin != "*").cloned()),
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::POST])
        .allow_headers(REQUEST_HEADERS)
        .expose_headers(ANSWER_HEADERS)
        .max_age(PREFLIGHT_MAX_AGE);
    Some(layer)
}

/// Lets calls through. tonic would run the handler for any method and any content type.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GateLayer;

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner }
    }
}

/// The service that [`GateLayer`] makes.
#[derive(Clone, Debug)]
pub(super) struct Gate<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Gate<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match no_call(&request) {
            Some(refusal) => Either::Right(ready(Ok(refusal))),
            None => Either::Left(self.inner.call(request)),
        }
    }
}

/// The answer to what is neither gRPC nor gRPC-Web.
fn no_call<B>(request: &Request<B>) -> Option<Response<Body>> {
    let mut refusal = Response::new(Body::default());
    if request.method() != Method::POST {
        *refusal.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Some(refusal);
    }
    let content_type = request.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let rest = content_type.strip_prefix(b"application/grpc");
    // gRPC itself ends with trailers, which HTTP/1.1 may lose on the way.
    let grpc = request.version() == Version::HTTP_2
        && rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')));
    if grpc || GRPC_WEB_TYPES.contains(&content_type) {
        return None;
    }
    *refusal.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Some(refusal)
}
