//! Sensitive values: they are kept in memory, never on disk. Owns which fields are sensitive
//! and what was taken out of documents; must not know where documents are stored.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::client::edit::{Edit, Patch};
use crate::domain::{CollectionName, Document, JsonObject, Pointer, RecordKey, merge_fields};

/// Which document of a record, or of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::client) enum Slot {
    Shown(RecordKey),
    Server(RecordKey),
    Staged(RecordKey),
    Edit(i64),
    Kept(i64),
}

/// See the head of this file. Clones share what is kept.
#[derive(Clone, Debug, Default)]
pub(in crate::client) struct Vault {
    fields: Arc<HashMap<CollectionName, Vec<Pointer>>>,
    kept: Arc<Mutex<HashMap<(i64, Slot), JsonObject>>>,
    /// What a transaction changes: it counts once that is all there. None = taken out.
    staged: Option<Arc<Mutex<Staged>>>,
}

pub(super) type Staged = HashMap<(i64, Slot), Option<JsonObject>>;

impl Vault {
    pub(in crate::client) fn new(mut fields: HashMap<CollectionName, Vec<Pointer>>) -> Self {
        for paths in fields.values_mut() {
            // What lies within another goes with that.
            let all = paths.clone();
            let within = |path: &Pointer, other: &Pointer| {
                path.keys().len() > other.keys().len() && path.keys().starts_with(other.keys())
            };
            paths.retain(|path| !all.iter().any(|other| within(path, other)));
        }
        Self { fields: fields.into(), ..Self::default() }
    }

    /// The same for whoever writes to the file.
    pub(super) fn staging(&self) -> Self {
        Self { staged: Some(Arc::default()), ..self.clone() }
    }

    /// What was changed is about to be on disk: whoever reads that, finds it. Tells what was
    /// there before.
    pub(super) fn settle(&self) -> Staged {
        let staged = self.staged.as_ref().map(|staged| std::mem::take(&mut *staged.lock()));
        self.keep(staged.unwrap_or_default())
    }

    /// It will never be on disk.
    pub(super) fn take_back(&self, before: Staged) {
        self.keep(before);
        if let Some(staged) = &self.staged {
            staged.lock().clear();
        }
    }

    fn keep(&self, values: Staged) -> Staged {
        let mut kept = self.kept.lock();
        let put = |(slot, value): ((i64, Slot), Option<JsonObject>)| match value {
            Some(value) => (slot.clone(), kept.insert(slot, value)),
            None => (slot.clone(), kept.remove(&slot)),
        };
        values.into_iter().map(put).collect()
    }

    fn put(&self, slot: (i64, Slot), value: Option<JsonObject>) {
        if let Some(staged) = &self.staged {
            staged.lock().insert(slot, value);
        }
    }

    fn find(&self, slot: &(i64, Slot)) -> Option<JsonObject> {
        let staged = self.staged.as_ref().and_then(|staged| staged.lock().get(slot).cloned());
        staged.unwrap_or_else(|| self.kept.lock().get(slot).cloned())
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
        let is_hidden = !hidden.is_empty();
        self.put((space, slot), is_hidden.then_some(hidden));
        (open, is_hidden)
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
        let Some(hidden) = self.find(&(space, slot)) else { return document };
        let mut fields = document.fields();
        merge_fields(&mut fields, hidden);
        Document::from_fields(fields).unwrap_or(document)
    }

    /// Whether the hidden part of something is known here.
    pub(in crate::client) fn knows(&self, space: i64, slot: Slot) -> bool {
        self.find(&(space, slot)).is_some()
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
            self.put((space, slot), None);
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
