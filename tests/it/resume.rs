//! Subscribers over connections that break, readers that are slow or stop, rings
//! that overflow: every one ends with the server's state, in order, without a
//! gap. And the checker that says so, held against histories that are wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use syncline::clock::Clock;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    CaughtUpFrame, Change, ChangesFrame, ClosedFrame, ProgressFrame, SubscribedFrame,
    SubscriptionProgress,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::history::{Ack, Line, Log, check_real_time};
use crate::support::load::{Load, passes};
use crate::support::proxy::{Fault, Proxy, Target};
use crate::support::seen::{Seen, View};
use crate::support::{
    Client, Database, Random, TestServer, json, key, mint, put, scale, seed, signed,
};

/// How a reader treats its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Drops its stream after some frames.
    Drops,
    /// Its connection is cut, in the middle of a frame.
    IsCut,
    /// Takes its time for each frame, until the writers have ended.
    Slow,
}

struct Reader {
    manner: Manner,
    seen: Seen,
    clients: Vec<Client>,
    proxies: Vec<Proxy>,
    random: Random,
    /// Where to end; beyond everything until that is known.
    goal: watch::Receiver<i64>,
}

impl Reader {
    async fn run(mut self) -> (Manner, Seen) {
        for (client, proxy) in self.clients.iter().zip(&self.proxies).cycle() {
            proxy.heal();
            if self.manner == Manner::IsCut {
                // Mostly little, but sometimes enough for the largest page.
                proxy.arm(Fault::CutAnswerAfter(64 << self.random.below(11)));
            }
            let mut left = 2 + self.random.below(30);
            let mut stream = match self.seen.open(client).await {
                Ok(stream) => stream,
                Err(status) => {
                    assert!(passes(&status), "{status:?}");
                    continue;
                }
            };
            while self.manner != Manner::Drops || left > 0 {
                let goal = *self.goal.borrow_and_update();
                if self.seen.cursor >= goal {
                    return (self.manner, self.seen);
                }
                // Cancel: a frame that is not whole stays in the stream.
                let frame = tokio::select! {
                    frame = stream.next() => frame,
                    _ = self.goal.changed() => continue,
                };
                match frame {
                    Ok(Some(frame)) => self.seen.take(frame).unwrap(),
                    Ok(None) => panic!("nobody ended the stream"),
                    Err(status) => {
                        assert!(passes(&status), "{status:?}");
                        break;
                    }
                }
                left -= 1;
                if self.manner == Manner::Slow && *self.goal.borrow() == i64::MAX {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                left = left.max(u64::from(self.manner != Manner::Drops));
            }
        }
        unreachable!("there is always one more client")
    }
}

fn views(random: &mut Random) -> View {
    let collections = [vec![], vec!["task".to_owned()], vec!["task".into(), "note".into()]];
    let not_by = [None, None, Some("w-3".to_owned())];
    View {
        collections: collections[usize::try_from(random.below(3)).unwrap()].clone(),
        not_by: not_by[usize::try_from(random.below(3)).unwrap()].clone(),
        snapshot: random.below(2) == 1,
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
    for manner in manners.into_iter().cycle().take(9) {
        let proxies = servers.iter().map(|it| Proxy::start(Target::Tcp(it.address())));
        let proxies = join_all(proxies).await;
        let clients = proxies.iter().map(|it| Client::narrow(it.address(), &mint("alice")));
        let reader = Reader {
            manner,
            seen: Seen::new(views(&mut random)),
            clients: clients.collect(),
            random: Random(random.next()),
            goal: goal.clone(),
            proxies,
        };
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

/// A log of changes to these tasks, all by devices of their own.
fn log_of(tasks: &[&str]) -> Log {
    let mut log = Log { head: signed(tasks.len()), ..Log::default() };
    for (task, revision) in tasks.iter().zip(1..) {
        let key = ("task".to_owned(), (*task).to_owned());
        let document = Some(format!("{{\"n\":{revision}}}"));
        let previous = log.records.insert(key, (revision, document.clone()));
        log.lines.push(Line {
            revision,
            collection: "task".into(),
            id: (*task).into(),
            document,
            previous: previous.map_or(0, |(revision, _)| revision),
            device: Some(format!("d{revision}")),
            mutation: format!("m{revision}"),
        });
    }
    log
}

fn changes(log: &Log, after: i64, up_to: i64, revisions: &[i64]) -> Frame {
    let change = |revision: &i64| {
        let line = &log.lines[usize::try_from(revision - 1).unwrap()];
        Change {
            revision: line.revision,
            key: Some(key(&line.id)),
            document: line.document.as_deref().and_then(json),
            previous_revision: line.previous,
            device: line.device.clone().unwrap(),
            mutation_id: line.mutation.clone(),
            ..Change::default()
        }
    };
    let changes = revisions.iter().map(change).collect();
    Frame::Changes(ChangesFrame { changes, after, up_to, ..ChangesFrame::default() })
}

/// What the checker says of a subscriber that got these frames.
fn verdict(log: &Log, view: &View, frames: Vec<Frame>) -> String {
    let mut seen = Seen::new(view.clone());
    let taken: Result<(), String> = frames.into_iter().try_for_each(|frame| seen.take(frame));
    taken.and_then(|()| seen.check(log)).err().unwrap_or_default()
}

#[test]
fn the_checker_knows_wrong_streams() {
    let log = log_of(&["a", "b", "a", "c", "b"]);
    let at = |up_to| SubscriptionProgress { up_to, ..SubscriptionProgress::default() };
    let progress =
        |up_to| Frame::Progress(ProgressFrame { subscriptions: vec![at(up_to)], ..<_>::default() });
    let caught_up = |up_to| Frame::CaughtUp(CaughtUpFrame { up_to, ..<_>::default() });
    let epoch =
        |it: &str| Frame::Subscribed(SubscribedFrame { epoch: it.into(), ..<_>::default() });
    let range = |after, up_to, revisions: &[i64]| changes(&log, after, up_to, revisions);
    let mut altered = range(0, 5, &[1, 2, 3, 4, 5]);
    if let Frame::Changes(frame) = &mut altered {
        frame.changes[4].document = json(r#"{"n":6}"#);
    }
    let all = View::default();
    for (expected, frames) in [
        ("", vec![range(0, 2, &[1, 2]), range(2, 5, &[3, 4, 5])]),
        // Coalesced: 1 and 2 were replaced by 3 and 5.
        ("", vec![epoch("e"), range(0, 5, &[3, 4, 5]), caught_up(5), progress(5)]),
        ("", vec![range(0, 4, &[3, 4]), progress(4)]),
        ("got a range after 3", vec![range(0, 2, &[1, 2]), range(3, 5, &[4, 5])]),
        ("got a range after 1", vec![range(0, 2, &[1, 2]), range(1, 5, &[2, 3, 4, 5])]),
        ("got a range after 0", vec![range(0, 2, &[1, 2]), range(0, 2, &[1, 2])]),
        ("1 after 2", vec![range(0, 5, &[2, 1, 3, 4, 5])]),
        ("2 after 2", vec![range(0, 5, &[2, 2, 3, 4, 5])]),
        ("3 after 2", vec![range(0, 2, &[2, 3])]),
        ("2 after 3", vec![range(0, 3, &[3]), range(3, 5, &[2, 5])]),
        ("an empty range", vec![range(0, 0, &[])]),
        ("told of 4", vec![range(0, 5, &[3, 4, 5]), progress(4)]),
        ("told of 4", vec![range(0, 5, &[3, 4, 5]), caught_up(4)]),
        ("another epoch", vec![epoch("e"), epoch("f")]),
        ("ended", vec![Frame::Closed(ClosedFrame::default())]),
        ("4 is lost", vec![range(0, 5, &[1, 2, 3, 5])]),
        ("5 is lost", vec![range(0, 5, &[1, 2, 3, 4])]),
        ("5 is lost", vec![range(0, 4, &[3, 4]), caught_up(5)]),
        ("4 is lost", vec![progress(4)]),
        ("the head is 5", vec![range(0, 6, &[3, 4, 5])]),
        ("is not", vec![altered]),
    ] {
        let verdict = verdict(&log, &all, frames.clone());
        assert!(verdict.contains(expected), "{frames:?}: {verdict:?} is not {expected:?}");
        assert_eq!(verdict.is_empty(), expected.is_empty(), "{frames:?}: {verdict}");
    }
    // What did not pass the filter must not come; what passed must.
    let not_own = View { not_by: Some("d5".into()), ..View::default() };
    let others = View { collections: vec!["note".into()], ..View::default() };
    let frames = || vec![range(0, 5, &[3, 4, 5])];
    assert_eq!(verdict(&log, &others, frames()), "5 was filtered out");
    // An own change must come exactly if it replaced another's that did not.
    assert_eq!(verdict(&log, &not_own, frames()), "");
    assert_eq!(verdict(&log, &not_own, vec![range(0, 5, &[3, 4])]), "2 is lost");
    assert_eq!(verdict(&log, &not_own, vec![range(0, 5, &[2, 3, 4])]), "");
    let doubled = vec![range(0, 5, &[2, 3, 4, 5])];
    assert_eq!(verdict(&log, &not_own, doubled), "5 was filtered out");
    assert_eq!(verdict(&log, &others, vec![progress(5)]), "");
    // Live from the beginning, every step counts.
    let mut seen = Seen::new(all);
    seen.take(range(0, 5, &[3, 4, 5])).unwrap();
    assert_eq!(seen.check_every_step(&log), Err("2 is lost".into()));
}

#[test]
fn the_checker_knows_wrong_logs_and_answers() {
    let good = log_of(&["a", "b", "a"]);
    good.check().unwrap();
    type Breaking = fn(&mut Log);
    let broken: [(&str, Breaking); 7] = [
        ("a gap", |log| drop(log.lines.remove(1))),
        ("a gap", |log| log.lines.swap(0, 1)),
        ("twice", |log| log.lines[2].mutation = "m1".into()),
        ("follows 0", |log| log.lines[2].previous = 0),
        ("the head is 4", |log| log.head = 4),
        ("not what the log says", |log| drop(log.records.pop_first())),
        ("not what the log says", |log| log.lines[2].document = None),
    ];
    for (expected, breaking) in broken {
        let mut log = good.clone();
        breaking(&mut log);
        let verdict = log.check().unwrap_err();
        assert!(verdict.contains(expected), "{verdict:?} is not {expected:?}");
    }
    let zero = Instant::now();
    let ack = |mutation: &str, revision, began, ended| Ack {
        mutation: mutation.into(),
        revision,
        replayed: false,
        began: zero + Duration::from_millis(began),
        ended: zero + Duration::from_millis(ended),
    };
    assert_eq!(good.check_acks(&[ack("m4", 4, 0, 1)]), Err("m4 is lost".into()));
    assert!(good.check_acks(&[ack("m1", 2, 0, 1)]).is_err());
    good.check_acks(&[ack("m3", 3, 0, 1), ack("m1", 1, 0, 1)]).unwrap();
    check_real_time(&[ack("m2", 2, 0, 5), ack("m1", 1, 4, 6)]).unwrap();
    check_real_time(&[ack("m2", 2, 0, 3), ack("m1", 1, 4, 6)]).unwrap_err();
    let kinds: BTreeSet<_> = good.lines.iter().map(Line::key).collect();
    assert_eq!(kinds.len(), 2);
}
