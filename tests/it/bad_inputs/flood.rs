//! Rows 1 to 10: connections that say nothing, half a word, or far too much.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::House;
use crate::support::mint;
use crate::support::put;
use crate::support::raw::{
    END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, End, Frame, Http2, PREFACE, flood, hpack, kind,
    message, mutate_bytes, post,
};

/// Sends these bytes and nothing more; how the server then closes.
async fn silent(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    let closed = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    match closed {
        Err(_open) => "open after 10 s".into(),
        Ok(_) if began.elapsed() < Duration::from_secs(4) => "closed too early".into(),
        Ok(_) => "closed".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_do_not_begin_to_speak_are_closed() {
    let house = House::new().await;
    let address = house.server.address();
    let (nothing, half, almost, line) = tokio::join!(
        silent(address, b""),
        silent(address, &PREFACE[..12]),
        silent(address, &PREFACE[..23]),
        silent(address, b"POST /syncline.v1.Sync"),
    );
    house.check("1 no bytes", &nothing, "closed").await;
    house.check("2 half a preface", &half, "closed").await;
    house.check("2 all but one byte", &almost, "closed").await;
    house.check("2 half a line of HTTP/1.1", &line, "closed").await;
    house.end().await;
}

/// Reads whatever comes and answers nothing; how long it took until the server closed.
async fn deaf(address: SocketAddr) -> Duration {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let settings = Frame::new(kind::SETTINGS, 0, 0, Vec::new()).bytes();
    stream.write_all(&[PREFACE, &settings].concat()).await.unwrap();
    let began = Instant::now();
    let mut rest = Vec::new();
    let closed = timeout(Duration::from_secs(45), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "row 3: open after 45 s");
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_answers_no_ping_is_closed() {
    let house = House::new().await;
    let took = deaf(house.server.address()).await;
    // The interval, and the time for an answer.
    assert!((25..40).contains(&took.as_secs()), "row 3: {took:?}");
    house.check("3 no answer to a ping", "", "").await;
    house.end().await;
}

/// The headers of a call of Mutate, and more.
fn headers(more: &[(&str, &str)]) -> Vec<u8> {
    let bearer = format!("Bearer {}", mint("alice"));
    let mut headers = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/syncline.v1.SyncService/Mutate"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", bearer.as_str()),
    ];
    headers.extend_from_slice(more);
    hpack(&headers)
}

fn odd(n: u32) -> u32 {
    2 * n + 1
}

/// What became of a flood: how the connection ended, and after how many resets.
fn ending(seen: &[Frame]) -> (String, usize) {
    let resets = seen.iter().filter(|frame| frame.kind == kind::RST_STREAM).count();
    let answered = seen.iter().any(|frame| frame.kind == kind::PING && frame.flags == 1);
    let goaway = seen.iter().find(|frame| frame.kind == kind::GOAWAY);
    let ending = match goaway.map(|frame| frame.number_at(4)) {
        Some(ENHANCE_YOUR_CALM) => "goaway: enhance your calm",
        Some(_) => "goaway",
        None if answered => "answered all",
        None => "closed",
    };
    (ending.into(), resets)
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_broken_streams_end_their_own_connection_only() {
    let house = House::new().await;
    let address = house.server.address();
    let block = headers(&[]);
    let rapid = (0..20_000).flat_map(|n| {
        let open = Frame::new(kind::HEADERS, END_HEADERS, odd(n), block.clone());
        [open, Frame::new(kind::RST_STREAM, 0, odd(n), vec![0, 0, 0, 8])]
    });
    let (seen, _resets) = ending(&flood(address, rapid).await);
    house.check("5 rapid reset", &seen, "goaway: enhance your calm").await;

    let lying = headers(&[("content-length", "5")]);
    let mismatched = (0..20_000).flat_map(|n| {
        let open = Frame::new(kind::HEADERS, END_HEADERS, odd(n), lying.clone());
        [open, Frame::new(kind::DATA, END_STREAM, odd(n), vec![0])]
    });
    let (seen, resets) = ending(&flood(address, mismatched).await);
    house.check("6 content-length that lies", &seen, "goaway: enhance your calm").await;
    assert!(resets <= 2_100, "row 6: {resets} resets before the end");
    house.unchanged("5, 6").await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_ends_its_connection() {
    let house = House::new().await;
    let address = house.server.address();
    let ping = |_| Frame::new(kind::PING, 0, 0, b"01234567".to_vec());
    let (seen, _) = ending(&flood(address, (0..1_000).map(ping)).await);
    house.check("8 a thousand pings", &seen, "answered all").await;
    let answers = |seen: &[Frame]| seen.iter().filter(|frame| frame.kind == kind::PING).count();
    let seen = flood(address, (0..200_000).map(ping)).await;
    assert!(answers(&seen) < 20_000, "row 8: {} pings were answered", answers(&seen));
    assert!(!seen.iter().any(|frame| frame.payload == b"finished"), "row 8: all were answered");
    house.check("8 pings", "", "").await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_advertised_number_are_refused() {
    let house = House::new().await;
    let block = headers(&[]);
    let many = (0..5_000).map(|n| Frame::new(kind::HEADERS, END_HEADERS, odd(n), block.clone()));
    let seen = flood(house.server.address(), many).await;
    let settings = seen.iter().find(|frame| frame.kind == kind::SETTINGS && frame.flags == 0);
    let pairs = settings.unwrap().payload.chunks(6);
    let advertised: Vec<_> = pairs
        .filter(|pair| pair[..2] == [0, 3])
        .map(|pair| u32::from_be_bytes(pair[2..].try_into().unwrap()))
        .collect();
    house.check("7 streams advertised", &format!("{advertised:?}"), "[200]").await;
    let (ending, resets) = ending(&seen);
    assert!(ending != "answered all" || resets >= 4_800, "row 7: {ending} after {resets} resets");
    house.unchanged("7").await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_bounded() {
    let house = House::new().await;
    let client = Http2::connect(house.server.address()).await;
    let valid = message(&mutate_bytes(put("m", "1", "{}")));
    let request = post("Mutate").header("x-large", "x".repeat(20 << 10));
    let answer = client.call(request, valid.clone(), End::Said).await.unwrap();
    house.check("9 metadata of 20 KiB", &answer.words(), "http 431").await;

    let block = headers(&[("x-large", &"x".repeat(200 << 10))]);
    let mut parts = block.chunks(8 << 10);
    let first = Frame::new(kind::HEADERS, END_STREAM, 1, parts.next().unwrap().to_vec());
    let mut frames = vec![first];
    frames.extend(parts.map(|part| Frame::new(kind::CONTINUATION, 0, 1, part.to_vec())));
    frames.last_mut().unwrap().flags = END_HEADERS;
    let (seen, _resets) = ending(&flood(house.server.address(), frames.into_iter()).await);
    house.check("10 metadata of 200 KiB", seen.split(':').next().unwrap(), "goaway").await;
    house.unchanged("9, 10").await;
    house.end().await;
}
