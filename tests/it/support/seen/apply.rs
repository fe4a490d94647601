//! A client's way to apply a difference, written from the contract alone.

use serde_json::{Map, Value};
use syncline::rpc::proto::Delta;

use crate::support::text;

/// The document that comes of a difference.
pub(super) fn applied(before: &str, delta: &Delta) -> Result<Value, String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|it| it.to_string());
    let mut document = parse(before)?;
    for pointer in &delta.unset {
        unset(&mut document, pointer)?;
    }
    let set = delta.set.as_ref().ok_or("a difference that does not say what to set")?;
    match parse(&text(set))? {
        Value::Object(set) => merge(&mut document, set),
        other => return Err(format!("{other} is to be merged")),
    }
    Ok(document)
}

/// What a pointer names is there before, and not afterwards.
fn unset(document: &mut Value, pointer: &str) -> Result<(), String> {
    let nothing = || format!("there is no {pointer} to remove");
    let (parent, key) = pointer.rsplit_once('/').ok_or_else(nothing)?;
    let key = key.replace("~1", "/").replace("~0", "~");
    let parent = document.pointer_mut(parent).and_then(Value::as_object_mut);
    parent.and_then(|it| it.remove(&key)).map(drop).ok_or_else(nothing)
}

/// Objects at every level; a list or another value replaces what is there.
fn merge(into: &mut Value, set: Map<String, Value>) {
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(fields) = into.as_object_mut() else { return };
    for (key, value) in set {
        match value {
            Value::Object(inner) => {
                merge(fields.entry(key).or_insert_with(|| Value::Object(Map::new())), inner);
            }
            other => drop(fields.insert(key, other)),
        }
    }
}
