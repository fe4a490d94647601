//! Questions about conflicts, and their resolutions, from the wire.

use super::document::document;
use super::{Violations, done, note, one, page_size};
use crate::app::ConflictPlace;
use crate::domain::{
    Choice, CollectionName, ConflictState, Content, DeviceId, Epoch, Fingerprint, Mutation,
    MutationId, Operation, RecordId, RecordKey, Resolve, Revision, Strategy,
};
use crate::rpc::rules::{given, strategy};
use crate::rpc::{proto, token};

/// Which conflicts to list.
#[derive(Debug)]
pub(in crate::rpc) struct ConflictFilter {
    pub(in crate::rpc) state: Option<ConflictState>,
    pub(in crate::rpc) collection: Option<CollectionName>,
    pub(in crate::rpc) record: Option<RecordId>,
    pub(in crate::rpc) device: Option<DeviceId>,
    pub(in crate::rpc) entries_max: usize,
}

/// A conflict's name.
pub(in crate::rpc) fn conflict_id(text: &str) -> Result<MutationId, Violations> {
    MutationId::parse(text).map_err(|rule| one("conflict_id", rule))
}

/// A place in the log of conflicts that was told before, and in which epoch; None
/// if none is given.
pub(in crate::rpc) fn conflict_cursor(
    text: &str,
) -> Result<Option<(Epoch, ConflictPlace)>, Violations> {
    let place = |text: &str| {
        let text = token::open(text)?;
        let (epoch, place) = text.split_once('.')?;
        let (moved_at, number) = place.split_once('.')?;
        let moved_at = Revision::new(moved_at.parse().ok()?)?;
        let place = ConflictPlace { moved_at, number: number.parse().ok()? };
        Some((Epoch(epoch.parse().ok()?), place))
    };
    match text {
        "" => Ok(None),
        text => match place(text) {
            Some(place) => Ok(Some(place)),
            None => Err(one("conflict_cursor", "is not one that this server gave")),
        },
    }
}

/// The filter of a listing.
pub(in crate::rpc) fn conflict_filter(
    wire: &proto::ListConflictsRequest,
) -> Result<ConflictFilter, Violations> {
    let mut violations = Vec::new();
    let state = match proto::ConflictState::try_from(wire.state) {
        Ok(proto::ConflictState::Unspecified) => Ok(None),
        Ok(proto::ConflictState::Open) => Ok(Some(ConflictState::Open)),
        Ok(proto::ConflictState::Resolved) => Ok(Some(ConflictState::Resolved)),
        Ok(proto::ConflictState::Superseded) => Ok(Some(ConflictState::Superseded)),
        Err(_unknown) => Err(format!("has no value {}", wire.state)),
    };
    let state = note(&mut violations, "state", state);
    let collection = given(&wire.collection, CollectionName::parse);
    let collection = note(&mut violations, "collection", collection);
    let record = match given(&wire.record_id, RecordId::parse) {
        Ok(Some(_)) if wire.collection.is_empty() => Err("needs a collection".into()),
        other => other,
    };
    let record = note(&mut violations, "record_id", record);
    let device = note(&mut violations, "device", given(&wire.device, DeviceId::parse));
    let entries_max = page_size(wire.page_size).map_err(|it| violations.extend(it)).ok();
    let filter = state.zip(collection).zip(record).zip(device).zip(entries_max);
    let filter = filter.map(|((((state, collection), record), device), entries_max)| {
        ConflictFilter { state, collection, record, device, entries_max }
    });
    done(filter, violations)
}

/// A resolution, before it is known which record its conflict is about.
#[derive(Debug)]
pub(in crate::rpc) struct Resolution {
    pub(in crate::rpc) id: MutationId,
    pub(in crate::rpc) fingerprint: Fingerprint,
    resolve: Resolve,
}

impl Resolution {
    pub(in crate::rpc) fn conflict(&self) -> &MutationId {
        &self.resolve.conflict
    }

    /// As a mutation of that record.
    pub(in crate::rpc) fn of_record(self, key: RecordKey) -> Mutation {
        let Self { id, fingerprint, resolve } = self;
        let operation = Operation::Resolve(resolve);
        let content = Content { key, operation, base: None, client_micros: None };
        Mutation { id, device_sequence: None, fingerprint, content: Ok(content) }
    }
}

/// A resolution.
pub(in crate::rpc) fn resolution(
    wire: &proto::ResolveConflictRequest,
    device: Option<&DeviceId>,
) -> Result<Resolution, Violations> {
    let mut violations = Vec::new();
    let id = note(&mut violations, "mutation_id", MutationId::parse(&wire.mutation_id));
    let conflict = conflict_id(&wire.conflict_id).map_err(|it| violations.extend(it)).ok();
    let seen = Revision::new(wire.seen_revision).ok_or_else(|| "must not be negative".into());
    let seen = note(&mut violations, "seen_revision", seen);
    let choice = choice(wire.resolution.as_ref()).map_err(|it| violations.extend(it)).ok();
    let parsed = id.zip(conflict).zip(seen).zip(choice);
    let resolution = parsed.map(|(((id, conflict), seen), choice)| {
        let resolve = Resolve { conflict, seen, choice };
        Resolution { id, fingerprint: Fingerprint::of_resolution(&resolve, device), resolve }
    });
    done(resolution, violations)
}

fn choice(
    wire: Option<&proto::resolve_conflict_request::Resolution>,
) -> Result<Choice, Violations> {
    use proto::resolve_conflict_request::Resolution as Wire;
    match wire {
        None => Err(one("resolution", "must be given, such as `keep_client`")),
        Some(Wire::KeepClient(proto::KeepClient {})) => Ok(Choice::Client),
        Some(Wire::KeepServer(proto::KeepServer {})) => Ok(Choice::Server),
        Some(Wire::Document(wire)) => document(Some(wire), "document").map(Choice::Document),
        Some(Wire::Strategy(number)) => match strategy(*number) {
            Ok(Strategy::Manual) => Err(one("strategy", "must be one that decides")),
            Ok(strategy) => Ok(Choice::Strategy(strategy)),
            Err(rule) => Err(one("strategy", rule)),
        },
    }
}
