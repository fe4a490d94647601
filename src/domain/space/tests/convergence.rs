//! What strategies promise: whatever the order in which devices come back, the
//! record is the same in the end; nothing that one side alone has changed is
//! lost; and what is lost stands in the log.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::domain::fields::{put_at, remove_at, value_at};
use crate::domain::laws::laws;
use crate::domain::merge::{To, edits};
use crate::domain::{
    Base, DeleteRule, Fallback, FieldRule, FieldRuleKind, Patch, Pattern, Pointer, Side,
    Strategy as Named,
};

const DEVICES: [&str; 3] = ["desk", "phone", "tablet"];

/// An edit that a device makes to what it has.
#[derive(Clone, Debug)]
enum Draft {
    Set(&'static str, Value),
    Unset(&'static str),
    Delete,
}

/// What the devices do while they are apart: who, what, and whether as a patch.
type Apart = Vec<(usize, Draft, bool)>;

fn draft(lists: bool) -> impl Strategy<Value = Draft> {
    let path = prop::sample::select(vec!["/a", "/b", "/o", "/o/x", "/o/y", "/o/z", "/p/q", "/l"]);
    let scalar = || (0..4_i64).prop_map(Value::from);
    let value = prop_oneof![
        6 => scalar(),
        1 => Just(Value::Null),
        1 => Just(json!({})),
        1 => scalar().prop_map(|it| json!({ "x": it })),
        1 => scalar().prop_map(|it| json!([it])),
    ];
    let list = prop::sample::subsequence(vec![1, 2, 3, 4, 5, 6], 0..5).prop_map(|it| json!(it));
    let set = (path.clone(), value).prop_map(|(path, value)| Draft::Set(path, value));
    let set_list = list.prop_map(|it| Draft::Set("/l", it));
    let unset = path.prop_map(Draft::Unset);
    let lists = if lists { 8 } else { 0 };
    prop_oneof![6 => set, 2 => unset, lists + 1 => set_list]
}

fn apart(lists: bool, deletes: u32) -> impl Strategy<Value = Apart> {
    let draft = prop_oneof![20 => draft(lists), deletes => Just(Draft::Delete)];
    prop::collection::vec((0..DEVICES.len(), draft, any::<bool>()), 1..9)
}

fn base() -> Document {
    document(r#"{"a":0,"b":0,"l":[1,2,3],"n":10,"o":{"x":0,"y":0}}"#)
}

fn keys(path: &str) -> Vec<String> {
    Pointer::parse(path).unwrap().keys().to_vec()
}

/// A mutation as a device queues it, with what it had and what it makes of that.
#[derive(Clone, Debug)]
struct Queued {
    device: usize,
    micros: i64,
    operation: Operation,
    before: Map<String, Value>,
    after: Option<Map<String, Value>>,
}

/// What the devices queue. The place in the list is the time.
fn queue(apart: Apart) -> Vec<Queued> {
    let mut views: [Option<Map<String, Value>>; 3] = std::array::from_fn(|_| Some(base().fields()));
    let mut queued = Vec::new();
    for (index, (device, draft, as_patch)) in apart.into_iter().enumerate() {
        // Who has deleted the record is done.
        let Some(before) = views[device].clone() else { continue };
        let mut fields = before.clone();
        let empty = || document("{}");
        let patch = |set, unset| Operation::Patch(Patch { set, unset, transforms: Vec::new() });
        let operation = match draft {
            Draft::Delete => Operation::Delete,
            Draft::Set(path, value) => {
                put_at(&mut fields, &keys(path), value.clone());
                let mut set = Map::new();
                put_at(&mut set, &keys(path), value.clone());
                // A patch merges objects; a put replaces them.
                let replaced = value.is_object() && value_at(&before, &keys(path)).is_some();
                let set = Document::from_fields(set).unwrap();
                if as_patch && !replaced { patch(set, Vec::new()) } else { put(&fields) }
            }
            Draft::Unset(path) => {
                remove_at(&mut fields, &keys(path));
                let unset = vec![Pointer::parse(path).unwrap()];
                if as_patch { patch(empty(), unset) } else { put(&fields) }
            }
        };
        let after = (!matches!(operation, Operation::Delete)).then_some(fields);
        views[device].clone_from(&after);
        let micros = 1_000_000 + i64::try_from(index).unwrap();
        queued.push(Queued { device, micros, operation, before, after });
    }
    queued
}

fn put(fields: &Map<String, Value>) -> Operation {
    Operation::Put(Document::from_fields(fields.clone()).unwrap())
}

/// The queues in an order of arrival: each turn lets one device send its next.
fn arrival(queued: &[Queued], turns: &[usize]) -> Vec<Request> {
    let mut queues: Vec<Vec<&Queued>> = vec![Vec::new(); DEVICES.len()];
    queued.iter().rev().for_each(|it| queues[it.device].push(it));
    let mut sent = [0; DEVICES.len()];
    let mut requests = Vec::new();
    let rounds = (0..DEVICES.len()).cycle().take(DEVICES.len() * queued.len());
    for device in turns.iter().copied().chain(rounds) {
        let Some(next) = queues[device].pop() else { continue };
        sent[device] += 1;
        let from = super::device(DEVICES[device]);
        let id = format!("{}-{}", DEVICES[device], sent[device]);
        let mut content = content("1", next.operation.clone(), Some(1)).unwrap();
        content.client_micros = Some(next.micros);
        let mutation = mutation(&id, from.as_ref(), Some(sent[device]), Ok(content));
        requests.push(request(DEVICES[device], false, vec![mutation]));
    }
    requests
}

/// A space with the base in it.
fn seeded(policy: Policy) -> Stored {
    let mut stored = Stored::with_policy(policy);
    // Devices tell the time here.
    stored.rules.skew_micros = i64::MAX;
    let mut first = content("1", Operation::Create(base()), Some(0)).unwrap();
    first.client_micros = Some(1);
    let seed = mutation("seed", None, None, Ok(first));
    stored.commit(&[request("", false, vec![seed])]);
    stored
}

/// The space after the requests came, each by itself.
fn run(policy: &Policy, requests: &[Request]) -> (Stored, Vec<Outcome>) {
    let mut stored = seeded(policy.clone());
    let outcomes = requests.iter().map(|request| {
        let verdict = stored.commit(std::slice::from_ref(request)).pop().unwrap();
        verdict.unwrap().pop().unwrap().outcome
    });
    let outcomes = outcomes.collect();
    (stored, outcomes)
}

fn state(stored: &Stored) -> Option<Document> {
    stored.records[&key("1")].document.clone()
}

/// The document without regard to the order of its list.
fn unordered(document: Option<Document>) -> Option<Map<String, Value>> {
    let mut fields = document?.fields();
    if let Some(Value::Array(list)) = fields.get_mut("l") {
        list.sort_by_key(ToString::to_string);
    }
    Some(fields)
}

fn turns() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..DEVICES.len(), 0..9)
}

fn named(strategy: Named, deletes: DeleteRule) -> Policy {
    Policy { strategy, fallback: Fallback::LastWriteWins, deletes, ..Policy::default() }
}

/// Applies all edits in the order of their times.
fn replayed(queued: &[Queued]) -> Map<String, Value> {
    let mut fields = base().fields();
    let mut queued: Vec<_> = queued.iter().collect();
    queued.sort_by_key(|it| it.micros);
    for it in queued {
        for edit in edits(&it.before, it.after.as_ref().unwrap()) {
            match edit.to {
                To::Object if value_at(&fields, &edit.path).is_some_and(Value::is_object) => {}
                To::Nothing => {
                    // Whoever takes something out of an object says that this is one.
                    let parent = &edit.path[..edit.path.len() - 1];
                    let there = value_at(&fields, parent).is_some_and(Value::is_object);
                    if !there {
                        put_at(&mut fields, parent, json!({}));
                    }
                    remove_at(&mut fields, &edit.path);
                }
                To::Object | To::Value(_) => put_at(&mut fields, &edit.path, edit.value().unwrap()),
            }
        }
    }
    fields
}

proptest! {
    #![proptest_config(laws())]

    #[test]
    fn the_last_write_of_all_wins_in_any_order(
        apart in apart(false, 2), one in turns(), other in turns(),
    ) {
        let (policy, queued) = (named(Named::LastWriteWins, DeleteRule::ByStrategy), queue(apart));
        let last = queued.iter().max_by_key(|it| it.micros).unwrap();
        let last = last.after.clone().map(|it| Document::from_fields(it).unwrap());
        for turns in [one, other] {
            let (stored, _) = run(&policy, &arrival(&queued, &turns));
            prop_assert_eq!(state(&stored).map(|it| it.fields()), last.as_ref().map(Document::fields));
        }
    }

    #[test]
    fn a_merge_by_time_is_all_edits_in_the_order_of_their_times(
        apart in apart(false, 0), one in turns(), other in turns(),
    ) {
        let (policy, queued) = (named(Named::Merge, DeleteRule::ByStrategy), queue(apart));
        let expected = replayed(&queued);
        for turns in [one, other] {
            let (stored, outcomes) = run(&policy, &arrival(&queued, &turns));
            let got = state(&stored).unwrap().fields();
            prop_assert_eq!(&got, &expected, "{:?}", outcomes);
        }
    }

    #[test]
    fn merges_converge_beside_deletions_that_win_or_lose(
        apart in apart(false, 3), one in turns(), other in turns(), wins in any::<bool>(),
    ) {
        let deletes = if wins { DeleteRule::DeleteWins } else { DeleteRule::UpdateWins };
        // An update that lost against a later one of the deleting device itself
        // leaves no trace that a deletion could lose against: so once each.
        let mut seen = std::collections::HashSet::new();
        let apart = apart.into_iter().filter(|(device, ..)| wins || seen.insert(*device));
        let queued = queue(apart.collect());
        for strategy in [Named::Merge, Named::Auto] {
            let policy = named(strategy, deletes);
            let (first, _) = run(&policy, &arrival(&queued, &one));
            let (second, _) = run(&policy, &arrival(&queued, &other));
            prop_assert_eq!(state(&first).map(|it| it.fields()), state(&second).map(|it| it.fields()));
        }
    }

    #[test]
    fn joined_lists_converge_but_for_their_order(
        apart in prop::collection::vec(
            (0..DEVICES.len(), prop::sample::subsequence(vec![1, 2, 3, 4, 5, 6], 0..5), any::<bool>()),
            1..9,
        ),
        one in turns(), other in turns(),
    ) {
        let policy = named(Named::Additive, DeleteRule::ByStrategy);
        // Once each: who adds again what they had removed says two things.
        let mut seen = std::collections::HashSet::new();
        let apart = apart.into_iter().filter(|(device, ..)| seen.insert(*device));
        let apart = apart.map(|(device, list, patch)| (device, Draft::Set("/l", json!(list)), patch));
        let queued = queue(apart.collect());
        let (first, _) = run(&policy, &arrival(&queued, &one));
        let (second, _) = run(&policy, &arrival(&queued, &other));
        prop_assert_eq!(unordered(state(&first)), unordered(state(&second)));
        let list = unordered(state(&first)).unwrap();
        let has = |document: &Map<String, Value>, item: i64| {
            document["l"].as_array().unwrap().contains(&json!(item))
        };
        for item in 1..=6 {
            let mut afters = queued.iter().map(|it| it.after.as_ref().unwrap());
            let expected = if item <= 3 {
                afters.all(|after| has(after, item))
            } else {
                afters.any(|after| has(after, item))
            };
            prop_assert_eq!(has(&list, item), expected, "{}", item);
        }
    }

    #[test]
    fn the_highest_number_wins_in_any_order(
        numbers in prop::collection::vec((0..DEVICES.len(), 11..40_i64), 1..9),
        one in turns(), other in turns(),
    ) {
        let version_field = Some(Pointer::parse("/n").unwrap());
        let policy =
            Policy { version_field, ..named(Named::HighestVersionWins, DeleteRule::ByStrategy) };
        // A device's numbers rise.
        let mut last = [10; DEVICES.len()];
        let apart = numbers.into_iter().map(|(device, step)| {
            last[device] += step;
            (device, Draft::Set("/n", last[device].into()), false)
        });
        let queued = queue(apart.collect());
        let number = |it: &Queued| it.after.as_ref().unwrap()["n"].as_i64();
        let highest = queued.iter().filter_map(number).max();
        for turns in [one, other] {
            let (stored, _) = run(&policy, &arrival(&queued, &turns));
            prop_assert_eq!(state(&stored).unwrap().fields()["n"].as_i64(), highest);
        }
    }

    #[test]
    fn rules_converge_and_every_amount_counts(
        amounts in prop::collection::vec((0..DEVICES.len(), -5..6_i64), 1..9),
        one in turns(), other in turns(),
        kind in prop::sample::select(vec![FieldRuleKind::Sum, FieldRuleKind::Max, FieldRuleKind::Min]),
    ) {
        let path = Pattern::parse("/n").unwrap();
        let fields = vec![FieldRule { path, kind, key_field: None }];
        let policy = Policy { fields, ..named(Named::Manual, DeleteRule::ByStrategy) };
        let mut seen = [10; DEVICES.len()];
        let apart = amounts.iter().map(|(device, amount)| {
            seen[*device] += *amount;
            (*device, Draft::Set("/n", seen[*device].into()), false)
        });
        let queued = queue(apart.collect());
        let expected = match kind {
            FieldRuleKind::Sum => Some(10 + amounts.iter().map(|(_, amount)| amount).sum::<i64>()),
            _ => None,
        };
        let (first, _) = run(&policy, &arrival(&queued, &one));
        let (second, _) = run(&policy, &arrival(&queued, &other));
        let number = |stored: &Stored| state(stored).unwrap().fields()["n"].as_i64();
        if let Some(expected) = expected {
            prop_assert_eq!((number(&first), number(&second)), (Some(expected), Some(expected)));
        } else if amounts.iter().map(|(device, _)| device).collect::<std::collections::HashSet<_>>().len() == amounts.len() {
            prop_assert_eq!(number(&first), number(&second));
        }
    }

    #[test]
    fn what_one_side_alone_changed_is_kept(
        apart in apart(true, 0), turns in turns(), additive in any::<bool>(),
    ) {
        let strategy = if additive { Named::Additive } else { Named::Merge };
        let policy = Policy { fallback: Fallback::Manual, ..named(strategy, DeleteRule::ByStrategy) };
        let queued = queue(apart);
        let (stored, _) = run(&policy, &arrival(&queued, &turns));
        let changes = |device: usize| {
            let mine = queued.iter().filter(move |it| it.device == device);
            mine.flat_map(|it| edits(&it.before, it.after.as_ref().unwrap())).map(|it| it.path)
        };
        let merged = state(&stored).unwrap().fields();
        for logged in stored.conflicts.values() {
            // What waits as a whole is not in the record yet.
            if logged.conflict.state() == ConflictState::Open {
                return Ok(());
            }
        }
        for device in 0..DEVICES.len() {
            let Some(last) = queued.iter().rfind(|it| it.device == device) else { continue };
            for path in changes(device) {
                let touches = |other: Vec<String>| other.starts_with(&path) || path.starts_with(&other);
                let mut others = (0..DEVICES.len()).filter(|it| *it != device).flat_map(changes);
                if !others.any(touches) {
                    prop_assert_eq!(
                        value_at(&merged, &path), value_at(last.after.as_ref().unwrap(), &path)
                    );
                }
            }
        }
    }

    #[test]
    fn whoever_is_not_simply_applied_has_both_sides_in_the_log(
        policy in policy(), apart in apart(true, 2), turns in turns(),
    ) {
        let queued = queue(apart);
        let requests = arrival(&queued, &turns);
        let mut stored = seeded(policy);
        let mut queues: [Vec<&Queued>; 3] = std::array::from_fn(|device| {
            queued.iter().rev().filter(|it| it.device == device).collect()
        });
        for request in requests {
            let before = stored.clone();
            let device = DEVICES.iter().position(|it| Some(*it) == request.device.as_ref().map(DeviceId::as_str));
            let sent = queues[device.unwrap()].pop().unwrap();
            let verdict = stored.commit(std::slice::from_ref(&request)).pop().unwrap();
            let outcome = verdict.unwrap().pop().unwrap().outcome;
            let id = &request.mutations[0].id;
            let record = &before.records[&key("1")];
            let foreign = record.is_unseen(
                &Seen::Revision(Revision::new(1).unwrap()), request.device.as_ref(),
            );
            let logged = stored.conflicts.get(id).map(|it| &it.conflict);
            prop_assert_eq!(foreign && !matches!(outcome, Outcome::Rejected(_)), logged.is_some());
            let Some(Conflict { server: Side { document, .. }, client, base: seen, .. }) =
                logged.map(AsRef::as_ref)
            else {
                continue;
            };
            prop_assert_eq!(document, &record.document, "the server's side");
            let made = sent.after.clone().map(|it| Document::from_fields(it).unwrap());
            prop_assert_eq!(client.document.as_ref().map(Document::fields), made.map(|it| it.fields()));
            prop_assert!(matches!(seen, Base::Known(_)), "the base is kept");
        }
    }

    #[test]
    fn the_same_again_under_another_id_changes_nothing(
        apart in apart(false, 0), turns in turns(),
        strategy in prop::sample::select(vec![
            Named::LastWriteWins, Named::Merge, Named::Auto, Named::ServerWins, Named::ClientWins,
        ]),
    ) {
        let policy = named(strategy, DeleteRule::ByStrategy);
        let mut requests = arrival(&queue(apart), &turns);
        let mut again = requests.last().unwrap().clone();
        let (once, _) = run(&policy, &requests);
        again.mutations[0].id = MutationId::parse("again").unwrap();
        again.mutations[0].device_sequence = None;
        requests.push(again);
        let (twice, _) = run(&policy, &requests);
        prop_assert_eq!(state(&once).map(|it| it.fields()), state(&twice).map(|it| it.fields()));
    }
}
