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
    /// An empty object where nothing was: it says no more than that there is one,
    /// so that what others put into it stands beside it.
    Object,
}

/// A step below an object that claims its being one, and none of its values.
/// No document has such a key.
const BEING: &str = "\0";

impl Edit {
    /// The value after it.
    pub(in crate::domain) fn value(&self) -> Option<Value> {
        match &self.to {
            To::Value(value) => Some(value.clone()),
            To::Nothing => None,
            To::Object => Some(Value::Object(Map::new())),
        }
    }

    /// The path that it is about, as a claim.
    pub(in crate::domain) fn claim(&self) -> Path {
        if self.to == To::Object { being(&self.path) } else { self.path.clone() }
    }

    /// All that it claims: who changes a value in an object says that this is one.
    pub(in crate::domain) fn claims(&self) -> impl Iterator<Item = Path> {
        [self.claim()].into_iter().chain(parent(&self.path).map(being))
    }
}

/// The object that a value is in, unless that is the document.
pub(in crate::domain) fn parent(path: &[String]) -> Option<&[String]> {
    path.split_last().map(|(_, parent)| parent).filter(|parent| !parent.is_empty())
}

fn being(object: &[String]) -> Path {
    object.iter().cloned().chain([BEING.to_owned()]).collect()
}

/// The value that a claimed path is about.
pub(in crate::domain) fn about(claimed: &[String]) -> &[String] {
    match claimed {
        [path @ .., last] if last == BEING => path,
        path => path,
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
