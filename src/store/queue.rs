//! The queue of mutations that the server applies by itself. A lane is what one device
//! has enqueued in one space, in its order; a worker holds a lane for a while.

mod lanes;
mod rows;

use sqlx::postgres::PgRow;
use sqlx::{Connection, Row};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::connect::READ_TIMEOUT;
use super::pages::sql_count;
use super::{Error, Store};
use crate::domain::{
    DeviceId, Fingerprint, MutationId, QueueState, Queued, QueuedBy, SpaceId, UserId, limits,
};

pub use lanes::{Held, Lane};
use rows::{columns, queued, state_to_sql};

/// A mutation to enqueue.
#[derive(Clone, Debug)]
pub struct NewQueued {
    pub mutation_id: MutationId,
    pub fingerprint: Fingerprint,
    pub payload: Vec<u8>,
}

/// What became of enqueueing.
#[derive(Clone, Debug, PartialEq)]
pub enum Enqueued {
    /// The entries in the order of the mutations, those that were there before as well.
    Entries(Vec<Queued>),
    /// This one is in the queue with other content.
    Reused { index: usize, id: MutationId },
    /// The queue has as many entries as it may.
    Full,
}

/// Which entries to list.
#[derive(Clone, Debug)]
pub struct QueueQuery {
    pub state: Option<QueueState>,
    pub device: Option<DeviceId>,
    /// Exclusive.
    pub after: i64,
    pub entries_max: usize,
}

/// How many entries of a space, or of a device in it, wait or have failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    pub pending: i64,
    pub failed: i64,
}

/// Those who enqueue in one space at once count one after the other.
const LOCK: &str = "select pg_advisory_xact_lock(hashtextextended($1::text, 7))";

const COUNT: &str = "select count(*) from queue q
     where q.space_id = $1 and q.state = any(array[1, 3, 4]::smallint[])";

const INSERT: &str = "with inserted as (
         insert into queue (space_id, mutation_id, number, device, author, payload, fingerprint,
             state, attempts, enqueued_at, updated_at, actor, by_grant)
         select $1, n.mutation_id, nextval('queue_numbers'), $2, $3, n.payload, n.fingerprint, 1,
             0, $4, $4, $8, $9
         from unnest($5::text[], $6::bytea[], $7::bytea[]) n (mutation_id, payload, fingerprint)
         on conflict (space_id, mutation_id) do nothing
         returning 1
     )
     insert into lanes (space_id, device, due_at, stirred)
     select $1, $2, $4, 1 where exists (select from inserted)
     on conflict (space_id, device) do update
     set due_at = excluded.due_at, stirred = lanes.stirred + 1";

const BY_IDS: &str = concat!(
    "select ",
    columns!("q"),
    " from unnest($2::text[]) with ordinality w (mutation_id, place)
      join queue q on q.space_id = $1 and q.mutation_id = w.mutation_id
      order by w.place"
);

/// The first of some entries, in their order, cut where their mutations reach so many
/// bytes; always at least one.
macro_rules! first {
    ($where:literal, $entries_max:literal, $bytes_max:literal) => {
        concat!(
            "select ",
            columns!("q"),
            " from (
                  select w.*, sum(octet_length(w.payload)) over (
                      order by w.number rows between unbounded preceding and 1 preceding
                  ) as before
                  from (select * from queue q where ",
            $where,
            "     order by q.number limit ",
            $entries_max,
            "     ) w
              ) q
              where coalesce(q.before, 0) < ",
            $bytes_max,
            " order by q.number"
        )
    };
}
use first;

const LIST: &str = first!(
    "q.space_id = $1 and q.number > $2 and $3::smallint is null and $4::text is null",
    "$5",
    "$6"
);
const LIST_STATE: &str = first!(
    "q.space_id = $1 and q.state = $3 and q.number > $2 and ($4::text is null or q.device = $4)",
    "$5",
    "$6"
);
const LIST_DEVICE: &str = first!(
    "q.space_id = $1 and q.device = $4 and q.number > $2 and $3::smallint is null",
    "$5",
    "$6"
);

/// Somebody is to look at the lanes of these rows at once.
macro_rules! stirred {
    ($rows:literal, $now:literal) => {
        concat!(
            "stirred as (
                 update lanes l set due_at = ",
            $now,
            ",   stirred = l.stirred + 1
                 where l.space_id = $1 and l.device = any(array(select device from ",
            $rows,
            "    ))
             )"
        )
    };
}

impl Store {
    /// Puts mutations of a device into its lane, all or none. Not cancel safe.
    pub async fn enqueue(
        &self,
        space: SpaceId,
        (by, device): (&QueuedBy, &DeviceId),
        new: &[NewQueued],
        now: OffsetDateTime,
    ) -> Result<Enqueued, Error> {
        let ids: Vec<_> = new.iter().map(|it| it.mutation_id.as_str()).collect();
        let payloads: Vec<_> = new.iter().map(|it| it.payload.as_slice()).collect();
        let fingerprints: Vec<_> = new.iter().map(|it| it.fingerprint.0.as_slice()).collect();
        let mut connection = self.reads.acquire().await?;
        let enqueueing = async {
            let mut transaction = connection.begin().await?;
            sqlx::query(LOCK).bind(space.0).execute(&mut *transaction).await?;
            let insert = sqlx::query(INSERT)
                .bind(space.0)
                .bind(device.as_str())
                .bind(by.author.as_str())
                .bind(now)
                .bind(&ids)
                .bind(&payloads)
                .bind(&fingerprints)
                .bind(by.actor.as_ref().map(UserId::as_str))
                .bind(by.by_grant);
            let is_new = insert.execute(&mut *transaction).await?.rows_affected() > 0;
            let rows = sqlx::query(BY_IDS).bind(space.0).bind(&ids).fetch_all(&mut *transaction);
            let entries = rows.await?.iter().map(queued).collect::<Result<Vec<_>, _>>()?;
            let mut pairs = entries.iter().zip(new).enumerate();
            let other = pairs.find(|(_, (entry, new))| entry.fingerprint != new.fingerprint);
            if let Some((index, (entry, _))) = other {
                transaction.rollback().await?;
                return Ok(Enqueued::Reused { index, id: entry.mutation_id.clone() });
            }
            let count = sqlx::query(COUNT).bind(space.0).fetch_one(&mut *transaction).await?;
            if is_new && count.try_get::<i64, _>(0)? > sql_count(limits::QUEUE_ENTRIES_MAX) {
                transaction.rollback().await?;
                return Ok(Enqueued::Full);
            }
            transaction.commit().await?;
            Ok(Enqueued::Entries(entries))
        };
        if let Ok(enqueued) = timeout(READ_TIMEOUT, enqueueing).await {
            return enqueued;
        }
        connection.close_on_drop();
        Err(Error::TimedOut("enqueueing"))
    }

    /// One entry.
    pub async fn queued(&self, space: SpaceId, id: &MutationId) -> Result<Option<Queued>, Error> {
        let query = sqlx::query(BY_IDS).bind(space.0).bind(vec![id.as_str()]);
        self.read(query).await?.first().map(queued).transpose()
    }

    /// A page of entries, and whether there are more.
    pub async fn list_queued(
        &self,
        space: SpaceId,
        query: &QueueQuery,
    ) -> Result<(Vec<Queued>, bool), Error> {
        let sql = match (query.state, &query.device) {
            (Some(_), _) => LIST_STATE,
            (None, Some(_)) => LIST_DEVICE,
            (None, None) => LIST,
        };
        let sql = sqlx::query(sql)
            .bind(space.0)
            .bind(query.after)
            .bind(query.state.map(state_to_sql))
            .bind(query.device.as_ref().map(DeviceId::as_str))
            .bind(sql_count(query.entries_max))
            .bind(sql_count(limits::PAGE_DOCUMENT_BYTES_MAX));
        let entries = self.read(sql).await?.iter().map(queued).collect::<Result<Vec<_>, _>>()?;
        let bytes: usize = entries.iter().map(|entry| entry.payload.len()).sum();
        let has_more =
            entries.len() >= query.entries_max || bytes >= limits::PAGE_DOCUMENT_BYTES_MAX;
        Ok((entries, has_more))
    }

    /// How many wait, and how many have failed.
    pub async fn queue_counts(
        &self,
        space: SpaceId,
        device: Option<&DeviceId>,
    ) -> Result<QueueCounts, Error> {
        const SELECT: &str = "select count(*) filter (where q.state = 1),
                 count(*) filter (where q.state = 4)
             from queue q where q.space_id = $1 and q.state in (1, 3, 4)
                 and ($2::text is null or q.device = $2)";
        let query = sqlx::query(SELECT).bind(space.0).bind(device.map(DeviceId::as_str));
        let counts = |row: &PgRow| {
            Ok::<_, Error>(QueueCounts { pending: row.try_get(0)?, failed: row.try_get(1)? })
        };
        Ok(self.read(query).await?.first().map(counts).transpose()?.unwrap_or_default())
    }

    /// Lets an entry that is as it was seen be tried again, at the end of its lane; None if
    /// it is no longer so. Not cancel safe.
    pub async fn retry_queued(
        &self,
        space: SpaceId,
        seen: &Queued,
        now: OffsetDateTime,
    ) -> Result<Option<Queued>, Error> {
        const UPDATE: &str = concat!(
            "with new as (
                 update queue q set state = 1, attempts = 0, outcome = null, revision = null,
                     reason = null, message = null, due_at = null,
                     number = nextval('queue_numbers'), updated_at = $4
                 where q.space_id = $1 and q.mutation_id = $2 and q.number = $3
                     and q.state in (3, 4)
                 returning q.*
             ), ",
            stirred!("new", "$4"),
            " select ",
            columns!("new"),
            " from new"
        );
        let query = sqlx::query(UPDATE)
            .bind(space.0)
            .bind(seen.mutation_id.as_str())
            .bind(seen.number)
            .bind(now);
        self.read(query).await?.first().map(queued).transpose()
    }

    /// Puts another mutation at the end of the lane of an entry that is as it was seen,
    /// which is marked; None if it is no longer so, or if the queue has the other one
    /// already. Not cancel safe.
    pub async fn edit_queued(
        &self,
        space: SpaceId,
        seen: &Queued,
        (by, edited): (&QueuedBy, &NewQueued),
        now: OffsetDateTime,
    ) -> Result<Option<Queued>, Error> {
        const UPDATE: &str = concat!(
            "with old as (
                 select q.device from queue q
                 where q.space_id = $1 and q.mutation_id = $2 and q.number = $3
                     and q.state in (3, 4)
                 for update
             ), new as (
                 insert into queue (space_id, mutation_id, number, device, author, payload,
                     fingerprint, state, attempts, enqueued_at, updated_at, actor, by_grant)
                 select $1, $5, nextval('queue_numbers'), old.device, $8, $6, $7, 1, 0, $4, $4,
                     $9, $10
                 from old
                 on conflict (space_id, mutation_id) do nothing
                 returning *
             ), marked as (
                 update queue q set state = 5, due_at = null, updated_at = $4
                 where q.space_id = $1 and q.mutation_id = $2 and exists (select from new)
             ), ",
            stirred!("new", "$4"),
            " select ",
            columns!("new"),
            " from new"
        );
        let query = sqlx::query(UPDATE)
            .bind(space.0)
            .bind(seen.mutation_id.as_str())
            .bind(seen.number)
            .bind(now)
            .bind(edited.mutation_id.as_str())
            .bind(&edited.payload)
            .bind(edited.fingerprint.0)
            .bind(by.author.as_str())
            .bind(by.actor.as_ref().map(UserId::as_str))
            .bind(by.by_grant);
        self.read(query).await?.first().map(queued).transpose()
    }

    /// Takes an entry out; whether it was there.
    pub async fn discard_queued(
        &self,
        space: SpaceId,
        id: &MutationId,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        const DELETE: &str = concat!(
            "with gone as (
                 delete from queue where space_id = $1 and mutation_id = $2 returning device
             ), ",
            stirred!("gone", "$3"),
            " select 1 from gone"
        );
        let query = sqlx::query(DELETE).bind(space.0).bind(id.as_str()).bind(now);
        Ok(!self.read(query).await?.is_empty())
    }

    /// Marks entries that are not applied; how many.
    pub async fn mark_synced(
        &self,
        space: SpaceId,
        ids: &[MutationId],
        now: OffsetDateTime,
    ) -> Result<i64, Error> {
        const UPDATE: &str = concat!(
            "with marked as (
                 update queue set state = 5, due_at = null, updated_at = $3
                 where space_id = $1 and mutation_id = any($2) and state in (1, 3, 4)
                 returning device
             ), ",
            stirred!("marked", "$3"),
            " select 1 from marked"
        );
        let ids: Vec<_> = ids.iter().map(MutationId::as_str).collect();
        let marked = self.read(sqlx::query(UPDATE).bind(space.0).bind(ids).bind(now)).await?;
        Ok(i64::try_from(marked.len()).unwrap_or(i64::MAX))
    }

    /// Takes out some of what is applied or was marked; how many.
    pub async fn clear_synced(&self, space: SpaceId) -> Result<i64, Error> {
        const DELETE: &str = "with gone as (
                 select q.mutation_id from queue q where q.space_id = $1 and q.state in (2, 5)
                 limit 5000
             ), deleted as (
                 delete from queue q using gone
                 where q.space_id = $1 and q.mutation_id = gone.mutation_id
                     and q.state in (2, 5)
                 returning 1
             )
             select count(*) from deleted";
        let rows = self.read(sqlx::query(DELETE).bind(space.0)).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
    }
}
