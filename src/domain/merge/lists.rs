//! Joins two lists that were one: what either side added is there, once; what
//! either side removed is gone.

use std::collections::HashMap;

use serde_json::Value;

use crate::domain::document::canonical;

/// Joins lists of values that are told apart by what they are. The server's
/// order, then what the client added, in its order.
pub(super) fn join(base: &[Value], server: &[Value], client: &[Value]) -> Vec<Value> {
    let names = |list: &[Value]| -> Vec<String> { list.iter().map(canonical).collect() };
    let (base, server_names, client_names) = (names(base), names(server), names(client));
    let count = |names: &[String]| {
        let mut counts = HashMap::<String, i64>::new();
        names.iter().for_each(|name| *counts.entry(name.clone()).or_default() += 1);
        counts
    };
    let (before, ours, theirs) = (count(&base), count(&server_names), count(&client_names));
    // So many more of a value as the side that added most of it has added, and
    // so many fewer as the side that removed most has removed.
    let wanted = |name: &String| {
        let of = |counts: &HashMap<String, i64>| counts.get(name).copied().unwrap_or_default();
        let (before, ours, theirs) = (of(&before), of(&ours), of(&theirs));
        let removed = (before - ours).max(before - theirs).max(0);
        let added = (ours - before).max(theirs - before).max(0);
        before - removed + added
    };
    let mut taken = HashMap::<&String, i64>::new();
    let named = server_names.iter().zip(server).chain(client_names.iter().zip(client));
    let mut joined = Vec::new();
    for (name, value) in named {
        let so_far = taken.entry(name).or_default();
        if *so_far < wanted(name) {
            *so_far += 1;
            joined.push(value.clone());
        }
    }
    joined
}

/// Joins lists of objects that a field tells apart; `both` makes one of an item
/// that both sides have, from what it was and what it is for each: (base, server,
/// client). And whether no side has changed an item that the other has removed.
/// None if two items of a list have the same key.
pub(super) fn join_by_key<E>(
    key_field: &str,
    (base, server, client): (&[Value], &[Value], &[Value]),
    mut both: impl FnMut(&str, Option<&Value>, &Value, &Value) -> Result<Value, E>,
) -> Result<Option<(Vec<Value>, bool)>, E> {
    let (Some(base), Some(ours), Some(theirs)) =
        (by_key(key_field, base), by_key(key_field, server), by_key(key_field, client))
    else {
        return Ok(None);
    };
    let (mut joined, mut whole) = (Vec::new(), true);
    for item in server {
        let identity = identity(key_field, item);
        match (base.get(&identity), theirs.get(&identity)) {
            (Some(before), None) => whole &= *before == item,
            (None, None) => joined.push(item.clone()),
            (before, Some(theirs)) => {
                joined.push(both(&step(key_field, item), before.copied(), item, theirs)?);
            }
        }
    }
    for item in client {
        let identity = identity(key_field, item);
        match base.get(&identity) {
            _ if ours.contains_key(&identity) => {}
            Some(before) => whole &= *before == item,
            None => joined.push(item.clone()),
        }
    }
    Ok(Some((joined, whole)))
}

/// The items by what tells them apart; None if two have the same.
fn by_key<'l>(key_field: &str, list: &'l [Value]) -> Option<HashMap<String, &'l Value>> {
    let mut items = HashMap::with_capacity(list.len());
    let fresh = |item| items.insert(identity(key_field, item), item).is_none();
    list.iter().all(fresh).then_some(items)
}

/// What tells an item apart: its key, or, if it has none, all of it.
fn identity(key_field: &str, item: &Value) -> String {
    match item.get(key_field) {
        Some(key) => canonical(key),
        // No JSON begins like this, so no key is taken for it.
        None => format!("={}", canonical(item)),
    }
}

/// An item's key, as a step of a path.
fn step(key_field: &str, item: &Value) -> String {
    match item.get(key_field) {
        Some(Value::String(key)) => key.clone(),
        Some(key) => canonical(key),
        None => canonical(item),
    }
}
