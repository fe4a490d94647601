//! Values inside a document, by their paths: through objects only.

use serde_json::{Map, Value};

use super::document::JsonObject;

/// The value at a path; the top has none.
pub fn value_at<'f>(fields: &'f JsonObject, path: &[String]) -> Option<&'f Value> {
    let (last, way) = path.split_last()?;
    let mut object = fields;
    for key in way {
        object = object.get(key)?.as_object()?;
    }
    object.get(last)
}

/// Puts a value at a path. What is missing on the way is made, and what is no
/// object on the way becomes one.
pub fn put_at(fields: &mut JsonObject, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            fields.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let inner = fields.entry(key).or_insert(Value::Null);
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                put_at(inner, rest, value);
            }
        }
    }
}

/// Removes the value at a path, if there is one.
pub fn remove_at(fields: &mut JsonObject, path: &[String]) {
    match path {
        [] => {}
        [key] => {
            fields.remove(key);
        }
        [key, rest @ ..] => {
            if let Some(Value::Object(inner)) = fields.get_mut(key) {
                remove_at(inner, rest);
            }
        }
    }
}

/// Puts a value at a path, or removes the one there.
pub(super) fn write_at(fields: &mut JsonObject, path: &[String], value: Option<Value>) {
    match value {
        Some(value) => put_at(fields, path, value),
        None => remove_at(fields, path),
    }
}

/// Lays fields into others, object by object.
pub fn merge_fields(into: &mut JsonObject, from: JsonObject) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => merge_fields(inner, value),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
