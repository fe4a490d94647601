//! Reading the history of one record: its changes, followed back from one to the
//! one before. Each page is one statement.

use std::sync::Arc;

use sqlx::Row;

use super::pages::{FIRST, entries, sql_count};
use super::row::{self, CHANGE_COLUMNS, change_columns};
use super::{Error, SpaceHead, Store};
use crate::domain::{MutationId, RecordKey, RecordStep, Revision, SpaceId, limits};

/// Which steps to read.
#[derive(Clone, Debug)]
pub struct StepsQuery {
    pub key: RecordKey,
    /// Inclusive, and a revision of the record; None = from its last change on.
    pub from: Option<Revision>,
    pub entries_max: usize,
    /// Of documents; a page has at least one step.
    pub bytes_max: usize,
}

/// A page of a record's history.
#[derive(Clone, Debug)]
pub struct StepsPage {
    pub space: SpaceHead,
    /// The latest first.
    pub steps: Vec<RecordStep>,
    /// Where to go on; None if there is nothing more.
    pub next: Option<Revision>,
    /// There were changes before, which are no longer kept.
    pub truncated: bool,
}

/// The way back is gone as long as the page has room, and one change further, which
/// the last step of the page came upon. The conflicts that a change settled moved when
/// it was made, before all others that moved at its revision.
/// Each change is looked up by itself, as in other pages.
const STEPS: &str = concat!(
    "select s.epoch, s.head, s.floor, s.conflicts, ",
    change_columns!("c"),
    ", p.shown, k.settled
     from spaces s
     left join lateral (
         with recursive way (revision, previous_revision, number, before, bytes) as (
             select c.revision, c.previous_revision, 1, 0::bigint,
                 coalesce(octet_length(c.document), 0) + coalesce(octet_length(c.settlement), 0)
             from changes c
             where c.space_id = s.id and c.collection = $2 and c.id = $3
                 and c.revision = coalesce($4::bigint, (
                     select l.revision from latest l
                     where l.space_id = s.id and (l.collection, l.id) >= ($2, $3)
                     order by l.collection, l.id limit 1
                 ))
             union all
             select c.revision, c.previous_revision, way.number + 1, way.before + way.bytes,
                 coalesce(octet_length(c.document), 0) + coalesce(octet_length(c.settlement), 0)
             from way
             cross join lateral (
                 select * from changes c
                 where c.space_id = s.id and c.revision = way.previous_revision limit 1
             ) c
             where way.number <= $5 and way.before < $6
         )
         select way.revision, way.number <= $5 and way.before < $6 as shown from way
     ) p on true
     left join lateral (
         select * from changes c where c.space_id = s.id and c.revision = p.revision limit 1
     ) c on true
     left join lateral (
         select array_agg(m.mutation_id order by m.found) as settled from (
             select k.mutation_id, k.found, k.result_revision, k.closing from conflicts k
             where k.space_id = s.id and k.moved_at = c.revision
             order by k.number limit $7
         ) m
         where m.result_revision = c.revision or m.closing is not null
     ) k on p.shown
     where s.id = $1"
);

/// The conflict of a change itself, and those that it closed.
const SETTLED_MAX: usize = limits::OPEN_CONFLICTS_MAX + 1;

impl Store {
    /// A page of a record's history; None if the space does not exist.
    pub async fn record_steps(
        &self,
        space: SpaceId,
        query: &StepsQuery,
    ) -> Result<Option<StepsPage>, Error> {
        const SHOWN: usize = FIRST + CHANGE_COLUMNS;
        let sql = sqlx::query(STEPS)
            .bind(space.0)
            .bind(query.key.collection.as_str())
            .bind(query.key.id.as_str())
            .bind(query.from.map(Revision::get))
            .bind(sql_count(query.entries_max))
            .bind(sql_count(query.bytes_max))
            .bind(sql_count(SETTLED_MAX));
        let rows = self.read(sql).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let space = SpaceHead::from_row(first, 0)?;
        let (mut steps, mut last) = (Vec::new(), None);
        for row in entries(&rows) {
            let change = Arc::new(row::change(row, FIRST)?);
            if row.try_get(SHOWN)? {
                let settled: Option<Vec<String>> = row.try_get(SHOWN + 1)?;
                let settled = settled.unwrap_or_default();
                let conflicts = settled.iter().map(|id| MutationId::from_stored(id)).collect();
                steps.push(RecordStep { change, before: None, conflicts });
            } else {
                last = Some(change);
            }
        }
        steps.sort_by_key(|step| step.change.revision);
        let next = last.as_ref().map(|change| change.revision);
        let mut before = last;
        for step in &mut steps {
            step.before = before.replace(Arc::clone(&step.change));
        }
        steps.reverse();
        let truncated = match steps.last() {
            Some(first) => !first.is_before_known(),
            None => query.from.is_some(),
        };
        Ok(Some(StepsPage { space, steps, next, truncated }))
    }
}
