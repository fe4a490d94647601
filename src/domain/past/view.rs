//! What a device has made of a record: the base, and what its own writes did to it
//! that met, or passed, what it had not seen.

use serde_json::Value;

use crate::domain::document::JsonObject;
use crate::domain::fields::{value_at, write_at};
use crate::domain::merge::{edits, join_lists};
use crate::domain::patch::patched;
use crate::domain::{Change, Document, HistoryEntry, Revision, number};

/// What a device had made of the record when it last met another's write.
#[derive(Clone, Debug)]
pub struct View {
    /// What it met.
    pub met: HistoryEntry,
    /// The head then: its own writes up to there are in it.
    pub at: Revision,
    /// None = it had deleted the record.
    pub document: Option<Document>,
}

/// What a device's own write, which made `after` of `before` for everybody, made of
/// the document as the device had it.
pub(super) fn followed(
    view: Option<&Document>,
    before: Option<&Document>,
    after: &Change,
) -> Option<Document> {
    let document = after.document.as_ref()?;
    let (Some(view), Some(before)) = (view, before) else { return Some(document.clone()) };
    let is_relative = after.settlement.as_ref().is_some_and(|it| it.relative);
    let (before, document) = (before.fields(), document.fields());
    let mut fields = view.fields();
    for edit in edits(&before, &document) {
        let value = match edit.value().filter(|_| is_relative) {
            Some(value) => Some(relative(&fields, &edit.path, &before, value)),
            None => edit.value(),
        };
        write_at(&mut fields, &edit.path, value);
    }
    // Too large for a document, it is as good as what everybody has.
    patched(fields).ok().or_else(|| after.document.clone())
}

/// What is relative changed by as much here as it did there.
fn relative(fields: &JsonObject, path: &[String], before: &JsonObject, after: Value) -> Value {
    match (value_at(fields, path), value_at(before, path), &after) {
        (Some(Value::Number(here)), Some(Value::Number(before)), Value::Number(there)) => {
            number::add_change(here, there, before).map_or(after, Value::Number)
        }
        (Some(Value::Array(here)), Some(Value::Array(before)), Value::Array(there)) => {
            Value::Array(join_lists(before, here, there))
        }
        _ => after,
    }
}
