//! What a client wants of its queue on the server.

use prost::Message;

use super::{Violations, device, mutations, one, page_size, single};
use crate::app::{NewQueued, QueueQuery};
use crate::domain::{DeviceId, Mutation, MutationId, QueueState, limits};
use crate::rpc::proto;

/// The device, and its mutations as they were sent; none may be invalid.
pub(in crate::rpc) fn to_enqueue(
    wire: &proto::EnqueueRequest,
) -> Result<(DeviceId, Vec<NewQueued>), Violations> {
    let device = device(&wire.device)?.ok_or_else(|| one("device", "must be given"))?;
    let parsed = mutations(&wire.mutations, Some(&device), true)?;
    for (index, mutation) in wire.mutations.iter().enumerate() {
        fits(mutation, &format!("mutations[{index}]"))?;
    }
    Ok((device, parsed.into_iter().zip(&wire.mutations).map(new).collect()))
}

fn new((mutation, wire): (Mutation, &proto::Mutation)) -> NewQueued {
    let (mutation_id, fingerprint) = (mutation.id, mutation.fingerprint);
    NewQueued { mutation_id, fingerprint, payload: wire.encode_to_vec() }
}

fn fits(wire: &proto::Mutation, field: &str) -> Result<(), Violations> {
    let (bytes, max) = (wire.encoded_len(), limits::QUEUE_MUTATION_BYTES_MAX);
    if bytes > max {
        return Err(one(field, format!("has {bytes} bytes; at most {max} in the queue")));
    }
    Ok(())
}

/// What is to be applied in the place of an entry of a device.
pub(in crate::rpc) fn edited(
    wire: &proto::Mutation,
    device: &DeviceId,
) -> Result<NewQueued, Violations> {
    fits(wire, "edited")?;
    Ok(new((single(Some(wire), Some(device))?, wire)))
}

/// Which entries to list, after one.
pub(in crate::rpc) fn queue_query(
    wire: &proto::ListQueuedRequest,
    after: Option<i64>,
) -> Result<QueueQuery, Violations> {
    let state = match proto::QueueState::try_from(wire.state) {
        Ok(proto::QueueState::Unspecified) => None,
        Ok(proto::QueueState::Pending) => Some(QueueState::Pending),
        Ok(proto::QueueState::Applied) => Some(QueueState::Applied),
        Ok(proto::QueueState::Conflicted) => Some(QueueState::Conflicted),
        Ok(proto::QueueState::Failed) => Some(QueueState::Failed),
        Ok(proto::QueueState::Synced) => Some(QueueState::Synced),
        Err(_unknown) => return Err(one("state", format!("has no value {}", wire.state))),
    };
    let (device, entries_max) = (device(&wire.device)?, page_size(wire.page_size)?);
    Ok(QueueQuery { state, device, after: after.unwrap_or(0), entries_max })
}

/// An entry's name.
pub(in crate::rpc) fn queued_id(text: &str) -> Result<MutationId, Violations> {
    MutationId::parse(text).map_err(|rule| one("mutation_id", rule))
}

/// Several of them.
pub(in crate::rpc) fn queued_ids(texts: &[String]) -> Result<Vec<MutationId>, Violations> {
    let max = limits::BATCH_MUTATIONS_MAX;
    if texts.len() > max {
        return Err(one("mutation_ids", format!("has {} entries; at most {max}", texts.len())));
    }
    let parsed = texts.iter().enumerate().map(|(index, text)| {
        MutationId::parse(text).map_err(|rule| one(&format!("mutation_ids[{index}]"), rule))
    });
    parsed.collect()
}
