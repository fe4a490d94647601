//! Reading records' pasts, followed from change to change: what a stale base had
//! seen, and what was written since.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::row::{self, change_columns};
use super::{Error, conflicts};
use crate::domain::{
    Change, DeviceId, Document, HistoryEntry, RecordKey, Revision, SpaceId, View, Way, limits,
};

/// Which past to read.
#[derive(Clone, Debug)]
pub struct WantedPast {
    pub space: SpaceId,
    pub key: RecordKey,
    /// The record's revision.
    pub at: Revision,
    pub way: Way,
}

/// A past as far as it was found.
#[derive(Clone, Debug)]
pub struct FoundPast {
    /// The record's last change up to `from`; None if there was none, or if it
    /// is no longer kept, or too far away.
    pub base: Option<Arc<Change>>,
    /// The changes since, unless they are too many.
    pub changes: Vec<Arc<Change>>,
    /// What the device had made of it when it last met another's write since.
    pub view: Option<View>,
}

/// The way back. What the device wrote itself does not count as steps, nor do its
/// documents that are left out: those that its view has already, unless somebody
/// else's write, or a later one of its own, came upon them.
const WALK: &str = concat!(
    "with recursive walk as (
         select w.number, w.space_id, w.since, w.view_at, w.device, c.revision,
             c.previous_revision, 1 as depth, coalesce(octet_length(c.document), 0) as bytes,
             w.device is not null and c.device is not distinct from w.device as own
         from unnest($1::uuid[], $2::bigint[], $3::bigint[], $7::text[], $8::bigint[])
             with ordinality w (space_id, at, since, device, view_at, number)
         join changes c on c.space_id = w.space_id and c.revision = w.at
         union all
         select w.number, w.space_id, w.since, w.view_at, w.device, c.revision,
             c.previous_revision, w.depth + 1, coalesce(octet_length(c.document), 0),
             w.device is not null and c.device is not distinct from w.device
         from walk w
         join changes c on c.space_id = w.space_id and c.revision = w.previous_revision
         where w.revision > w.since and w.depth < $4
     ), known as (
         select w.*, coalesce(w.own and w.revision > w.since
             and lag(w.own) over later and lag(w.revision) over later <= w.view_at, false) as left_out
         from walk w
         window later as (partition by w.number order by w.depth)
     ), measured as (
         select k.*,
             sum(k.bytes) filter (where k.revision > k.since and not k.left_out)
                 over all_of as total,
             count(*) filter (where k.revision > k.since and not k.own) over all_of as steps
         from known k
         window all_of as (partition by k.number)
     )
     select m.number::int, ",
    change_columns!("c"),
    " from measured m
     join lateral (
         select x.revision, x.collection, x.id, x.action,
             case when m.left_out then null else x.document end as document,
             x.previous_revision, x.author, x.device, x.mutation_id, x.committed_at, x.micros,
             x.sequence, x.parents, x.others, x.settlement, x.batch_end, x.actor
         from changes x where x.space_id = m.space_id and x.revision = m.revision
     ) c on true
     where m.revision <= m.since or (m.steps <= $5 and coalesce(m.total, 0) <= $6)"
);
/// Pasts that are read at once.
const AT_ONCE: usize = 32;

/// The last conflicts of devices, where they met something after a revision: what a
/// record's conflicts meet rises with each.
const VIEWS: &str = "select w.number::int, k.client, k.server_device, k.server_version,
         k.server_revision, greatest(k.revision, k.result_revision)
     from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[]) with ordinality
         w (space_id, collection, id, device, since, number)
     join lateral (
         select * from conflicts k
         where k.space_id = w.space_id and k.collection = w.collection and k.id = w.id
             and k.device = w.device
         order by k.found desc limit 1
     ) k on k.server_revision > w.since
     where w.device is not null";

/// Reads pasts; one for each that is wanted, in their order. Once they are large
/// together, only the ends of the rest are read.
pub(super) async fn pasts(
    connection: &mut PgConnection,
    wanted: &[WantedPast],
) -> Result<Vec<FoundPast>, Error> {
    let mut found = Vec::new();
    let mut room = limits::GROUP_PAST_BYTES_MAX;
    for wanted in wanted.chunks(AT_ONCE) {
        let mut known: Vec<_> = wanted.iter().map(|_| None).collect();
        if wanted.iter().any(|it| it.way.device.is_some()) {
            for (number, view) in views(connection, wanted).await? {
                if let Some(known) = known.get_mut(number) {
                    *known = Some(view);
                }
            }
        }
        let bytes_max = limits::PAST_BYTES_MAX.min(room / AT_ONCE);
        let pasts = walk(connection, wanted, &known, bytes_max).await?;
        let changes = pasts.iter().flat_map(|past| &past.changes);
        let bytes: usize = changes.map(|change| change.size_bytes()).sum();
        room = room.saturating_sub(bytes);
        found.extend(pasts.into_iter().zip(known).map(|(past, view)| FoundPast { view, ..past }));
    }
    Ok(found)
}

async fn walk(
    connection: &mut PgConnection,
    wanted: &[WantedPast],
    views: &[Option<View>],
    bytes_max: usize,
) -> Result<Vec<FoundPast>, Error> {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let view_at = |(wanted, view): (&WantedPast, &Option<View>)| {
        let view = view.as_ref().filter(|_| !wanted.way.whole);
        view.map_or(Revision::ZERO, |view| view.at).get()
    };
    let rows = sqlx::query(WALK)
        .bind(wanted.iter().map(|it| it.space.0).collect::<Vec<_>>())
        .bind(wanted.iter().map(|it| it.at.get()).collect::<Vec<_>>())
        .bind(wanted.iter().map(|it| it.way.from.get()).collect::<Vec<_>>())
        .bind(count(limits::PAST_DEPTH_MAX))
        .bind(count(limits::PAST_CHANGES_MAX))
        .bind(count(bytes_max))
        .bind(wanted.iter().map(device).collect::<Vec<_>>())
        .bind(wanted.iter().zip(views).map(view_at).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let none = |_: &WantedPast| FoundPast { base: None, changes: Vec::new(), view: None };
    let mut found: Vec<_> = wanted.iter().map(none).collect();
    for row in &rows {
        let number = row::index(row, 0)?;
        let change = Arc::new(row::change(row, 1)?);
        if let (Some(past), Some(wanted)) = (found.get_mut(number), wanted.get(number)) {
            if change.revision <= wanted.way.from {
                past.base = Some(Arc::clone(&change));
            }
            past.changes.push(change);
        }
    }
    Ok(found)
}

fn device(wanted: &WantedPast) -> Option<&str> {
    wanted.way.device.as_ref().map(DeviceId::as_str)
}

async fn views(
    connection: &mut PgConnection,
    wanted: &[WantedPast],
) -> Result<Vec<(usize, View)>, Error> {
    let rows = sqlx::query(VIEWS)
        .bind(wanted.iter().map(|it| it.space.0).collect::<Vec<_>>())
        .bind(wanted.iter().map(|it| it.key.collection.as_str()).collect::<Vec<_>>())
        .bind(wanted.iter().map(|it| it.key.id.as_str()).collect::<Vec<_>>())
        .bind(wanted.iter().map(device).collect::<Vec<_>>())
        .bind(wanted.iter().map(|it| it.way.from.get()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let view = |row: &PgRow| {
        let document: Option<String> = row.try_get(1)?;
        let device: Option<&str> = row.try_get(2)?;
        let met = HistoryEntry {
            device: device.map(DeviceId::from_stored),
            sequence: conflicts::version(row.try_get(3)?)?.sequence,
            revision: row::revision(row, 4)?,
        };
        let document = document.map(Document::from_canonical);
        Ok((row::index(row, 0)?, View { met, at: row::revision(row, 5)?, document }))
    };
    rows.iter().map(view).collect()
}
