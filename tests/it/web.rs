//! gRPC-Web over HTTP/1.1, as browsers speak it, and which pages may read the answers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use http::HeaderValue;
use prost::Message;
use syncline::clock::Clock;
use syncline::config::Origins;
use syncline::rpc::proto::watch_response::Frame;
use syncline::rpc::proto::{MutateResponse, WatchRequest, WatchResponse};
use tokio::time::timeout;
use tonic_health::pb::{HealthCheckResponse, health_check_response::ServingStatus};

use crate::support::http1::{Answer, Head, Http1};
use crate::support::raw::{End, Http2, bare, framed, message, mutate_bytes};
use crate::support::{Database, TestServer, error_reason, mint, put};

const PAGE: &str = "https://app.example.com";
const OTHER: &str = "https://evil.example.com";
const MUTATE: &str = "/syncline.v1.SyncService/Mutate";
const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

/// Longer than a server takes to stop if it waits for nobody.
const STOPS_WITHIN: Duration = Duration::from_secs(15);

/// A server that lets these pages in.
async fn open_to(database: &Database, origins: &[&'static str]) -> TestServer {
    let origins = origins.iter().copied().map(HeaderValue::from_static).collect();
    TestServer::start_with(database, Clock::system(), |config| {
        config.cors_origins = Origins(origins);
    })
    .await
}

/// A call from that page, with a good token.
fn post(path: &str, content_type: &str) -> Head {
    bare_post(path, content_type).with("authorization", &format!("Bearer {}", mint("alice")))
}

fn bare_post(path: &str, content_type: &str) -> Head {
    let head = Head::new("POST", path).with("origin", PAGE).with("content-type", content_type);
    head.with("accept", content_type).with("x-grpc-web", "1")
}

/// A body of one message that writes under this mutation id.
fn write(id: &str) -> Vec<u8> {
    message(&mutate_bytes(put(id, "1", "{}")))
}

/// What lets the page read the answer.
fn readable(answer: &Answer) -> (&str, &str) {
    (answer.header("access-control-allow-origin"), answer.header("access-control-expose-headers"))
}

const EXPOSED: &str = "grpc-status,grpc-message,grpc-status-details-bin";

#[tokio::test(flavor = "multi_thread")]
async fn a_unary_call_is_answered_with_a_message_and_a_frame_of_trailers() {
    let database = Database::create().await;
    let server = open_to(&database, &[PAGE]).await;
    let mut connection = Http1::connect(server.address()).await;
    for (at, content_type) in
        [BINARY, TEXT, "application/grpc-web", "application/grpc-web-text"].iter().enumerate()
    {
        let mut body = write(&format!("m{at}"));
        if content_type.contains("text") {
            body = STANDARD.encode(body).into_bytes();
        }
        let answer = connection.call(post(MUTATE, content_type), &body).await;
        assert_eq!(answer.http, 200, "{content_type}");
        let family = content_type.trim_end_matches("+proto");
        assert_eq!(answer.header("content-type"), format!("{family}+proto"));
        assert_eq!(readable(&answer), (PAGE, EXPOSED));
        let (messages, status) = answer.read();
        assert_eq!((status.code(), messages.len()), (tonic::Code::Ok, 1), "{content_type}");
        let result = MutateResponse::decode(&messages[0][..]).unwrap().result.unwrap();
        assert_eq!(result.revision, i64::try_from(at).unwrap() + 1);
    }
    // Others write to the same server by gRPC.
    let result = server.client("alice").await.mutate(put("grpc", "1", "{}")).await.unwrap();
    assert_eq!(result.revision, 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_still_sending_gets_the_answer_as_well() {
    let database = Database::create().await;
    let server = open_to(&database, &[PAGE]).await;
    let mut connection = Http1::connect(server.address()).await;
    // Nobody reads while sending, and no buffer on the way takes so much.
    let large = message(&vec![0; 8 << 20]);
    let missing = "Unauthenticated UNAUTHENTICATED class=missing";
    let too_large = "ResourceExhausted REQUEST_TOO_LARGE";
    for (head, expected) in [
        (bare_post(MUTATE, BINARY), missing),
        (post(MUTATE, BINARY), too_large),
        (post(MUTATE, "application/json"), "http 415"),
        (Head::new("PUT", MUTATE), "http 405"),
    ] {
        assert_eq!(connection.call(head, &large).await.words(), expected);
    }
    assert_eq!(connection.call(post(MUTATE, BINARY), &write("m")).await.words(), "Ok");
    // But not for ever.
    let endless = vec![0; 64 << 20];
    assert!(!connection.send(bare_post(MUTATE, BINARY), endless.len(), &endless).await);
    server.stop().await;
}

/// What the frames of a stream are about, so far.
fn kinds(answer: &Answer) -> Vec<&'static str> {
    let (messages, _trailers) = answer.so_far();
    let frames = messages.iter().map(|bytes| WatchResponse::decode(&bytes[..]).unwrap().frame);
    let kind = |frame| match frame {
        Some(Frame::Subscribed(_)) => "subscribed",
        Some(Frame::Changes(_)) => "changes",
        Some(Frame::CaughtUp(_)) => "caught up",
        Some(Frame::Progress(_)) => "progress",
        _ => "another",
    };
    frames.map(kind).filter(|kind| *kind != "progress").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_arrives_as_it_happens_and_is_told_when_the_server_stops() {
    let database = Database::create().await;
    let server = TestServer::start_with(&database, Clock::system(), |config| {
        config.cors_origins = Origins(vec![HeaderValue::from_static(PAGE)]);
        // Longer than the test waits for the end.
        config.shutdown_deadline = 4 * STOPS_WITHIN;
    })
    .await;
    let alice = server.client("alice").await;
    let mut connection = Http1::connect(server.address()).await;
    // Without a subscription: all of the caller's own space.
    let watch = message(&WatchRequest::default().encode_to_vec());
    connection.send(post("/syncline.v1.SyncService/Watch", BINARY), watch.len(), &watch).await;
    let mut answer = connection.head().await;
    assert_eq!((answer.http, readable(&answer)), (200, (PAGE, EXPOSED)));
    let mut expected = vec!["subscribed", "caught up"];
    for n in 0..3 {
        while kinds(&answer).len() < expected.len() {
            connection.more(&mut answer).await;
        }
        assert_eq!(kinds(&answer), expected);
        alice.mutate(put(&format!("m{n}"), "1", "{}")).await.unwrap();
        expected.push("changes");
    }

    // One connection has a stream, one is idle, one has never said anything.
    let mut idle = Http1::connect(server.address()).await;
    let mut silent = Http1::connect(server.address()).await;
    assert_eq!(idle.call(post(MUTATE, BINARY), &write("last")).await.words(), "Ok");
    drop(alice);
    timeout(STOPS_WITHIN, server.stop()).await.expect("nobody is waited for");
    while connection.more(&mut answer).await {}
    assert_eq!(error_reason(&answer.read().1), "SYNC_FAILED", "{answer:?}");
    assert!(connection.is_closed().await && idle.is_closed().await && silent.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_to_pages_as_well() {
    let database = Database::create().await;
    let server = open_to(&database, &[PAGE]).await;
    let mut connection = Http1::connect(server.address()).await;
    let head = bare_post("/grpc.health.v1.Health/Check", BINARY);
    let (messages, status) = connection.call(head, &message(&[])).await.read();
    assert_eq!(status.code(), tonic::Code::Ok);
    let serving = HealthCheckResponse::decode(&messages[0][..]).unwrap().status;
    assert_eq!(serving, i32::from(ServingStatus::Serving));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_reaches_the_page_with_its_reason() {
    let database = Database::create().await;
    let server = open_to(&database, &[PAGE]).await;
    let wrong = || bare_post(MUTATE, BINARY).with("authorization", "Bearer x.y.z");
    let unknown = |method: &str| post(&format!("/syncline.v1.SyncService/{method}"), BINARY);
    let nameless = message(&mutate_bytes(put("", "1", "{}")));
    let invalid = "InvalidArgument VALIDATION_ERROR mutation.id";
    let large = "ResourceExhausted REQUEST_TOO_LARGE";
    let malformed = "Internal MALFORMED_REQUEST";
    let late = "DeadlineExceeded DEADLINE_EXCEEDED";
    let missing = "Unauthenticated UNAUTHENTICATED class=missing";
    let declared = framed(0, 5 << 20, b"");
    let text = |bytes: &[u8]| STANDARD.encode(bytes).into_bytes();
    // How many bytes are declared but never come: only a deadline, or a limit, ends that.
    let rows = [
        ("no token", bare_post(MUTATE, BINARY), write("m"), 0, missing),
        ("no token, text", bare_post(MUTATE, TEXT), text(&write("m")), 0, missing),
        ("a wrong token", wrong(), write("m"), 0, "Unauthenticated UNAUTHENTICATED class=invalid"),
        ("a broken rule", post(MUTATE, BINARY), nameless, 0, invalid),
        (
            "no protobuf",
            post(MUTATE, BINARY),
            message(&[0xff; 16]),
            0,
            "InvalidArgument VALIDATION_ERROR",
        ),
        ("no frame", post(MUTATE, BINARY), vec![0, 0], 0, malformed),
        ("no base64", post(MUTATE, TEXT), b"****".to_vec(), 0, malformed),
        ("half of base64", post(MUTATE, TEXT), b"AAA".to_vec(), 0, malformed),
        ("a method that is not there", unknown("Nothing"), write("m"), 0, "Unimplemented"),
        ("too large", post(MUTATE, BINARY), declared.clone(), 5 << 20, large),
        ("too large, text", post(MUTATE, TEXT), text(&declared), 5 << 20, large),
        ("too late", post(MUTATE, BINARY).with("grpc-timeout", "200m"), vec![0], 9, late),
        ("no time", post(MUTATE, BINARY).with("grpc-timeout", "0m"), write("m"), 0, late),
    ];
    let address = server.address();
    join_all(rows.into_iter().map(async |(row, head, body, missing, expected)| {
        let mut connection = Http1::connect(address).await;
        connection.send(head, body.len() + missing, &body).await;
        let mut answer = connection.head().await;
        assert_eq!(answer.words(), expected, "{row}");
        assert!(answer.header("content-type").starts_with("application/grpc-web"), "{row}");
        assert_eq!(readable(&answer), (PAGE, EXPOSED), "{row}");
        while connection.more(&mut answer).await {}
        if missing > 0 {
            assert!(connection.is_closed().await, "{row}: it waits for the rest");
        }
    }))
    .await;
    assert_eq!(server.client("alice").await.head().await, 0, "one of them took effect");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_listed_origins_may_read() {
    let database = Database::create().await;
    let listed: &[&str] = &[PAGE, "http://localhost:5173"];
    let server = open_to(&database, listed).await;
    for (origin, expected) in
        [(PAGE, PAGE), (listed[1], listed[1]), (OTHER, ""), ("null", ""), ("http://localhost", "")]
    {
        let answer = preflight(&server, Some(origin)).await;
        assert_eq!(answer.header("access-control-allow-origin"), expected, "{origin}");
        assert_eq!((answer.http, answer.body.len()), (200, 0));
        assert_eq!(answer.header("access-control-allow-methods"), "POST");
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "authorization,content-type,x-grpc-web,x-user-agent,grpc-timeout"
        );
        assert_eq!(answer.header("access-control-max-age"), "86400");
        assert_eq!(answer.header("access-control-allow-credentials"), "");
        assert!(answer.header("vary").contains("origin"), "{:?}", answer.headers);
    }
    let answer = preflight(&server, None).await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
    // A browser would not send this one; its page could not read it either.
    let mut connection = Http1::connect(server.address()).await;
    let head = Head::new("POST", MUTATE).with("origin", OTHER).with("content-type", BINARY);
    let answer = connection.call(head, &write("m")).await;
    assert_eq!(answer.words(), "Unauthenticated UNAUTHENTICATED class=missing");
    assert_eq!(answer.header("access-control-allow-origin"), "");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_lets_all_pages_read_and_nothing_none() {
    let database = Database::create().await;
    let server = open_to(&database, &["*"]).await;
    for origin in [PAGE, OTHER, "null"] {
        let answer = preflight(&server, Some(origin)).await;
        assert_eq!((answer.http, answer.header("access-control-allow-origin")), (200, "*"));
        assert_eq!(answer.header("access-control-allow-credentials"), "");
    }
    server.stop().await;
    let server = open_to(&database, &[]).await;
    for origin in [Some(PAGE), None] {
        let answer = preflight(&server, origin).await;
        assert_eq!((answer.http, answer.header("allow")), (405, "POST"));
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")));
    }
    // A page of the same origin, as a proxy can make it, needs no permission.
    let mut connection = Http1::connect(server.address()).await;
    let answer = connection.call(post(MUTATE, BINARY), &write("m")).await;
    assert_eq!((answer.words().as_str(), readable(&answer)), ("Ok", ("", "")));
    server.stop().await;
}

async fn preflight(server: &TestServer, origin: Option<&str>) -> Answer {
    let mut head = Head::new("OPTIONS", MUTATE)
        .with("access-control-request-method", "POST")
        .with("access-control-request-headers", "authorization,content-type,x-grpc-web");
    if let Some(origin) = origin {
        head = head.with("origin", origin);
    }
    Http1::connect(server.address()).await.call(head, b"").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_refused() {
    let database = Database::create().await;
    let server = open_to(&database, &[PAGE]).await;
    let many = (0..101).fold(post(MUTATE, BINARY), |head, n| head.with(&format!("x-{n}"), "1"));
    let rows = [
        ("a page", Head::new("GET", "/"), "http 405"),
        ("GET of a method", Head::new("GET", MUTATE).with("content-type", BINARY), "http 405"),
        ("JSON", post(MUTATE, "application/json"), "http 415"),
        ("gRPC without its HTTP/2", post(MUTATE, "application/grpc"), "http 415"),
        ("gRPC-Web of JSON", post(MUTATE, "application/grpc-web+json"), "http 415"),
        ("with a parameter", post(MUTATE, "application/grpc-web; charset=x"), "http 415"),
        ("no type", Head::new("POST", MUTATE), "http 415"),
        ("too many headers", many, "http 431"),
        ("too large a header", post(MUTATE, BINARY).with("x", &"x".repeat(500_000)), "http 431"),
    ];
    for (row, head, expected) in rows {
        let mut connection = Http1::connect(server.address()).await;
        assert_eq!(connection.call(head, b"").await.words(), expected, "{row}");
    }
    // Over HTTP/2, as behind a proxy, gRPC-Web works as well, and the same is refused.
    let client = Http2::connect(server.address()).await;
    let typed = |kind: &str| {
        let bearer = format!("Bearer {}", mint("alice"));
        bare("Mutate").header("content-type", kind).header("authorization", bearer)
    };
    let refused = client.call(typed("application/grpc-web+json"), write("m"), End::Said).await;
    assert_eq!(refused.unwrap().words(), "http 415");
    let answer = client.call(typed(BINARY), write("m"), End::Said).await.unwrap();
    assert!(answer.body.ends_with(b"grpc-status:0\r\n"), "{answer:?}");
    server.stop().await;
}
