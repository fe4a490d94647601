//! Wire to domain. Everything that a request can get wrong in form is found
//! here, all of it at once, with the field's path.

mod conflict;
mod document;
mod history;
mod import;
mod mutation;
mod policy;
mod queue;
mod replace;
mod space;
mod subscription;

use std::time::Duration;

use uuid::Uuid;

use super::proto;
use crate::domain::{
    CollectionName, Cursor, DeviceId, DocumentForm, Epoch, RecordId, RecordKey, Revision, Scope,
    Violation, limits,
};

pub(super) use conflict::{conflict_cursor, conflict_filter, conflict_id, resolution};
pub(super) use history::{HistoryToken, undeletion};
pub(super) use import::{ImportedLine, import_id, imported_line};
pub(super) use mutation::{mutations, single};
pub(super) use policy::{policy_to_delete, policy_to_set, policy_version, preview};
pub(super) use queue::{edited, queue_query, queued_id, queued_ids, to_enqueue};
pub(super) use replace::{new_records, replacement};
pub(super) use space::{NewSpace, audit_query, new_member, new_space, new_title, user};
pub(super) use subscription::{
    SnapshotToken, Start, Wanted, echo, event, resume_token, scope, subscription, token_name,
    writer,
};

/// All rules that a request breaks.
pub(super) type Violations = Vec<Violation>;

/// Notes a broken rule and goes on, so that all are found.
fn note<T>(violations: &mut Violations, field: &str, parsed: Result<T, String>) -> Option<T> {
    parsed.map_err(|rule| violations.push(Violation::new(field, rule))).ok()
}

fn done<T>(value: Option<T>, violations: Violations) -> Result<T, Violations> {
    match value {
        Some(value) if violations.is_empty() => Ok(value),
        _ => Err(violations),
    }
}

fn one(field: &str, rule: impl AsRef<str>) -> Violations {
    vec![Violation::new(field, rule)]
}

/// The device of a request; empty = none.
pub(super) fn device(text: &str) -> Result<Option<DeviceId>, Violations> {
    if text.is_empty() {
        return Ok(None);
    }
    DeviceId::parse(text).map(Some).map_err(|rule| one("device", rule))
}

/// The form that a request wants.
pub(super) fn document_form(form: i32) -> Result<DocumentForm, Violations> {
    match proto::DocumentForm::try_from(form) {
        Ok(proto::DocumentForm::Unspecified | proto::DocumentForm::Struct) => {
            Ok(DocumentForm::Struct)
        }
        Ok(proto::DocumentForm::Json) => Ok(DocumentForm::Json),
        Err(_unknown) => Err(one("document_form", format!("has no value {form}"))),
    }
}

/// A record's key.
pub(super) fn key(key: Option<&proto::RecordKey>, field: &str) -> Result<RecordKey, Violations> {
    let Some(key) = key else { return Err(one(field, "must be given")) };
    let mut violations = Vec::new();
    let collection = note(
        &mut violations,
        &format!("{field}.collection"),
        CollectionName::parse(&key.collection),
    );
    let id = note(&mut violations, &format!("{field}.id"), RecordId::parse(&key.id));
    done(collection.zip(id).map(|(collection, id)| RecordKey { collection, id }), violations)
}

/// A single collection.
pub(super) fn collection(name: &str) -> Result<CollectionName, Violations> {
    CollectionName::parse(name).map_err(|rule| one("collection", rule))
}

/// The collections of a filter.
pub(super) fn collections(names: &[String]) -> Result<Vec<CollectionName>, Violations> {
    if names.len() > limits::FILTER_COLLECTIONS_MAX {
        let max = limits::FILTER_COLLECTIONS_MAX;
        return Err(one("collections", format!("has {} names; at most {max}", names.len())));
    }
    let mut violations = Vec::new();
    let parsed = names.iter().enumerate().map(|(index, name)| {
        let field = format!("collections[{index}]");
        note(&mut violations, &field, CollectionName::parse(name))
    });
    // All of them are looked at, before one that is wrong ends it.
    let parsed = parsed.collect::<Vec<_>>().into_iter().collect();
    done(parsed, violations)
}

/// The part of a space whose digest is asked for, if it is.
pub(super) fn digest_scope(wire: &proto::GetStatusRequest) -> Result<Option<Scope>, Violations> {
    if !wire.digest && !wire.digest_collections.is_empty() {
        return Err(one("digest_collections", "goes with `digest` only"));
    }
    let scope = scope(&wire.digest_collections, &[]).map_err(|broken| {
        let field = |it: Violation| Violation::new(format!("digest_{}", it.field), it.description);
        broken.into_iter().map(field).collect::<Violations>()
    })?;
    Ok(wire.digest.then_some(scope))
}

/// A cursor; absent = the beginning.
pub(super) fn cursor(cursor: Option<&proto::Cursor>) -> Result<Cursor, Violations> {
    let Some(cursor) = cursor else { return Ok(Cursor::BEGINNING) };
    let mut violations = Vec::new();
    let revision = Revision::new(cursor.revision).ok_or_else(|| "must not be negative".into());
    let revision = note(&mut violations, "cursor.revision", revision);
    let epoch = match cursor.epoch.as_str() {
        "" if cursor.revision == 0 => Ok(None),
        "" => Err("must be given with a revision above 0".into()),
        text => Uuid::try_parse(text)
            .map(|epoch| Some(Epoch(epoch)))
            .map_err(|_error| "is not an epoch of this server".into()),
    };
    let epoch = note(&mut violations, "cursor.epoch", epoch);
    done(revision.zip(epoch).map(|(revision, epoch)| Cursor { epoch, revision }), violations)
}

/// A revision to look at; 0 = none.
pub(super) fn revision(revision: i64) -> Result<Option<Revision>, Violations> {
    match Revision::new(revision) {
        Some(Revision::ZERO) => Ok(None),
        Some(revision) => Ok(Some(revision)),
        None => Err(one("revision", "must not be negative")),
    }
}

/// How long a call may wait; absent = not at all.
pub(super) fn wait(wire: Option<&prost_types::Duration>) -> Result<Duration, Violations> {
    let Some(wire) = wire else { return Ok(Duration::ZERO) };
    let wait = Duration::try_from(*wire).map_err(|_| one("wait", "must not be negative"))?;
    Ok(wait.min(Duration::from_secs(limits::WAIT_SECONDS_MAX)))
}

/// The entries of a page.
pub(super) fn page_size(size: i32) -> Result<usize, Violations> {
    match usize::try_from(size) {
        Ok(0) => Ok(limits::PAGE_ENTRIES_DEFAULT),
        Ok(size) => Ok(size.min(limits::PAGE_ENTRIES_MAX)),
        Err(_negative) => Err(one("page_size", "must not be negative")),
    }
}
