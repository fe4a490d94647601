//! Signs of life: they come by themselves, say nothing ahead of the changes, and tell
//! when the store is away.

use std::time::Duration;

use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{ProgressFrame, RefreshTokenFrame};
use tokio::time::Instant;

use crate::support::{Database, Stream, TestServer, mint, put, subscribe_frame, wait_for};

/// What the contract promises.
const AT_LEAST_EVERY: Duration = Duration::from_secs(15);

async fn progress(stream: &mut Stream) -> ProgressFrame {
    loop {
        if let Frame::Progress(frame) = stream.next().await.unwrap().unwrap() {
            return frame;
        }
    }
}

/// A progress that is asked for.
async fn asked(stream: &mut Stream) -> ProgressFrame {
    stream.send(Out::RefreshToken(RefreshTokenFrame { token: mint("alice") })).await;
    progress(stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_by_itself_and_covers_what_was_filtered_out() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    let mut stream = Stream::open(&alice).await.unwrap();
    for collections in [vec![], vec!["note".to_owned()]] {
        let id = if collections.is_empty() { "all" } else { "notes" };
        let frame = subscribe_frame(id, None);
        stream.subscribe(syncline::rpc::proto::SubscribeFrame { collections, ..frame }).await;
    }
    let opened = Instant::now();
    alice.mutate(put("m1", "1", "{}")).await.unwrap();
    alice.mutate(put("m2", "2", "{}")).await.unwrap();
    let frame = progress(&mut stream).await;
    assert!(opened.elapsed() < AT_LEAST_EVERY, "after {:?}", opened.elapsed());
    assert!(frame.store_ok);
    let at: Vec<_> = frame
        .subscriptions
        .iter()
        .map(|it| (it.subscription_id.as_str(), it.up_to, it.head))
        .collect();
    assert_eq!(at, [("all", 2, 2), ("notes", 2, 2)]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_tells_when_the_store_is_away_and_back() {
    let database = Database::create().await;
    let (server, proxy) = TestServer::behind_proxy(&database).await;
    let alice = server.client("alice").await;
    let mut stream = Stream::open(&alice).await.unwrap();
    stream.subscribe(subscribe_frame("s", None)).await;
    let ok = async |stream: &mut Stream, expected: bool| {
        let frame = asked(stream).await;
        let at = &frame.subscriptions[0];
        assert!(at.head >= at.up_to);
        (frame.store_ok == expected).then_some(at.up_to)
    };
    wait_for("the store", async || ok(&mut stream, true).await).await;
    proxy.refuse();
    wait_for("a word that the store is away", async || ok(&mut stream, false).await).await;
    // Somebody else writes meanwhile.
    let other = TestServer::start(&database).await;
    let elsewhere = other.client("alice").await;
    let written = elsewhere.mutate(put("m", "1", "{}")).await.unwrap().revision;
    assert!(ok(&mut stream, false).await.is_some_and(|up_to| up_to < written));
    proxy.heal();
    let back = wait_for("the store again", async || {
        ok(&mut stream, true).await.filter(|up_to| *up_to == written)
    });
    back.await;
    other.stop().await;
    server.stop().await;
}
