//! The wire to what the client keeps, and back. Owns every conversion; must not know when
//! something is said. What a server cannot mean is a fault here.

use bytes::Bytes;
use prost_types::Timestamp;
use time::OffsetDateTime;

use super::conflict::{Conflict, Side};
use super::edit::{Edit, Patch};
use super::engine::{Code, Fault};
use super::entry::{Entry, Trouble};
use super::replica::{Answer, AnswerKind, Held, SeenChange, Told, from_micros};
use super::{remote, wire};
use crate::domain::{
    CollectionName, Cursor, CursorFault, DeviceId, Document, Epoch, MutationId, RecordId,
    RecordKey, Revision, Scope, Sequence, Transform, TransformKind, UserId, Version, Violation,
};
use crate::rpc::proto;

/// The form in which documents travel: exact, and as they are kept.
pub(super) const FORM: i32 = proto::DocumentForm::Json as i32;

/// What a server has said that it cannot mean.
fn senseless(what: &str) -> Fault {
    Fault::new(Code::Internal, "", format!("the server's answer makes no sense: {what}"))
}

pub(super) fn revision(number: i64) -> Result<Revision, Fault> {
    Revision::new(number).ok_or_else(|| senseless("a revision is negative"))
}

pub(super) fn epoch(text: &str) -> Result<Epoch, Fault> {
    uuid::Uuid::try_parse(text).map(Epoch).map_err(|_| senseless("an epoch is no id"))
}

pub(super) fn cursor(epoch: Option<Epoch>, revision: Revision) -> Option<proto::Cursor> {
    let epoch = epoch.filter(|_| revision > Revision::ZERO)?;
    Some(proto::Cursor { epoch: epoch.to_string(), revision: revision.get() })
}

pub(super) fn read_cursor(cursor: Option<&proto::Cursor>) -> Result<Cursor, Fault> {
    let cursor = cursor.ok_or_else(|| senseless("there is no cursor"))?;
    Ok(Cursor { epoch: Some(epoch(&cursor.epoch)?), revision: revision(cursor.revision)? })
}

pub(super) fn collections(scope: &Scope) -> Vec<String> {
    match scope {
        Scope::All | Scope::Records(_) => Vec::new(),
        Scope::Collections(names) => names.iter().map(|it| it.as_str().to_owned()).collect(),
    }
}

pub(super) fn wire_key(key: &RecordKey) -> proto::RecordKey {
    proto::RecordKey {
        collection: key.collection.as_str().to_owned(),
        id: key.id.as_str().to_owned(),
    }
}

fn key(key: Option<&proto::RecordKey>) -> Result<RecordKey, Fault> {
    let key = key.ok_or_else(|| senseless("a record has no key"))?;
    Ok(RecordKey {
        collection: CollectionName::from_stored(&key.collection),
        id: RecordId::from_stored(&key.id),
    })
}

fn wire_document(document: &Document) -> proto::Document {
    let json = Bytes::copy_from_slice(document.as_str().as_bytes());
    proto::Document { form: Some(proto::document::Form::Json(json)) }
}

/// What the server sends is canonical already.
fn document(document: Option<&proto::Document>) -> Result<Option<Document>, Fault> {
    let Some(document) = document else { return Ok(None) };
    let text = remote::json_text(document).ok_or_else(|| senseless("a document is not JSON"))?;
    Ok(Some(Document::from_canonical(text.to_owned())))
}

fn checksum(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.try_into().ok()
}

fn micros(stamp: Option<&Timestamp>) -> OffsetDateTime {
    remote::time(stamp).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// The last revision in a history that is of another device than this one.
fn foreign(history: &[proto::HistoryEntry], device: &str) -> Result<Revision, Fault> {
    let others = history.iter().filter(|entry| entry.device != device);
    revision(others.map(|entry| entry.revision).max().unwrap_or(0).max(0))
}

fn device(name: &str) -> Option<DeviceId> {
    (!name.is_empty()).then(|| DeviceId::from_stored(name))
}

fn version(text: &str) -> Version {
    Version::parse(text).unwrap_or(Version { micros: 0, device: None, sequence: 0 })
}

/// A record as the server has it.
pub(super) fn held(record: &proto::Record) -> Result<Held, Fault> {
    let Version { micros: at, sequence, .. } = version(&record.version);
    let told = Told {
        key: key(record.key.as_ref())?,
        revision: revision(record.revision)?,
        document: document(record.document.as_ref())?,
        author: UserId::from_stored(&record.author),
        device: device(&record.device),
        sequence,
        micros: at,
        foreign: foreign(&record.history, &record.device)?,
        committed_at: micros(record.update_time.as_ref()),
    };
    Ok(Held { record: told.record(), checksum: checksum(&record.checksum) })
}

/// A change as it came.
pub(super) fn change(change: &proto::Change) -> Result<SeenChange, Fault> {
    let Version { micros: at, sequence, .. } = version(&change.version);
    let deleted = change.action() == proto::ChangeAction::Deleted;
    let document = document(change.document.as_ref())?;
    let marked = document.is_none() && !deleted;
    if marked && !change.own {
        return Err(senseless("a change has no document"));
    }
    let told = Told {
        key: key(change.key.as_ref())?,
        revision: revision(change.revision)?,
        document,
        author: UserId::from_stored(&change.author),
        device: device(&change.device),
        sequence,
        micros: at,
        foreign: foreign(&change.history, &change.device)?,
        committed_at: micros(change.commit_time.as_ref()),
    };
    let held = Held { record: told.record(), checksum: checksum(&change.checksum) };
    Ok(SeenChange { held, marked })
}

/// A record that is not there.
pub(super) fn gone(key: RecordKey, revision: Revision) -> Held {
    let told = Told {
        key,
        revision,
        document: None,
        author: UserId::from_stored(""),
        device: None,
        sequence: 0,
        micros: 0,
        foreign: Revision::ZERO,
        committed_at: OffsetDateTime::UNIX_EPOCH,
    };
    Held { record: told.record(), checksum: None }
}

/// An entry as it goes out.
pub(super) fn mutation(entry: &Entry) -> proto::Mutation {
    use proto::mutation::Operation;
    let document = |it: &Document| Some(wire_document(it));
    let operation = match &entry.edit {
        Edit::Create(it) => Operation::Create(proto::CreateOperation { document: document(it) }),
        Edit::Put(it) => Operation::Put(proto::PutOperation { document: document(it) }),
        Edit::Patch(it) => Operation::Patch(patch(it)),
        Edit::Delete => Operation::Delete(proto::DeleteOperation {}),
    };
    let at = from_micros(entry.client_micros);
    proto::Mutation {
        id: entry.id.as_str().to_owned(),
        key: Some(wire_key(&entry.key)),
        operation: Some(operation),
        base: Some(entry.base.get()),
        device_sequence: entry.sequence.map(Sequence::get),
        base_history: Vec::new(),
        client_time: Some(Timestamp {
            seconds: at.unix_timestamp(),
            nanos: i32::try_from(at.nanosecond()).unwrap_or(0),
        }),
        checksum: Bytes::new(),
    }
}

fn patch(patch: &Patch) -> proto::PatchOperation {
    proto::PatchOperation {
        set: Some(wire_document(&patch.set)),
        unset: patch.unset.iter().map(ToString::to_string).collect(),
        transforms: patch.transforms.iter().map(transform).collect(),
    }
}

fn transform(it: &Transform) -> proto::FieldTransform {
    use proto::field_transform::Transform as Kind;
    let values = |values: &[serde_json::Value]| {
        let text = serde_json::Value::from(values.to_vec()).to_string();
        proto::Values { form: Some(proto::values::Form::Json(text.into())) }
    };
    let kind = match &it.kind {
        TransformKind::Increment(by) => Kind::Increment(number(by)),
        TransformKind::Max(bound) => Kind::Max(number(bound)),
        TransformKind::Min(bound) => Kind::Min(number(bound)),
        TransformKind::AppendMissing(it) => Kind::AppendMissing(values(it)),
        TransformKind::RemoveAll(it) => Kind::RemoveAll(values(it)),
        TransformKind::ServerTime => Kind::ServerTime(proto::ServerTime {}),
    };
    proto::FieldTransform { path: it.path.to_string(), transform: Some(kind) }
}

fn number(number: &serde_json::Number) -> proto::Number {
    use proto::number::Value;
    let value = match number.as_i64() {
        Some(integer) => Value::Integer(integer),
        None => Value::Real(number.as_f64().unwrap_or_default()),
    };
    proto::Number { value: Some(value) }
}

/// What the server said of an entry.
pub(super) fn answer(result: &proto::MutationResult) -> Result<Answer, Fault> {
    let at = revision(result.revision)?;
    let record = result.record.as_ref().map(held).transpose()?;
    let kind = match result.outcome() {
        proto::MutationOutcome::Applied => AnswerKind::Applied(at),
        proto::MutationOutcome::Merged => AnswerKind::Merged(at, record),
        proto::MutationOutcome::Superseded => AnswerKind::Superseded(record),
        proto::MutationOutcome::Conflict => AnswerKind::Conflict(record),
        proto::MutationOutcome::Rejected => AnswerKind::Rejected(rejection(result)),
        proto::MutationOutcome::Unspecified => return Err(senseless("a result has no outcome")),
    };
    Ok(Answer { id: MutationId::from_stored(&result.mutation_id), kind })
}

fn rejection(result: &proto::MutationResult) -> Trouble {
    let Some(rejection) = &result.rejection else { return Trouble::default() };
    let name = rejection.reason().as_str_name();
    Trouble {
        reason: name.strip_prefix("REJECTION_REASON_").unwrap_or(name).to_owned(),
        message: rejection.message.clone(),
        violations: violations(&rejection.violations)
            .into_iter()
            .map(|it| (it.field, it.description))
            .collect(),
    }
}

fn violations(wire: &[proto::FieldViolation]) -> Vec<Violation> {
    wire.iter().map(|it| Violation::new(&it.field, &it.description)).collect()
}

/// Why a frame of a stream says that something failed.
pub(super) fn failure(failure: &proto::Failure) -> Fault {
    Fault {
        retry_after: remote::duration(failure.retry_after.as_ref()),
        violations: violations(&failure.violations),
        ..Fault::new(Code::from(failure.code), &failure.reason, &failure.message)
    }
}

pub(super) fn closed(closed: &proto::ClosedFrame) -> Fault {
    Fault {
        violations: violations(&closed.violations),
        ..Fault::new(Code::from(closed.code), &closed.reason, &closed.message)
    }
}

pub(super) fn resync(reason: proto::ResyncReason) -> Fault {
    Fault::of_cursor(match reason {
        proto::ResyncReason::EpochChanged => CursorFault::EpochChanged,
        proto::ResyncReason::CursorAhead => CursorFault::Ahead,
        proto::ResyncReason::CursorExpired | proto::ResyncReason::Unspecified => {
            CursorFault::Expired
        }
    })
}

/// A conflict for the app; None if it does not wait for a decision.
pub(super) fn conflict(wire: &proto::Conflict) -> Result<Option<Conflict>, Fault> {
    if wire.state() != proto::ConflictState::Open {
        return Ok(None);
    }
    let key = key(wire.key.as_ref())?;
    let json = |document: Option<&proto::Document>| {
        Ok::<_, Fault>(wire::document(document)?.map(|it| serde_json::Value::Object(it.fields())))
    };
    let side = |side: Option<&proto::ConflictSide>| {
        let side = side.cloned().unwrap_or_default();
        Ok::<_, Fault>(Side {
            document: json(side.document.as_ref())?,
            deleted: side.deleted,
            author: side.author,
            device: side.device,
            revision: side.revision,
        })
    };
    Ok(Some(Conflict {
        id: wire.id.clone(),
        collection: key.collection.as_str().to_owned(),
        record: key.id.as_str().to_owned(),
        paths: wire.paths.clone(),
        base: json(wire.base.as_ref())?,
        server: side(wire.server.as_ref())?,
        client: side(wire.client.as_ref())?,
        revision: 0,
    }))
}

/// The record of a conflict.
pub(super) fn conflict_key(wire: &proto::Conflict) -> Result<RecordKey, Fault> {
    key(wire.key.as_ref())
}
