//! What readers ask of the file: on connections of their own, each question one statement.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::ask::Question;
use super::sql::{self, Conditions};
use super::vault::Slot;
use super::{Error, Store, row, write};
use crate::client::entry::Entry;
use crate::client::query::Order;
use crate::client::replica::Place;
use crate::domain::{CollectionName, Document, RecordKey, Scope, Space, Tally};

/// A record as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) struct Row {
    pub(in crate::client) key: RecordKey,
    pub(in crate::client) document: Document,
    pub(in crate::client) pending: bool,
    pub(in crate::client) revision: i64,
}

/// A record of which something else is shown than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) enum Moved {
    Shown(Row),
    /// It is not there, or does not fit any more.
    Gone(RecordKey),
}

/// What the file knows of a space, for whoever syncs it.
#[derive(Clone, Debug)]
pub(in crate::client) struct Facts {
    pub(in crate::client) no: i64,
    pub(in crate::client) place: Place,
    pub(in crate::client) wanted: bool,
    /// Rises whenever something else is wanted.
    pub(in crate::client) followed: i64,
    pub(in crate::client) attempts: i64,
    pub(in crate::client) conflicts: i64,
}

/// An entry, and its space.
#[derive(Clone, Debug)]
pub(in crate::client) struct FoundEntry {
    pub(in crate::client) space: i64,
    pub(in crate::client) entry: Entry,
}

/// Old entries that are read at once.
const OLD_MAX: i64 = 500;
const SHOWN: &str = "id, shown, dirty, revision";

impl Store {
    fn shown(
        &self,
        space: i64,
        collection: &CollectionName,
        found: &sqlx::sqlite::SqliteRow,
    ) -> Result<Row, Error> {
        let key = row::key(collection.as_str(), found.try_get(0)?);
        let document = Document::from_canonical(found.try_get(1)?);
        let slot = Slot::Shown(key.clone());
        Ok(Row {
            document: self.vault.reveal(space, collection, slot, document),
            pending: found.try_get::<i64, _>(2)? != 0,
            revision: found.try_get::<Option<i64>, _>(3)?.unwrap_or(0),
            key,
        })
    }

    /// A record, if it is shown.
    pub(in crate::client) async fn get(
        &self,
        space: i64,
        key: &RecordKey,
    ) -> Result<Option<Row>, Error> {
        let question = sqlx::query(
            "SELECT id, shown, dirty, revision FROM records WHERE space = ?1 AND collection = ?2 \
             AND id = ?3 AND shown IS NOT NULL",
        );
        let question = question.bind(space).bind(key.collection.as_str());
        let found = self.first(question.bind(key.id.as_str())).await?;
        found.map(|found| self.shown(space, &key.collection, &found)).transpose()
    }

    /// Records that fit, in an order.
    pub(in crate::client) async fn find(
        &self,
        space: i64,
        collection: &CollectionName,
        conditions: &Conditions,
        order: &[Order],
        (offset, limit): (i64, i64),
    ) -> Result<Vec<Row>, Error> {
        let (conditions_sql, order) = (conditions.sql(), sql::order(order));
        let sql = format!(
            "SELECT {SHOWN} FROM records WHERE space = ?1 AND collection = ?2 \
             AND shown IS NOT NULL {conditions_sql} ORDER BY {order} LIMIT ?3 OFFSET ?4"
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(space)
            .bind(collection.as_str())
            .bind(limit)
            .bind(offset);
        let rows = self.all(conditions.bind_to(query)).await?;
        rows.iter().map(|found| self.shown(space, collection, found)).collect()
    }

    /// The collections of a space with records that are shown, and how many.
    pub(in crate::client) async fn collections(
        &self,
        space: i64,
    ) -> Result<Vec<(String, u64)>, Error> {
        let sql = "SELECT collection, count(*) FROM records WHERE space = ?1 AND shown IS NOT NULL \
                   GROUP BY collection ORDER BY collection";
        let query = sqlx::query_as::<_, (String, i64)>(sql).bind(space);
        let rows = query.fetch_all(&self.readers).await?;
        Ok(rows
            .into_iter()
            .map(|(name, count)| (name, u64::try_from(count).unwrap_or(0)))
            .collect())
    }

    /// What is shown otherwise than at `after`, by the counter of the space; None if that is too
    /// long ago, or the space is gone. With where the counter is now.
    pub(in crate::client) async fn moved(
        &self,
        space: i64,
        collection: &CollectionName,
        conditions: &Conditions,
        after: i64,
    ) -> Result<Option<(i64, Vec<Moved>)>, Error> {
        // One statement, so that no write comes between the counter and the rows.
        let fits = conditions.sql().strip_prefix(" AND ").unwrap_or("1");
        let sql = format!(
            "SELECT r.id, r.shown, r.dirty, r.revision, r.shown IS NOT NULL AND ({fits}), s.moved, \
             s.collected FROM spaces s LEFT JOIN records r ON r.space = s.no AND r.collection = ?2 \
             AND r.moved > ?3 AND ?4 = ?4 WHERE s.no = ?1"
        );
        let query = sqlx::query(AssertSqlSafe(sql))
            .bind(space)
            .bind(collection.as_str())
            .bind(after)
            .bind(0);
        let rows = self.all(conditions.bind_to(query)).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let (now, collected): (i64, i64) = (first.try_get(5)?, first.try_get(6)?);
        if after < collected {
            return Ok(None);
        }
        let mut moved = Vec::new();
        for found in &rows {
            let Some(id) = found.try_get::<Option<&str>, _>(0)? else { continue };
            moved.push(if found.try_get::<Option<i64>, _>(4)?.unwrap_or(0) != 0 {
                Moved::Shown(self.shown(space, collection, found)?)
            } else {
                Moved::Gone(row::key(collection.as_str(), id))
            });
        }
        Ok(Some((now, moved)))
    }

    /// The counter of what is shown of a space; None if that is gone.
    pub(in crate::client) async fn counter(&self, space: i64) -> Result<Option<i64>, Error> {
        let query = sqlx::query("SELECT moved FROM spaces WHERE no = ?1").bind(space);
        self.first(query).await?.map(|found| Ok(found.try_get(0)?)).transpose()
    }

    /// All spaces, and what waits in them.
    pub(in crate::client) async fn facts(&self) -> Result<Vec<Facts>, Error> {
        let query = sqlx::query(AssertSqlSafe(format!("{} ORDER BY no", facts_sql())));
        self.all(query).await?.iter().map(facts).collect()
    }

    /// One space, and what waits in it.
    pub(in crate::client) async fn fact(&self, space: i64) -> Result<Option<Facts>, Error> {
        let query = sqlx::query(AssertSqlSafe(format!("{} WHERE no = ?1", facts_sql())));
        let found = self.first(query.bind(space)).await?;
        found.as_ref().map(facts).transpose()
    }

    /// The number of a space that is wanted just so.
    pub(in crate::client) async fn followed(
        &self,
        space: &Space,
        scope: &Scope,
    ) -> Result<Option<i64>, Error> {
        let sql = "SELECT no FROM spaces WHERE name = ?1 AND wanted = 1 AND scope IS ?2";
        let query = sqlx::query_scalar(sql).bind(space.name()).bind(row::stored_scope(scope));
        Ok(query.fetch_optional(&self.readers).await?)
    }

    /// Entries of a space that wait for the server, from the front.
    pub(in crate::client) async fn open_entries(
        &self,
        space: i64,
    ) -> Result<Vec<FoundEntry>, Error> {
        self.entries(
            space,
            "entries",
            "number >= (SELECT front FROM spaces WHERE no = ?1) \
             AND state IN ('pending', 'syncing')",
        )
        .await
    }

    /// Entries of a space that wait for the app.
    pub(in crate::client) async fn parked_entries(
        &self,
        space: i64,
    ) -> Result<Vec<FoundEntry>, Error> {
        self.entries(space, "entries INDEXED BY entries_parked", "state = 'failed'").await
    }

    /// Entries of a space that another version of the app has queued, and that may still be
    /// changed: some, after a number.
    pub(in crate::client) async fn old_entries(
        &self,
        space: i64,
        version: i64,
        after: i64,
    ) -> Result<Vec<FoundEntry>, Error> {
        let sql = format!(
            "SELECT {} FROM entries WHERE space = ?1 AND number > ?2 AND schema_version < ?3 \
             AND sent_sequence IS NULL AND state IN ('pending', 'failed') ORDER BY number \
             LIMIT {OLD_MAX}",
            row::ENTRY
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(space).bind(after).bind(version);
        self.found(space, query).await
    }

    async fn found(&self, space: i64, query: Question) -> Result<Vec<FoundEntry>, Error> {
        let rows = self.all(query).await?;
        let found = |it| Ok(FoundEntry { space, entry: row::entry(space, it, &self.vault)? });
        rows.iter().map(found).collect()
    }

    async fn entries(&self, space: i64, from: &str, which: &str) -> Result<Vec<FoundEntry>, Error> {
        let columns = row::ENTRY;
        let sql =
            format!("SELECT {columns} FROM {from} WHERE space = ?1 AND {which} ORDER BY number");
        self.found(space, sqlx::query(AssertSqlSafe(sql)).bind(space)).await
    }

    /// One entry, by its id.
    pub(in crate::client) async fn entry(&self, id: &str) -> Result<Option<FoundEntry>, Error> {
        let sql = format!("SELECT {}, space FROM entries WHERE id = ?1", row::ENTRY);
        let query = sqlx::query(AssertSqlSafe(sql)).bind(id);
        let Some(found) = self.first(query).await? else { return Ok(None) };
        let space = found.try_get("space")?;
        Ok(Some(FoundEntry { space, entry: row::entry(space, &found, &self.vault)? }))
    }

    /// Whether processes that do not sync have left wishes.
    pub(in crate::client) async fn has_wishes(&self) -> Result<bool, Error> {
        Ok(self.first(sqlx::query("SELECT 1 FROM wishes LIMIT 1")).await?.is_some())
    }

    /// Conflicts of a space that wait, as they are kept, and the revision that the server's state
    /// of their records has here; 0 if there is none.
    pub(in crate::client) async fn conflicts(
        &self,
        space: i64,
    ) -> Result<Vec<(String, i64)>, Error> {
        let sql = "SELECT c.body, coalesce(r.revision, 0) FROM conflicts c LEFT JOIN records r \
                   ON r.space = c.space AND r.collection = c.collection AND r.id = c.record \
                   WHERE c.space = ?1 ORDER BY c.id";
        let rows = self.all(sqlx::query(sql).bind(space)).await?;
        rows.iter().map(|found| Ok((found.try_get(0)?, found.try_get(1)?))).collect()
    }

    /// The digests of the server's state as it is here, by collection.
    pub(in crate::client) async fn tallies(
        &self,
        space: i64,
    ) -> Result<BTreeMap<CollectionName, Tally>, Error> {
        let sql = "SELECT collection, records, digest FROM tallies WHERE space = ?1";
        let rows = self.all(sqlx::query(sql).bind(space)).await?;
        let tally = |found: &SqliteRow| {
            let (name, records): (&str, i64) = (found.try_get(0)?, found.try_get(1)?);
            let tally = write::tally(records, found.try_get(2)?)?;
            Ok((CollectionName::from_stored(name), tally))
        };
        rows.iter().map(tally).collect()
    }
}

fn facts_sql() -> String {
    format!(
        "SELECT {}, wanted, followed, attempts, (SELECT count(*) FROM conflicts WHERE space = no) \
         AS conflicts FROM spaces",
        row::PLACE
    )
}

fn facts(found: &SqliteRow) -> Result<Facts, Error> {
    let (no, place) = row::place(found)?;
    let number = |column: &str| found.try_get::<i64, _>(column);
    Ok(Facts {
        no,
        place,
        wanted: number("wanted")? != 0,
        followed: number("followed")?,
        attempts: number("attempts")?,
        conflicts: number("conflicts")?,
    })
}
