//! A network between server and database that is cut at the worst moment, or
//! at any, or that falls silent.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Code;

use crate::support::history::Log;
use crate::support::load::Load;
use crate::support::proxy::Fault;
use crate::support::seen::{Seen, View};
use crate::support::{Client, Database, Random, TestServer, put, scale, seed, signed, wait_for};

/// Brings the server to write with a lock, or without one, and tells the head.
async fn prepare(client: &Client, locked: bool, round: usize) -> i64 {
    let mut head = 0;
    for number in 0..10 {
        let id = format!("{round}-{number}");
        head = client.mutate(put(&id, "other", "{}")).await.unwrap().revision;
    }
    if locked {
        // It takes a lock to answer a replay, and keeps to it for a while.
        let id = format!("{round}-0");
        assert!(client.mutate(put(&id, "other", "{}")).await.unwrap().replayed);
    }
    head
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_looked_up_by_its_id() {
    let database = Database::create().await;
    let (server, proxy) = TestServer::behind_proxy(&database).await;
    let client = server.client("alice").await;
    for round in 0..8 {
        let (locked, arrives, twice) = (round & 4 != 0, round & 2 != 0, round & 1 != 0);
        let head = prepare(&client, locked, round).await;
        let document = format!(r#"{{"round":{round}}}"#);
        let mutation = put(&format!("m{round}"), "1", &document);
        // Without a lock the write itself commits. What was committed is then
        // found under a lock.
        let first = if locked { "COMMIT" } else { &document };
        let second = if arrives { "COMMIT" } else { first };
        let before = proxy.fired();
        for words in [first, second].into_iter().take(if twice { 2 } else { 1 }) {
            let words = words.to_owned();
            proxy.arm(if arrives { Fault::CutAfter(words) } else { Fault::CutBefore(words) });
        }
        let answer = client.mutate(mutation.clone()).await;
        assert_eq!(proxy.fired() - before, if twice { 2 } else { 1 }, "round {round}");
        if twice {
            assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
        } else {
            // The server finds out, and this is its first answer.
            let result = answer.unwrap();
            assert_eq!((result.revision, result.replayed), (head + 1, false), "round {round}");
        }
        // Asked again, it knows what became of the first attempts.
        let again = client.mutate(mutation).await.unwrap();
        assert_eq!(again.revision, head + 1);
        assert_eq!(again.replayed, !twice || arrives, "round {round}");
    }
    Log::checked(&database, "alice", &[]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_are_cut_at_any_moment_take_effect_once() {
    let database = Database::create().await;
    let [one, two] =
        [TestServer::behind_proxy(&database).await, TestServer::behind_proxy(&database).await];
    let clients = [one.0.client("alice").await, two.0.client("alice").await];
    let load = Load::start("w", 8, 50, &clients);
    let mut random = Random(seed());
    let rounds = 40 * scale();
    let mut cuts = 0;
    for _ in 0..rounds {
        let proxy = [&one.1, &two.1][usize::try_from(random.below(2)).unwrap()];
        let before = proxy.fired();
        let commit = || if before % 2 == 0 { "COMMIT" } else { "\"by\":" }.to_owned();
        match random.below(5) {
            // Two servers write to one space, so some writes lock it first and
            // others do not.
            0 => proxy.arm(Fault::CutBefore(commit())),
            1 => proxy.arm(Fault::CutAfter(commit())),
            2 => proxy.arm(Fault::CutAnswerAfter(1 << random.below(12))),
            3 => {
                // Down for as long as it takes to be noticed.
                proxy.refuse();
                let before = load.retried();
                wait_for("a failure", async || (load.retried() > before).then_some(())).await;
                proxy.heal();
                cuts += 1;
                continue;
            }
            _ => {
                proxy.cut();
                load.more(1 + random.below(8)).await;
                cuts += 1;
                continue;
            }
        }
        wait_for("the fault", async || (proxy.fired() > before).then_some(())).await;
    }
    load.more(20).await;
    let retried = load.retried();
    let acks = load.stop().await;
    let fired = one.1.fired() + two.1.fired();
    assert!(fired + cuts >= rounds, "{fired} faults and {cuts} cuts");
    let log = Log::checked(&database, "alice", &acks).await;
    assert_eq!(log.head, signed(acks.len()));
    println!("{fired} faults, {cuts} cuts, {} acknowledged, {retried} sent again", acks.len());
    one.0.stop().await;
    two.0.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_falls_silent_is_given_up_and_found_again() {
    let database = Database::create().await;
    let (server, proxy) = TestServer::behind_proxy(&database).await;
    let client = server.client("alice").await;
    let mut seen = Seen::new(View::default());
    let mut stream = seen.open_live(&client).await.unwrap();
    let load = Load::start("w", 4, 10, std::slice::from_ref(&client));
    load.more(50).await;
    proxy.blackhole();
    // Whoever reads is told in time; the first may still get an answer that was
    // on its way.
    let began = Instant::now();
    let mut write = JoinSet::new();
    let silent = put("silent", "1", "{}");
    write.spawn({
        let (client, silent) = (client.clone(), silent.clone());
        async move { (client.mutate(silent).await, began.elapsed()) }
    });
    let reads = join_all((0..8).map(|_| client.task("1"))).await;
    assert!(began.elapsed() < Duration::from_secs(13), "{:?}", began.elapsed());
    assert!(reads.iter().any(Result::is_err), "the database was not silent");
    for status in reads.into_iter().filter_map(Result::err) {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    // What was open stays silent for good, but new connections are heard.
    proxy.heal();
    let (answer, lasted) = write.join_next().await.unwrap().unwrap();
    println!("silent: the write was answered after {lasted:?}: {:?}", answer.is_ok());
    assert!(lasted < Duration::from_secs(21), "{lasted:?}");
    let began = Instant::now();
    load.more(20).await;
    let written = began.elapsed();
    let result = wait_for("a write", async || client.mutate(silent.clone()).await.ok()).await;
    client.task("1").await.unwrap();
    seen.follow(&mut stream, result.revision).await.unwrap();
    let current = began.elapsed();
    println!("silent: written after {written:?}, current after {current:?}");
    assert!(current < Duration::from_secs(5), "{current:?}");
    let acks = load.stop().await;
    let log = Log::checked(&database, "alice", &acks).await;
    seen.follow(&mut stream, log.head).await.unwrap();
    seen.check(&log).unwrap();
    server.stop().await;
}
