//! What a device has queued behind its own writes, and comes with when others have
//! written meanwhile.

use time::Duration;

use super::*;
use crate::domain::{
    Base, Choice, DeleteRule, FieldRule, FieldRuleKind, HistoryEntry, Patch, Pattern, Pointer,
    Resolve, Strategy as Named, Transform, TransformKind,
};

/// A write of record r: which one, of which device, what, and on what base.
#[derive(Clone)]
struct Write {
    name: &'static str,
    device: &'static str,
    operation: Operation,
    base: Seen,
    micros: Option<i64>,
}

impl Write {
    fn of(name: &'static str, device: &'static str, operation: Operation) -> Self {
        let base = Seen::Revision(Revision::new(1).unwrap());
        Self { name, device, operation, base, micros: None }
    }

    fn on(self, base: Seen) -> Self {
        Self { base, ..self }
    }

    fn at(self, micros: i64) -> Self {
        Self { micros: Some(micros), ..self }
    }

    fn request(self) -> Request {
        let content = Content {
            key: key("r"),
            operation: self.operation,
            base: Some(self.base),
            client_micros: self.micros,
        };
        let of = device(self.device);
        request(self.device, false, vec![mutation(self.name, of.as_ref(), None, Ok(content))])
    }
}

fn put(text: &str) -> Operation {
    Operation::Put(document(text))
}

fn patch(set: &str, transforms: Vec<Transform>) -> Operation {
    Operation::Patch(Patch { set: document(set), unset: Vec::new(), transforms })
}

fn add(path: &str, amount: i64) -> Transform {
    let kind = TransformKind::Increment(amount.into());
    Transform { path: Pointer::parse(path).unwrap(), kind }
}

fn revision(revision: i64) -> Seen {
    Seen::Revision(Revision::new(revision).unwrap())
}

fn by(strategy: Named) -> Policy {
    Policy { strategy, ..Policy::default() }
}

fn with_rule(strategy: Named, path: &str, kind: FieldRuleKind) -> Policy {
    let path = Pattern::parse(path).unwrap();
    Policy { fields: vec![FieldRule { path, kind, key_field: None }], ..by(strategy) }
}

/// What becomes of the record when these come in this order: each for itself, and
/// all but the first in one group. Both must be the same.
fn come(policy: &Policy, base: &str, writes: &[Write]) -> (Stored, Vec<Outcome>) {
    come_upon(policy, Write::of("seed", "seed", put(base)).at(0), writes)
}

fn come_upon(policy: &Policy, first: Write, writes: &[Write]) -> (Stored, Vec<Outcome>) {
    let first = first.on(revision(0)).request();
    let (mut apart, mut together) =
        (Stored::with_policy(policy.clone()), Stored::with_policy(policy.clone()));
    for stored in [&mut apart, &mut together] {
        // Later than what any client claims here.
        stored.rules.skew_micros = Duration::hours(1).whole_microseconds().try_into().unwrap();
        stored.commit(std::slice::from_ref(&first));
    }
    let requests: Vec<_> = writes.iter().cloned().map(Write::request).collect();
    let one = |verdict: Verdict| verdict.unwrap().pop().unwrap().outcome;
    let singly: Vec<_> =
        requests.chunks(1).flat_map(|request| apart.commit(request)).map(one).collect();
    let at_once: Vec<_> = together.commit(&requests).into_iter().map(one).collect();
    assert_eq!(singly, at_once);
    assert_eq!(apart.essence(), together.essence());
    (apart, singly)
}

fn shown(stored: &Stored) -> &str {
    let record = stored.records.get(&key("r")).unwrap();
    record.document.as_ref().map_or("deleted", |document| document.as_str())
}

#[test]
fn a_transform_that_passed_others_stays_under_what_is_queued_behind_it() {
    let writes = [
        Write::of("b1", "b", patch(r#"{"title":"b"}"#, vec![])).at(100),
        Write::of("a1", "a", patch("{}", vec![add("/n", 1)])).at(200),
        Write::of("a2", "a", patch(r#"{"note":"x"}"#, vec![])).at(300),
    ];
    for strategy in [Named::LastWriteWins, Named::ClientWins] {
        let (stored, _) = come(&by(strategy), r#"{"n":10,"title":"o"}"#, &writes);
        assert_eq!(shown(&stored), r#"{"n":11,"note":"x","title":"o"}"#);
    }
}

#[test]
fn an_amount_counts_once_however_it_is_said_again() {
    let writes = [
        Write::of("b1", "b", put(r#"{"n":15}"#)).at(100),
        Write::of("a1", "a", patch("{}", vec![add("/n", 1)])).at(200),
        // As the device has it: with its own one.
        Write::of("a2", "a", put(r#"{"n":11,"x":1}"#)).at(300),
    ];
    let policy = with_rule(Named::Merge, "/n", FieldRuleKind::Sum);
    let (stored, _) = come(&policy, r#"{"n":10}"#, &writes);
    assert_eq!(shown(&stored), r#"{"n":16,"x":1}"#);
}

#[test]
fn rules_do_not_make_the_rest_of_a_document_older_or_later() {
    let policy = with_rule(Named::LastWriteWins, "/n", FieldRuleKind::Sum);
    let b = Write::of("b1", "b", put(r#"{"n":1,"note":"b"}"#)).at(300);
    let a1 = Write::of("a1", "a", patch(r#"{"n":1}"#, vec![])).at(100);
    let a2 = Write::of("a2", "a", patch(r#"{"note":"a"}"#, vec![])).at(150);
    for order in [[&b, &a1, &a2], [&a1, &b, &a2], [&a1, &a2, &b]] {
        let (stored, _) = come(&policy, r#"{"n":0}"#, &order.map(Clone::clone));
        assert_eq!(shown(&stored), r#"{"n":2,"note":"b"}"#);
    }
}

#[test]
fn writes_of_one_moment_do_not_stand_in_each_other_s_way() {
    let writes = [
        Write::of("b1", "B", put(r#"{"n":2}"#)),
        Write::of("a1", "a", put(r#"{"n":3}"#)),
        Write::of("a2", "a", put(r#"{"n":4}"#)),
    ];
    let (stored, outcomes) = come(&by(Named::LastWriteWins), r#"{"n":1}"#, &writes);
    assert!(outcomes.iter().all(Outcome::took_effect), "{outcomes:?}");
    assert_eq!(shown(&stored), r#"{"n":4}"#);
    // Nor where the device's clock was set back.
    let writes = [
        Write::of("b1", "b", put(r#"{"n":2}"#)).at(100),
        Write::of("a1", "a", put(r#"{"n":3}"#)).at(150),
        Write::of("a2", "a", put(r#"{"n":4}"#)).at(50),
    ];
    let (stored, _) = come(&by(Named::LastWriteWins), r#"{"n":1}"#, &writes);
    assert_eq!(shown(&stored), r#"{"n":4}"#);
}

#[test]
fn a_device_makes_anew_what_it_has_deleted() {
    let b = Write::of("b1", "b", put(r#"{"n":2}"#)).at(100);
    let a1 = Write::of("a1", "a", Operation::Delete).at(200);
    let a2 = Write::of("a2", "a", put(r#"{"a":1}"#)).at(300);
    let deletes = DeleteRule::DeleteWins;
    let policies =
        [by(Named::Auto), by(Named::LastWriteWins), Policy { deletes, ..by(Named::Merge) }];
    for policy in policies {
        for order in [[&b, &a1, &a2], [&a1, &a2, &b]] {
            let (stored, _) = come(&policy, r#"{"n":1}"#, &order.map(Clone::clone));
            assert_eq!(shown(&stored), r#"{"a":1}"#, "{policy:?}");
        }
    }
}

#[test]
fn what_lost_does_not_come_back_however_requests_are_grouped() {
    let create = |text: &str| Operation::Create(document(text));
    for strategy in [Named::LastWriteWins, Named::Merge] {
        let policy =
            Policy { fallback: crate::domain::Fallback::LastWriteWins, ..by(Named::Merge) };
        let policy = Policy { strategy, ..policy };
        let writes = [
            Write::of("a1", "a", create(r#"{"body":"x","title":"a"}"#)).on(revision(0)).at(100),
            Write::of("a2", "a", put(r#"{"body":"x","done":true,"title":"a"}"#))
                .on(revision(0))
                .at(300),
        ];
        let seed = Write::of("seed", "seed", put(r#"{"title":"seed"}"#)).at(200);
        let (stored, _) = come_upon(&policy, seed, &writes);
        let expected = match strategy {
            Named::Merge => r#"{"body":"x","done":true,"title":"seed"}"#,
            _ => r#"{"body":"x","done":true,"title":"a"}"#,
        };
        assert_eq!(shown(&stored), expected);
    }
}

#[test]
fn only_who_knew_it_closes_the_conflict_of_another() {
    let sequenced = |name: &'static str, operation, sequence| {
        let content =
            Content { key: key("r"), operation, base: Some(revision(1)), client_micros: None };
        let of = device("a");
        let mutation = mutation(name, of.as_ref(), Some(sequence), Ok(content));
        request("a", false, vec![mutation])
    };
    let (mut stored, _) =
        come(&by(Named::Manual), r#"{"n":1}"#, &[Write::of("b1", "b", put(r#"{"n":2}"#))]);
    stored.commit(&[sequenced("a1", put(r#"{"n":3}"#), 1)]);
    stored.commit(&[sequenced("a2", patch("{}", vec![add("/m", 1)]), 2)]);
    let record = Arc::clone(&stored.records[&key("r")]);
    assert_eq!(record.open_conflicts, 1);
    // The record's history tells of the second write, and not of the first.
    let history = Seen::Vector(History::new(record.history().collect()));
    stored.commit(&[Write::of("c1", "c", put(r#"{"n":5}"#)).on(history).request()]);
    assert_eq!(stored.open(&key("r")).count(), 1, "nobody has decided about it");
    // Who has heard from the device itself how far it went has seen it.
    let mut known: Vec<_> = stored.records[&key("r")].history().collect();
    known.retain(|it| it.device != device("a"));
    known.push(HistoryEntry { device: device("a"), sequence: 2, revision: Revision::ZERO });
    let known = Seen::Vector(History::new(known));
    stored.commit(&[Write::of("c2", "c", put(r#"{"n":6}"#)).on(known).request()]);
    assert_eq!(stored.open(&key("r")).count(), 0);
}

#[test]
fn a_vector_that_covers_each_write_is_not_behind_a_history_that_forgot() {
    let mut stored = Stored::with_policy(by(Named::Manual));
    let mut known = Vec::new();
    for number in 0..100_i64 {
        let name = format!("device-{number:03}");
        let from = device(&name);
        let base = (number > 0).then_some(number);
        let mutation =
            mutation(&format!("m{number}"), from.as_ref(), None, content("r", put("{}"), base));
        stored.commit(&[request(&name, false, vec![mutation])]);
        let revision = Revision::new(number + 1).unwrap();
        known.push(HistoryEntry { device: from, sequence: 0, revision });
    }
    let seen = Seen::Vector(History::new(known));
    let verdicts = stored.commit(&[Write::of("last", "new", put(r#"{"n":1}"#)).on(seen).request()]);
    let outcome = &verdicts[0].as_ref().unwrap()[0].outcome;
    assert!(matches!(outcome, Outcome::Applied(_, None)), "{outcome:?}");
}

#[test]
fn a_resolution_is_in_the_view_of_who_made_it() {
    let (mut stored, _) = come(
        &by(Named::Manual),
        r#"{"n":1}"#,
        &[Write::of("b1", "b", put(r#"{"n":2}"#)), Write::of("a1", "a", put(r#"{"n":3}"#))],
    );
    let seen = stored.records[&key("r")].revision;
    let conflict = MutationId::parse("a1").unwrap();
    let resolve = Resolve { conflict, seen, choice: Choice::Document(document(r#"{"n":7}"#)) };
    let resolve = Write::of("r1", "a", Operation::Resolve(resolve)).request();
    stored.commit(&[resolve]);
    assert_eq!(shown(&stored), r#"{"n":7}"#);
    assert_eq!(stored.open(&key("r")).count(), 0);
    // From its queue, where it still has the old base.
    stored.commit(&[Write::of("a2", "a", patch(r#"{"note":1}"#, vec![])).request()]);
    let logged = &stored.conflicts[&MutationId::parse("a2").unwrap()].conflict;
    assert_eq!(logged.client.document, Some(document(r#"{"n":7,"note":1}"#)));
}

#[test]
fn what_an_atomic_batch_lacks_is_found_at_once() {
    let mut stored = Stored::with_policy(by(Named::Merge));
    let write = |from: &str, id: &str, text: &str, base| {
        let name = format!("{from}-{id}");
        mutation(&name, device(from).as_ref(), None, content(id, put(text), Some(base)))
    };
    let ids = ["1", "2", "3"];
    let all = |from: &str, text: &str, bases: [i64; 3]| {
        let write = |(id, base): (&&str, i64)| write(from, id, text, base);
        request(from, true, ids.iter().zip(bases).map(write).collect())
    };
    stored.commit(&[all("seed", r#"{"n":1}"#, [0; 3])]);
    stored.commit(&[all("b", r#"{"b":1,"n":1}"#, [1, 2, 3])]);
    let late = [all("a", r#"{"a":1,"n":1}"#, [1, 2, 3])];
    let mut state = stored.load(&late, &[]);
    state.decide(&late[0], OffsetDateTime::UNIX_EPOCH).unwrap();
    assert_eq!(state.lacks().len(), 3);
    let outcomes = stored.commit(&late).pop().unwrap().unwrap();
    assert!(outcomes.iter().all(|it| matches!(it.outcome, Outcome::Merged(..))), "{outcomes:?}");
}

/// What was read of the way back once served for another base, too.
#[test]
fn two_bases_in_one_group_are_told_apart() {
    let writes = [
        Write::of("b1", "b", put(r#"{"n":2,"o":1}"#)),
        Write::of("a1", "a", put(r#"{"n":3,"o":2}"#)).on(revision(0)),
        Write::of("c1", "c", put(r#"{"n":3,"o":2}"#)),
    ];
    let (stored, _) = come(&by(Named::Manual), r#"{"n":1,"o":1}"#, &writes);
    let paths = |id: &str| {
        let logged = &stored.conflicts[&MutationId::parse(id).unwrap()];
        logged.conflict.paths.iter().map(Pointer::to_string).collect::<Vec<_>>()
    };
    assert_eq!(paths("a1"), ["/n", "/o"]);
    assert_eq!(paths("c1"), ["/n"]);
}

#[test]
fn whatever_passed_others_is_done_again_on_what_the_device_had() {
    let transform = |path: &str, kind| Transform { path: Pointer::parse(path).unwrap(), kind };
    let writes = [
        Write::of("b1", "b", patch(r#"{"l":["x"],"n":50}"#, vec![])).at(100),
        Write::of(
            "a1",
            "a",
            patch(
                "{}",
                vec![
                    transform("/n", TransformKind::Max(60.into())),
                    transform("/l", TransformKind::AppendMissing(vec!["x".into()])),
                ],
            ),
        )
        .at(200),
        Write::of("a2", "a", patch(r#"{"note":1}"#, vec![])).at(300),
    ];
    let (stored, _) = come(&by(Named::LastWriteWins), r#"{"l":[],"n":10}"#, &writes);
    assert_eq!(shown(&stored), r#"{"l":["x"],"n":60,"note":1}"#);
}

#[test]
fn a_rule_for_a_nested_value_decides_about_its_object_too() {
    let policy = with_rule(Named::LastWriteWins, "/stats/n", FieldRuleKind::Sum);
    let b = Write::of("b1", "b", put(r#"{"stats":{"n":1}}"#)).at(300);
    let a = Write::of("a1", "a", put(r#"{"stats":{"n":0},"title":"a"}"#)).at(100);
    for order in [[&b, &a], [&a, &b]] {
        let (stored, _) = come(&policy, r#"{"stats":{"n":0}}"#, &order.map(Clone::clone));
        assert_eq!(shown(&stored), r#"{"stats":{"n":1},"title":"a"}"#);
    }
}

/// What is read for one device leaves out documents that another one needs.
#[test]
fn what_was_left_out_for_one_device_is_no_deletion_for_another() {
    let policy = by(Named::Merge);
    let mut writes = vec![Write::of("x1", "x", put(r#"{"n":0,"x":1}"#))];
    for (name, text) in [("b1", r#"{"n":1}"#), ("b2", r#"{"n":2}"#), ("b3", r#"{"n":3}"#)] {
        writes.push(Write::of(name, "b", put(text)));
    }
    let (stored, _) = come(&policy, r#"{"n":0}"#, &writes);
    let changes: Vec<_> = stored.changes.iter().map(|(change, _)| Arc::clone(change)).collect();
    let way = |of: &str| Way { device: device(of), from: Revision::new(1).unwrap(), whole: false };
    let left_out = changes.iter().enumerate().map(|(index, change)| match index {
        2 | 3 => Arc::new(Change { document: None, ..change.as_ref().clone() }),
        _ => Arc::clone(change),
    });
    let mut log = PastLog::default();
    log.is_stored = true;
    log.extend(way("b"), Some(Arc::clone(&changes[0])), left_out);
    // All of it is too much for this one.
    log.extend(way("c"), Some(Arc::clone(&changes[0])), []);
    let current = changes.last().unwrap();
    let past = log.since(current, &revision(1), device("c").as_ref(), &policy).unwrap();
    assert_eq!(past.steps.len(), 1);
    assert_eq!(past.steps[0].document, current.document);
    assert!(past.claims.deletion().is_none());
    // Nor for the device itself, where its view does not have them.
    let whole = Way { device: device("b"), from: Revision::ZERO, whole: true };
    log.extend(whole, None, []);
    let seen = Seen::Vector(History::new(vec![changes[0].entry()]));
    let past = log.since(current, &seen, device("b").as_ref(), &policy).unwrap();
    assert_eq!(past.view, Base::Lost);
}
