//! Mutations from the wire.

use prost::Message;
use serde_json::Number;

use super::document::{document, values};
use super::{Violations, done, key, note, one};
use crate::domain::{
    Content, DeviceId, Document, Fingerprint, History, HistoryEntry, Mutation, MutationId,
    Operation, Patch, Pointer, Rejection, Revision, Seen, Sequence, Transform, TransformKind,
    Violation, limits,
};
use crate::rpc::proto;

/// The last second of the year 9999.
const SECONDS_MAX: i64 = 253_402_300_799;

/// The mutations of a batch. Their ids and sequences must be right, or nothing
/// of the batch can be answered; wrong content is an answer of its own, except
/// when all shall take effect or none.
pub(in crate::rpc) fn mutations(
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
pub(in crate::rpc) fn single(
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
    let base = base(wire).map_err(|it| violations.extend(it)).ok();
    let client_micros = client_micros(wire.client_time.as_ref());
    let client_micros = client_micros.map_err(|it| violations.extend(it)).ok();
    if let Some(operation) = &operation
        && let Err(broken) = check(&wire.checksum, operation)
    {
        violations.extend(broken);
    }
    let content = key.zip(operation).zip(base).zip(client_micros);
    let content = content.map(|(((key, operation), base), client_micros)| Content {
        key,
        operation,
        base,
        client_micros,
    });
    done(content, violations)
}

/// What the client had seen.
fn base(wire: &proto::Mutation) -> Result<Option<Seen>, Violations> {
    match wire.base {
        Some(_) if !wire.base_history.is_empty() => {
            Err(one("mutation.base_history", "must be empty if `base` is given"))
        }
        Some(base) => match Revision::new(base) {
            Some(base) => Ok(Some(Seen::Revision(base))),
            None => Err(one("mutation.base", "must not be negative")),
        },
        None if wire.base_history.is_empty() => Ok(None),
        None => history(&wire.base_history).map(|it| Some(Seen::Vector(it))),
    }
}

fn history(wire: &[proto::HistoryEntry]) -> Result<History, Violations> {
    let max = limits::HISTORY_DEVICES_MAX;
    if wire.len() > max {
        let rule = format!("has {} entries; at most {max}", wire.len());
        return Err(one("mutation.base_history", rule));
    }
    let mut violations = Vec::new();
    let mut devices = std::collections::HashSet::new();
    let mut entries = Vec::new();
    for (index, wire) in wire.iter().enumerate() {
        let field = |name: &str| format!("mutation.base_history[{index}].{name}");
        let device = match wire.device.as_str() {
            "" => Ok(None),
            name => DeviceId::parse(name).map(Some),
        };
        let device = note(&mut violations, &field("device"), device);
        if !devices.insert(wire.device.as_str()) {
            violations.push(Violation::new(field("device"), "occurs twice"));
        }
        let negative = || "must not be negative".to_owned();
        let sequence = Some(wire.sequence).filter(|it| *it >= 0).ok_or_else(negative);
        let sequence = note(&mut violations, &field("sequence"), sequence);
        let revision = Revision::new(wire.revision).ok_or_else(negative);
        let revision = note(&mut violations, &field("revision"), revision);
        let entry = device.zip(sequence).zip(revision);
        entries.extend(entry.map(|((device, sequence), revision)| HistoryEntry {
            device,
            sequence,
            revision,
        }));
    }
    done(Some(History::new(entries)), violations)
}

/// Microseconds since 1970.
fn client_micros(time: Option<&prost_types::Timestamp>) -> Result<Option<i64>, Violations> {
    let Some(time) = time else { return Ok(None) };
    let (seconds, nanos) = (time.seconds, i64::from(time.nanos));
    if !(0..=SECONDS_MAX).contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return Err(one("mutation.client_time", "must be a time from 1970 to 9999"));
    }
    Ok(Some(seconds * 1_000_000 + nanos / 1_000))
}

/// The checksum that came with a document, if one came.
fn check(checksum: &[u8], operation: &Operation) -> Result<(), Violations> {
    let field = "mutation.checksum";
    match operation {
        _ if checksum.is_empty() => Ok(()),
        Operation::Create(document) | Operation::Put(document) => {
            if checksum == document.checksum() {
                return Ok(());
            }
            let rule = "is not the SHA-256 of the document as canonical JSON";
            Err(one(field, rule))
        }
        Operation::Patch(_) | Operation::Delete | Operation::Resolve(_) => {
            Err(one(field, "goes with create and put only"))
        }
    }
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
    if wire.set.is_none() && wire.unset.is_empty() && wire.transforms.is_empty() {
        return Err(one("mutation.patch", "needs `set`, `unset` or `transforms`"));
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
    let transforms = transforms(&wire.transforms).map_err(|it| violations.extend(it)).ok();
    let patch = set.zip(unset).zip(transforms);
    done(patch.map(|((set, unset), transforms)| Patch { set, unset, transforms }), violations)
}

fn transforms(wire: &[proto::FieldTransform]) -> Result<Vec<Transform>, Violations> {
    let max = limits::PATCH_TRANSFORMS_MAX;
    if wire.len() > max {
        let rule = format!("has {} entries; at most {max}", wire.len());
        return Err(one("mutation.patch.transforms", rule));
    }
    let mut violations = Vec::new();
    let parsed = wire.iter().enumerate().map(|(index, wire)| {
        let field = format!("mutation.patch.transforms[{index}]");
        let path = note(&mut violations, &format!("{field}.path"), Pointer::parse(&wire.path));
        let kind = transform_kind(wire.transform.as_ref(), &field);
        let kind = kind.map_err(|broken| violations.extend(broken)).ok();
        path.zip(kind).map(|(path, kind)| Transform { path, kind })
    });
    let parsed = parsed.collect::<Vec<_>>().into_iter().collect();
    done(parsed, violations)
}

fn transform_kind(
    wire: Option<&proto::field_transform::Transform>,
    field: &str,
) -> Result<TransformKind, Violations> {
    use proto::field_transform::Transform as Wire;
    Ok(match wire {
        None => return Err(one(field, "needs a transform, such as `increment`")),
        Some(Wire::Increment(it)) => {
            TransformKind::Increment(number(*it, &format!("{field}.increment"))?)
        }
        Some(Wire::Max(it)) => TransformKind::Max(number(*it, &format!("{field}.max"))?),
        Some(Wire::Min(it)) => TransformKind::Min(number(*it, &format!("{field}.min"))?),
        Some(Wire::AppendMissing(it)) => {
            TransformKind::AppendMissing(values(it, &format!("{field}.append_missing"))?)
        }
        Some(Wire::RemoveAll(it)) => {
            TransformKind::RemoveAll(values(it, &format!("{field}.remove_all"))?)
        }
        Some(Wire::ServerTime(proto::ServerTime {})) => TransformKind::ServerTime,
    })
}

fn number(wire: proto::Number, field: &str) -> Result<Number, Violations> {
    match wire.value {
        None => Err(one(field, "needs a number: `integer` or `real`")),
        Some(proto::number::Value::Integer(number)) => Ok(number.into()),
        Some(proto::number::Value::Real(number)) => {
            Number::from_f64(number).ok_or_else(|| one(field, "must be finite"))
        }
    }
}
