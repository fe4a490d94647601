//! How far devices are, by their own word.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store};
use crate::domain::{DeviceId, Revision, SpaceId, UserId};

/// What one device has stored.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub space: SpaceId,
    pub user: UserId,
    pub device: DeviceId,
    pub revision: Revision,
}

impl Store {
    /// Keeps what is new of these.
    pub async fn acknowledge(
        &self,
        acknowledged: &[Acknowledged],
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        // In one order, so that two servers cannot wait for each other.
        const UPSERT: &str =
            "insert into acknowledgements (space_id, author, device, revision, updated_at)
             select a.space_id, a.author, a.device, a.revision, $5
             from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[])
                 a (space_id, author, device, revision)
             join spaces s on s.id = a.space_id
             order by a.space_id, a.author collate \"C\", a.device collate \"C\"
             for key share of s
             on conflict (space_id, author, device) do update
             set revision = excluded.revision, updated_at = excluded.updated_at
             where acknowledgements.revision < excluded.revision";
        let spaces: Vec<Uuid> = acknowledged.iter().map(|it| it.space.0).collect();
        let users: Vec<_> = acknowledged.iter().map(|it| it.user.as_str()).collect();
        let devices: Vec<_> = acknowledged.iter().map(|it| it.device.as_str()).collect();
        let revisions: Vec<_> = acknowledged.iter().map(|it| it.revision.get()).collect();
        let query =
            sqlx::query(UPSERT).bind(spaces).bind(users).bind(devices).bind(revisions).bind(now);
        self.read(query).await.map(drop)
    }
}
