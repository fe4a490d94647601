//! The outermost layer of gRPC: what is true of every answer, whoever gives it.
//! Panics, deadlines, and what tonic itself would answer in words that mislead.
//! What comes here is gRPC, or was made so (`web.rs`).

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::debug;

use super::status::{self, status};

/// No call takes longer to begin its answer, whatever the client allows.
const DEADLINE_MAX: Duration = Duration::from_secs(20);
/// But for one whose request takes its time: it has a limit for each of its messages.
const LONG: [&str; 4] = [
    "/syncline.v1.SyncService/ReplaceAll",
    "/syncline.v1.SpaceService/ImportSpace",
    // These wait for whatever the space has to be deleted.
    "/syncline.v1.SpaceService/EraseSpace",
    "/syncline.v1.SpaceService/EraseUser",
];
const LONG_DEADLINE_MAX: Duration = Duration::from_hours(1);
/// tonic has a timer of its own, which answers CANCELLED: ours comes first.
const HEAD_START: Duration = Duration::from_millis(5);
/// What an answer takes after a wait.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// When a call must have begun its answer; stands in each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// That of a request.
    pub(super) fn of<T>(request: &tonic::Request<T>) -> Self {
        let found = request.extensions().get::<Self>().copied();
        found.unwrap_or_else(|| Self(Instant::now()))
    }

    /// A moment by which an answer that waits must go on its way.
    pub(super) fn before(self, wanted: Instant) -> Instant {
        wanted.min(self.0.checked_sub(ANSWER_TIME).unwrap_or(self.0))
    }
}

/// Wraps every call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OuterLayer;

impl<S> Layer<S> for OuterLayer {
    type Service = Outer<S>;

    fn layer(&self, inner: S) -> Outer<S> {
        Outer { inner }
    }
}

/// The service that [`OuterLayer`] makes.
#[derive(Clone, Debug)]
pub(super) struct Outer<S> {
    inner: S,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S, B> Service<Request<B>> for Outer<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let asked = asked_timeout(request.headers());
        if asked.is_some_and(|asked| asked.is_zero()) {
            // A timer of nothing takes a moment as well, and a fast call would win.
            return Box::pin(std::future::ready(Ok(late().into_http())));
        }
        let method = request.uri().path().to_owned();
        let limit = deadline(&method, asked);
        let began = Instant::now();
        request.extensions_mut().insert(Deadline(began + limit));
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            // Handlers are cancel safe: what they began goes on without them.
            let response = match timeout(limit, answer).await {
                Ok(Ok(answered)) => mend(answered?),
                Ok(Err(_panic)) => {
                    status::internal(&std::io::Error::other("a handler panicked")).into_http()
                }
                Err(_late) => late().into_http(),
            };
            let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |it| it.code());
            debug!(method, ?code, micros = began.elapsed().as_micros(), "answered");
            Ok(response)
        })
    }
}

/// What the client allows, if it says so in a form that gRPC knows.
fn asked_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// That, up to our own limit.
fn deadline(method: &str, asked: Option<Duration>) -> Duration {
    let most = if LONG.contains(&method) { LONG_DEADLINE_MAX } else { DEADLINE_MAX };
    asked.map_or(most, |asked| asked.saturating_sub(HEAD_START).min(most))
}

fn late() -> Status {
    let message = "the deadline passed; whether a write happened is unknown, \
                   so send it again with the same id";
    status(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", message, [])
}

/// Puts what tonic answers by itself into words of the contract. Our own
/// statuses are known by their details.
fn mend(response: Response<Body>) -> Response<Body> {
    if response.headers().contains_key("grpc-status-details-bin") {
        return response;
    }
    let Some(own) = Status::from_header_map(response.headers()) else { return response };
    let mended = match own.code() {
        Code::OutOfRange => {
            let message = "the request is larger than the server accepts; see GetStatus";
            status(Code::ResourceExhausted, "REQUEST_TOO_LARGE", message, [])
        }
        Code::Internal if own.message().contains("decode Protobuf") => {
            let message = "the request is not a valid message of this method";
            status(Code::InvalidArgument, "VALIDATION_ERROR", message, [])
        }
        Code::Internal => {
            let message = "the request's gRPC framing is broken";
            status(Code::Internal, "MALFORMED_REQUEST", message, [])
        }
        _ => return response,
    };
    mended.into_http()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_and_says_nothing_of_itself() {
        let handler = tower::service_fn(|_request: Request<()>| async {
            assert!(std::hint::black_box(false), "canary");
            Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
        });
        let request = Request::builder().uri("http://localhost/some/Call").body(()).unwrap();
        let answer = tower::ServiceExt::oneshot(OuterLayer.layer(handler), request).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("canary"), "{status:?}");
    }

    #[test]
    fn clients_deadlines_are_read_and_bounded() {
        for (header, millis) in [
            ("200m", 195),
            ("1S", 995),
            ("3M", 20_000),
            ("99999999H", 20_000),
            ("1n", 0),
            ("9x", 20_000),
            ("999999999S", 20_000),
            ("", 20_000),
            ("S", 20_000),
            ("é", 20_000),
        ] {
            let mut headers = HeaderMap::new();
            headers
                .insert("grpc-timeout", http::HeaderValue::from_bytes(header.as_bytes()).unwrap());
            assert_eq!(
                deadline("/some/Call", asked_timeout(&headers)),
                Duration::from_millis(millis),
                "{header}"
            );
        }
    }
}
