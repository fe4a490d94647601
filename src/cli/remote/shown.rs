//! How records, changes, results and conflicts look: as JSON for programs, as words for people.
//! Must not know why they are shown.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::ends;
use super::output::{Output, Style, safe};
use crate::client::remote::{Violation, json_text, time};
use crate::rpc::proto::{
    self, Change, ChangeAction, Conflict, ConflictSide, Document, MutationOutcome, MutationResult,
    Record, RecordKey, RejectionReason,
};

/// `COLLECTION/ID`.
pub(super) fn key(key: Option<&RecordKey>) -> String {
    key.map(|key| safe(&format!("{}/{}", key.collection, key.id))).unwrap_or_default()
}

/// A time as both people and programs read it, to the second.
pub(super) fn when(at: Option<OffsetDateTime>) -> String {
    let at = at.and_then(|at| at.replace_nanosecond(0).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

/// The word of an enum's name without what all its names begin with: `applied`.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

/// Who wrote, with which device.
pub(super) fn who(author: &str, device: &str) -> String {
    match device {
        "" => safe(author),
        device => safe(&format!("{author} ({device})")),
    }
}

/// A document as a value; null if there is none.
pub(super) fn value(document: Option<&Document>) -> Value {
    let text = document.and_then(json_text);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

/// A document on one line; `-` if there is none.
pub(super) fn compact(document: Option<&Document>) -> String {
    document.and_then(json_text).map_or_else(|| "-".to_owned(), safe)
}

fn put_key(object: &mut Map<String, Value>, key: Option<&RecordKey>) {
    if let Some(key) = key {
        object.insert("collection".into(), key.collection.as_str().into());
        object.insert("id".into(), key.id.as_str().into());
    }
}

fn put_some(object: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        object.insert(name.into(), text.into());
    }
}

pub(super) fn record(record: &Record) -> Value {
    let mut object = Map::new();
    put_key(&mut object, record.key.as_ref());
    object.insert("revision".into(), record.revision.into());
    if record.deleted {
        object.insert("deleted".into(), true.into());
    } else {
        object.insert("document".into(), value(record.document.as_ref()));
    }
    put_some(&mut object, "author", &record.author);
    put_some(&mut object, "device", &record.device);
    put_some(&mut object, "update_time", &when(time(record.update_time.as_ref())));
    if record.open_conflicts > 0 {
        object.insert("open_conflicts".into(), record.open_conflicts.into());
    }
    Value::Object(object)
}

pub(super) fn action(change: &Change) -> &'static str {
    match change.action() {
        ChangeAction::Created => "created",
        ChangeAction::Updated => "updated",
        ChangeAction::Deleted => "deleted",
        ChangeAction::Unspecified => "changed",
    }
}

pub(super) fn change(change: &Change, epoch: &str) -> Value {
    let mut object = Map::new();
    object.insert("type".into(), "change".into());
    object.insert("revision".into(), change.revision.into());
    put_key(&mut object, change.key.as_ref());
    object.insert("action".into(), action(change).into());
    if change.document.is_some() {
        object.insert("document".into(), value(change.document.as_ref()));
    }
    put_some(&mut object, "author", &change.author);
    put_some(&mut object, "device", &change.device);
    put_some(&mut object, "actor", &change.actor);
    put_some(&mut object, "mutation_id", &change.mutation_id);
    put_some(&mut object, "commit_time", &when(time(change.commit_time.as_ref())));
    object.insert("cursor".into(), format!("{epoch}:{}", change.revision).into());
    Value::Object(object)
}

/// A change on one line.
pub(super) fn change_line(out: Output, change: &Change) -> String {
    let action = action(change);
    let style = match action {
        "created" => Style::Good,
        "deleted" => Style::Bad,
        _ => Style::Careful,
    };
    let document = match change.document {
        Some(_) => format!("  {}", compact(change.document.as_ref())),
        None => String::new(),
    };
    format!(
        "{:>6}  {}  {}{document}  {}",
        change.revision,
        out.paint(style, action),
        out.paint(Style::Name, &key(change.key.as_ref())),
        out.paint(Style::Faint, &who(&change.author, &change.device)),
    )
}

/// `applied`, `conflict` and so on.
pub(super) fn outcome(result: &MutationResult) -> String {
    word(result.outcome().as_str_name(), "MUTATION_OUTCOME_")
}

pub(super) fn rejection_reason(reason: RejectionReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REJECTION_REASON_").unwrap_or(name)
}

/// Fields that break a rule.
pub(super) fn violations(wire: &[proto::FieldViolation]) -> Vec<Violation> {
    let violation = |it: &proto::FieldViolation| Violation {
        field: it.field.clone(),
        description: it.description.clone(),
    };
    wire.iter().map(violation).collect()
}

/// What became of a write, on one line: the outcome, the record, and its revision or why not.
pub(super) fn outcome_line(
    out: Output,
    (outcome, style): (&str, Style),
    key: &str,
    reason: Option<&str>,
    revision: i64,
) -> String {
    let mut line = format!("{}  {key}", out.paint(style, outcome));
    match reason {
        Some(reason) => line.push_str(&format!("  {}", safe(reason))),
        None if revision > 0 => line.push_str(&format!("  revision {revision}")),
        None => {}
    }
    line
}

pub(super) fn result(result: &MutationResult, key: &RecordKey) -> Value {
    let mut object = Map::new();
    put_key(&mut object, Some(key));
    object.insert("outcome".into(), outcome(result).into());
    if result.outcome() != MutationOutcome::Rejected {
        object.insert("revision".into(), result.revision.into());
    }
    object.insert("mutation_id".into(), result.mutation_id.as_str().into());
    if result.replayed {
        object.insert("replayed".into(), true.into());
    }
    if let Some(it) = &result.record {
        object.insert("record".into(), record(it));
    }
    if let Some(it) = &result.rejection {
        let (reason, violations) = (rejection_reason(it.reason()), violations(&it.violations));
        let rejection = ends::rejection_json(reason, &it.message, &violations);
        object.insert("rejection".into(), rejection);
    }
    if let Some(it) = &result.conflict {
        object.insert("conflict".into(), conflict(it));
    }
    Value::Object(object)
}

fn side(side: Option<&ConflictSide>) -> Value {
    let Some(side) = side else { return Value::Null };
    let document = value(side.document.as_ref());
    side_of(side.deleted, document, (&side.author, &side.device), side.revision)
}

/// One side of a conflict.
pub(super) fn side_of(
    is_deleted: bool,
    document: Value,
    (author, device): (&str, &str),
    revision: i64,
) -> Value {
    let mut object = Map::new();
    match is_deleted {
        true => object.insert("deleted".into(), true.into()),
        false => object.insert("document".into(), document),
    };
    put_some(&mut object, "author", author);
    put_some(&mut object, "device", device);
    if revision > 0 {
        object.insert("revision".into(), revision.into());
    }
    Value::Object(object)
}

/// `disjoint`, `create_create` and so on.
pub(super) fn relation(conflict: &Conflict) -> String {
    word(conflict.relation().as_str_name(), "CONFLICT_RELATION_")
}

/// `open`, `resolved` or `superseded`.
pub(super) fn state(conflict: &Conflict) -> String {
    word(conflict.state().as_str_name(), "CONFLICT_STATE_")
}

pub(super) fn conflict(conflict: &Conflict) -> Value {
    let mut object = Map::new();
    object.insert("conflict_id".into(), conflict.id.as_str().into());
    put_key(&mut object, conflict.key.as_ref());
    object.insert("state".into(), state(conflict).into());
    object.insert("relation".into(), relation(conflict).into());
    let decision = word(conflict.decision().as_str_name(), "CONFLICT_DECISION_");
    object.insert("decision".into(), decision.into());
    object.insert("strategy".into(), word(conflict.strategy().as_str_name(), "STRATEGY_").into());
    object.insert("paths".into(), conflict.paths.clone().into());
    if conflict.base_known {
        object.insert("base".into(), value(conflict.base.as_ref()));
    }
    object.insert("theirs".into(), side(conflict.server.as_ref()));
    object.insert("mine".into(), side(conflict.client.as_ref()));
    object.insert("result_revision".into(), conflict.result_revision.into());
    put_some(&mut object, "create_time", &when(time(conflict.create_time.as_ref())));
    Value::Object(object)
}
