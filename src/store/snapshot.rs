//! Reading a space as it was at one revision, while writers go on: each page is a
//! statement of its own, and no transaction stays open between them.
//!
//! A record that has not changed since is what `latest` points to. Of one that has,
//! the log is followed back: at most over what was written since. What was the last
//! change at a revision from the floor on is never deleted.

use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::pages::{FIRST, document_bytes, entries, page, record, sql_count};
use super::row::{CHANGE_COLUMNS, change_columns};
use super::scope::ScopeColumns;
use super::{Error, SpaceHead, Store};
use crate::domain::{CollectionName, Record, Revision, Scope, SpaceId};

/// How far a snapshot is, in the order of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotPlace {
    pub collection: CollectionName,
    /// Empty = before the first of the collection.
    pub id: String,
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotQuery<'q> {
    pub space: SpaceId,
    pub at: Revision,
    /// Exclusive; None = from the first on.
    pub after: Option<&'q SnapshotPlace>,
    pub scope: &'q Scope,
    pub entries_max: usize,
    /// Of documents; a page has at least one.
    pub bytes_max: usize,
}

/// A page of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotPage {
    pub space: SpaceHead,
    /// Living records, in the order of their keys.
    pub records: Vec<Arc<Record>>,
    /// Where to go on; None if there is nothing more.
    pub next: Option<SnapshotPlace>,
    /// A record was written so often since that the way back is too long.
    pub too_far: bool,
}

/// Changes of one record since the revision of a snapshot. More would take longer than
/// a statement may: whoever reads the snapshot begins with a new one.
const WAY_MAX: i32 = 20_000;

/// A page of the snapshot at $2, of the rows of `latest` that `$from` gives after
/// the key ($6, $7), in the order of keys.
macro_rules! snapshot {
    ($from:literal) => {
        page!(
            ", p.open_conflicts, p.collection, p.id",
            "w.collection, w.id",
            concat!(
                "select l.collection, l.id, l.open_conflicts, at.revision, at.bytes
                 from (",
                $from,
                "   order by l.collection, l.id limit $4) l
                 left join lateral (
                     select l.revision, l.bytes where l.revision <= $2
                     union all
                     select c.revision, octet_length(c.document) from changes c
                     where l.revision > $2 and c.space_id = s.id and c.revision = (
                         with recursive way (revision, steps) as (
                             values (l.revision, 0)
                             union all
                             select c.previous_revision, way.steps + 1 from way
                             cross join lateral (
                                 select * from changes c
                                 where c.space_id = s.id and c.revision = way.revision limit 1
                             ) c
                             where way.revision > $2 and way.steps < $9
                         )
                         select revision from way where revision <= $2 or steps = $9
                     )
                 ) at on true
                 order by l.collection, l.id"
            )
        )
    };
}

const ALL: &str = snapshot!(
    "select l.* from latest l
     where l.space_id = s.id and (l.collection, l.id) > ($6, $7) and $3::text is null
       and $8::text[] is null"
);

/// One collection.
const COLLECTION: &str = snapshot!(
    "select l.* from latest l
     where l.space_id = s.id and l.collection = $3::text and (l.collection, l.id) > ($6, $7)
       and $8::text[] is null"
);

/// Some records, which are looked up one by one.
const RECORDS: &str = snapshot!(
    "select l.* from unnest($8::text[]) k (joined)
     cross join lateral (
         select * from latest l
         where l.space_id = s.id and (l.collection, l.id)
             >= (split_part(k.joined, chr(1), 1), split_part(k.joined, chr(1), 2))
         order by l.collection, l.id limit 1
     ) l
     where l.collection || chr(1) || l.id = k.joined
       and (l.collection, l.id) > ($6, $7) and $3::text is null"
);

impl Store {
    /// A page of a snapshot; None if the space does not exist. Whoever asks checks
    /// that the revision is neither below the floor nor above the head.
    pub async fn snapshot(&self, query: SnapshotQuery<'_>) -> Result<Option<SnapshotPage>, Error> {
        let mut collections = match query.scope {
            Scope::Collections(names) => names.iter().collect(),
            Scope::All | Scope::Records(_) => Vec::new(),
        };
        collections.sort();
        collections.dedup();
        // One collection after the other, so that none between them is looked through.
        let here = |name: &&&_| query.after.is_none_or(|after| **name >= &after.collection);
        let collection = collections.iter().find(here).or_else(|| collections.last());
        let sql = match query.scope {
            Scope::All => ALL,
            Scope::Collections(_) => COLLECTION,
            Scope::Records(_) => RECORDS,
        };
        let sql = sqlx::query(sql)
            .bind(query.space.0)
            .bind(query.at.get())
            .bind(collection.map(|it| it.as_str()))
            .bind(sql_count(query.entries_max))
            .bind(sql_count(query.bytes_max))
            .bind(query.after.map_or("", |key| key.collection.as_str()))
            .bind(query.after.map_or("", |key| &key.id))
            .bind(ScopeColumns::of(query.scope).keys)
            .bind(WAY_MAX);
        let rows = self.read(sql).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let space = SpaceHead::from_row(first, 0)?;
        let read = entries(&rows).map(|row| record(row, FIRST)).collect::<Result<Vec<_>, Error>>();
        let mut records = read?;
        let bytes: usize = records.iter().map(|it| document_bytes(it.document.as_ref())).sum();
        let full = rows.len() >= query.entries_max || bytes >= query.bytes_max;
        let too_far = records.iter().any(|record| record.revision > query.at);
        records.retain(|record| record.lives());
        records.sort_by(|a, b| a.key.cmp(&b.key));
        let later = collections.iter().find(|name| collection.is_some_and(|it| **name > *it));
        let next = match later {
            _ if full => last_place(&rows)?,
            None => None,
            Some(later) => Some(SnapshotPlace { collection: (*later).clone(), id: String::new() }),
        };
        Ok(Some(SnapshotPage { space, records, next, too_far }))
    }
}

/// The last one that was looked at, whether or not it lived.
fn last_place(rows: &[PgRow]) -> Result<Option<SnapshotPlace>, Error> {
    const COLLECTION: usize = FIRST + CHANGE_COLUMNS + 1;
    let mut last = None;
    for row in rows {
        if let Some(collection) = row.try_get::<Option<&str>, _>(COLLECTION)? {
            let collection = CollectionName::from_stored(collection);
            let place = SnapshotPlace { collection, id: row.try_get(COLLECTION + 1)? };
            last = last.max(Some(place));
        }
    }
    Ok(last)
}
