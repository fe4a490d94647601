//! Loads the part of a space that a step needs, in few statements.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Sqlite};

use super::need::{Need, Wanted};
use super::vault::Vault;
use super::{Error, row};
use crate::client::entry::Entry;
use crate::client::replica::{Identity, Place, Replica};
use crate::domain::RecordKey;

/// Rows that one statement names.
const CHUNK: usize = 64;

/// Where a space is.
pub(super) async fn place(db: &mut SqliteConnection, space: i64) -> Result<Place, Error> {
    let sql = format!("SELECT {} FROM spaces WHERE no = ?1", row::PLACE);
    let found = sqlx::query(AssertSqlSafe(sql)).bind(space).fetch_optional(db).await?;
    let found = found.ok_or(Error::NoSpace)?;
    Ok(row::place(&found)?.1)
}

/// A space, and as much of it as is needed.
pub(super) async fn replica(
    db: &mut SqliteConnection,
    identity: &Arc<Identity>,
    space: i64,
    need: &Need,
    vault: &Vault,
) -> Result<Replica, Error> {
    let place = place(db, space).await?;
    let mut entries = BTreeMap::new();
    let mut keys: BTreeSet<RecordKey> = need.records.iter().cloned().collect();
    for entry in wanted(db, space, &place, &need.entries, vault).await? {
        if with_record(&need.entries, &entry, &place) {
            keys.insert(entry.key.clone());
        }
        entries.insert(entry.number, entry);
    }
    let keys: Vec<_> = keys.into_iter().collect();
    for chunk in keys.chunks(CHUNK) {
        for entry in of_records(db, space, chunk, vault).await? {
            entries.insert(entry.number, entry);
        }
    }
    let mut records = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(CHUNK) {
        records.extend(locals(db, space, chunk, vault).await?);
    }
    Ok(Replica::new(Arc::clone(identity), place, records, entries.into_values()))
}

/// Whether the step shows the entry's record anew.
fn with_record(wanted: &Wanted, entry: &Entry, place: &Place) -> bool {
    match wanted {
        Wanted::None => false,
        // Only what cannot be sent.
        Wanted::Front(_) => entry.incomplete,
        Wanted::Told(told) => {
            // What was shown of an edit is what is to come.
            let applied = told.get(&entry.id).copied().flatten();
            !applied.is_some_and(|revision| place.is_to_come(&entry.key, revision))
        }
        Wanted::First
        | Wanted::FirstAndSyncing
        | Wanted::Sent
        | Wanted::Open
        | Wanted::Answered
        | Wanted::Number(_) => true,
    }
}

/// Entries that wait, from the front; none before that does.
const OPEN: &str = "number >= ?2 AND state IN ('pending', 'syncing')";

// Without figures about the tables SQLite thinks that a space has ten entries, and would rather
// read all of them than use an index: the statements leave it no choice.

/// Entries of a space.
fn select(condition: &str) -> String {
    let columns = row::ENTRY;
    format!("SELECT {columns} FROM entries WHERE space = ?1 AND {condition} ORDER BY number")
}

/// Entries by their ids; a plus keeps the space from being an index.
fn with_ids(count: usize) -> String {
    let (columns, marks) = (row::ENTRY, numbered(count, 1));
    format!("SELECT {columns} FROM entries WHERE +space = ?1 AND id IN ({marks}) ORDER BY number")
}

/// Entries of records that are not done; a cross join begins with what stands first.
fn with_keys(count: usize) -> String {
    let (columns, marks) = (row::ENTRY, numbered(count, 2));
    format!(
        "WITH keys (of, named) AS (VALUES {marks}) SELECT {columns} FROM keys CROSS JOIN entries \
         INDEXED BY entries_of_record \
         WHERE space = ?1 AND collection = of AND record = named AND done = 0"
    )
}

/// Records by their keys, in the same way.
fn records_with_keys(count: usize) -> String {
    let (columns, marks) = (row::LOCAL, numbered(count, 2));
    format!(
        "WITH keys (of, named) AS (VALUES {marks}) SELECT {columns} FROM keys CROSS JOIN records r \
         WHERE r.space = ?1 AND r.collection = of AND r.id = named"
    )
}

async fn wanted(
    db: &mut SqliteConnection,
    space: i64,
    place: &Place,
    wanted: &Wanted,
    vault: &Vault,
) -> Result<Vec<Entry>, Error> {
    let all = |condition: &str| sqlx::query(AssertSqlSafe(select(condition))).bind(space);
    let query = match wanted {
        Wanted::None => return Ok(Vec::new()),
        Wanted::Number(number) => all("number = ?2").bind(*number),
        Wanted::First | Wanted::Front(_) => {
            let count = match wanted {
                Wanted::Front(count) => i64::try_from(*count).unwrap_or(i64::MAX),
                _ => 1,
            };
            let sql = select(OPEN) + " LIMIT ?3";
            sqlx::query(AssertSqlSafe(sql)).bind(space).bind(place.front).bind(count)
        }
        Wanted::FirstAndSyncing => {
            let first = format!("SELECT min(number) FROM entries WHERE space = ?1 AND {OPEN}");
            let condition = format!("{OPEN} AND (state = 'syncing' OR number = ({first}))");
            all(&condition).bind(place.front)
        }
        Wanted::Sent => all("state IN ('syncing', 'applied', 'merged') AND done = 0"),
        Wanted::Open => all(OPEN).bind(place.front),
        Wanted::Answered if place.counts.answered == 0 => return Ok(Vec::new()),
        Wanted::Answered => all("state IN ('applied', 'merged') AND done = 0"),
        Wanted::Told(told) => {
            let ids: Vec<_> = told.keys().collect();
            let mut found = Vec::with_capacity(ids.len());
            for chunk in ids.chunks(CHUNK) {
                let query = sqlx::query(AssertSqlSafe(with_ids(chunk.len()))).bind(space);
                let query = chunk.iter().fold(query, |query, id| query.bind(id.as_str()));
                found.extend(entries(db, space, query, vault).await?);
            }
            return Ok(found);
        }
    };
    entries(db, space, query, vault).await
}

async fn of_records(
    db: &mut SqliteConnection,
    space: i64,
    keys: &[RecordKey],
    vault: &Vault,
) -> Result<Vec<Entry>, Error> {
    let query = sqlx::query(AssertSqlSafe(with_keys(keys.len()))).bind(space);
    entries(db, space, bind_keys(query, keys), vault).await
}

async fn entries(
    db: &mut SqliteConnection,
    space: i64,
    query: Query<'_, Sqlite, SqliteArguments>,
    vault: &Vault,
) -> Result<Vec<Entry>, Error> {
    let rows = query.fetch_all(db).await?;
    rows.iter().map(|found| row::entry(space, found, vault)).collect()
}

async fn locals(
    db: &mut SqliteConnection,
    space: i64,
    keys: &[RecordKey],
    vault: &Vault,
) -> Result<Vec<(RecordKey, crate::client::replica::Local)>, Error> {
    let query = sqlx::query(AssertSqlSafe(records_with_keys(keys.len()))).bind(space);
    let query = bind_keys(query, keys);
    let rows = query.fetch_all(db).await?;
    rows.iter().map(|found| row::local(space, found, vault)).collect()
}

fn bind_keys<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    keys: &'q [RecordKey],
) -> Query<'q, Sqlite, SqliteArguments> {
    keys.iter().fold(query, |query, key| query.bind(key.collection.as_str()).bind(key.id.as_str()))
}

/// Marks of rows that come after the first parameter. With numbers: marks with and without
/// numbers do not go together.
pub(super) fn numbered(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let marks: Vec<_> =
            (0..columns).map(|column| format!("?{}", row * columns + column + 2)).collect();
        if columns == 1 { marks.join(",") } else { format!("({})", marks.join(",")) }
    };
    (0..rows).map(row).collect::<Vec<_>>().join(",")
}

/// As many marks, with commas between.
pub(super) fn marks(count: usize, mark: &str) -> String {
    vec![mark; count].join(",")
}

/// Records of a space that a snapshot has to decide about: those that it has changed, and those
/// that it has not brought; so many after a key.
pub(super) async fn unsettled(
    db: &mut SqliteConnection,
    space: i64,
    place: &Place,
    after: Option<&RecordKey>,
    count: i64,
) -> Result<Vec<RecordKey>, Error> {
    let loading = place.loading.as_ref();
    let scope = loading.and_then(|it| row::stored_scope(&it.scope));
    let generation = loading.map_or(0, |it| it.generation);
    let sql = "SELECT collection, id FROM records WHERE space = ?1 \
               AND (generation <> ?2 OR staged IS NOT NULL) \
               AND (?3 IS NULL OR collection IN (SELECT value FROM json_each(?3))) \
               AND (collection, id) > (?4, ?5) ORDER BY collection, id LIMIT ?6";
    let query = sqlx::query_as::<_, (String, String)>(sql)
        .bind(space)
        .bind(generation)
        .bind(scope)
        .bind(after.map_or("", |key| key.collection.as_str()))
        .bind(after.map_or("", |key| key.id.as_str()))
        .bind(count);
    Ok(keys(&query.fetch_all(db).await?))
}

/// The checksums of the server's records of collections; so many after a key.
pub(super) async fn checksums(
    db: &mut SqliteConnection,
    space: i64,
    scope: Option<&str>,
    after: Option<&RecordKey>,
    count: i64,
) -> Result<Vec<(RecordKey, [u8; 32])>, Error> {
    let sql = "SELECT collection, id, checksum FROM records WHERE space = ?1 \
               AND checksum IS NOT NULL AND revision IS NOT NULL \
               AND (?2 IS NULL OR collection IN (SELECT value FROM json_each(?2))) \
               AND (collection, id) > (?3, ?4) ORDER BY collection, id LIMIT ?5";
    let found: Vec<(String, String, Vec<u8>)> = sqlx::query_as(sql)
        .bind(space)
        .bind(scope)
        .bind(after.map_or("", |key| key.collection.as_str()))
        .bind(after.map_or("", |key| key.id.as_str()))
        .bind(count)
        .fetch_all(db)
        .await?;
    let held = found
        .iter()
        .map(|(collection, id, checksum)| Ok((row::key(collection, id), row::checksum(checksum)?)));
    held.collect()
}

/// Records with a state that waits to be shown; so many.
pub(super) async fn staged(
    db: &mut SqliteConnection,
    space: i64,
    count: i64,
) -> Result<Vec<RecordKey>, Error> {
    let sql = "SELECT collection, id FROM records WHERE space = ?1 AND staged IS NOT NULL LIMIT ?2";
    let query = sqlx::query_as::<_, (String, String)>(sql).bind(space).bind(count);
    Ok(keys(&query.fetch_all(db).await?))
}

/// Records that nobody wants; so many.
pub(super) async fn unwanted(
    db: &mut SqliteConnection,
    space: i64,
    scope: Option<&str>,
    count: i64,
) -> Result<Vec<RecordKey>, Error> {
    let sql = "SELECT collection, id FROM records WHERE space = ?1 \
               AND (revision IS NOT NULL OR staged IS NOT NULL) \
               AND (?2 IS NULL OR collection NOT IN (SELECT value FROM json_each(?2))) LIMIT ?3";
    let query = sqlx::query_as::<_, (String, String)>(sql).bind(space).bind(scope).bind(count);
    Ok(keys(&query.fetch_all(db).await?))
}

fn keys(rows: &[(String, String)]) -> Vec<RecordKey> {
    rows.iter().map(|(collection, id)| row::key(collection, id)).collect()
}

#[cfg(test)]
mod tests;
