//! What random readers found, each as small as it can be told.

use futures_util::future::join_all;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{EchoMode, PublishFrame, SubscribeFrame};

use crate::support::compaction::Compaction;
use crate::support::history::Log;
use crate::support::seen::{Seen, View};
use crate::support::{Client, Database, Stream, TestServer, mint, put, subscribe_frame};

/// Large tasks of these numbers, each with a mutation of its number.
async fn put_large(client: &Client, numbers: std::ops::Range<i64>) {
    let large = format!(r#"{{"pad":"{}"}}"#, "0".repeat(60_000));
    for number in numbers {
        let mutation = put(&format!("m{number}"), &number.to_string(), &large);
        client.mutate_from("laptop", mutation).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_change_is_sent_that_hid_another_s_in_a_page_before_the_stream_broke() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let client = server.client("alice").await;
    client.mutate_from("laptop", put("m1", "x", r#"{"by":"laptop"}"#)).await.unwrap();
    put_large(&client, 2..8).await;
    let end = client.mutate_from("phone", put("m8", "x", r#"{"by":"phone"}"#)).await.unwrap();
    for echo in [EchoMode::Unspecified, EchoMode::Mark] {
        let view = View { not_by: Some("phone".into()), echo, ..View::default() };
        let mut seen = Seen::new(view);
        let mut stream = seen.open(&client).await.unwrap();
        seen.follow(&mut stream, 1).await.unwrap();
        // The server forgot that x, as the laptop had left it, was not in that page.
        assert!(seen.cursor < end.revision && seen.partial);
        drop(stream);
        let mut stream = seen.open(&client).await.unwrap();
        seen.follow(&mut stream, end.revision).await.unwrap();
        seen.check(&Log::checked(&database, "alice", &[]).await).unwrap();
    }
    server.stop().await;
}

/// What was read for somebody else, before a change came that an earlier page of one's
/// own leaves to the end, was taken for the end of a catch-up.
async fn pages_of_others(parted: bool) {
    let database = Database::create().await;
    let start = || TestServer::start(&database);
    let servers = [start().await, start().await, start().await];
    let [here, there, elsewhere] = &servers;
    let client = here.client("alice").await;
    client.mutate(put("m1", "x", r#"{"n":1}"#)).await.unwrap();
    // Three fill a page.
    put_large(&client, 2..9).await;
    // Somebody comes from elsewhere, takes the other two pages, and stays.
    let mut other = Seen::new(View::default());
    let mut stream = other.open(&elsewhere.client("alice").await).await.unwrap();
    other.follow(&mut stream, 4).await.unwrap();
    assert_eq!(other.cursor, 4, "pages are not cut as they were");
    let mut stay = other.open(&client).await.unwrap();
    other.follow(&mut stay, 8).await.unwrap();

    let end = client.mutate(put("m9", "x", r#"{"n":2}"#)).await.unwrap().revision;
    // The first page is read only now, and leaves x to the end.
    let mut seen = Seen::new(View::default());
    let first = if parted { there.client("alice").await } else { client.clone() };
    let mut stream = seen.open(&first).await.unwrap();
    seen.follow(&mut stream, 4).await.unwrap();
    if parted {
        stream = seen.open(&client).await.unwrap();
    }
    seen.follow(&mut stream, end).await.unwrap();
    assert!(!seen.changes.contains_key(&1), "x was not hidden");
    seen.check(&Log::checked(&database, "alice", &[]).await).unwrap();
    join_all(servers.map(TestServer::stop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_others_are_no_end_of_a_catch_up_that_has_looked_further() {
    pages_of_others(false).await;
    pages_of_others(true).await;
}

/// A stream whose reader has stopped, with a subscription `a` that has just filled it
/// with so many large tasks.
async fn full_stream(server: &TestServer, round: u64, tasks: u64) -> Stream {
    let mut stream = Stream::open(&Client::narrow(server.address(), &mint("alice"))).await.unwrap();
    let keys = (0..tasks).map(|task| crate::support::key(&task.to_string())).collect();
    stream.subscribe(SubscribeFrame { keys, ..subscribe_frame("a", None) }).await;
    while !matches!(stream.frame().await, Frame::CaughtUp(_)) {}
    let writer = server.client("alice").await;
    let large = format!(r#"{{"round":{round},"pad":"{}"}}"#, "0".repeat(70_000));
    for task in 0..tasks {
        writer.mutate(put(&format!("{round}-{task}"), &task.to_string(), &large)).await.unwrap();
    }
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_has_caught_up_inside_a_batch() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let client = server.client("alice").await;
    let mut events = Stream::open(&client).await.unwrap();
    events.subscribe(SubscribeFrame { events: true, ..subscribe_frame("e", None) }).await;
    // A few fill the stream exactly: then there is nothing but the batch when its
    // reader reads on.
    for tasks in 3..6 {
        let mut stream = full_stream(&server, tasks, tasks).await;
        let mut seen = Seen::new(View { now: true, ..View::default() });
        stream.subscribe(seen.frame("b")).await;
        let topic = tasks.to_string();
        let event = PublishFrame { subscription_id: "a".into(), topic, document: None };
        stream.send(Out::Publish(event)).await;
        // Who hears the event knows that `b` has begun.
        let heard = |frame| matches!(frame, Frame::Event(it) if it.topic == tasks.to_string());
        while !heard(events.frame().await) {}
        let large = format!(r#"{{"round":{tasks},"pad":"{}"}}"#, "0".repeat(90_000));
        let batch = (0..20).map(|n| put(&format!("b{tasks}-{n}"), &format!("b{n}"), &large));
        let end = client.batch(batch.collect(), true).await.unwrap()[19].revision;
        while seen.cursor < end {
            match stream.frame().await {
                Frame::Changes(it) if it.subscription_ids != ["b"] => {}
                Frame::Subscribed(it) if it.subscription_id != "b" => {}
                Frame::CaughtUp(it) if it.subscription_id != "b" => {}
                frame => seen.take(frame).unwrap(),
            }
        }
        seen.check(&Log::checked(&database, "alice", &[]).await).unwrap();
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_the_floor_has_passed_sends_its_readers_back_to_the_beginning() {
    let database = Database::create().await;
    let mut compaction = Compaction::prepare(&database).await;
    let here = TestServer::start(&database).await;
    let (there, proxy) = TestServer::behind_proxy(&database).await;
    let writer = here.client("alice").await;
    for number in 0..5 {
        writer.mutate(put(&format!("a{number}"), "x", "{}")).await.unwrap();
    }
    let mut seen = Seen::new(View::default());
    let mut stream = seen.open_live(&there.client("alice").await).await.unwrap();
    // While it sees nothing of the database, what comes next of its log goes.
    proxy.refuse();
    for number in 0..5 {
        writer.mutate(put(&format!("b{number}"), "x", "{}")).await.unwrap();
    }
    compaction.raise(0).await;
    assert_eq!((compaction.floor, compaction.taken_out), (10, 9));
    proxy.heal();
    // It waited for changes that are nowhere any more.
    loop {
        match stream.frame().await {
            Frame::ResyncRequired(frame) => {
                seen.begin_anew(&frame).unwrap();
                break;
            }
            frame => seen.take(frame).unwrap(),
        }
    }
    let mut stream = seen.open_live(&there.client("alice").await).await.unwrap();
    let end = writer.mutate(put("c", "y", "{}")).await.unwrap().revision;
    seen.follow(&mut stream, end).await.unwrap();
    seen.check(&compaction.checked(&[]).await).unwrap();
    here.stop().await;
    there.stop().await;
}
