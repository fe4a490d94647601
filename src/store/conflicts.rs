//! The log of conflicts: its rows, which travel as JSON in both directions.

mod read;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::Error;
use crate::domain::{
    Base, ClosedConflict, Closing, ClosingKind, CollectionName, Conflict, ConflictState, DeviceId,
    Document, LoggedConflict, MutationId, Pointer, RecordId, RecordKey, Relation, Revision, Side,
    SpaceId, Strategy, UserId, Verdict, Version,
};

pub use read::{ConflictPlace, ConflictQuery, ConflictsPage, MovedQuery};
pub(super) use read::{named_ones, open};

/// A row of `conflicts`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row<'a> {
    space_id: Uuid,
    mutation_id: Cow<'a, str>,
    number: i64,
    found: i64,
    moved_at: i64,
    collection: Cow<'a, str>,
    id: Cow<'a, str>,
    state: i16,
    relation: Cow<'a, str>,
    strategy: Strategy,
    decision: Cow<'a, str>,
    advisory: bool,
    policy_version: i64,
    policy_collection: Option<Cow<'a, str>>,
    paths: Cow<'a, [Pointer]>,
    lost: Cow<'a, [Pointer]>,
    base_known: bool,
    base: Option<Cow<'a, str>>,
    server: Option<Cow<'a, str>>,
    server_version: String,
    server_claimed: i64,
    server_revision: i64,
    server_author: Cow<'a, str>,
    server_device: Option<Cow<'a, str>>,
    client: Option<Cow<'a, str>>,
    client_version: String,
    sequence: i64,
    author: Cow<'a, str>,
    device: Option<Cow<'a, str>>,
    revision: i64,
    result_revision: i64,
    found_at: String,
    closing: Option<ClosingRow<'a>>,
    expires_at: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ClosingRow<'a> {
    kind: Cow<'a, str>,
    author: Cow<'a, str>,
    device: Option<Cow<'a, str>>,
    mutation_id: Cow<'a, str>,
    revision: i64,
    at: String,
}

/// What changes in a row when its conflict is closed.
#[derive(Debug, Serialize)]
pub(super) struct Closed<'a> {
    space_id: Uuid,
    mutation_id: &'a str,
    number: i64,
    moved_at: i64,
    state: i16,
    closing: ClosingRow<'a>,
    expires_at: Option<String>,
}

const RELATIONS: [(Relation, &str); 6] = [
    (Relation::Disjoint, "disjoint"),
    (Relation::Overlapping, "overlapping"),
    (Relation::CreateCreate, "create_create"),
    (Relation::UpdateDelete, "update_delete"),
    (Relation::DeleteUpdate, "delete_update"),
    (Relation::DeleteDelete, "delete_delete"),
];
const VERDICTS: [(Verdict, &str); 4] = [
    (Verdict::Client, "client"),
    (Verdict::Server, "server"),
    (Verdict::Merged, "merged"),
    (Verdict::Open, "open"),
];
const KINDS: [(ClosingKind, &str); 5] = [
    (ClosingKind::Client, "client"),
    (ClosingKind::Server, "server"),
    (ClosingKind::Document, "document"),
    (ClosingKind::Strategy, "strategy"),
    (ClosingKind::Write, "write"),
];

fn name<T: PartialEq>(names: &[(T, &'static str)], value: &T) -> &'static str {
    names.iter().find(|(it, _)| it == value).map_or("", |(_, name)| name)
}

fn named<T: Copy>(names: &[(T, &'static str)], text: &str) -> Result<T, Error> {
    let found = names.iter().find(|(_, name)| *name == text).map(|(value, _)| *value);
    found.ok_or_else(|| corrupt("a name"))
}

fn corrupt(what: &str) -> Error {
    Error::Corrupt(format!("{what} of a conflict"))
}

const STATES: [(ConflictState, i16); 3] =
    [(ConflictState::Open, 1), (ConflictState::Resolved, 2), (ConflictState::Superseded, 3)];

fn state_to_sql(state: ConflictState) -> i16 {
    STATES.iter().find(|(it, _)| *it == state).map_or(0, |(_, number)| *number)
}

fn time_to_sql(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

fn time_from_sql(text: &str) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_unread| corrupt("a time"))
}

fn document_to_sql(document: Option<&Document>) -> Option<Cow<'_, str>> {
    document.map(|it| it.as_str().into())
}

fn document_from_sql(text: Option<Cow<'_, str>>) -> Option<Document> {
    text.map(|text| Document::from_canonical(text.into_owned()))
}

fn device_from_sql(text: Option<&str>) -> Option<DeviceId> {
    text.map(DeviceId::from_stored)
}

fn revision(value: i64) -> Result<Revision, Error> {
    Revision::new(value).ok_or_else(|| corrupt("a revision"))
}

pub(super) fn version(text: &str) -> Result<Version, Error> {
    Version::parse(text).ok_or_else(|| corrupt("a version"))
}

impl<'a> Row<'a> {
    /// The row of a conflict.
    pub(super) fn of(space: SpaceId, logged: &'a LoggedConflict) -> Self {
        let LoggedConflict { number, found, conflict, expires_at } = logged;
        let (base_known, base) = match &conflict.base {
            Base::Known(document) => (true, document.as_ref()),
            Base::Lost => (false, None),
        };
        let device = |side: &'a Side| side.device.as_ref().map(|it| it.as_str().into());
        Self {
            space_id: space.0,
            mutation_id: conflict.id.as_str().into(),
            number: *number,
            found: *found,
            moved_at: conflict.moved_at().get(),
            collection: conflict.key.collection.as_str().into(),
            id: conflict.key.id.as_str().into(),
            state: state_to_sql(conflict.state()),
            relation: name(&RELATIONS, &conflict.relation).into(),
            strategy: conflict.strategy,
            decision: name(&VERDICTS, &conflict.decision).into(),
            advisory: conflict.advisory,
            policy_version: conflict.policy_version,
            policy_collection: conflict.policy_collection.as_ref().map(|it| it.as_str().into()),
            paths: conflict.paths.as_slice().into(),
            lost: conflict.lost.as_slice().into(),
            base_known,
            base: document_to_sql(base),
            server: document_to_sql(conflict.server.document.as_ref()),
            server_version: conflict.server.version.to_string(),
            server_claimed: conflict.server_claimed_micros,
            server_revision: conflict.server.revision.get(),
            server_author: conflict.server.author.as_str().into(),
            server_device: device(&conflict.server),
            client: document_to_sql(conflict.client.document.as_ref()),
            client_version: conflict.client.version.to_string(),
            sequence: conflict.client.version.sequence,
            author: conflict.client.author.as_str().into(),
            device: device(&conflict.client),
            revision: conflict.revision.get(),
            result_revision: conflict.result_revision.get(),
            found_at: time_to_sql(conflict.found_at),
            closing: conflict.closing.as_ref().map(ClosingRow::of),
            expires_at: expires_at.map(time_to_sql),
        }
    }

    /// The conflict of a row.
    pub(super) fn into_conflict(self) -> Result<Conflict, Error> {
        Ok(Conflict {
            id: MutationId::from_stored(&self.mutation_id),
            key: RecordKey {
                collection: CollectionName::from_stored(&self.collection),
                id: RecordId::from_stored(&self.id),
            },
            relation: named(&RELATIONS, &self.relation)?,
            strategy: self.strategy,
            decision: named(&VERDICTS, &self.decision)?,
            paths: self.paths.into_owned(),
            lost: self.lost.into_owned(),
            base: match self.base_known {
                true => Base::Known(document_from_sql(self.base)),
                false => Base::Lost,
            },
            server: Side {
                document: document_from_sql(self.server),
                version: version(&self.server_version)?,
                revision: revision(self.server_revision)?,
                author: UserId::from_stored(&self.server_author),
                device: device_from_sql(self.server_device.as_deref()),
            },
            server_claimed_micros: self.server_claimed,
            client: Side {
                document: document_from_sql(self.client),
                version: version(&self.client_version)?,
                revision: Revision::ZERO,
                author: UserId::from_stored(&self.author),
                device: device_from_sql(self.device.as_deref()),
            },
            policy_version: self.policy_version,
            policy_collection: self.policy_collection.as_deref().map(CollectionName::from_stored),
            advisory: self.advisory,
            result_revision: revision(self.result_revision)?,
            found_at: time_from_sql(&self.found_at)?,
            closing: self.closing.map(ClosingRow::into_closing).transpose()?,
            revision: revision(self.revision)?,
        })
    }
}

impl<'a> ClosingRow<'a> {
    fn of(closing: &'a Closing) -> Self {
        Self {
            kind: name(&KINDS, &closing.kind).into(),
            author: closing.author.as_str().into(),
            device: closing.device.as_ref().map(|it| it.as_str().into()),
            mutation_id: closing.mutation_id.as_str().into(),
            revision: closing.revision.get(),
            at: time_to_sql(closing.at),
        }
    }

    fn into_closing(self) -> Result<Closing, Error> {
        Ok(Closing {
            kind: named(&KINDS, &self.kind)?,
            author: UserId::from_stored(&self.author),
            device: device_from_sql(self.device.as_deref()),
            mutation_id: MutationId::from_stored(&self.mutation_id),
            revision: revision(self.revision)?,
            at: time_from_sql(&self.at)?,
        })
    }
}

impl<'a> Closed<'a> {
    /// What a closing changes.
    pub(super) fn of(space: SpaceId, closed: &'a ClosedConflict) -> Self {
        Self {
            space_id: space.0,
            mutation_id: closed.id.as_str(),
            number: closed.number,
            moved_at: closed.closing.revision.get(),
            state: state_to_sql(closed.closing.state()),
            closing: ClosingRow::of(&closed.closing),
            expires_at: closed.expires_at.map(time_to_sql),
        }
    }
}
