//! Where spaces are: head, floor and epoch.

use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store, row};
use crate::domain::{DeviceId, Epoch, Revision, Sequence, Space, SpaceId, Usage, UserId};

/// Where a space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceHead {
    pub epoch: Epoch,
    pub head: Revision,
    pub floor: Revision,
    /// The number of the last conflict that was opened or closed.
    pub conflicts: i64,
}

impl SpaceHead {
    /// From the columns epoch, head, floor, conflicts, beginning at `first`.
    pub(super) fn from_row(row: &PgRow, first: usize) -> Result<Self, Error> {
        Ok(Self {
            epoch: Epoch(row.try_get(first)?),
            head: row::revision(row, first + 1)?,
            floor: row::revision(row, first + 2)?,
            conflicts: row.try_get(first + 3)?,
        })
    }
}

/// Where a space is, what it holds, and where a device is in it.
#[derive(Clone, Copy, Debug)]
pub struct SpaceStatus {
    pub at: SpaceHead,
    pub usage: Usage,
    pub device: DeviceStanding,
}

/// Where a device is in a space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStanding {
    pub sequence: Sequence,
    /// What it says that it has stored.
    pub acknowledged: Revision,
    /// When it last wrote in a queue, or said that.
    pub last_sync: Option<OffsetDateTime>,
}

impl Store {
    /// Where the space is, and where the device is in it. A space is
    /// born when it is first asked for, so that its epoch can be told.
    pub async fn status(
        &self,
        space: &Space,
        device: Option<(&UserId, &DeviceId)>,
    ) -> Result<SpaceStatus, Error> {
        const SELECT: &str = "select s.epoch, s.head, s.floor, s.conflicts, d.sequence, a.revision,
                 greatest(d.updated_at, a.updated_at), s.records, s.bytes
             from spaces s
             left join devices d on d.space_id = s.id and d.author = $3 and d.device = $2
             left join acknowledgements a
                 on a.space_id = s.id and a.author = $3 and a.device = $2
             where s.id = $1";
        let (user, device) = device.unzip();
        let (user, device) = (user.map(UserId::as_str), device.map(DeviceId::as_str));
        let select = || self.read(sqlx::query(SELECT).bind(space.id.0).bind(device).bind(user));
        let mut found = select().await?;
        if found.is_empty() {
            self.create_spaces(&[space]).await?;
            found = select().await?;
        }
        let row = found.first().ok_or(Error::Gone)?;
        let sequence = row.try_get::<Option<i64>, _>(4)?.and_then(Sequence::new);
        let acknowledged = row.try_get::<Option<i64>, _>(5)?.and_then(Revision::new);
        let device = DeviceStanding {
            sequence: sequence.unwrap_or_default(),
            acknowledged: acknowledged.unwrap_or_default(),
            last_sync: row.try_get(6)?,
        };
        let usage = Usage { records: row.try_get(7)?, bytes: row.try_get(8)? };
        Ok(SpaceStatus { at: SpaceHead::from_row(row, 0)?, usage, device })
    }

    /// Private spaces are born, where they are not there yet; shared ones are created.
    pub async fn create_spaces(&self, spaces: &[&Space]) -> Result<(), Error> {
        // In one order, so that two servers cannot wait for each other.
        let private = spaces.iter().copied().filter(|space| !space.is_shared());
        let mut spaces: Vec<_> = private.collect();
        spaces.sort_by_key(|space| space.id);
        let query = sqlx::query(INSERT_SPACES)
            .bind(spaces.iter().map(|space| space.id.0).collect::<Vec<_>>())
            .bind(spaces.iter().map(|space| space.name()).collect::<Vec<_>>())
            .bind(spaces.iter().map(|_| Uuid::new_v4()).collect::<Vec<_>>());
        self.read(query).await.map(drop)
    }

    /// Where each of these spaces is; unknown ones are left out.
    pub async fn heads(&self, spaces: &[SpaceId]) -> Result<Vec<(SpaceId, SpaceHead)>, Error> {
        let ids: Vec<Uuid> = spaces.iter().map(|space| space.0).collect();
        let sql = "select id, epoch, head, floor, conflicts from spaces where id = any($1)";
        self.read(sqlx::query(sql).bind(ids))
            .await?
            .iter()
            .map(|row| Ok((SpaceId(row.try_get(0)?), SpaceHead::from_row(row, 1)?)))
            .collect()
    }
}

/// Bind ids, names and epochs.
pub(super) const INSERT_SPACES: &str = "insert into spaces (id, name, epoch)
     select * from unnest($1::uuid[], $2::text[], $3::uuid[])
     on conflict (id) do nothing";
