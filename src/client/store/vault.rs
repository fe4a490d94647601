//! Sensitive values: they are kept in memory, never on disk. Owns which fields are sensitive
//! and what was taken out of documents; must not know where documents are stored.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::Value;

use crate::client::edit::{Edit, Patch};
use crate::domain::{CollectionName, Document, JsonObject, Pointer, RecordKey};

/// Which document of a record, or of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::client) enum Slot {
    Shown(RecordKey),
    Server(RecordKey),
    Staged(RecordKey),
    Edit(i64),
    Kept(i64),
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(in crate::client) struct Vault {
    fields: HashMap<CollectionName, Vec<Pointer>>,
    values: Mutex<HashMap<(i64, Slot), JsonObject>>,
}

impl Vault {
    pub(in crate::client) fn new(fields: HashMap<CollectionName, Vec<Pointer>>) -> Self {
        Self { fields, values: Mutex::default() }
    }

    /// The sensitive fields of a collection.
    pub(in crate::client) fn fields(&self, collection: &CollectionName) -> &[Pointer] {
        self.fields.get(collection).map_or(&[], Vec::as_slice)
    }

    /// The document as it may be written down; what must not is kept here.
    pub(in crate::client) fn hide(
        &self,
        space: i64,
        collection: &CollectionName,
        slot: Slot,
        document: &Document,
    ) -> (Document, bool) {
        let paths = self.fields(collection);
        if paths.is_empty() {
            return (document.clone(), false);
        }
        let (open, hidden) = part(document, paths);
        let mut values = self.values.lock();
        match hidden.is_empty() {
            true => {
                values.remove(&(space, slot));
                (document.clone(), false)
            }
            false => {
                values.insert((space, slot), hidden);
                (open, true)
            }
        }
    }

    /// The document with what was hidden of it, as far as this process knows that.
    pub(in crate::client) fn reveal(
        &self,
        space: i64,
        collection: &CollectionName,
        slot: Slot,
        document: Document,
    ) -> Document {
        if self.fields(collection).is_empty() {
            return document;
        }
        let values = self.values.lock();
        let Some(hidden) = values.get(&(space, slot)) else { return document };
        let mut fields = document.fields();
        merge(&mut fields, hidden);
        Document::from_fields(fields).unwrap_or(document)
    }

    /// Whether the hidden part of something is known here.
    pub(in crate::client) fn knows(&self, space: i64, slot: Slot) -> bool {
        self.values.lock().contains_key(&(space, slot))
    }

    /// Whether an edit has sensitive values.
    pub(in crate::client) fn is_sensitive(&self, collection: &CollectionName, edit: &Edit) -> bool {
        let paths = self.fields(collection);
        let has = |document: &Document| !part(document, paths).1.is_empty();
        !paths.is_empty()
            && match edit {
                Edit::Create(document) | Edit::Put(document) => has(document),
                Edit::Patch(patch) => has(&patch.set) || self.is_relative(collection, patch),
                Edit::Delete => false,
            }
    }

    /// Whether a patch changes a sensitive value relatively: values of such changes are not
    /// taken out of what is written.
    pub(in crate::client) fn is_relative(
        &self,
        collection: &CollectionName,
        patch: &Patch,
    ) -> bool {
        let at = |path: &Pointer| self.fields(collection).iter().any(|it| touches(it, path));
        patch.transforms.iter().any(|it| at(&it.path))
    }

    /// Nothing of this is needed any more.
    pub(in crate::client) fn forget(&self, space: i64, slot: Slot) {
        if !self.fields.is_empty() {
            self.values.lock().remove(&(space, slot));
        }
    }
}

/// Whether one path lies at or below the other.
fn touches(one: &Pointer, other: &Pointer) -> bool {
    let (one, other) = (one.keys(), other.keys());
    one.starts_with(other) || other.starts_with(one)
}

/// A document without these values, and these values alone.
fn part(document: &Document, paths: &[Pointer]) -> (Document, JsonObject) {
    let mut fields = document.fields();
    let mut hidden = JsonObject::new();
    for path in paths {
        take(&mut fields, &mut hidden, path.keys());
    }
    match hidden.is_empty() {
        true => (document.clone(), hidden),
        // A part of a valid document is valid.
        false => {
            (Document::from_fields(fields).unwrap_or_else(|_| crate::client::edit::empty()), hidden)
        }
    }
}

fn take(from: &mut JsonObject, to: &mut JsonObject, path: &[String]) {
    let Some((key, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        if let Some(value) = from.remove(key) {
            to.insert(key.clone(), value);
        }
    } else if let Some(Value::Object(inner)) = from.get_mut(key) {
        let mut hidden = JsonObject::new();
        take(inner, &mut hidden, rest);
        if !hidden.is_empty() {
            match to.get_mut(key) {
                Some(Value::Object(there)) => there.append(&mut hidden),
                _ => drop(to.insert(key.clone(), Value::Object(hidden))),
            }
        }
    }
}

fn merge(into: &mut JsonObject, from: &JsonObject) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => merge(inner, value),
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}
