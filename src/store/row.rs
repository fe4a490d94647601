//! Rows to domain types and back. What this program cannot have written is an
//! error here and nowhere else.

use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::Error;
use crate::domain::{
    Change, ChangeAction, CollectionName, DeviceId, Document, MutationId, Record, RecordId,
    RecordKey, Revision, UserId,
};

/// The columns of a change, in the order that [`change`] reads them.
macro_rules! change_columns {
    ($alias:literal) => {
        concat!(
            $alias,
            ".revision, ",
            $alias,
            ".collection, ",
            $alias,
            ".id, ",
            $alias,
            ".action, ",
            $alias,
            ".document, ",
            $alias,
            ".previous_revision, ",
            $alias,
            ".author, ",
            $alias,
            ".device, ",
            $alias,
            ".mutation_id, ",
            $alias,
            ".committed_at"
        )
    };
}
pub(super) use change_columns;

pub(super) fn revision(row: &PgRow, column: usize) -> Result<Revision, Error> {
    let value: i64 = row.try_get(column)?;
    Revision::new(value).ok_or_else(|| Error::Corrupt(format!("revision {value}")))
}

/// A change from `change_columns!`, beginning at column `first`.
pub(super) fn change(row: &PgRow, first: usize) -> Result<Change, Error> {
    let action: i16 = row.try_get(first + 3)?;
    let document: Option<String> = row.try_get(first + 4)?;
    let device: Option<&str> = row.try_get(first + 7)?;
    Ok(Change {
        revision: revision(row, first)?,
        key: key(row, first + 1)?,
        action: action_from_sql(action)?,
        document: document.map(Document::from_canonical),
        previous_revision: revision(row, first + 5)?,
        author: UserId::from_stored(row.try_get(first + 6)?),
        device: device.map(DeviceId::from_stored),
        mutation_id: MutationId::from_stored(row.try_get(first + 8)?),
        committed_at: row.try_get(first + 9)?,
    })
}

/// The columns collection and id, beginning at `first`.
pub(super) fn key(row: &PgRow, first: usize) -> Result<RecordKey, Error> {
    Ok(RecordKey {
        collection: CollectionName::from_stored(row.try_get(first)?),
        id: RecordId::from_stored(row.try_get(first + 1)?),
    })
}

/// The record as this change left it.
pub(super) fn record(change: Change, foreign_revision: Revision) -> Arc<Record> {
    Arc::new(Record {
        key: change.key,
        revision: change.revision,
        document: change.document,
        author: change.author,
        device: change.device,
        updated_at: change.committed_at,
        foreign_revision,
    })
}

pub(super) fn action_to_sql(action: ChangeAction) -> i16 {
    match action {
        ChangeAction::Created => 1,
        ChangeAction::Updated => 2,
        ChangeAction::Deleted => 3,
    }
}

fn action_from_sql(action: i16) -> Result<ChangeAction, Error> {
    match action {
        1 => Ok(ChangeAction::Created),
        2 => Ok(ChangeAction::Updated),
        3 => Ok(ChangeAction::Deleted),
        other => Err(Error::Corrupt(format!("action {other}"))),
    }
}
