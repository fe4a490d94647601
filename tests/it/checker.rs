//! The checkers of the other tests, held against histories that are wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use sha2::{Digest, Sha256};
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    CaughtUpFrame, Change, ChangesFrame, ClosedFrame, Delta, EchoMode, ProgressFrame, Record,
    ResyncReason, ResyncRequiredFrame, SnapshotFrame, SubscribedFrame, SubscriptionProgress,
};
use tokio::time::Instant;

use crate::support::history::{Ack, Line, Log, check_real_time};
use crate::support::seen::{Seen, View};
use crate::support::{json, key, signed};

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
            batch_end: 0,
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
            batch_end: line.batch_end,
            ..Change::default()
        }
    };
    let changes = revisions.iter().map(change).collect();
    Frame::Changes(ChangesFrame { changes, after, up_to, ..ChangesFrame::default() })
}

fn partial(frame: Frame) -> Frame {
    match frame {
        Frame::Changes(frame) => Frame::Changes(ChangesFrame { partial: true, ..frame }),
        other => panic!("{other:?}"),
    }
}

fn caught_up(up_to: i64) -> Frame {
    Frame::CaughtUp(CaughtUpFrame { up_to, ..CaughtUpFrame::default() })
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
    let at = |up_to| SubscriptionProgress { up_to, head: 5, ..<_>::default() };
    let progress =
        |up_to| Frame::Progress(ProgressFrame { subscriptions: vec![at(up_to)], ..<_>::default() });
    let epoch =
        |it: &str| Frame::Subscribed(SubscribedFrame { epoch: it.into(), ..<_>::default() });
    let range = |after, up_to, revisions: &[i64]| changes(&log, after, up_to, revisions);
    let mut altered = range(0, 5, &[1, 2, 3, 4, 5]);
    if let Frame::Changes(frame) = &mut altered {
        frame.changes[4].document = json(r#"{"n":6}"#);
    }
    let all = View::default();
    let cases = vec![
        ("", vec![range(0, 2, &[1, 2]), range(2, 5, &[3, 4, 5])]),
        // Coalesced: 1 and 2 were replaced by 3 and 5.
        ("", vec![epoch("e"), range(0, 5, &[3, 4, 5]), caught_up(5), progress(5)]),
        ("", vec![partial(range(0, 4, &[3, 4])), progress(4)]),
        // A client that took it for whole would show no b.
        ("at 4, (\"task\", \"b\") is shown as of None, but is Some(2)", vec![range(0, 4, &[3, 4])]),
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
        ("5 is lost", vec![range(0, 4, &[1, 2, 3, 4]), caught_up(5)]),
        ("4 inside something", vec![partial(range(0, 4, &[3, 4])), caught_up(4)]),
        ("the head is 5", vec![range(0, 5, &[3, 4, 5]), progress(6)]),
        ("4 is lost", vec![progress(4)]),
        ("the head is 5", vec![range(0, 6, &[3, 4, 5])]),
        ("is not", vec![altered]),
    ];
    assert_verdicts(&log, &all, cases);
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

/// Frames with parts that are not all of a change.
struct Parts(Log);

impl Parts {
    /// The change of this revision, altered.
    fn change(&self, revision: i64, alter: impl FnOnce(&mut Change)) -> Change {
        let Frame::Changes(frame) = changes(&self.0, 0, revision, &[revision]) else { panic!() };
        let mut change = frame.changes.into_iter().next().unwrap();
        let document = &self.0.lines[usize::try_from(revision - 1).unwrap()].document;
        let checksum = document.as_ref().map(|it| Sha256::digest(it.as_bytes()).to_vec());
        change.checksum = checksum.unwrap_or_default().into();
        alter(&mut change);
        change
    }

    fn own(&self, revision: i64) -> Change {
        self.change(revision, |it| (it.own, it.document) = (true, None))
    }

    fn delta(&self, revision: i64, base_revision: i64, unset: &[&str], set: &str) -> Change {
        let unset = unset.iter().map(ToString::to_string).collect();
        let delta = Delta { base_revision, unset, set: json(set) };
        self.change(revision, |it| (it.delta, it.document) = (Some(delta), None))
    }
}

fn frame(after: i64, up_to: i64, changes: Vec<Change>) -> Frame {
    Frame::Changes(ChangesFrame { changes, after, up_to, ..ChangesFrame::default() })
}

fn assert_verdicts(log: &Log, view: &View, cases: Vec<(&str, Vec<Frame>)>) {
    for (expected, frames) in cases {
        let verdict = verdict(log, view, frames.clone());
        assert!(verdict.contains(expected), "{frames:?}: {verdict:?} is not {expected:?}");
        assert_eq!(verdict.is_empty(), expected.is_empty(), "{frames:?}: {verdict}");
    }
}

#[test]
fn the_checker_knows_wrong_echoes_and_records() {
    let it = Parts(log_of(&["a", "b", "a", "c", "b"]));
    let whole = |revision| it.change(revision, |_| {});
    let marks = View { not_by: Some("d5".into()), echo: EchoMode::Mark, ..View::default() };
    let first = || frame(0, 4, vec![whole(1), whole(2), whole(3), whole(4)]);
    let some_document = |it: &mut Change| it.own = true;
    let cases = vec![
        ("", vec![first(), frame(4, 5, vec![it.own(5)])]),
        // It hides 2.
        ("", vec![frame(0, 5, vec![whole(3), whole(4), whole(5)])]),
        ("2 is lost", vec![frame(0, 5, vec![whole(3), whole(4), it.own(5)])]),
        ("5 is not marked as own", vec![first(), frame(4, 5, vec![whole(5)])]),
        ("5 is lost", vec![frame(0, 5, vec![whole(1), whole(2), whole(3), whole(4)])]),
        ("4 is marked as own", vec![frame(0, 5, vec![whole(2), whole(3), it.own(4), it.own(5)])]),
        ("5 comes in two forms", vec![first(), frame(4, 5, vec![it.change(5, some_document)])]),
        (
            "checksum of 5",
            vec![first(), frame(4, 5, vec![Change { checksum: whole(4).checksum, ..it.own(5) }])],
        ),
    ];
    assert_verdicts(&it.0, &marks, cases);
    let all = View { echo: EchoMode::All, ..marks };
    let cases = vec![
        ("", vec![first(), frame(4, 5, vec![whole(5)])]),
        ("5 is lost", vec![frame(0, 5, vec![whole(1), whole(2), whole(3), whole(4)])]),
        ("5 is marked as own", vec![first(), frame(4, 5, vec![it.own(5)])]),
    ];
    assert_verdicts(&it.0, &all, cases);
    let some = View {
        keys: vec![("task".into(), "b".into()), ("note".into(), "a".into())],
        ..View::default()
    };
    let cases = vec![
        ("", vec![frame(0, 5, vec![whole(2), whole(5)])]),
        ("is shown as of None, but is Some(2)", vec![frame(0, 3, vec![])]),
        ("3 was filtered out", vec![frame(0, 5, vec![whole(2), whole(3), whole(5)])]),
    ];
    assert_verdicts(&it.0, &some, cases);
}

#[test]
fn the_checker_knows_wrong_differences() {
    let mut it = Parts(log_of(&["a", "a", "a", "a"]));
    let documents = [
        r#"{"a":{"b":1,"c":2},"n":1}"#,
        r#"{"a":{"b":1},"n":[1]}"#,
        r#"{"a":{"b":{"d":1}},"n":[1]}"#,
    ];
    for (line, document) in it.0.lines.iter_mut().zip(documents) {
        line.document = Some(document.to_owned());
    }
    it.0.lines[3].document = None;
    let whole = |revision| it.change(revision, |_| {});
    let view = View { delta: true, ..View::default() };
    let two = || it.delta(2, 1, &["/a/c"], r#"{"n":[1]}"#);
    let three = || it.delta(3, 2, &[], r#"{"a":{"b":{"d":1}}}"#);
    let one_to = |changes: Vec<Change>| vec![frame(0, 1, vec![whole(1)]), frame(1, 4, changes)];
    let cases = vec![
        ("", one_to(vec![two(), three(), whole(4)])),
        ("", one_to(vec![two(), whole(3), whole(4)])),
        // What is held is not what the difference begins with.
        ("2 is told from 1, but None is held", vec![frame(0, 4, vec![two(), whole(3), whole(4)])]),
        ("3 is told from 2, but Some(1) is held", one_to(vec![three(), whole(4)])),
        ("3 is told from 1", one_to(vec![two(), it.delta(3, 1, &["/a/c"], "{}"), whole(4)])),
        ("with its difference, 4 is", one_to(vec![two(), three(), it.delta(4, 3, &[], "{}")])),
        // What comes of it is not what is there.
        ("with its difference, 2 is", one_to(vec![it.delta(2, 1, &[], r#"{"n":[1]}"#), whole(4)])),
        ("with its difference, 3 is", one_to(vec![two(), it.delta(3, 2, &[], "{}"), whole(4)])),
        ("there is no /a/x", one_to(vec![it.delta(2, 1, &["/a/x"], "{}"), whole(4)])),
        ("checksum of 2", one_to(vec![Change { checksum: whole(1).checksum, ..two() }, whole(4)])),
    ];
    assert_verdicts(&it.0, &view, cases);
    let frames = one_to(vec![two(), whole(3), whole(4)]);
    assert_eq!(
        verdict(&it.0, &View::default(), frames),
        "2 is a difference, and nobody asked for one"
    );
    // What was there before "now" is known.
    let now = View { now: true, ..view };
    let begin = |head| Frame::Subscribed(SubscribedFrame { head, ..<_>::default() });
    assert_verdicts(
        &it.0,
        &now,
        vec![
            ("", vec![begin(1), frame(1, 4, vec![two(), three(), whole(4)])]),
            ("3 is told from 2", vec![begin(1), frame(1, 4, vec![three(), whole(4)])]),
            (
                "got a range after 0",
                vec![begin(1), frame(0, 4, vec![whole(1), whole(2), whole(3), whole(4)])],
            ),
        ],
    );
}

#[test]
fn the_checker_knows_batches_in_parts() {
    let mut log = log_of(&["a", "b", "a", "c", "b"]);
    log.lines[1..4].iter_mut().for_each(|line| line.batch_end = 4);
    let range = |after, up_to, revisions: &[i64]| changes(&log, after, up_to, revisions);
    let b = View { keys: vec![("task".into(), "b".into())], ..View::default() };
    let cases = vec![
        ("", vec![range(0, 4, &[1, 2, 3, 4]), range(4, 5, &[5])]),
        ("", vec![partial(range(0, 3, &[1, 2, 3])), range(3, 4, &[4])]),
        ("at 3, inside the batch up to 4", vec![range(0, 3, &[1, 2, 3]), range(3, 4, &[4])]),
        ("inside something", vec![partial(range(0, 3, &[1, 2, 3])), caught_up(3)]),
    ];
    assert_verdicts(&log, &View::default(), cases);
    let cases = vec![
        ("", vec![partial(range(0, 2, &[2])), range(2, 4, &[])]),
        ("at 3, inside the batch up to 4", vec![partial(range(0, 2, &[2])), range(2, 3, &[])]),
        ("at 2, inside the batch up to 4", vec![range(0, 2, &[2])]),
    ];
    assert_verdicts(&log, &b, cases);
    // What belongs together is told to.
    let mut apart = range(0, 4, &[1, 2, 3, 4]);
    if let Frame::Changes(frame) = &mut apart {
        frame.changes[1].batch_end = 0;
    }
    assert!(verdict(&log, &View::default(), vec![apart]).contains("is not"));
}

#[test]
fn the_checker_knows_wrong_snapshots_and_needless_beginnings() {
    let log = log_of(&["a", "b", "a", "c", "b"]);
    let record = |revision: i64| {
        let line = &log.lines[usize::try_from(revision - 1).unwrap()];
        let document = line.document.as_deref().and_then(json);
        Record { key: Some(key(&line.id)), revision, document, ..Record::default() }
    };
    let page = |revision, revisions: &[i64], token: &str| {
        let records = revisions.iter().map(|it| record(*it)).collect();
        let (last, next_token) = (token.is_empty(), token.to_owned());
        Frame::Snapshot(SnapshotFrame { records, revision, last, next_token, ..<_>::default() })
    };
    let view = View { snapshot: true, ..View::default() };
    let rest = || changes(&log, 4, 5, &[5]);
    let cases = vec![
        ("", vec![page(4, &[3], "t"), page(4, &[2, 4], ""), rest()]),
        ("", vec![page(4, &[3, 2], "t")]),
        ("a snapshot of 4 and of 5", vec![page(4, &[3], "t"), page(5, &[5, 4], "")]),
        ("out of order", vec![page(4, &[2, 3, 4], "")]),
        ("out of order", vec![page(4, &[3], "t"), page(4, &[3, 2, 4], "")]),
        ("was not so at 4", vec![page(4, &[3, 5, 4], "")]),
        ("the snapshot at 4 is wrong", vec![page(4, &[3, 2], "")]),
        ("the snapshot at 4 is wrong", vec![page(4, &[1, 2, 4], "")]),
        ("the snapshot at 4 is wrong", vec![page(4, &[3, 4], "t")]),
        ("a snapshot of 4 at 4", vec![page(4, &[3, 2, 4], ""), page(4, &[], "")]),
        ("got a range after 3", vec![page(4, &[3, 2, 4], ""), changes(&log, 3, 5, &[4, 5])]),
        ("5 is lost", vec![page(4, &[3, 2, 4], ""), caught_up(5)]),
    ];
    assert_verdicts(&log, &view, cases);

    let begin = |head, floor| Frame::Subscribed(SubscribedFrame { head, floor, ..<_>::default() });
    let before = || changes(&log, 0, 3, &[1, 2, 3]);
    assert_verdicts(
        &log,
        &View::default(),
        vec![
            ("", vec![before(), begin(5, 3)]),
            ("resumed at 3, where the floor is 4", vec![before(), begin(5, 4)]),
            ("resumed at 3, where the head is 2", vec![before(), begin(2, 1)]),
        ],
    );
    let expired = ResyncReason::CursorExpired;
    let anew = |reason: ResyncReason, floor, head| {
        let mut seen = Seen::new(View::default());
        seen.take(before()).unwrap();
        let reason = reason.into();
        let frame = ResyncRequiredFrame { reason, floor, head, ..<_>::default() };
        seen.begin_anew(&frame).map(|()| seen)
    };
    assert_eq!(anew(expired, 3, 5).unwrap_err(), "at 3, told that the floor is 3 and the head 5");
    assert_eq!(anew(expired, 6, 5).unwrap_err(), "at 3, told that the floor is 6 and the head 5");
    anew(ResyncReason::CursorAhead, 4, 5).unwrap_err();
    // What it saw before still counts.
    let mut seen = anew(expired, 4, 5).unwrap();
    [page(4, &[3, 2, 4], ""), rest()].into_iter().for_each(|it| seen.take(it).unwrap());
    seen.check(&log).unwrap();
    seen.earlier[0].changes.remove(&2);
    seen.check(&log).unwrap_err();
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
