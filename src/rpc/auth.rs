//! The door: a tower layer that lets a request through with a good bearer token, and answers every
//! other one itself. Owns the list of services that need no token; knows HTTP and gRPC statuses,
//! must not know what a token looks like inside or what the caller may do.
//!
//! What runs behind it finds a [`Principal`] in the request's extensions and no token anywhere. A
//! service that is added later is protected without anybody's thinking of it.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, Either};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::status::status;
use crate::auth::{Principal, RefusalClass, TokenError, Verifier};
use crate::clock::Clock;

/// Paths that need no token: probes have none, and reflection shows only what is public.
const OPEN_PATH_PREFIXES: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// Puts an [`AuthService`] in front of a service.
#[derive(Clone, Debug)]
pub struct AuthLayer {
    verifier: Arc<Verifier>,
    clock: Clock,
}

impl AuthLayer {
    /// A layer that checks tokens with this verifier at this clock's time.
    pub fn new(verifier: Arc<Verifier>, clock: Clock) -> Self {
        Self { verifier, clock }
    }

    /// Who calls, as the headers prove it, or the token whose key has to be asked for.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Refusal> {
        let token = bearer(headers).map_err(Refusal::Now)?;
        self.verifier.verify(token, self.clock.unix_seconds()).map_err(|error| match error {
            TokenError::UnknownKey => Refusal::UnlessRefreshed(token.to_owned()),
            error => Refusal::Now(error.class()),
        })
    }
}

/// Why a request is not let in.
enum Refusal {
    Now(RefusalClass),
    /// The issuer may have new keys, and this be a token of one of them.
    UnlessRefreshed(String),
}

/// The only token that the headers bear.
fn bearer(headers: &HeaderMap) -> Result<&str, RefusalClass> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(RefusalClass::Missing)?;
    // With two of them, a proxy and we could each believe another one.
    if values.next().is_some() {
        return Err(RefusalClass::Invalid);
    }
    let value = value.to_str().map_err(|_| RefusalClass::Invalid)?;
    let (scheme, token) = value.split_once(' ').ok_or(RefusalClass::Invalid)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(RefusalClass::Invalid);
    }
    Ok(token.trim_start_matches(' '))
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService { auth: self.clone(), inner }
    }
}

type Answer<S, R> = Result<<S as Service<R>>::Response, <S as Service<R>>::Error>;
/// At once, or once it is known whether the issuer has new keys.
type Refused<S, R> = Either<Ready<Answer<S, R>>, BoxFuture<'static, Answer<S, R>>>;

/// The service that [`AuthLayer`] makes.
#[derive(Clone, Debug)]
pub struct AuthService<S> {
    auth: AuthLayer,
    inner: S,
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for AuthService<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>> + Clone + Send + 'static,
    S::Future: Send,
    RequestBody: Send + 'static,
    ResponseBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Refused<S, Request<RequestBody>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let path = request.uri().path();
        if OPEN_PATH_PREFIXES.iter().any(|prefix| path.starts_with(prefix)) {
            return Either::Left(self.inner.call(request));
        }
        match self.auth.authenticate(request.headers()) {
            Ok(principal) => Either::Left(self.inner.call(admitted(request, principal))),
            Err(Refusal::Now(class)) => Either::Right(Either::Left(ready(Ok(refused(class))))),
            Err(Refusal::UnlessRefreshed(token)) => {
                // What was found ready is called, and its clone is asked again.
                let clone = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, clone);
                let auth = self.auth.clone();
                Either::Right(Either::Right(Box::pin(async move {
                    let now = auth.clock.unix_seconds();
                    match auth.verifier.verify_when_refreshed(&token, now).await {
                        Ok(principal) => inner.call(admitted(request, principal)).await,
                        Err(error) => Ok(refused(error.class())),
                    }
                })))
            }
        }
    }
}

/// The request as it is let in.
fn admitted<B>(mut request: Request<B>, principal: Principal) -> Request<B> {
    // Nothing behind this door can log or pass on the token.
    request.headers_mut().remove(AUTHORIZATION);
    request.extensions_mut().insert(principal);
    request
}

fn refused<B: Default>(class: RefusalClass) -> Response<B> {
    tracing::debug!(class = class.as_str(), "request refused");
    unauthenticated(class).into_http()
}

/// The status of a caller without a good token; also how a stream ends when its token does.
pub fn unauthenticated(class: RefusalClass) -> Status {
    let message = match class {
        RefusalClass::Missing => "this call needs a bearer token in the authorization metadata",
        RefusalClass::Invalid => "the bearer token is not valid",
        RefusalClass::Expired => "the bearer token has expired",
    };
    let class = class.as_str().to_owned();
    status(Code::Unauthenticated, "UNAUTHENTICATED", message, [("class", class)])
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::FutureExt;
    use time::OffsetDateTime;
    use tower::{ServiceExt, service_fn};

    use tonic_types::StatusExt;

    use super::*;
    use crate::auth::test_keys::SECRET;
    use crate::auth::{KeyConfig, Minter};
    use crate::domain::UserId;

    const MUTATE: &str = "/syncline.v1.SyncService/Mutate";

    /// A service behind the door that counts its calls and answers with the caller's name.
    struct House {
        layer: AuthLayer,
        clock: Clock,
        calls: Arc<AtomicUsize>,
    }

    impl House {
        fn new() -> Self {
            let key = KeyConfig::Secret(SECRET.to_vec());
            let clock = Clock::manual(OffsetDateTime::UNIX_EPOCH);
            let verifier = Arc::new(Verifier::new(&key, "issuer", "audience").unwrap());
            let layer = AuthLayer::new(verifier, clock.clone());
            Self { layer, clock, calls: Arc::default() }
        }

        fn token(&self) -> String {
            let user = UserId::parse("alice").unwrap();
            let now = self.clock.unix_seconds();
            let minter = Minter::new(&KeyConfig::Secret(SECRET.to_vec())).unwrap();
            minter.mint(&user, Duration::from_secs(60), now, "issuer", "audience").unwrap()
        }

        fn call(&self, path: &str, headers: &[&str]) -> Response<String> {
            let calls = Arc::clone(&self.calls);
            let inner = service_fn(move |request: Request<()>| {
                calls.fetch_add(1, Ordering::Relaxed);
                assert!(!request.headers().contains_key(AUTHORIZATION), "the token got in");
                let caller = request.extensions().get::<Principal>();
                let caller =
                    caller.map_or_else(|| "nobody".into(), |caller| caller.caller.user.to_string());
                ready(Ok::<_, Infallible>(Response::new(caller)))
            });
            let mut request = Request::builder().uri(format!("http://localhost{path}"));
            for value in headers {
                request = request.header("authorization", *value);
            }
            let future = self.layer.layer(inner).oneshot(request.body(()).unwrap());
            future.now_or_never().unwrap().unwrap()
        }
    }

    #[track_caller]
    fn assert_refused(response: &Response<String>, class: &str, row: &str) {
        assert_eq!(response.status(), 200, "{row}");
        assert_eq!(response.headers()["content-type"], "application/grpc", "{row}");
        assert_eq!(response.headers()["grpc-status"], "16", "{row}");
        assert!(response.headers().contains_key("grpc-status-details-bin"), "{row}");
        let status = Status::from_header_map(response.headers()).unwrap();
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("UNAUTHENTICATED", "syncline.v1")
        );
        assert_eq!(info.metadata, HashMap::from([("class".to_owned(), class.to_owned())]), "{row}");
    }

    #[test]
    fn only_one_good_bearer_token_opens_the_door() {
        let house = House::new();
        let token = house.token();
        let bearer = format!("Bearer {token}");
        let rows: &[(&str, &[&str], &str)] = &[
            ("31 none", &[], "missing"),
            ("31 empty", &[""], "invalid"),
            ("31 scheme alone", &["Bearer"], "invalid"),
            ("31 scheme and a space", &["Bearer "], "invalid"),
            ("31 not bearer", &["Basic YTpi"], "invalid"),
            ("31 token as another scheme", &[&format!("Token {token}")], "invalid"),
            ("31 no scheme", &[&token], "invalid"),
            ("31 two headers", &[&bearer, &bearer], "invalid"),
            ("31 two tokens", &[&format!("{bearer} {token}")], "invalid"),
            ("31 two tokens, comma", &[&format!("{bearer}, {bearer}")], "invalid"),
            ("31 not ASCII", &["Bearer ü"], "invalid"),
        ];
        for (row, headers, class) in rows {
            assert_refused(&house.call(MUTATE, headers), class, row);
        }
        let in_query = format!("{MUTATE}?access_token={token}&authorization={token}");
        assert_refused(&house.call(&in_query, &[]), "missing", "31 in the query");
        assert_eq!(house.calls.load(Ordering::Relaxed), 0, "a refused request ran");

        for good in [&bearer, &format!("bEARER {token}"), &format!("Bearer  {token}")] {
            assert_eq!(house.call(MUTATE, &[good]).body(), "alice");
        }
    }

    #[test]
    fn a_token_ends_with_the_clock() {
        let house = House::new();
        let bearer = format!("Bearer {}", house.token());
        house.clock.advance(Duration::from_secs(64));
        assert_eq!(house.call(MUTATE, &[&bearer]).body(), "alice");
        house.clock.advance(Duration::from_secs(1));
        assert_refused(&house.call(MUTATE, &[&bearer]), "expired", "expired");
    }

    #[test]
    fn only_health_and_reflection_are_open() {
        let house = House::new();
        for path in [
            "/grpc.health.v1.Health/Check",
            "/grpc.health.v1.Health/Watch",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert_eq!(house.call(path, &[]).body(), "nobody", "{path}");
        }
        for path in [
            "/",
            "/grpc.health.v1.Health",
            "/grpc.health.v1.HealthX/Check",
            "//grpc.health.v1.Health/Check",
            "/GRPC.health.v1.Health/Check",
            "/grpc.reflection.v2.ServerReflection/ServerReflectionInfo",
            "/syncline.v1.SyncService/grpc.health.v1.Health/Check",
            "/syncline.v1.Unknown/Method",
        ] {
            assert_refused(&house.call(path, &[]), "missing", path);
        }
    }
}
