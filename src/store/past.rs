//! Reading records' pasts, followed from change to change: what a stale base had
//! seen, and what was written since.

use std::sync::Arc;

use sqlx::{PgConnection, Row};

use super::Error;
use super::row::{self, change_columns};
use crate::domain::{Change, RecordKey, Revision, SpaceId, limits};

/// Which past to read.
#[derive(Clone, Debug)]
pub struct WantedPast {
    pub space: SpaceId,
    pub key: RecordKey,
    /// The record's revision.
    pub at: Revision,
    pub from: Revision,
}

/// A past as far as it was found.
#[derive(Clone, Debug)]
pub struct FoundPast {
    /// The record's last change up to `from`; None if there was none, or if it
    /// is no longer kept, or too far away.
    pub base: Option<Arc<Change>>,
    /// The changes since, unless they are too many.
    pub changes: Vec<Arc<Change>>,
}

const WALK: &str = concat!(
    "with recursive walk as (
         select w.number, w.space_id, w.since, c.revision, c.previous_revision, 1 as depth,
             coalesce(octet_length(c.document), 0) as bytes
         from unnest($1::uuid[], $2::bigint[], $3::bigint[]) with ordinality
             w (space_id, at, since, number)
         join changes c on c.space_id = w.space_id and c.revision = w.at
         union all
         select w.number, w.space_id, w.since, c.revision, c.previous_revision, w.depth + 1,
             coalesce(octet_length(c.document), 0)
         from walk w
         join changes c on c.space_id = w.space_id and c.revision = w.previous_revision
         where w.revision > w.since and w.depth < $4
     ), measured as (
         select w.*, count(*) over all_of as steps, sum(w.bytes) over all_of as total
         from walk w
         window all_of as (partition by w.number)
     )
     select m.number::int, ",
    change_columns!("c"),
    " from measured m
     join changes c on c.space_id = m.space_id and c.revision = m.revision
     where m.revision <= m.since or (m.steps <= $5 and m.total <= $6)"
);

/// Reads pasts; one for each that is wanted, in their order.
pub(super) async fn pasts(
    connection: &mut PgConnection,
    wanted: &[WantedPast],
) -> Result<Vec<FoundPast>, Error> {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let rows = sqlx::query(WALK)
        .bind(wanted.iter().map(|it| it.space.0).collect::<Vec<_>>())
        .bind(wanted.iter().map(|it| it.at.get()).collect::<Vec<_>>())
        .bind(wanted.iter().map(|it| it.from.get()).collect::<Vec<_>>())
        .bind(count(limits::PAST_DEPTH_MAX))
        .bind(count(limits::PAST_CHANGES_MAX))
        .bind(count(limits::PAST_BYTES_MAX))
        .fetch_all(connection)
        .await?;
    let none = |_: &WantedPast| FoundPast { base: None, changes: Vec::new() };
    let mut found: Vec<_> = wanted.iter().map(none).collect();
    for row in &rows {
        let number = usize::try_from(row.try_get::<i32, _>(0)? - 1).unwrap_or_default();
        let change = Arc::new(row::change(row, 1)?);
        if let (Some(past), Some(wanted)) = (found.get_mut(number), wanted.get(number)) {
            if change.revision <= wanted.from {
                past.base = Some(Arc::clone(&change));
            }
            past.changes.push(change);
        }
    }
    Ok(found)
}
