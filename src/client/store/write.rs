//! Writes down what a step has touched, in few statements.

use std::collections::BTreeMap;

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Sqlite};

use super::row::{self, LocalRow};
use super::vault::{Slot, Vault};
use super::{Error, load};
use crate::client::entry::Entry;
use crate::client::replica::{Local, Place, Replica, Touch, Touched};
use crate::domain::{CollectionName, Digest, Sequence, Tally};

/// Rows that one statement writes.
const CHUNK: usize = 64;

/// Writes down what was touched.
pub(super) async fn replica(
    db: &mut SqliteConnection,
    space: i64,
    replica: &mut Replica,
    vault: &Vault,
) -> Result<(), Error> {
    let touched = replica.take_touched();
    replica.place.moved += i64::from(!touched.shown.is_empty());
    place(db, space, &replica.place).await?;
    records(db, space, replica, &touched, vault).await?;
    entries(db, space, replica, &touched, vault).await?;
    if touched.conflicts {
        let sql = "DELETE FROM conflicts WHERE space = ?1";
        sqlx::query(sql).bind(space).execute(&mut *db).await?;
    }
    for (collection, tally) in &touched.tallies {
        move_tally(db, space, collection, *tally).await?;
    }
    Ok(())
}

async fn place(db: &mut SqliteConnection, space: i64, place: &Place) -> Result<(), Error> {
    let counts = &place.counts;
    sqlx::query(
        "UPDATE spaces SET loaded = ?2, epoch = ?3, cursor = ?4, complete = ?5, \
         last_sequence = ?6, last_entry = ?7, loading = ?8, generation = ?9, \
         conflict_cursor = ?10, newest = ?11, front = ?12, moved = ?13, pending = ?14, \
         syncing = ?15, failed = ?16, answered = ?17, replaced = ?18 WHERE no = ?1",
    )
    .bind(space)
    .bind(row::stored_loaded(place.loaded.as_ref()))
    .bind(place.epoch.map(|epoch| epoch.to_string()))
    .bind(place.cursor.get())
    .bind(place.complete.get())
    .bind(place.last_sequence.get())
    .bind(place.last_entry)
    .bind(place.loading.as_ref().map(row::stored_loading))
    .bind(place.generation)
    .bind(&place.conflict_cursor)
    .bind(place.newest.get())
    .bind(place.front)
    .bind(place.moved)
    .bind(counts.pending)
    .bind(counts.syncing)
    .bind(counts.failed)
    .bind(counts.answered)
    .bind(i64::from(place.replaced))
    .execute(db)
    .await?;
    Ok(())
}

async fn records(
    db: &mut SqliteConnection,
    space: i64,
    replica: &Replica,
    touched: &Touched,
    vault: &Vault,
) -> Result<(), Error> {
    let (none, moved) = (Local::default(), replica.place.moved);
    let rows: Vec<_> = touched
        .records
        .iter()
        .map(|key| {
            let local = replica.record(key).unwrap_or(&none);
            let is_moved = touched.shown.contains(key);
            (key, local, is_moved, row::local_row(space, key, local, vault))
        })
        .collect();
    for chunk in rows.chunks(CHUNK) {
        let values = load::marks(chunk.len(), "(?,?,?,?,?,?,?,?,?,?,?,?)");
        // A record that shows what it did has not moved.
        let sql = format!(
            "INSERT INTO records (space, collection, id, shown, moved, dirty, revision, about, \
             checksum, server, staged, generation) VALUES {values} \
             ON CONFLICT (space, collection, id) DO UPDATE SET shown = excluded.shown, \
             moved = max(moved, excluded.moved), dirty = excluded.dirty, \
             revision = excluded.revision, about = excluded.about, checksum = excluded.checksum, \
             server = excluded.server, staged = excluded.staged, generation = excluded.generation"
        );
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for (key, local, is_moved, stored) in chunk {
            let LocalRow { shown, revision, about, checksum, server, staged } = stored;
            query = query
                .bind(space)
                .bind(key.collection.as_str())
                .bind(key.id.as_str())
                .bind(shown.as_deref())
                .bind(if *is_moved { moved } else { 0 })
                .bind(i64::from(local.dirty))
                .bind(*revision)
                .bind(about.as_deref())
                .bind(checksum.as_deref())
                .bind(server.as_deref())
                .bind(staged.as_deref())
                .bind(local.generation);
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

async fn entries(
    db: &mut SqliteConnection,
    space: i64,
    replica: &Replica,
    touched: &Touched,
    vault: &Vault,
) -> Result<(), Error> {
    for number in &touched.removed {
        vault.forget(space, Slot::Edit(*number));
        vault.forget(space, Slot::Kept(*number));
        sqlx::query("DELETE FROM entries WHERE space = ?1 AND number = ?2")
            .bind(space)
            .bind(number)
            .execute(&mut *db)
            .await?;
    }
    let touched_so = |touch: Touch| -> Vec<&Entry> {
        let so = touched.entries.iter().filter(|(_, it)| **it == touch);
        so.filter_map(|(number, _)| replica.entry(*number)).collect()
    };
    for chunk in touched_so(Touch::New).chunks(CHUNK) {
        insert(db, space, chunk, vault).await?;
    }
    for (touch, columns) in [(Touch::Moved, MOVED), (Touch::Edited, EDITED)] {
        for chunk in touched_so(touch).chunks(CHUNK) {
            let query = sqlx::query(AssertSqlSafe(update(columns, chunk.len()))).bind(space);
            let query = chunk.iter().fold(query, |query, entry| {
                let query = bind_progress(query.bind(entry.number), space, entry, vault);
                match touch {
                    Touch::Edited => bind_edit(query, space, entry, vault),
                    _ => query,
                }
            });
            query.execute(&mut *db).await?;
        }
    }
    for chunk in touched_so(Touch::Finished).chunks(CHUNK) {
        let query = sqlx::query(AssertSqlSafe(update(FINISHED, chunk.len()))).bind(space);
        let query = chunk.iter().fold(query, |query, entry| {
            vault.forget(space, Slot::Edit(entry.number));
            vault.forget(space, Slot::Kept(entry.number));
            query.bind(entry.number).bind(entry.state.as_str()).bind(entry.revision.get())
        });
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// What is set of entries that have moved, beside their number.
pub(super) const MOVED: &[&str] =
    &["base", "kept", "sequence", "sent_sequence", "sent_base", "state", "revision", "trouble"];
/// Of those with another edit.
pub(super) const EDITED: &[&str] = &[
    "base",
    "kept",
    "sequence",
    "sent_sequence",
    "sent_base",
    "state",
    "revision",
    "trouble",
    "edit",
    "sensitive",
    "client_micros",
    "schema_version",
];
/// And of those that are finished; what else goes with that is always the same.
pub(super) const FINISHED: &[&str] = &["state", "revision"];

/// Sets these columns of entries. Only what is named costs anything, indexes above all.
pub(super) fn update(columns: &[&str], rows: usize) -> String {
    let set: Vec<_> = (2..).zip(columns).map(|(no, it)| format!("{it} = v.column{no}")).collect();
    let (mut set, values) = (set.join(", "), load::numbered(rows, columns.len() + 1));
    if columns == FINISHED {
        set.push_str(
            ", edit = NULL, kept = NULL, sent_sequence = NULL, sent_base = NULL, done = 1, \
             sensitive = 0",
        );
    }
    format!(
        "UPDATE entries SET {set} FROM (VALUES {values}) AS v \
         WHERE space = ?1 AND number = v.column1"
    )
}

/// Writes new entries down.
async fn insert(
    db: &mut SqliteConnection,
    space: i64,
    entries: &[&Entry],
    vault: &Vault,
) -> Result<(), Error> {
    let values = load::marks(entries.len(), "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
    let columns = EDITED.join(", ");
    let sql = format!(
        "INSERT INTO entries (space, number, id, collection, record, done, {columns}) \
         VALUES {values}"
    );
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for entry in entries {
        query = query
            .bind(space)
            .bind(entry.number)
            .bind(entry.id.as_str())
            .bind(entry.key.collection.as_str())
            .bind(entry.key.id.as_str())
            .bind(i64::from(entry.done));
        query = bind_edit(bind_progress(query, space, entry, vault), space, entry, vault);
    }
    query.execute(db).await?;
    Ok(())
}

type Binding<'q> = Query<'q, Sqlite, SqliteArguments>;

/// How far an entry is, in the order of [`MOVED`].
fn bind_progress<'q>(
    query: Binding<'q>,
    space: i64,
    entry: &'q Entry,
    vault: &Vault,
) -> Binding<'q> {
    query
        .bind(entry.base.get())
        .bind(row::stored_kept(space, entry, vault))
        .bind(entry.sequence.map(Sequence::get))
        .bind(entry.sent.map(|(sequence, _)| sequence.get()))
        .bind(entry.sent.map(|(_, base)| base.get()))
        .bind(entry.state.as_str())
        .bind(entry.revision.get())
        .bind(entry.trouble.as_ref().map(row::to_json))
}

/// What it does, in the order of the rest of [`EDITED`].
fn bind_edit<'q>(query: Binding<'q>, space: i64, entry: &Entry, vault: &Vault) -> Binding<'q> {
    let (edit, sensitive) = row::stored_edit(space, entry, vault);
    query.bind(edit).bind(i64::from(sensitive)).bind(entry.client_micros).bind(entry.schema_version)
}

async fn move_tally(
    db: &mut SqliteConnection,
    space: i64,
    collection: &CollectionName,
    moved: Tally,
) -> Result<(), Error> {
    let found: Option<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT records, digest FROM tallies WHERE space = ?1 AND collection = ?2")
            .bind(space)
            .bind(collection.as_str())
            .fetch_optional(&mut *db)
            .await?;
    let mut tally =
        found.map_or_else(|| Ok(Tally::default()), |(records, digest)| tally(records, &digest))?;
    tally += moved;
    sqlx::query(
        "INSERT INTO tallies VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE \
         SET records = excluded.records, digest = excluded.digest",
    )
    .bind(space)
    .bind(collection.as_str())
    .bind(tally.records)
    .bind(tally.digest.to_bytes().as_slice())
    .execute(db)
    .await?;
    Ok(())
}

/// Sets the digests of collections; those that are not named have none.
pub(super) async fn set_tallies(
    db: &mut SqliteConnection,
    space: i64,
    scope: Option<&str>,
    tallies: &BTreeMap<CollectionName, Tally>,
) -> Result<(), Error> {
    let sql = "DELETE FROM tallies WHERE space = ?1 \
               AND (?2 IS NULL OR collection IN (SELECT value FROM json_each(?2)))";
    sqlx::query(sql).bind(space).bind(scope).execute(&mut *db).await?;
    for (collection, tally) in tallies {
        move_tally(db, space, collection, *tally).await?;
    }
    Ok(())
}

pub(super) fn tally(records: i64, digest: &[u8]) -> Result<Tally, Error> {
    Ok(Tally { records, digest: Digest::from_bytes(row::checksum(digest)?) })
}
