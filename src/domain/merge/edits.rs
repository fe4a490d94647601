//! What a writer changed, as edits of single values: found from the documents
//! before and after.

use serde_json::{Map, Value};

use crate::domain::document::JsonObject;

/// The keys that lead to a value; none lead to the whole document.
pub(in crate::domain) type Path = Vec<String>;

/// One value that became another.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::domain) struct Edit {
    pub(in crate::domain) path: Path,
    pub(in crate::domain) to: To,
}

/// What a value became.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::domain) enum To {
    Value(Value),
    Nothing,
    /// An empty object where nothing was: it claims no more than that there is
    /// one, so that two writers can both begin it.
    Object,
}

impl Edit {
    /// The value after it.
    pub(in crate::domain) fn value(&self) -> Option<Value> {
        match &self.to {
            To::Value(value) => Some(value.clone()),
            To::Nothing => None,
            To::Object => Some(Value::Object(Map::new())),
        }
    }

    /// Whether it claims its path for itself.
    pub(in crate::domain) fn claims(&self) -> bool {
        self.to != To::Object
    }
}

/// The edits between two documents. Objects are compared value by value at every
/// level; a list is one value. What is new is taken apart in the same way.
pub(in crate::domain) fn edits(before: &JsonObject, after: &JsonObject) -> Vec<Edit> {
    let mut found = Vec::new();
    compare(before, after, &mut Vec::new(), &mut found);
    found
}

fn compare(before: &JsonObject, after: &JsonObject, path: &mut Path, found: &mut Vec<Edit>) {
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        path.push(key.clone());
        found.push(Edit { path: path.clone(), to: To::Nothing });
        path.pop();
    }
    for (key, new) in after {
        path.push(key.clone());
        match (before.get(key), new) {
            (Some(Value::Object(before)), Value::Object(after)) => {
                compare(before, after, path, found);
            }
            (Some(old), new) if old == new => {}
            (None, Value::Object(new)) if new.is_empty() => {
                found.push(Edit { path: path.clone(), to: To::Object });
            }
            (None, Value::Object(new)) => compare(&Map::new(), new, path, found),
            (_, new) => found.push(Edit { path: path.clone(), to: To::Value(new.clone()) }),
        }
        path.pop();
    }
}
