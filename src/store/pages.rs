//! Reading: records, and pages of changes. Each page is one statement, so that
//! its rows, head, floor and epoch are of one instant: read in two, a page
//! could silently skip what compaction deletes in between.

use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::row::{self, CHANGE_COLUMNS, change_columns};
use super::scope::{ScopeColumns, in_scope};
use super::{Error, SpaceHead, Store};
use crate::domain::{
    Change, CollectionName, Record, RecordId, RecordKey, Revision, Scope, SpaceId, limits,
};

/// What to read of a space's changes.
#[derive(Clone, Copy, Debug)]
pub struct ChangesQuery<'q> {
    pub space: SpaceId,
    /// Exclusive.
    pub after: Revision,
    pub scope: &'q Scope,
    /// Every step, or each record's last change only.
    pub every_step: bool,
    pub entries_max: usize,
    /// Of documents; a page has at least one.
    pub bytes_max: usize,
}

/// A page of changes.
#[derive(Clone, Debug)]
pub struct ChangesPage {
    pub space: SpaceHead,
    pub changes: Vec<Arc<Change>>,
    /// Everything up to here is in this page or filtered out.
    pub up_to: Revision,
}

/// A page of a collection's living records.
#[derive(Clone, Debug)]
pub struct RecordsPage {
    pub space: SpaceHead,
    pub records: Vec<Arc<Record>>,
    pub has_more: bool,
}

/// The first column of a page's change.
pub(super) const FIRST: usize = 4;

/// Revisions that one page of a part of a space looks through: what nobody has
/// written to must not be searched for longer than a statement may take.
const SCOPED_REVISIONS_MAX: i64 = 50_000;

/// A page: the changes at the revisions that `$rows` gives in the order of an
/// index, together with their bytes, cut where these reach $5; always at least
/// one. The cut is made on narrow rows, before any document is read. The page
/// itself is put in order afterwards: here sorting would cost more. Each change is
/// looked up by itself (`limit`): joined, a plan that was made while the table was
/// small may read the whole space for each of them.
macro_rules! page {
    ($more:literal, $order:literal, $rows:expr) => {
        concat!(
            "select s.epoch, s.head, s.floor, s.conflicts, ",
            change_columns!("c"),
            $more,
            " from spaces s
              left join lateral (
                  select * from (
                      select w.*, sum(w.bytes) over (order by ",
            $order,
            "             rows between unbounded preceding and 1 preceding) as before
                      from (",
            $rows,
            "         ) w
                  ) w where w.before is null or w.before < $5
              ) p on true
              left join lateral (
                  select * from changes c where c.space_id = s.id and c.revision = p.revision
                  limit 1
              ) c on true
              where s.id = $1"
        )
    };
}
pub(super) use page;

/// The log itself.
const EVERY_STEP: &str = page!(
    "",
    "w.revision",
    concat!(
        "select c.revision, octet_length(c.document) as bytes from changes c
         where c.space_id = s.id and c.revision > $2 and c.revision <= $7 and ",
        in_scope!("c", "$3", "$6"),
        " order by c.revision limit $4"
    )
);

/// The changes that made the records what they are now.
const COALESCED: &str = page!(
    "",
    "w.revision",
    concat!(
        "select l.revision, l.bytes from latest l
         where l.space_id = s.id and l.revision > $2 and l.revision <= $7 and ",
        in_scope!("l", "$3", "$6"),
        " order by l.revision limit $4"
    )
);

/// The same of some records, which are looked up one by one.
const COALESCED_RECORDS: &str = page!(
    "",
    "w.revision",
    "select l.revision, l.bytes
     from unnest($6::text[]) k (joined)
     cross join lateral (
         select * from latest l
         where l.space_id = s.id and (l.collection, l.id)
             >= (split_part(k.joined, chr(1), 1), split_part(k.joined, chr(1), 2))
         order by l.collection, l.id limit 1
     ) l
     where l.collection || chr(1) || l.id = k.joined
       and l.revision > $2 and l.revision <= $7 and $3::text[] is null
     order by l.revision limit $4"
);

const RECORDS: &str = page!(
    ", p.open_conflicts",
    "w.id",
    "select l.id, l.revision, l.open_conflicts, l.bytes from latest l
     where l.space_id = s.id and l.collection = $2 and l.id > $3 and not l.deleted
     order by l.id limit $4"
);

const RECORD: &str = concat!(
    "select ",
    change_columns!("c"),
    ", r.open_conflicts from spaces s
      cross join lateral (
          select * from latest r
          where r.space_id = s.id and (r.collection, r.id) >= ($2, $3)
          order by r.collection, r.id limit 1
      ) r
      join changes c on c.space_id = r.space_id and c.revision = r.revision
      where s.id = $1 and r.collection = $2 and r.id = $3"
);

impl Store {
    /// A page of changes; None if the space does not exist.
    pub async fn changes(&self, query: ChangesQuery<'_>) -> Result<Option<ChangesPage>, Error> {
        let (sql, revisions) = match (query.scope, query.every_step) {
            (Scope::All, true) => (EVERY_STEP, i64::MAX),
            (Scope::Collections(_) | Scope::Records(_), true) => (EVERY_STEP, SCOPED_REVISIONS_MAX),
            (Scope::All, false) => (COALESCED, i64::MAX),
            (Scope::Collections(_), false) => (COALESCED, SCOPED_REVISIONS_MAX),
            (Scope::Records(_), false) => (COALESCED_RECORDS, i64::MAX),
        };
        let last = query.after.get().saturating_add(revisions);
        let scope = ScopeColumns::of(query.scope);
        let sql = sqlx::query(sql)
            .bind(query.space.0)
            .bind(query.after.get())
            .bind(scope.collections)
            .bind(sql_count(query.entries_max))
            .bind(sql_count(query.bytes_max))
            .bind(scope.keys)
            .bind(last);
        let rows = self.read(sql).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let space = SpaceHead::from_row(first, 0)?;
        let change = |row| Ok(Arc::new(row::change(row, FIRST)?));
        let mut changes = entries(&rows).map(change).collect::<Result<Vec<_>, Error>>()?;
        changes.sort_by_key(|change| change.revision);
        // A page that is not full may also have been cut by bytes.
        let documents = changes.iter().map(|it| document_bytes(it.document.as_ref()));
        let full =
            changes.len() >= query.entries_max || documents.sum::<usize>() >= query.bytes_max;
        let cut = changes.last().map(|change| change.revision).filter(|_| full);
        // A cursor may lie beyond the head; whoever asks checks it.
        let looked = space.head.max(query.after).min(Revision::new(last).unwrap_or_default());
        let up_to = cut.unwrap_or(looked);
        Ok(Some(ChangesPage { space, changes, up_to }))
    }

    /// The changes at these revisions, as far as they are kept, and as far as their
    /// documents have no more than so many bytes.
    pub async fn changes_at(
        &self,
        space: SpaceId,
        revisions: &[Revision],
        bytes_max: usize,
    ) -> Result<Vec<Arc<Change>>, Error> {
        const SELECT: &str = concat!(
            "select ",
            change_columns!("c"),
            " from (
                  select c.revision, sum(octet_length(c.document)) over (order by w.number
                      rows between unbounded preceding and current row) as so_far
                  from unnest($2::bigint[]) with ordinality w (revision, number)
                  join changes c on c.space_id = $1 and c.revision = w.revision
              ) w
              join changes c on c.space_id = $1 and c.revision = w.revision
              where coalesce(w.so_far, 0) <= $3"
        );
        let revisions: Vec<_> = revisions.iter().map(|revision| revision.get()).collect();
        let query = sqlx::query(SELECT).bind(space.0).bind(revisions).bind(sql_count(bytes_max));
        let rows = self.read(query).await?;
        rows.iter().map(|row| Ok(Arc::new(row::change(row, 0)?))).collect()
    }

    /// A page of living records after an id; None if the space does not exist.
    pub async fn records(
        &self,
        space: SpaceId,
        collection: &CollectionName,
        after: Option<&RecordId>,
        entries_max: usize,
    ) -> Result<Option<RecordsPage>, Error> {
        let sql = sqlx::query(RECORDS)
            .bind(space.0)
            .bind(collection.as_str())
            .bind(after.map_or("", RecordId::as_str))
            .bind(sql_count(entries_max))
            .bind(sql_count(limits::PAGE_DOCUMENT_BYTES_MAX));
        let rows = self.read(sql).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let record = |row| record(row, FIRST);
        let mut records = entries(&rows).map(record).collect::<Result<Vec<_>, Error>>()?;
        records.sort_by(|a, b| a.key.cmp(&b.key));
        let bytes: usize =
            records.iter().map(|record| document_bytes(record.document.as_ref())).sum();
        let has_more = records.len() >= entries_max || bytes >= limits::PAGE_DOCUMENT_BYTES_MAX;
        Ok(Some(RecordsPage { space: SpaceHead::from_row(first, 0)?, records, has_more }))
    }

    /// One record or tombstone; None if it never was.
    pub async fn record(
        &self,
        space: SpaceId,
        key: &RecordKey,
    ) -> Result<Option<Arc<Record>>, Error> {
        let sql =
            sqlx::query(RECORD).bind(space.0).bind(key.collection.as_str()).bind(key.id.as_str());
        self.read(sql).await?.first().map(|row| record(row, 0)).transpose()
    }
}

/// The rows that have an entry: a page without any is one row of nulls.
pub(super) fn entries(rows: &[PgRow]) -> impl Iterator<Item = &PgRow> {
    rows.iter().filter(|row| !matches!(row.try_get::<Option<i64>, _>(FIRST), Ok(None)))
}

/// A record from its last change, beginning at column `first`, and the number of
/// its open conflicts behind.
pub(super) fn record(row: &PgRow, first: usize) -> Result<Arc<Record>, Error> {
    let change = Arc::new(row::change(row, first)?);
    let open_conflicts = row.try_get(first + CHANGE_COLUMNS)?;
    Ok(Arc::new(Record { change, open_conflicts }))
}

pub(super) fn document_bytes(document: Option<&crate::domain::Document>) -> usize {
    document.map_or(0, |document| document.as_str().len())
}

pub(super) fn sql_count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
