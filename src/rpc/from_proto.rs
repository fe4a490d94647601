//! Wire to domain. Everything that a request can get wrong in form is found
//! here, all of it at once, with the field's path.

use prost::Message;
use prost_types::value::Kind;
use serde_json::{Number, Value};
use uuid::Uuid;

use super::proto;
use crate::domain::{
    CollectionName, Content, Cursor, DeviceId, Document, DocumentFault, DocumentForm, Epoch,
    Fingerprint, JsonObject, Mutation, MutationId, Operation, Patch, Pointer, RecordId, RecordKey,
    Rejection, Revision, Sequence, Violation, limits,
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

/// The entries of a page.
pub(super) fn page_size(size: i32) -> Result<usize, Violations> {
    match usize::try_from(size) {
        Ok(0) => Ok(limits::PAGE_ENTRIES_DEFAULT),
        Ok(size) => Ok(size.min(limits::PAGE_ENTRIES_MAX)),
        Err(_negative) => Err(one("page_size", "must not be negative")),
    }
}

/// The mutations of a batch. Their ids and sequences must be right, or nothing
/// of the batch can be answered; wrong content is an answer of its own, except
/// when all shall take effect or none.
pub(super) fn mutations(
    batch: &[proto::Mutation],
    device: Option<&DeviceId>,
    atomic: bool,
) -> Result<Vec<Mutation>, Violations> {
    let max = limits::BATCH_MUTATIONS_MAX;
    if !(1..=max).contains(&batch.len()) {
        return Err(one(
            "mutations",
            format!("has {} entries; 1 to {max} are allowed", batch.len()),
        ));
    }
    let mut violations = Vec::new();
    let mut mutations: Vec<Mutation> = Vec::with_capacity(batch.len());
    let mut ids = std::collections::HashSet::new();
    for (index, wire) in batch.iter().enumerate() {
        let field = format!("mutations[{index}]");
        let mutation = match mutation(wire, device) {
            Ok(mutation) => mutation,
            Err(broken) => {
                violations.extend(moved(broken, &field));
                continue;
            }
        };
        if let (true, Err(rejection)) = (atomic, &mutation.content) {
            violations.extend(moved(rejection.violations.clone(), &field));
        }
        if !ids.insert(mutation.id.clone()) {
            let rule = "is the id of an earlier mutation of this batch";
            violations.push(Violation::new(format!("{field}.id"), rule));
        }
        let expected = mutations.last().map(|it| it.device_sequence.map(Sequence::next));
        if expected.is_some_and(|expected| expected != mutation.device_sequence) {
            let rule = "must be one above the mutation before, or absent in the whole batch";
            violations.push(Violation::new(format!("{field}.device_sequence"), rule));
        }
        mutations.push(mutation);
    }
    done(Some(mutations), violations)
}

/// Violations of a mutation, as fields of the batch that it is in.
fn moved(violations: Violations, to: &str) -> impl Iterator<Item = Violation> {
    violations.into_iter().map(move |mut violation| {
        if let Some(rest) = violation.field.strip_prefix("mutation") {
            violation = Violation::new(format!("{to}{rest}"), violation.description);
        }
        violation
    })
}

/// The one mutation of a unary call.
pub(super) fn single(
    wire: Option<&proto::Mutation>,
    device: Option<&DeviceId>,
) -> Result<Mutation, Violations> {
    let wire = wire.ok_or_else(|| one("mutation", "must be given"))?;
    let mutation = mutation(wire, device)?;
    match &mutation.content {
        Ok(_) => Ok(mutation),
        Err(rejection) => Err(rejection.violations.clone()),
    }
}

fn mutation(wire: &proto::Mutation, device: Option<&DeviceId>) -> Result<Mutation, Violations> {
    let mut violations = Vec::new();
    let id = note(&mut violations, "mutation.id", MutationId::parse(&wire.id));
    let device_sequence = match wire.device_sequence {
        None => Ok(None),
        Some(_) if device.is_none() => Err("needs a device in the request".into()),
        Some(number) => Sequence::new(number).map(Some).ok_or_else(|| "must be at least 1".into()),
    };
    let device_sequence = note(&mut violations, "mutation.device_sequence", device_sequence);
    let parsed = id.zip(device_sequence).map(|(id, device_sequence)| {
        let content = content(wire);
        let fingerprint = match &content {
            Ok(content) => Fingerprint::of(content, device, device_sequence),
            Err(_) => Fingerprint::of_invalid(&wire.encode_to_vec()),
        };
        let content = content.map_err(Rejection::invalid);
        Mutation { id, device_sequence, fingerprint, content }
    });
    done(parsed, violations)
}

fn content(wire: &proto::Mutation) -> Result<Content, Violations> {
    let mut violations = Vec::new();
    let key = key(wire.key.as_ref(), "mutation.key").map_err(|it| violations.extend(it)).ok();
    let operation = operation(wire.operation.as_ref()).map_err(|it| violations.extend(it)).ok();
    let base = match wire.base {
        None => Ok(None),
        Some(base) => Revision::new(base).map(Some).ok_or_else(|| "must not be negative".into()),
    };
    let base = note(&mut violations, "mutation.base", base);
    let content = key.zip(operation).zip(base);
    done(content.map(|((key, operation), base)| Content { key, operation, base }), violations)
}

fn operation(wire: Option<&proto::mutation::Operation>) -> Result<Operation, Violations> {
    use proto::mutation::Operation as Wire;
    match wire {
        None => Err(one("mutation", "needs an operation: create, put, patch or delete")),
        Some(Wire::Create(create)) => {
            document(create.document.as_ref(), "mutation.create.document").map(Operation::Create)
        }
        Some(Wire::Put(put)) => {
            document(put.document.as_ref(), "mutation.put.document").map(Operation::Put)
        }
        Some(Wire::Patch(wire)) => patch(wire).map(Operation::Patch),
        Some(Wire::Delete(proto::DeleteOperation {})) => Ok(Operation::Delete),
    }
}

fn patch(wire: &proto::PatchOperation) -> Result<Patch, Violations> {
    if wire.set.is_none() && wire.unset.is_empty() {
        return Err(one("mutation.patch", "needs `set` or `unset`"));
    }
    if wire.unset.len() > limits::PATCH_UNSET_MAX {
        let max = limits::PATCH_UNSET_MAX;
        let rule = format!("has {} paths; at most {max}", wire.unset.len());
        return Err(one("mutation.patch.unset", rule));
    }
    let mut violations = Vec::new();
    let set = match &wire.set {
        None => Ok(Document::from_canonical("{}".into())),
        Some(set) => document(Some(set), "mutation.patch.set"),
    };
    let set = set.map_err(|it| violations.extend(it)).ok();
    let unset = wire.unset.iter().enumerate().map(|(index, path)| {
        note(&mut violations, &format!("mutation.patch.unset[{index}]"), Pointer::parse(path))
    });
    let unset = unset.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>();
    done(set.zip(unset).map(|(set, unset)| Patch { set, unset }), violations)
}

fn document(wire: Option<&proto::Document>, field: &str) -> Result<Document, Violations> {
    let parsed = match wire.and_then(|document| document.form.as_ref()) {
        None => return Err(one(field, "must be given, as `fields` or as `json`")),
        Some(proto::document::Form::Json(text)) => Document::from_json(text),
        Some(proto::document::Form::Fields(fields)) => {
            object(fields, &mut Vec::new()).and_then(Document::from_fields)
        }
    };
    parsed.map_err(|fault| one(field, fault.to_string()))
}

fn object(wire: &prost_types::Struct, path: &mut Vec<String>) -> Result<JsonObject, DocumentFault> {
    let field = |(key, wire): (&String, &prost_types::Value)| {
        path.push(key.clone());
        let value = value(wire, path)?;
        path.pop();
        Ok((key.clone(), value))
    };
    wire.fields.iter().map(field).collect()
}

fn value(wire: &prost_types::Value, path: &mut Vec<String>) -> Result<Value, DocumentFault> {
    Ok(match &wire.kind {
        Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(bool)) => Value::Bool(*bool),
        Some(Kind::NumberValue(number)) => match Number::from_f64(*number) {
            Some(number) => Value::Number(number),
            None => return Err(DocumentFault::at(path, "is not a finite number")),
        },
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::StructValue(fields)) => Value::Object(object(fields, path)?),
        Some(Kind::ListValue(list)) => {
            let item = |(index, wire): (usize, &prost_types::Value)| {
                path.push(index.to_string());
                let value = value(wire, path)?;
                path.pop();
                Ok(value)
            };
            Value::Array(list.values.iter().enumerate().map(item).collect::<Result<_, _>>()?)
        }
        None => return Err(DocumentFault::at(path, "has no value")),
    })
}
