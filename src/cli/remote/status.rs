//! `syncline status`: where a space is, what it holds, and what the server allows.

use serde_json::{Value, json};

use super::Session;
use super::output::safe;
use crate::client::remote::duration;
use crate::exit::Failure;
use crate::rpc::proto::{GetStatusRequest, GetStatusResponse, Limits};

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let device = session.device();
    let request = GetStatusRequest { device: device.clone(), ..Default::default() };
    let status = session.status("cannot read the status", request).await?;
    if session.json() {
        return session.out.say_json(&as_json(&status, &device));
    }
    let mut rows = vec![
        ("space", safe(&status.space)),
        ("epoch", safe(&status.epoch)),
        ("head", status.head.to_string()),
        ("floor", status.floor.to_string()),
        ("records", status.records.to_string()),
        ("bytes", status.bytes.to_string()),
        ("open conflicts", status.open_conflicts.to_string()),
        ("queued", format!("{} ({} failed)", status.queued, status.failed_queued)),
        ("subscriptions", status.subscriptions.to_string()),
    ];
    if !device.is_empty() {
        rows.push(("device sequence", status.device_sequence.to_string()));
        rows.push(("acknowledged", status.acknowledged_revision.to_string()));
        rows.push(("lag", status.lag.to_string()));
    }
    let limits = status.limits.iter().flat_map(limits);
    rows.extend(limits.map(|(name, number)| (name, number.to_string())));
    session.out.say_facts(rows)
}

fn as_json(status: &GetStatusResponse, device: &str) -> Value {
    let all: serde_json::Map<String, Value> = status
        .limits
        .iter()
        .flat_map(limits)
        .map(|(name, number)| (name.replace(' ', "_"), number.into()))
        .collect();
    let mut value = json!({
        "space": status.space,
        "epoch": status.epoch,
        "head": status.head,
        "floor": status.floor,
        "records": status.records,
        "bytes": status.bytes,
        "open_conflicts": status.open_conflicts,
        "queued": status.queued,
        "failed_queued": status.failed_queued,
        "subscriptions": status.subscriptions,
        "limits": all,
    });
    if let (false, Some(object)) = (device.is_empty(), value.as_object_mut()) {
        object.insert("device_sequence".into(), status.device_sequence.into());
        object.insert("acknowledged_revision".into(), status.acknowledged_revision.into());
        object.insert("lag".into(), status.lag.into());
    }
    value
}

/// The limits that people run into, by name; 0 stands for any number in those of rates and spaces.
pub(super) fn limits(limits: &Limits) -> Vec<(&'static str, i64)> {
    let wait = duration(limits.wait.as_ref()).unwrap_or_default().as_secs();
    vec![
        ("message bytes", limits.message_bytes.into()),
        ("document bytes", limits.document_bytes.into()),
        ("document depth", limits.document_depth.into()),
        ("document values", limits.document_values.into()),
        ("batch mutations", limits.batch_mutations.into()),
        ("page entries", limits.page_entries.into()),
        ("stream subscriptions", limits.stream_subscriptions.into()),
        ("wait seconds", i64::try_from(wait).unwrap_or_default()),
        ("queue entries", limits.queue_entries.into()),
        ("reads per second", limits.reads_per_second.into()),
        ("writes per second", limits.writes_per_second.into()),
        ("opens per second", limits.opens_per_second.into()),
        ("user streams", limits.user_streams.into()),
        ("space records", limits.space_records),
        ("space bytes", limits.space_bytes),
        ("space subscriptions", limits.space_subscriptions.into()),
    ]
}
