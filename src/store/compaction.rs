//! Compaction: forgetting what nobody can ask for any more. One connection on one
//! replica at a time does it, in small statements, each of which is a transaction: what
//! it deletes and the floor that says so come together or not at all.
//!
//! A crash may lose the last of them, whole: so none waits for the disk, and the lock of
//! a space's row, which writers need too, is held for a moment only.

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::write::LOCK_HEADS;
use super::{Error, Store, row};
use crate::domain::{CollectionName, Revision, SpaceId};

/// The right to compact, which one connection has at a time.
#[derive(Debug)]
pub struct Compactor {
    connection: PgConnection,
}

/// A space, as a round of compaction finds it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub space: SpaceId,
    pub floor: Revision,
    /// The first change after the floor is old enough.
    pub log: bool,
    /// There are tombstones at or below the floor.
    pub tombstones: bool,
}

/// How far a floor may rise.
#[derive(Clone, Copy, Debug)]
pub struct Rise {
    /// Changes before this are old.
    pub old: OffsetDateTime,
    /// Changes before this are so old that no device is waited for.
    pub older: OffsetDateTime,
    /// Devices that have acknowledged something since then are waited for.
    pub active: OffsetDateTime,
}

/// How long changes are kept that another one has replaced.
#[derive(Clone, Debug, Default)]
pub struct LogSpans {
    pub by_collection: Vec<(CollectionName, i64)>,
    /// In seconds, of all others.
    pub others: i64,
}

/// A tombstone that may be forgotten.
#[derive(Clone, Debug)]
pub struct Tombstone {
    pub revision: Revision,
    pub collection: CollectionName,
    pub committed_at: OffsetDateTime,
}

/// Known to all replicas: who holds this lock compacts.
const LOCK: i64 = 0x5379_6e63_6c69_6e65;
/// Spaces that one statement looks at, and revisions, tombstones or other rows that one
/// deletes: some milliseconds of work.
const SPACES_MAX: i64 = 500;
const ROWS_MAX: i64 = 500;

const SPACES: &str = "select s.id, s.floor, coalesce(c.committed_at < $2, false),
         t.revision is not null
     from (select * from spaces where id > $1 order by id limit $3) s
     left join lateral (
         select c.committed_at from changes c
         where c.space_id = s.id and c.revision > s.floor order by c.revision limit 1
     ) c on true
     left join lateral (
         select l.revision from latest l
         where l.space_id = s.id and l.deleted and l.revision <= s.floor
         order by l.revision limit 1
     ) t on true
     order by s.id";

/// Clocks of replicas differ a little: the first change that is not old ends it.
const RISE: &str = "select
         coalesce(min(w.revision) filter (where w.committed_at >= $3) - 1, max(w.revision)),
         coalesce(min(w.revision) filter (where w.committed_at >= $4) - 1, max(w.revision)),
         (select min(a.revision) from acknowledgements a
          where a.space_id = $1 and a.updated_at >= $5)
     from (
         select c.revision, c.committed_at from changes c
         where c.space_id = $1 and c.revision > $2 order by c.revision limit $6
     ) w";

/// What a change up to the new floor has replaced goes, unless its collection keeps it,
/// or an answer speaks of it.
/// The floor rises last, and if it was moved by somebody else, nothing happens.
const RAISE: &str = "with w as (
         select c.previous_revision, c.committed_at
             + make_interval(secs => coalesce(k.seconds, $6)) as expires_at,
             exists (
                 select from answers a
                 where a.space_id = c.space_id and a.record_revision = c.previous_revision
             ) as is_told
         from changes c
         left join lateral (
             select k.seconds from unnest($4::text[], $5::bigint[]) k (collection, seconds)
             where k.collection = c.collection
         ) k on true
         where c.space_id = $1 and c.revision > $2 and c.revision <= $3
             and c.previous_revision > 0
     ), gone as (
         delete from changes c using w
         where c.space_id = $1 and c.revision = w.previous_revision and w.expires_at <= $7
             and not w.is_told
         returning 1
     ), kept as (
         insert into retained (space_id, revision, expires_at)
         select $1, w.previous_revision, w.expires_at from w
         where w.expires_at > $7 or w.is_told
         on conflict (space_id, revision) do nothing
         returning 1
     ), counted as materialized (
         select (select count(*) from gone) as gone, (select count(*) from kept) as kept
     ), raised as (
         update spaces s set floor = $3 from counted
         where s.id = $1 and s.floor = $2 and counted.gone >= 0
         returning 1
     )
     select case when exists (select from raised) then counted.gone
         else 1 / (counted.kept - counted.kept) end from counted";

const TOMBSTONES: &str = "select l.revision, l.collection, c.committed_at
     from latest l
     join changes c on c.space_id = l.space_id and c.revision = l.revision
     where l.space_id = $1 and l.deleted and l.revision > $2 and l.revision <= $3
     order by l.revision limit $4";

/// One that has come back to life meanwhile, about which there is something to decide,
/// or of which an answer speaks, stays. What somebody is deciding meanwhile, on a tombstone
/// that they know, is decided again: it shows in `answered`. The space is locked before,
/// by a statement of its own, so that this one sees the answers of all who had it.
const BURY: &str = "with gone as (
         delete from latest l using (
             select t.collection, t.id, t.revision from unnest($2::bigint[]) w (revision)
             cross join lateral (
                 select * from latest t where t.space_id = $1 and t.revision >= w.revision
                 order by t.revision limit 1
             ) t
             where t.revision = w.revision
         ) w
         where l.space_id = $1 and l.collection = w.collection and l.id = w.id
             and l.revision = w.revision and l.deleted
             and l.open_conflicts = 0 and not exists (
                 select from answers a
                 where a.space_id = l.space_id and a.record_revision = l.revision
             )
         returning l.revision
     ), removed as (
         delete from changes c using gone
         where c.space_id = $1 and c.revision = gone.revision
         returning 1
     ), counted as materialized (
         select count(*) as count from removed
     ), shown as (
         update spaces s set answered = s.answered + 1 from counted
         where s.id = $1 and counted.count > 0
     )
     select count from counted";

/// Some rows that are dealt with since before $1.
macro_rules! forget {
    ($table:literal, $id:literal, $time:literal, $when:literal) => {
        concat!(
            "with due as (
                 select space_id, ",
            $id,
            " as id from ",
            $table,
            " where ",
            $when,
            " order by ",
            $time,
            " limit $2
             ), gone as (
                 delete from ",
            $table,
            " t using due where t.space_id = due.space_id and t.",
            $id,
            " = due.id
                 returning 1
             )
             select count(*) from gone"
        )
    };
}

const ANSWERS: &str = forget!("answers", "mutation_id", "answered_at", "answered_at < $1");
const REPLACEMENTS: &str = forget!("replacements", "id", "replaced_at", "replaced_at < $1");
const QUEUED: &str =
    forget!("queue", "mutation_id", "updated_at", "state in (2, 5) and updated_at < $1");

const RETAINED: &str = "with due as (
         select r.space_id, r.revision from retained r
         where r.expires_at < $1 and not exists (
             select from answers a
             where a.space_id = r.space_id and a.record_revision = r.revision
         )
         order by r.expires_at limit $2
     ), gone as (
         delete from retained r using due
         where r.space_id = due.space_id and r.revision = due.revision
     ), removed as (
         delete from changes c using due
         where c.space_id = due.space_id and c.revision = due.revision
         returning 1
     )
     select (select count(*) from due), (select count(*) from removed)";

impl Store {
    /// The right to compact; None if somebody else has it. Not cancel safe.
    pub async fn compactor(&self) -> Result<Option<Compactor>, Error> {
        let mut connection = self.connection().await?;
        sqlx::query("set synchronous_commit = off").execute(&mut connection).await?;
        let lock = sqlx::query("select pg_try_advisory_lock($1)").bind(LOCK);
        if lock.fetch_one(&mut connection).await?.try_get(0)? {
            return Ok(Some(Compactor { connection }));
        }
        connection.close().await?;
        Ok(None)
    }
}

impl Compactor {
    /// Gives the right back.
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.connection.close().await?)
    }

    /// The next spaces after one, by id, changes before `old` being old. Not cancel safe.
    pub async fn spaces(
        &mut self,
        after: SpaceId,
        old: OffsetDateTime,
    ) -> Result<Vec<Candidate>, Error> {
        let query = sqlx::query(SPACES).bind(after.0).bind(old).bind(SPACES_MAX);
        let space = |row: &PgRow| {
            Ok(Candidate {
                space: SpaceId(row.try_get(0)?),
                floor: row::revision(row, 1)?,
                log: row.try_get(2)?,
                tombstones: row.try_get(3)?,
            })
        };
        query.fetch_all(&mut self.connection).await?.iter().map(space).collect()
    }

    /// Where the floor may be after the next step. Not cancel safe.
    pub async fn rise(
        &mut self,
        space: SpaceId,
        floor: Revision,
        rise: Rise,
    ) -> Result<Revision, Error> {
        let query = sqlx::query(RISE)
            .bind(space.0)
            .bind(floor.get())
            .bind(rise.old)
            .bind(rise.older)
            .bind(rise.active)
            .bind(ROWS_MAX);
        let row = query.fetch_one(&mut self.connection).await?;
        let revision = |column| Ok::<_, Error>(row.try_get::<Option<i64>, _>(column)?);
        let (old, older, acknowledged) = (revision(0)?, revision(1)?, revision(2)?);
        let waited = old.map(|old| acknowledged.map_or(old, |least| least.min(old)));
        let to = waited.max(older).and_then(Revision::new);
        Ok(to.unwrap_or_default().max(floor))
    }

    /// Raises the floor, and deletes what that allows; how many changes. Not cancel safe.
    pub async fn raise(
        &mut self,
        space: SpaceId,
        from: Revision,
        to: Revision,
        spans: &LogSpans,
        now: OffsetDateTime,
    ) -> Result<i64, Error> {
        let (names, seconds): (Vec<_>, Vec<_>) =
            spans.by_collection.iter().map(|(name, seconds)| (name.as_str(), *seconds)).unzip();
        let query = sqlx::query(RAISE)
            .bind(space.0)
            .bind(from.get())
            .bind(to.get())
            .bind(names)
            .bind(seconds)
            .bind(spans.others)
            .bind(now);
        let row = query.fetch_one(&mut self.connection).await.map_err(Error::of_write)?;
        Ok(row.try_get(0)?)
    }

    /// The next tombstones after a revision, up to the floor. Not cancel safe.
    pub async fn tombstones(
        &mut self,
        space: SpaceId,
        after: Revision,
        floor: Revision,
    ) -> Result<Vec<Tombstone>, Error> {
        let query = sqlx::query(TOMBSTONES).bind(space.0);
        let query = query.bind(after.get()).bind(floor.get()).bind(ROWS_MAX);
        let tombstone = |row: &PgRow| {
            Ok(Tombstone {
                revision: row::revision(row, 0)?,
                collection: CollectionName::from_stored(row.try_get(1)?),
                committed_at: row.try_get(2)?,
            })
        };
        query.fetch_all(&mut self.connection).await?.iter().map(tombstone).collect()
    }

    /// Forgets tombstones; how many. Not cancel safe.
    pub async fn bury(&mut self, space: SpaceId, tombstones: &[Revision]) -> Result<i64, Error> {
        let revisions: Vec<_> = tombstones.iter().map(|it| it.get()).collect();
        let mut transaction = self.connection.begin().await?;
        sqlx::query(LOCK_HEADS).bind(vec![space.0]).execute(&mut *transaction).await?;
        let query = sqlx::query(BURY).bind(space.0).bind(revisions);
        let count = query.fetch_one(&mut *transaction).await?.try_get(0)?;
        transaction.commit().await?;
        Ok(count)
    }

    /// Forgets some answers of before a time: of mutations, of replacements, and what became
    /// of queued ones; how many.
    /// Not cancel safe.
    pub async fn forget_answers(&mut self, before: OffsetDateTime) -> Result<i64, Error> {
        let mut count = 0;
        for sql in [ANSWERS, REPLACEMENTS, QUEUED] {
            let query = sqlx::query(sql).bind(before).bind(ROWS_MAX);
            count += query.fetch_one(&mut self.connection).await?.try_get::<i64, _>(0)?;
        }
        Ok(count)
    }

    /// Deletes some changes whose collection has kept them until now; how many there
    /// were to look at, and how many were deleted. Not cancel safe.
    pub async fn release(&mut self, now: OffsetDateTime) -> Result<(i64, i64), Error> {
        let query = sqlx::query(RETAINED).bind(now).bind(ROWS_MAX);
        let row = query.fetch_one(&mut self.connection).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }
}

/// Before the first space.
pub const FIRST_SPACE: SpaceId = SpaceId(Uuid::nil());
