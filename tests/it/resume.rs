//! Subscribers over connections that break, readers that are slow or stop, rings
//! that overflow: every one ends with the server's state, in order, without a gap.

use std::time::Duration;

use syncline::clock::Clock;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::history::Log;
use crate::support::load::Load;
use crate::support::reader::{Manner, Reader};
use crate::support::seen::{Seen, View};
use crate::support::{Client, Database, Random, TestServer, mint, put, scale, seed, signed};

fn views(random: &mut Random) -> View {
    let collections = [vec![], vec!["task".to_owned()], vec!["task".into(), "note".into()]];
    let not_by = [None, None, Some("w-3".to_owned())];
    View {
        collections: collections[usize::try_from(random.below(3)).unwrap()].clone(),
        not_by: not_by[usize::try_from(random.below(3)).unwrap()].clone(),
        snapshot: random.below(2) == 1,
        ..View::default()
    }
}

/// Checks everything that was seen, and the state that it leads to.
fn check(seen: &Seen, log: &Log) {
    seen.check(log).unwrap();
    if seen.view.not_by.is_none() {
        let mut records = log.records.clone();
        let wanted = &seen.view.collections;
        records.retain(|(collection, _), _| wanted.is_empty() || wanted.contains(collection));
        assert_eq!(seen.state(), records);
    }
}

/// Readers of all manners while writers write, on two replicas.
async fn readers_end_with_the_servers_state(ring_bytes: usize) -> (Log, Vec<(Manner, Seen)>) {
    let database = Database::create().await;
    let start =
        || TestServer::start_with(&database, Clock::system(), |it| it.ring_bytes = ring_bytes);
    let servers = [start().await, start().await];
    let mut random = Random(seed());
    let (told, goal) = watch::channel(i64::MAX);
    let mut readers = JoinSet::new();
    let manners = [Manner::Drops, Manner::IsCut, Manner::Slow];
    let addresses = [servers[0].address(), servers[1].address()];
    for manner in manners.into_iter().cycle().take(9) {
        let (view, random) = (views(&mut random), Random(random.next()));
        let reader = Reader::new(&addresses, manner, view, random, goal.clone()).await;
        readers.spawn(reader.run());
    }
    let writers = [servers[0].client("alice").await, servers[1].client("alice").await];
    let load = Load::start("w", 8, 20, &writers);
    load.more(1_200 * scale()).await;
    let acks = load.stop().await;
    // Passes every view, so that every cursor gets there.
    let end = writers[0].mutate(put("end", "end", "{}")).await.unwrap().revision;
    told.send(end).unwrap();
    let readers = readers.join_all().await;
    let log = Log::checked(&database, "alice", &acks).await;
    assert_eq!(log.head, signed(acks.len()) + 1);
    readers.iter().for_each(|(_, seen)| check(seen, &log));
    for server in servers {
        server.stop().await;
    }
    (log, readers)
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_are_cut_off_anywhere_resume_without_a_gap() {
    let (_, readers) = readers_end_with_the_servers_state(16 << 20).await;
    for manner in [Manner::Drops, Manner::IsCut] {
        let streams = readers.iter().filter(|(it, _)| *it == manner).map(|(_, it)| it.streams);
        let streams: u64 = streams.sum();
        println!("{manner:?}: {streams} streams");
        assert!(streams >= 9, "{manner:?} began only {streams} streams");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_fall_off_the_ring_take_the_rest_from_the_store() {
    // A few changes.
    let (log, readers) = readers_end_with_the_servers_state(2_000).await;
    for (manner, seen) in readers {
        if manner == Manner::Slow {
            let all = log.lines.iter().filter(|line| seen.view.passes(line)).count();
            let replaced = all - seen.changes.len();
            assert!(replaced > 0, "it was live all the time");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_harms_nobody_and_ends_complete() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let mut stalled = Seen::new(View::default());
    let narrow = Client::narrow(server.address(), &mint("alice"));
    let mut stalled_stream = stalled.open_live(&narrow).await.unwrap();
    let mut live = Seen::new(View::default());
    let mut live_stream = live.open(&server.client("alice").await).await.unwrap();
    let writer = server.client("alice").await;
    let load = Load::start("w", 8, 50, std::slice::from_ref(&writer));
    for round in 0..4 {
        load.more(400 * scale()).await;
        let id = format!("probe{round}");
        let probe = writer.mutate(put(&id, "probe", "{}")).await.unwrap().revision;
        let began = Instant::now();
        live.follow(&mut live_stream, probe).await.unwrap();
        let late = began.elapsed();
        assert!(late < Duration::from_secs(2), "the others wait: {late:?}");
    }
    let acks = load.stop().await;
    let end = writer.mutate(put("end", "end", "{}")).await.unwrap().revision;
    live.follow(&mut live_stream, end).await.unwrap();
    assert_eq!(stalled.cursor, 0);
    stalled.follow(&mut stalled_stream, end).await.unwrap();
    let log = Log::checked(&database, "alice", &acks).await;
    check(&live, &log);
    check(&stalled, &log);
    stalled.check_every_step(&log).unwrap();
    let bytes: usize =
        log.lines.iter().filter_map(|line| line.document.as_ref()).map(String::len).sum();
    assert!(bytes > 4 * 65_535, "{bytes} bytes fit into the reader's window");
    server.stop().await;
}
