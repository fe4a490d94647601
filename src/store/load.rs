//! Reading what a group's decisions need: heads, records, first answers and
//! device sequences, in one statement and so at one instant.
//!
//! Records are looked up as "the first entry from here on, in the order of the
//! index": sorting is switched off, so only that one index can serve it. With
//! plain equalities a plan that was made while the table was small may stick to
//! the index by revision, and read a whole space for each record.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::row::{self, change_columns};
use super::{Error, SpaceHead, answers};
use crate::domain::{Answer, DeviceId, Epoch, MutationId, Record, RecordKey, Sequence, SpaceId};

/// What to read.
#[derive(Debug, Default)]
pub struct Wanted {
    pub spaces: Vec<SpaceId>,
    pub records: Vec<(SpaceId, RecordKey)>,
    /// Mutations whose answers are to be found.
    pub answers: Vec<(SpaceId, MutationId)>,
    pub sequences: Vec<(SpaceId, DeviceId)>,
    /// Look for answers in the log too. Without, a mutation that took effect
    /// before shows when it is to be written again: its id is there already.
    pub answers_in_log: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Loaded {
    pub heads: HashMap<SpaceId, SpaceHead>,
    pub records: Vec<(SpaceId, Arc<Record>)>,
    pub answers: Vec<(SpaceId, MutationId, Answer)>,
    pub sequences: Vec<(SpaceId, DeviceId, Sequence)>,
}

/// The columns are: kind, space_id, epoch, number, floor, name, fingerprint,
/// outcome, rejection, and those of a change.
const LOAD: &str = concat!(
    "select 'h', s.id, s.epoch, s.head, s.floor, null::text, null::bytea, null::smallint,
         null::jsonb, ",
    "c.* from unnest($1::uuid[]) w (id) join spaces s on s.id = w.id
         left join (select ",
    change_columns!("c"),
    " from changes c) c on false
     union all
     select 'r', w.space_id, null, r.foreign_revision, null, null, null, null, null, ",
    change_columns!("c"),
    " from unnest($2::uuid[], $3::text[], $4::text[]) w (space_id, collection, id)
     cross join lateral (
         select * from latest r
         where r.space_id = w.space_id and (r.collection, r.id) >= (w.collection, w.id)
         order by r.collection, r.id limit 1
     ) r
     join changes c on c.space_id = r.space_id and c.revision = r.revision
     where r.collection = w.collection and r.id = w.id
     union all
     select 'a', w.space_id, null, null, null, w.mutation_id, f.fingerprint, 1::smallint, null, ",
    change_columns!("f"),
    " from unnest($5::uuid[], $6::text[]) w (space_id, mutation_id)
     join changes f on f.space_id = w.space_id and f.mutation_id = w.mutation_id
     union all
     select 'a', w.space_id, null, null, null, w.mutation_id, a.fingerprint, a.outcome,
         a.rejection, ",
    change_columns!("c"),
    " from unnest($9::uuid[], $10::text[]) w (space_id, mutation_id)
     join answers a on a.space_id = w.space_id and a.mutation_id = w.mutation_id
     left join changes c on c.space_id = a.space_id and c.revision = a.record_revision
     union all
     select 's', d.space_id, null, d.sequence, null, d.device, null, null, null, c.*
     from unnest($7::uuid[], $8::text[]) w (space_id, device)
     join devices d on d.space_id = w.space_id and d.device = w.device
     left join (select ",
    change_columns!("c"),
    " from changes c) c on false"
);

const FIRST_CHANGE_COLUMN: usize = 9;

pub(super) async fn load(connection: &mut PgConnection, wanted: &Wanted) -> Result<Loaded, Error> {
    let records = &wanted.records;
    let answers = wanted.answers.as_slice();
    let in_log = if wanted.answers_in_log { answers } else { &[] };
    let rows = sqlx::query(LOAD)
        .bind(wanted.spaces.iter().map(|space| space.0).collect::<Vec<_>>())
        .bind(records.iter().map(|(space, _)| space.0).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, key)| key.collection.as_str()).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, key)| key.id.as_str()).collect::<Vec<_>>())
        .bind(in_log.iter().map(|(space, _)| space.0).collect::<Vec<_>>())
        .bind(in_log.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>())
        .bind(wanted.sequences.iter().map(|(space, _)| space.0).collect::<Vec<_>>())
        .bind(wanted.sequences.iter().map(|(_, device)| device.as_str()).collect::<Vec<_>>())
        .bind(answers.iter().map(|(space, _)| space.0).collect::<Vec<_>>())
        .bind(answers.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let mut loaded = Loaded::default();
    for row in &rows {
        loaded.take(row)?;
    }
    Ok(loaded)
}

impl Loaded {
    fn take(&mut self, row: &PgRow) -> Result<(), Error> {
        let space = SpaceId(row.try_get(1)?);
        match row.try_get::<&str, _>(0)? {
            "h" => {
                let (head, floor) = (row::revision(row, 3)?, row::revision(row, 4)?);
                let epoch = Epoch(row.try_get(2)?);
                self.heads.insert(space, SpaceHead { epoch, head, floor });
            }
            "r" => {
                let change = row::change(row, FIRST_CHANGE_COLUMN)?;
                self.records.push((space, row::record(change, row::revision(row, 3)?)));
            }
            "a" => {
                let id = MutationId::from_stored(row.try_get(5)?);
                let change = || row::change(row, FIRST_CHANGE_COLUMN);
                self.answers.push((space, id, answers::answer(row, 6, change)?));
            }
            _ => {
                let device = DeviceId::from_stored(row.try_get(5)?);
                let sequence = Sequence::new(row.try_get(3)?).unwrap_or_default();
                self.sequences.push((space, device, sequence));
            }
        }
        Ok(())
    }
}
