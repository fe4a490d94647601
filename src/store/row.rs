//! Rows to domain types and back. What this program cannot have written is an
//! error here and nowhere else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::Error;
use crate::domain::{
    Change, ChangeAction, CollectionName, DeviceId, Document, History, HistoryEntry, MutationId,
    Parents, Pointer, RecordId, RecordKey, Revision, Settlement, Transform, UserId,
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
            ".committed_at, ",
            $alias,
            ".micros, ",
            $alias,
            ".sequence, ",
            $alias,
            ".parents, ",
            $alias,
            ".others, ",
            $alias,
            ".settlement, ",
            $alias,
            ".batch_end, ",
            $alias,
            ".actor"
        )
    };
}
pub(super) use change_columns;

pub(super) fn revision(row: &PgRow, column: usize) -> Result<Revision, Error> {
    let value: i64 = row.try_get(column)?;
    Revision::new(value).ok_or_else(|| Error::Corrupt(format!("revision {value}")))
}

/// An index from a column that `with ordinality` counted.
pub(super) fn index(row: &PgRow, column: usize) -> Result<usize, Error> {
    Ok(usize::try_from(row.try_get::<i32, _>(column)? - 1).unwrap_or_default())
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
        micros: row.try_get(first + 10)?,
        sequence: row.try_get(first + 11)?,
        parents: Parents::from_stored(row.try_get::<Option<&str>, _>(first + 12)?.unwrap_or("")),
        others: match row.try_get::<Option<&str>, _>(first + 13)? {
            None => History::default(),
            Some(text) => others_from_sql(text)?,
        },
        settlement: match row.try_get::<Option<&str>, _>(first + 14)? {
            None => None,
            Some(text) => Some(Arc::new(settlement_from_sql(text)?)),
        },
        batch_end: match row.try_get::<Option<i64>, _>(first + 15)? {
            None => Revision::ZERO,
            Some(_) => revision(row, first + 15)?,
        },
        actor: row.try_get::<Option<&str>, _>(first + 16)?.map(UserId::from_stored),
    })
}

/// How many columns a change has.
pub(super) const CHANGE_COLUMNS: usize = 17;

/// The columns collection and id, beginning at `first`.
pub(super) fn key(row: &PgRow, first: usize) -> Result<RecordKey, Error> {
    Ok(RecordKey {
        collection: CollectionName::from_stored(row.try_get(first)?),
        id: RecordId::from_stored(row.try_get(first + 1)?),
    })
}

/// A history as it is stored: `[["phone",7,12]]`.
pub(super) fn others_to_sql(history: &History) -> Option<String> {
    let entry = |it: &HistoryEntry| {
        let device = it.device.as_ref().map_or("", DeviceId::as_str).to_owned();
        (device, it.sequence, it.revision.get())
    };
    let entries: Vec<_> = history.entries().iter().map(entry).collect();
    if entries.is_empty() { None } else { serde_json::to_string(&entries).ok() }
}

fn others_from_sql(text: &str) -> Result<History, Error> {
    let corrupt = || Error::Corrupt("the history of a change".into());
    let entries: Vec<(String, i64, i64)> =
        serde_json::from_str(text).map_err(|_unread| corrupt())?;
    let entry = |(device, sequence, revision): (String, i64, i64)| {
        let device = (!device.is_empty()).then(|| DeviceId::from_stored(&device));
        Some(HistoryEntry { device, sequence, revision: Revision::new(revision)? })
    };
    let entries: Option<Vec<_>> = entries.into_iter().map(entry).collect();
    entries.map(History::new).ok_or_else(corrupt)
}

/// A settlement as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredSettlement {
    merged: bool,
    claimed: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claims: Option<Vec<Pointer>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    passed: Vec<Transform>,
}

pub(super) fn settlement_to_sql(settlement: &Settlement) -> Option<String> {
    let Settlement { merged, claimed_micros: claimed, claims, passed } = settlement.clone();
    serde_json::to_string(&StoredSettlement { merged, claimed, claims, passed }).ok()
}

fn settlement_from_sql(text: &str) -> Result<Settlement, Error> {
    let stored: StoredSettlement = serde_json::from_str(text)
        .map_err(|_unread| Error::Corrupt("the settlement of a change".into()))?;
    let StoredSettlement { merged, claimed: claimed_micros, claims, passed } = stored;
    Ok(Settlement { merged, claimed_micros, claims, passed })
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
