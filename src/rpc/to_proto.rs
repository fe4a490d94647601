//! Domain to wire. Cannot fail.

mod conflict;
mod policy;
mod queue;
mod result;
mod space;

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use prost_types::value::Kind;
use serde_json::Value;
use time::OffsetDateTime;

use super::proto;
use crate::app::Tallies;
use crate::domain::{
    Change, ChangeAction, CollectionTally, CursorFault, Delta, DeviceId, Document, DocumentForm,
    Epoch, Event, HistoryEntry, Quotas, Rate, Rates, Record, RecordKey, RecordStep, Revision,
    Tally, Violation, limits,
};

use conflict::strategy;

pub(super) use conflict::{conflict, conflict_cursor, conflict_entry};
pub(super) use policy::{policy, preview};
pub(super) use queue::{queued, queued_entry};
pub(super) use result::results;
pub(super) use space::{access_frame, audit_entry, member, space};

fn document(document: &Document, form: DocumentForm) -> proto::Document {
    let form = match form {
        DocumentForm::Json => {
            proto::document::Form::Json(Bytes::copy_from_slice(document.as_str().as_bytes()))
        }
        DocumentForm::Struct => proto::document::Form::Fields(fields(document.fields())),
    };
    proto::Document { form: Some(form) }
}

fn fields(fields: impl IntoIterator<Item = (String, Value)>) -> prost_types::Struct {
    let fields = fields.into_iter().map(|(key, json)| (key, value(json)));
    prost_types::Struct { fields: fields.collect() }
}

fn value(json: Value) -> prost_types::Value {
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(bool) => Kind::BoolValue(bool),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => {
            let values = items.into_iter().map(value).collect();
            Kind::ListValue(prost_types::ListValue { values })
        }
        Value::Object(object) => Kind::StructValue(fields(object)),
    };
    prost_types::Value { kind: Some(kind) }
}

pub(super) fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.nanosecond()).unwrap_or(0);
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos }
}

fn key(key: &RecordKey) -> proto::RecordKey {
    proto::RecordKey {
        collection: key.collection.as_str().to_owned(),
        id: key.id.as_str().to_owned(),
    }
}

fn device(device: Option<&DeviceId>) -> String {
    device.map_or_else(String::new, |device| device.as_str().to_owned())
}

pub(super) fn record(record: &Record, form: DocumentForm) -> proto::Record {
    proto::Record {
        key: Some(key(&record.key)),
        revision: record.revision.get(),
        deleted: !record.lives(),
        document: record.document.as_ref().map(|it| document(it, form)),
        author: record.author.as_str().to_owned(),
        device: device(record.device.as_ref()),
        update_time: Some(timestamp(record.committed_at)),
        version: record.version().to_string(),
        parents: record.parents.iter().map(str::to_owned).collect(),
        history: history(record),
        checksum: checksum(record),
        open_conflicts: record.open_conflicts,
    }
}

fn change(change: &Change, form: DocumentForm) -> proto::Change {
    let action = match change.action {
        ChangeAction::Created => proto::ChangeAction::Created,
        ChangeAction::Updated => proto::ChangeAction::Updated,
        ChangeAction::Deleted => proto::ChangeAction::Deleted,
    };
    proto::Change {
        revision: change.revision.get(),
        key: Some(key(&change.key)),
        action: action.into(),
        document: change.document.as_ref().map(|it| document(it, form)),
        previous_revision: change.previous_revision.get(),
        author: change.author.as_str().to_owned(),
        device: device(change.device.as_ref()),
        mutation_id: change.mutation_id.as_str().to_owned(),
        commit_time: Some(timestamp(change.committed_at)),
        version: change.version().to_string(),
        parents: change.parents.iter().map(str::to_owned).collect(),
        history: history(change),
        checksum: checksum(change),
        actor: change.actor.as_ref().map_or_else(String::new, |it| it.as_str().to_owned()),
        batch_end: change.batch_end.get(),
        delta: None,
        own: false,
    }
}

/// A change without its document.
fn bare(it: &Change) -> proto::Change {
    // Not to be encoded only to be left out.
    let bare = Change { document: None, ..it.clone() };
    proto::Change { checksum: checksum(it), ..change(&bare, DocumentForm::Json) }
}

fn history(change: &Change) -> Vec<proto::HistoryEntry> {
    let wire = |it: HistoryEntry| proto::HistoryEntry {
        device: device(it.device.as_ref()),
        sequence: it.sequence,
        revision: it.revision.get(),
    };
    change.history().map(wire).collect()
}

fn checksum(change: &Change) -> Bytes {
    let checksum = change.document.as_ref().map(Document::checksum);
    checksum.map_or_else(Bytes::new, |it| Bytes::copy_from_slice(&it))
}

/// A change as an entry of `changes`, which is field 1 wherever it stands.
pub(super) fn change_entry(it: &Change, form: DocumentForm) -> Bytes {
    entry(&change(it, form))
}

/// The same as its difference from the change before, if that is smaller.
pub(super) fn delta_entry(before: &Change, it: &Change, form: DocumentForm) -> Option<Bytes> {
    let Delta { unset, set } = Delta::between(before.document.as_ref()?, it.document.as_ref()?)?;
    let delta = proto::Delta {
        base_revision: before.revision.get(),
        unset: unset.iter().map(ToString::to_string).collect(),
        set: Some(document(&set, form)),
    };
    Some(entry(&proto::Change { delta: Some(delta), ..bare(it) }))
}

/// The same without its document, for whom it is their own.
pub(super) fn marked_entry(it: &Change) -> Bytes {
    entry(&proto::Change { own: true, ..bare(it) })
}

pub(super) fn event(
    subscription_id: &str,
    event: &Event,
    form: DocumentForm,
    missed: i64,
) -> proto::EventFrame {
    proto::EventFrame {
        subscription_id: subscription_id.to_owned(),
        topic: event.topic.clone(),
        document: event.document.as_ref().map(|it| document(it, form)),
        author: event.author.as_str().to_owned(),
        device: device(event.device.as_ref()),
        publish_time: Some(timestamp(event.published_at)),
        missed,
    }
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let nanos = i32::try_from(duration.subsec_nanos()).unwrap_or(0);
    prost_types::Duration { seconds, nanos }
}

/// A step as an entry of `steps`, which is field 1 where it stands.
pub(super) fn step_entry(it: &RecordStep, form: DocumentForm, documents: bool) -> Bytes {
    entry(&proto::RecordStep {
        change: Some(if documents { change(&it.change, form) } else { bare(&it.change) }),
        changed_paths: it.changed_paths().iter().map(ToString::to_string).collect(),
        before_known: it.is_before_known(),
        conflict_ids: it.conflicts.iter().map(|id| id.as_str().to_owned()).collect(),
    })
}

/// A record as an entry of `records`, which is field 1 where it stands.
pub(super) fn record_entry(it: &Record, form: DocumentForm) -> Bytes {
    entry(&record(it, form))
}

fn entry(message: &impl Message) -> Bytes {
    let mut bytes = Vec::with_capacity(message.encoded_len() + 8);
    prost::encoding::message::encode(1, message, &mut bytes);
    bytes.into()
}

pub(super) fn cursor(epoch: Epoch, revision: Revision) -> proto::Cursor {
    proto::Cursor { epoch: epoch.to_string(), revision: revision.get() }
}

pub(super) fn digest(tallies: &Tallies) -> proto::SpaceDigest {
    let bytes = |tally: &Tally| Bytes::copy_from_slice(&tally.digest.to_bytes());
    let collection = |(name, tally): &CollectionTally| proto::CollectionDigest {
        collection: name.as_str().to_owned(),
        records: tally.records,
        digest: bytes(tally),
    };
    proto::SpaceDigest {
        revision: tallies.space.head.get(),
        records: tallies.total.records,
        digest: bytes(&tallies.total),
        collections: tallies.collections.iter().map(collection).collect(),
    }
}

pub(super) fn violations(violations: &[Violation]) -> Vec<proto::FieldViolation> {
    let wire = |it: &Violation| proto::FieldViolation {
        field: it.field.clone(),
        description: it.description.clone(),
    };
    violations.iter().map(wire).collect()
}

pub(super) fn resync_reason(fault: CursorFault) -> proto::ResyncReason {
    match fault {
        CursorFault::Expired => proto::ResyncReason::CursorExpired,
        CursorFault::Ahead => proto::ResyncReason::CursorAhead,
        CursorFault::EpochChanged => proto::ResyncReason::EpochChanged,
    }
}

/// The limits that clients are told.
pub(super) fn limits(rates: Rates, quotas: Quotas) -> proto::Limits {
    let wire = |limit: usize| i32::try_from(limit).unwrap_or(i32::MAX);
    let rate =
        |rate: Rate| rate.count().map_or(0, |count| i32::try_from(count.get()).unwrap_or(i32::MAX));
    proto::Limits {
        message_bytes: wire(limits::MESSAGE_BYTES_MAX),
        document_bytes: wire(limits::DOCUMENT_BYTES_MAX),
        document_depth: wire(limits::DOCUMENT_DEPTH_MAX),
        document_values: wire(limits::DOCUMENT_VALUES_MAX),
        batch_mutations: wire(limits::BATCH_MUTATIONS_MAX),
        page_entries: wire(limits::PAGE_ENTRIES_MAX),
        stream_subscriptions: wire(limits::STREAM_SUBSCRIPTIONS_MAX),
        stream_mutates: wire(limits::STREAM_MUTATES_MAX),
        event_bytes: wire(limits::EVENT_BYTES_MAX),
        filter_keys: wire(limits::FILTER_RECORDS_MAX),
        stream_filter_keys: wire(limits::STREAM_FILTER_RECORDS_MAX),
        filter_collections: wire(limits::FILTER_COLLECTIONS_MAX),
        queue_entries: wire(limits::QUEUE_ENTRIES_MAX),
        reads_per_second: rate(rates.reads),
        writes_per_second: rate(rates.writes),
        opens_per_second: rate(rates.opens),
        user_streams: wire(rates.user_streams),
        space_records: quotas.usage.records,
        space_bytes: quotas.usage.bytes,
        space_subscriptions: wire(quotas.subscriptions),
        wait: Some(duration(Duration::from_secs(limits::WAIT_SECONDS_MAX))),
    }
}
