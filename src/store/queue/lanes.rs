//! Lanes as workers see them: taken for a while, gone through in order, given back.

use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::first;
use super::rows::{OUTCOMES, columns, queued, state_to_sql, to_sql};
use crate::domain::{DeviceId, QueueStanding, Queued, Space, SpaceId};
use crate::store::{Error, Store};

/// A lane that a worker holds.
#[derive(Clone, Debug)]
pub struct Lane {
    pub space: Space,
    pub device: DeviceId,
    /// How often its entries had been touched when it was taken.
    stirred: i64,
}

/// What a worker finds when it is about to apply an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The lane is no longer its own.
    Lost,
    /// The entry was discarded, or marked.
    Gone,
    /// It waits as it did.
    Waits,
}

/// Those that are due, each taken by one worker only.
const TAKE: &str = "update lanes l set leased_until = $2, worker = $3
     from (
         select d.space_id, d.device from lanes d
         where d.due_at <= $1 and (d.leased_until is null or d.leased_until < $1)
         order by d.due_at limit $4 for update skip locked
     ) d, spaces s
     where l.space_id = d.space_id and l.device = d.device and s.id = l.space_id
     returning s.name, l.device, l.stirred";

const PENDING: &str = first!("q.space_id = $1 and q.device = $2 and q.state = 1", "$3", "$4");

/// Unless it was discarded, marked or settled meanwhile.
const SETTLE: &str = "update queue q set state = $4, attempts = $5, outcome = $6, revision = $7,
         reason = $8, message = $9, updated_at = $10, due_at = $11
     where q.space_id = $1 and q.mutation_id = $2 and q.number = $3 and q.state = 1
     returning 1";

const GIVE_BACK: &str = "update lanes l set leased_until = null, worker = null, due_at = case
         when l.stirred <> $5 then $6 else $4::timestamptz
     end
     where l.space_id = $1 and l.device = $2 and l.worker = $3";

impl Store {
    /// Takes some lanes that are due, until a time. Not cancel safe.
    pub async fn take_lanes(
        &self,
        worker: Uuid,
        now: OffsetDateTime,
        until: OffsetDateTime,
        lanes_max: i64,
    ) -> Result<Vec<Lane>, Error> {
        let query = sqlx::query(TAKE).bind(now).bind(until).bind(worker).bind(lanes_max);
        let lane = |row: &PgRow| {
            let name: &str = row.try_get(0)?;
            Ok(Lane {
                space: Space::named(name).map_err(Error::Corrupt)?,
                device: DeviceId::from_stored(row.try_get(1)?),
                stirred: row.try_get(2)?,
            })
        };
        self.read(query).await?.iter().map(lane).collect()
    }

    /// The first entries of a lane that wait, at most so many, and not much more than so
    /// many bytes of mutations. Not cancel safe.
    pub async fn pending(
        &self,
        lane: &Lane,
        entries_max: i64,
        bytes_max: i64,
    ) -> Result<Vec<Queued>, Error> {
        let query = sqlx::query(PENDING).bind(lane.space.id.0).bind(lane.device.as_str());
        self.read(query.bind(entries_max).bind(bytes_max)).await?.iter().map(queued).collect()
    }

    /// Holds a lane until a time, for the sake of an entry. Not cancel safe.
    pub async fn hold_lane(
        &self,
        lane: &Lane,
        worker: Uuid,
        until: OffsetDateTime,
        entry: &Queued,
    ) -> Result<Held, Error> {
        const HOLD: &str = "with held as (
                 update lanes set leased_until = $4
                 where space_id = $1 and device = $2 and worker = $3 returning 1
             )
             select exists (select from held), exists (
                 select from queue q
                 where q.space_id = $1 and q.mutation_id = $5 and q.number = $6 and q.state = 1
             )";
        let query = sqlx::query(HOLD)
            .bind(lane.space.id.0)
            .bind(lane.device.as_str())
            .bind(worker)
            .bind(until)
            .bind(entry.mutation_id.as_str())
            .bind(entry.number);
        let rows = self.read(query).await?;
        let Some(row) = rows.first() else { return Ok(Held::Lost) };
        Ok(match (row.try_get(0)?, row.try_get(1)?) {
            (false, _) => Held::Lost,
            (true, false) => Held::Gone,
            (true, true) => Held::Waits,
        })
    }

    /// Keeps what has become of an entry; whether it was still pending. Not cancel safe.
    pub async fn settle(
        &self,
        space: SpaceId,
        entry: &Queued,
        standing: &QueueStanding,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        let fault = standing.fault.as_ref();
        let query = sqlx::query(SETTLE)
            .bind(space.0)
            .bind(entry.mutation_id.as_str())
            .bind(entry.number)
            .bind(state_to_sql(standing.state))
            .bind(standing.attempts)
            .bind(standing.outcome.map(|outcome| to_sql(&OUTCOMES, &outcome)))
            .bind(standing.revision.map(|revision| revision.get()))
            .bind(fault.map(|it| it.reason.as_str()))
            .bind(fault.map(|it| it.message.as_str()))
            .bind(now)
            .bind(standing.due_at);
        Ok(!self.read(query).await?.is_empty())
    }

    /// Gives a lane back that is due again then; at once if its entries were touched
    /// meanwhile. Not cancel safe.
    pub async fn give_back(
        &self,
        lane: &Lane,
        worker: Uuid,
        due_at: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let query = sqlx::query(GIVE_BACK)
            .bind(lane.space.id.0)
            .bind(lane.device.as_str())
            .bind(worker)
            .bind(due_at)
            .bind(lane.stirred)
            .bind(now);
        self.read(query).await.map(drop)
    }
}
