//! Reading the log of conflicts.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use time::OffsetDateTime;

use super::{Row, device_from_sql, revision, state_to_sql, version};
use crate::domain::{
    CollectionName, Conflict, ConflictState, DeviceId, HistoryEntry, MutationId, OpenConflict,
    RecordId, RecordKey, Revision, Scope, SpaceId, UserId, limits,
};
use crate::store::scope::{ScopeColumns, in_scope};
use crate::store::{Error, Store, row};

/// Where a conflict stands in its space: the head when it was last opened or
/// closed, and its number then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConflictPlace {
    pub moved_at: Revision,
    pub number: i64,
}

/// Which conflicts to read.
#[derive(Clone, Debug, Default)]
pub struct ConflictQuery {
    pub state: Option<ConflictState>,
    pub collection: Option<CollectionName>,
    pub record: Option<RecordId>,
    /// Of these only; None = of all.
    pub collections: Option<Arc<[CollectionName]>>,
    /// Of the client's side.
    pub device: Option<DeviceId>,
    /// Only those found before the one of this number; None = from the latest on.
    pub before: Option<i64>,
    pub entries_max: usize,
}

/// A page of conflicts, each with its place in the order of the page.
#[derive(Clone, Debug)]
pub struct ConflictsPage<P> {
    pub conflicts: Vec<(P, Conflict)>,
    pub has_more: bool,
}

/// A page of the conflicts that `$rows` gives in the order of an index, cut where
/// their documents reach $2 bytes; always at least one.
macro_rules! page {
    ($order:literal, $rows:expr) => {
        concat!(
            "select c.found, c.moved_at, c.number, row_to_json(c) from (
                 select w.*, sum(w.bytes) over (order by ",
            $order,
            "        rows between unbounded preceding and 1 preceding) as before
                 from (
                     select k.space_id, k.mutation_id, k.found, k.moved_at, k.number,
                         coalesce(octet_length(k.base), 0) + coalesce(octet_length(k.server), 0)
                             + coalesce(octet_length(k.client), 0) as bytes
                     from conflicts k
                     where k.space_id = $1 and ",
            $rows,
            "        order by ",
            $order,
            "        limit $3
                 ) w
             ) w
             join conflicts c on c.space_id = w.space_id and c.mutation_id = w.mutation_id
             where w.before is null or w.before < $2"
        )
    };
}

const LATEST: &str = page!(
    "found desc",
    "k.found < $4 and ($5::text is null or k.collection = $5)
     and ($6::text is null or k.id = $6) and ($7::text is null or k.device = $7)
     and ($8::smallint is null or k.state = $8)
     and ($9::text[] is null or k.collection = any($9))"
);

/// Only open ones, by the index that has no others.
const LATEST_OPEN: &str = page!(
    "found desc",
    "k.state = 1 and k.found < $4 and ($5::text is null or k.collection = $5)
     and ($6::text is null or k.id = $6) and ($7::text is null or k.device = $7)
     and ($8::smallint is null or k.state = $8)
     and ($9::text[] is null or k.collection = any($9))"
);

/// Only those of one record, by the index of records.
const LATEST_OF_RECORD: &str = page!(
    "found desc",
    "k.collection = $5 and k.id = $6 and k.found < $4
     and ($7::text is null or k.device = $7) and ($8::smallint is null or k.state = $8)
     and ($9::text[] is null or k.collection = any($9))"
);

/// What was opened or closed after a place, up to a number.
const MOVED: &str = page!(
    "moved_at, number",
    concat!(
        "(k.moved_at, k.number) > ($4, $5) and k.number <= $6 and ",
        in_scope!("k", "$7", "$8")
    )
);

/// The same of what is still open, which has not moved since it was found.
const MOVED_OPEN: &str = page!(
    "found",
    concat!(
        "k.state = 1 and k.found > $5 and k.moved_at >= $4 and k.found <= $6 and ",
        in_scope!("k", "$7", "$8")
    )
);

fn names(collections: Option<&[CollectionName]>) -> Option<Vec<&str>> {
    collections.map(|some| some.iter().map(CollectionName::as_str).collect())
}

/// What to read of the conflicts that were opened or closed.
#[derive(Clone, Copy, Debug)]
pub struct MovedQuery<'q> {
    pub space: SpaceId,
    /// Exclusive.
    pub after: ConflictPlace,
    /// Inclusive; what moved later has a higher one.
    pub number_max: i64,
    pub scope: &'q Scope,
    /// Only what is open still.
    pub open_only: bool,
}

impl Store {
    /// A page of conflicts, the latest first.
    pub async fn conflicts(
        &self,
        space: SpaceId,
        query: &ConflictQuery,
    ) -> Result<ConflictsPage<i64>, Error> {
        let of_record = query.collection.is_some() && query.record.is_some();
        let sql = match query.state {
            _ if of_record => LATEST_OF_RECORD,
            Some(ConflictState::Open) => LATEST_OPEN,
            Some(ConflictState::Resolved | ConflictState::Superseded) | None => LATEST,
        };
        let sql = sqlx::query(sql)
            .bind(space.0)
            .bind(page_bytes())
            .bind(i64::try_from(query.entries_max).unwrap_or(i64::MAX))
            .bind(query.before.unwrap_or(i64::MAX))
            .bind(query.collection.as_ref().map(CollectionName::as_str))
            .bind(query.record.as_ref().map(RecordId::as_str))
            .bind(query.device.as_ref().map(DeviceId::as_str))
            .bind(query.state.map(state_to_sql))
            .bind(names(query.collections.as_deref()));
        let mut page = page(&self.read(sql).await?, query.entries_max, |row| Ok(row.try_get(0)?))?;
        page.conflicts.sort_by_key(|(found, _)| std::cmp::Reverse(*found));
        Ok(page)
    }

    /// A page of what was opened or closed, in that order.
    pub async fn moved_conflicts(
        &self,
        query: MovedQuery<'_>,
    ) -> Result<ConflictsPage<ConflictPlace>, Error> {
        let scope = ScopeColumns::of(query.scope);
        let sql = sqlx::query(if query.open_only { MOVED_OPEN } else { MOVED })
            .bind(query.space.0)
            .bind(page_bytes())
            .bind(i64::try_from(MOVED_ENTRIES).unwrap_or(i64::MAX))
            .bind(query.after.moved_at.get())
            .bind(query.after.number)
            .bind(query.number_max)
            .bind(scope.collections)
            .bind(scope.keys);
        let place = |row: &PgRow| {
            Ok(ConflictPlace { moved_at: revision(row.try_get(1)?)?, number: row.try_get(2)? })
        };
        let mut page = page(&self.read(sql).await?, MOVED_ENTRIES, place)?;
        page.conflicts.sort_by_key(|(place, _)| *place);
        Ok(page)
    }

    /// One conflict.
    pub async fn conflict(
        &self,
        space: SpaceId,
        id: &MutationId,
    ) -> Result<Option<Conflict>, Error> {
        const ONE: &str = "select row_to_json(k) from conflicts k
             where k.space_id = $1 and k.mutation_id = $2";
        let rows = self.read(sqlx::query(ONE).bind(space.0).bind(id.as_str())).await?;
        rows.first().map(|row| from_row(row, 0)).transpose()
    }

    /// How many conflicts wait for a decision, in all collections or in these.
    pub async fn open_conflicts(
        &self,
        space: SpaceId,
        collections: Option<&[CollectionName]>,
    ) -> Result<i64, Error> {
        const COUNT: &str = "select count(*) from conflicts where space_id = $1 and state = 1
             and ($2::text[] is null or collection = any($2))";
        let rows = self.read(sqlx::query(COUNT).bind(space.0).bind(names(collections))).await?;
        rows.first().map_or(Ok(0), |row| Ok(row.try_get(0)?))
    }

    /// Forgets conflicts whose time has come, at most some of them; how many.
    pub async fn expire_conflicts(&self, now: OffsetDateTime) -> Result<usize, Error> {
        const EXPIRE: &str = "delete from conflicts where (space_id, mutation_id) in (
                 select space_id, mutation_id from conflicts
                 where expires_at <= $1 order by expires_at limit $2 for update skip locked
             ) returning 1";
        Ok(self.read(sqlx::query(EXPIRE).bind(now).bind(EXPIRE_ENTRIES)).await?.len())
    }
}

/// Conflicts that a subscriber is told of at once.
const MOVED_ENTRIES: usize = 100;
/// Conflicts that are forgotten at once, so that nobody waits for long.
const EXPIRE_ENTRIES: i64 = 1_000;

/// Before all conflicts that moved at this revision or later.
impl From<Revision> for ConflictPlace {
    fn from(revision: Revision) -> Self {
        match Revision::new(revision.get() - 1) {
            Some(moved_at) => Self { moved_at, number: i64::MAX },
            None => Self { moved_at: Revision::ZERO, number: 0 },
        }
    }
}

/// Documents of one page.
fn page_bytes() -> i64 {
    i64::try_from(limits::PAGE_DOCUMENT_BYTES_MAX).unwrap_or(i64::MAX)
}

fn page<P>(
    rows: &[PgRow],
    entries_max: usize,
    place: impl Fn(&PgRow) -> Result<P, Error>,
) -> Result<ConflictsPage<P>, Error> {
    let mut bytes = 0;
    let conflict = |row: &PgRow| {
        let conflict = from_row(row, 3)?;
        bytes += conflict.document_bytes();
        Ok((place(row)?, conflict))
    };
    let conflicts = rows.iter().map(conflict).collect::<Result<Vec<_>, Error>>()?;
    let full = conflicts.len() >= entries_max || bytes >= limits::PAGE_DOCUMENT_BYTES_MAX;
    Ok(ConflictsPage { conflicts, has_more: full })
}

fn from_row(row: &PgRow, column: usize) -> Result<Conflict, Error> {
    let Json(stored): Json<Row<'_>> = row.try_get(column)?;
    stored.into_conflict()
}

/// The open conflicts of these records.
pub(in crate::store) async fn open(
    connection: &mut PgConnection,
    records: &[(SpaceId, RecordKey)],
) -> Result<Vec<(SpaceId, RecordKey, Vec<OpenConflict>)>, Error> {
    const OPEN: &str = "select w.number::int, k.mutation_id, k.device, k.sequence, k.author,
             k.server_revision, k.server_device, k.server_version
         from unnest($1::uuid[], $2::text[], $3::text[]) with ordinality
             w (space_id, collection, id, number)
         join lateral (
             select * from conflicts k
             where k.space_id = w.space_id and k.collection = w.collection and k.id = w.id
                 and k.state = 1
             order by k.found desc limit $4
         ) k on true";
    let rows = sqlx::query(OPEN)
        .bind(records.iter().map(|(space, _)| space.0).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, key)| key.collection.as_str()).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, key)| key.id.as_str()).collect::<Vec<_>>())
        .bind(i64::try_from(limits::OPEN_CONFLICTS_MAX).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    let none = |(space, key): &(SpaceId, RecordKey)| (*space, key.clone(), Vec::new());
    let mut found: Vec<_> = records.iter().map(none).collect();
    for row in &rows {
        let open = OpenConflict {
            id: MutationId::from_stored(row.try_get(1)?),
            client: HistoryEntry {
                device: device_from_sql(row.try_get(2)?),
                sequence: row.try_get(3)?,
                revision: Revision::ZERO,
            },
            author: UserId::from_stored(row.try_get(4)?),
            server: HistoryEntry {
                device: device_from_sql(row.try_get(6)?),
                sequence: version(row.try_get(7)?)?.sequence,
                revision: revision(row.try_get(5)?)?,
            },
        };
        if let Some((_, _, list)) = found.get_mut(row::index(row, 0)?) {
            list.push(open);
        }
    }
    Ok(found)
}

/// Conflicts by their names.
pub(in crate::store) async fn named_ones(
    connection: &mut PgConnection,
    names: &[(SpaceId, MutationId)],
) -> Result<Vec<(SpaceId, MutationId, Option<Conflict>)>, Error> {
    const NAMED: &str = "select w.number::int, row_to_json(k)
         from unnest($1::uuid[], $2::text[]) with ordinality w (space_id, mutation_id, number)
         join conflicts k on k.space_id = w.space_id and k.mutation_id = w.mutation_id";
    let rows = sqlx::query(NAMED)
        .bind(names.iter().map(|(space, _)| space.0).collect::<Vec<_>>())
        .bind(names.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let mut found: Vec<_> = names.iter().map(|(space, id)| (*space, id.clone(), None)).collect();
    for row in &rows {
        if let Some((.., conflict)) = found.get_mut(row::index(row, 0)?) {
            *conflict = Some(from_row(row, 1)?);
        }
    }
    Ok(found)
}
