//! Devices that write while they are apart, and then come back in some order.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::domain::fields::{put_at, remove_at, value_at};
use crate::domain::merge::{To, edits};
use crate::domain::space::tests::*;
use crate::domain::{DeleteRule, Fallback, Patch, Pointer, Strategy as Named};

pub(super) const DEVICES: [&str; 3] = ["desk", "phone", "tablet"];

/// An edit that a device makes to what it has.
#[derive(Clone, Debug)]
pub(super) enum Draft {
    Set(&'static str, Value),
    Unset(&'static str),
    Delete,
}

/// What the devices do while they are apart: who, what, and whether as a patch.
pub(super) type Apart = Vec<(usize, Draft, bool)>;

pub(super) fn draft(lists: bool) -> impl Strategy<Value = Draft> {
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

pub(super) fn apart(lists: bool, deletes: u32) -> impl Strategy<Value = Apart> {
    let draft = prop_oneof![20 => draft(lists), deletes => Just(Draft::Delete)];
    prop::collection::vec((0..DEVICES.len(), draft, any::<bool>()), 1..9)
}

pub(super) fn base() -> Document {
    document(r#"{"a":0,"b":0,"l":[1,2,3],"n":10,"o":{"x":0,"y":0}}"#)
}

pub(super) fn keys(path: &str) -> Vec<String> {
    Pointer::parse(path).unwrap().keys().to_vec()
}

/// A mutation as a device queues it, with what it had and what it makes of that.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) device: usize,
    pub(super) micros: i64,
    pub(super) operation: Operation,
    pub(super) before: Map<String, Value>,
    pub(super) after: Option<Map<String, Value>>,
}

/// What the devices queue. The place in the list is the time.
pub(super) fn queue(apart: Apart) -> Vec<Queued> {
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

pub(super) fn put(fields: &Map<String, Value>) -> Operation {
    Operation::Put(Document::from_fields(fields.clone()).unwrap())
}

/// The queues in an order of arrival: each turn lets one device send its next.
pub(super) fn arrival(queued: &[Queued], turns: &[usize]) -> Vec<Request> {
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
pub(super) fn seeded(policy: Policy) -> Stored {
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
pub(super) fn run(policy: &Policy, requests: &[Request]) -> (Stored, Vec<Outcome>) {
    let mut stored = seeded(policy.clone());
    let outcomes = requests.iter().map(|request| {
        let verdict = stored.commit(std::slice::from_ref(request)).pop().unwrap();
        verdict.unwrap().pop().unwrap().outcome
    });
    let outcomes = outcomes.collect();
    (stored, outcomes)
}

pub(super) fn state(stored: &Stored) -> Option<Document> {
    stored.records[&key("1")].document.clone()
}

/// The document without regard to the order of its list.
pub(super) fn unordered(document: Option<Document>) -> Option<Map<String, Value>> {
    let mut fields = document?.fields();
    if let Some(Value::Array(list)) = fields.get_mut("l") {
        list.sort_by_key(ToString::to_string);
    }
    Some(fields)
}

pub(super) fn turns() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..DEVICES.len(), 0..9)
}

pub(super) fn named(strategy: Named, deletes: DeleteRule) -> Policy {
    Policy { strategy, fallback: Fallback::LastWriteWins, deletes, ..Policy::default() }
}

/// Applies all edits in the order of their times.
pub(super) fn replayed(queued: &[Queued]) -> Map<String, Value> {
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
