//! Reading what a group's decisions need: heads, records, first answers and
//! device sequences. Heads first and together with the records: whoever writes
//! later only if the heads are still the same has then decided on what is.
//!
//! Records are looked up as "the first entry from here on, in the order of the
//! index": sorting is switched off, so only that one index can serve it. With
//! plain equalities a plan that was made while the table was small may stick to
//! the index by revision, and read a whole space for each record.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::row::{self, change_columns};
use super::{Error, FoundPast, SpaceHead, Store, WantedPast, answers, conflicts, past};
use crate::domain::{
    Answer, Conflict, DeviceId, Lack, MutationId, OpenConflict, OwnDevice, Record, RecordKey,
    Sequence, SpaceId, Usage, UserId,
};

/// What to read.
#[derive(Debug, Default)]
pub struct Wanted<'j> {
    /// Mutations whose spaces and answers are to be found, each with the key of
    /// a record that is to be found as well.
    pub mutations: Vec<(SpaceId, &'j MutationId, Option<&'j RecordKey>)>,
    pub sequences: Vec<(SpaceId, OwnDevice)>,
    /// Look for answers in the log too. Without, a mutation that took effect
    /// before shows when it is to be written again: its id is there already.
    pub answers_in_log: bool,
}

/// How far a space is, to the last thing that was stored in it.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub at: SpaceHead,
    /// How often answers or sequences were stored.
    pub answered: i64,
    /// What the space holds.
    pub usage: Usage,
}

impl Standing {
    /// Whether nothing was stored between the two. Raising the floor is no news,
    /// and conflicts come with changes or with answers.
    pub fn is_still(&self, other: &Self) -> bool {
        let Self { at: SpaceHead { epoch, head, floor: _, conflicts: _ }, answered, usage: _ } =
            *self;
        (epoch, head, answered) == (other.at.epoch, other.at.head, other.answered)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Loaded {
    pub standings: HashMap<SpaceId, Standing>,
    pub records: Vec<(SpaceId, Arc<Record>)>,
    pub answers: Vec<(SpaceId, MutationId, Answer)>,
    pub sequences: Vec<(SpaceId, OwnDevice, Sequence)>,
}

/// For each mutation: its space, its record, and the answer that it got if it
/// changed nothing. The change is that of the record. The space's own row comes
/// with its first mutation only: a batch would look it up a hundred times.
const LOAD: &str = concat!(
    "select w.space_id, s.epoch, s.head, s.floor, s.conflicts, s.answered, s.records, s.bytes,
         a.mutation_id, l.open_conflicts, ",
    change_columns!("c"),
    " from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[])
         w (space_id, mutation_id, collection, id, head_of)
     left join spaces s on s.id = w.head_of
     left join answers a on a.space_id = w.space_id and a.mutation_id = w.mutation_id
     left join lateral (
         select * from latest l
         where l.space_id = w.space_id and (l.collection, l.id) >= (w.collection, w.id)
         order by l.collection, l.id limit 1
     ) l on l.collection = w.collection and l.id = w.id
     left join changes c on c.space_id = l.space_id and c.revision = l.revision"
);

/// Answers that no change stands for; the change is the one they speak of.
const LOAD_ANSWERS: &str = concat!(
    "select a.space_id, a.mutation_id, a.fingerprint, a.outcome, a.rejection, row_to_json(k), ",
    change_columns!("c"),
    " from unnest($1::uuid[], $2::text[]) w (space_id, mutation_id)
     join answers a on a.space_id = w.space_id and a.mutation_id = w.mutation_id
     left join changes c on c.space_id = a.space_id and c.revision = a.record_revision
     left join conflicts k on k.space_id = a.space_id and k.mutation_id = a.mutation_id"
);

/// Answers that a change stands for.
const LOAD_APPLIED: &str = concat!(
    "select c.space_id, c.mutation_id, c.fingerprint, 1::smallint, null::jsonb, row_to_json(k), ",
    change_columns!("c"),
    " from unnest($1::uuid[], $2::text[]) w (space_id, mutation_id)
     join changes c on c.space_id = w.space_id and c.mutation_id = w.mutation_id
     left join conflicts k on c.settlement is not null
         and k.space_id = c.space_id and k.mutation_id = c.mutation_id"
);

const LOAD_SEQUENCES: &str = "select d.space_id, d.author, d.device, d.sequence
     from unnest($1::uuid[], $2::text[], $3::text[]) w (space_id, author, device)
     join devices d on d.space_id = w.space_id and d.author = w.author and d.device = w.device";

pub(super) async fn load(
    connection: &mut PgConnection,
    wanted: &Wanted<'_>,
) -> Result<Loaded, Error> {
    let mutations = &wanted.mutations;
    let spaces: Vec<_> = mutations.iter().map(|(space, ..)| space.0).collect();
    let ids: Vec<_> = mutations.iter().map(|(_, id, _)| id.as_str()).collect();
    let keys = || mutations.iter().map(|(.., key)| *key);
    let mut seen = HashSet::new();
    let head_of = spaces.iter().map(|space| seen.insert(*space).then_some(*space));
    let head_of: Vec<Option<Uuid>> = head_of.collect();
    let rows = sqlx::query(LOAD)
        .bind(&spaces)
        .bind(&ids)
        .bind(keys().map(|key| key.map(|it| it.collection.as_str())).collect::<Vec<_>>())
        .bind(keys().map(|key| key.map(|it| it.id.as_str())).collect::<Vec<_>>())
        .bind(head_of)
        .fetch_all(&mut *connection)
        .await?;
    let mut loaded = Loaded::default();
    let mut answered = false;
    for row in &rows {
        answered |= loaded.take(row)?;
    }
    // Rare: only conflicts, rejections and what is sent again have such.
    if answered {
        loaded.answers.extend(find_answers(connection, LOAD_ANSWERS, &spaces, &ids).await?);
    }
    if wanted.answers_in_log {
        loaded.answers.extend(find_answers(connection, LOAD_APPLIED, &spaces, &ids).await?);
    }
    if !wanted.sequences.is_empty() {
        loaded.sequences = find_sequences(connection, &wanted.sequences).await?;
    }
    Ok(loaded)
}

impl Loaded {
    /// Takes a row in; true if the mutation has an answer.
    fn take(&mut self, row: &PgRow) -> Result<bool, Error> {
        let space = SpaceId(row.try_get(0)?);
        if let Some(answered) = row.try_get::<Option<i64>, _>(5)? {
            let at = SpaceHead::from_row(row, 1)?;
            let usage = Usage { records: row.try_get(6)?, bytes: row.try_get(7)? };
            self.standings.insert(space, Standing { at, answered, usage });
        }
        if let Some(open_conflicts) = row.try_get(9)? {
            let change = Arc::new(row::change(row, 10)?);
            self.records.push((space, Arc::new(Record { change, open_conflicts })));
        }
        Ok(row.try_get::<Option<&str>, _>(8)?.is_some())
    }
}

/// The answers of mutations that took effect before.
pub(super) async fn applied(
    connection: &mut PgConnection,
    wanted: &Wanted<'_>,
) -> Result<Loaded, Error> {
    let spaces: Vec<_> = wanted.mutations.iter().map(|(space, ..)| space.0).collect();
    let ids: Vec<_> = wanted.mutations.iter().map(|(_, id, _)| id.as_str()).collect();
    let answers = find_answers(connection, LOAD_APPLIED, &spaces, &ids).await?;
    Ok(Loaded { answers, ..Loaded::default() })
}

impl Store {
    /// The first answer of a mutation, if it was decided before.
    pub async fn answer(&self, space: SpaceId, id: &MutationId) -> Result<Option<Answer>, Error> {
        for sql in [LOAD_ANSWERS, LOAD_APPLIED] {
            let sql = sqlx::query(sql).bind(vec![space.0]).bind(vec![id.as_str()]);
            if let Some(row) = self.read(sql).await?.first() {
                return answers::answer(row, 2).map(Some);
            }
        }
        Ok(None)
    }
}

/// What decisions turned out to need.
#[derive(Debug, Default)]
pub struct Found {
    pub pasts: Vec<(WantedPast, FoundPast)>,
    pub open: Vec<(SpaceId, RecordKey, Vec<OpenConflict>)>,
    /// None where there is none.
    pub named: Vec<(SpaceId, MutationId, Option<Conflict>)>,
}

pub(super) async fn find(
    connection: &mut PgConnection,
    lacks: &[(SpaceId, Lack)],
) -> Result<Found, Error> {
    let (mut pasts, mut open, mut named) = (Vec::new(), Vec::new(), Vec::new());
    for (space, lack) in lacks.iter().cloned() {
        match lack {
            Lack::Past { key, at, way } => pasts.push(WantedPast { space, key, at, way }),
            Lack::Open(key) => open.push((space, key)),
            Lack::Conflict(id) => named.push((space, id)),
        }
    }
    let mut found = Found::default();
    if !pasts.is_empty() {
        let read = past::pasts(connection, &pasts).await?;
        found.pasts = pasts.into_iter().zip(read).collect();
    }
    if !open.is_empty() {
        found.open = conflicts::open(connection, &open).await?;
    }
    if !named.is_empty() {
        found.named = conflicts::named_ones(connection, &named).await?;
    }
    Ok(found)
}

async fn find_answers(
    connection: &mut PgConnection,
    sql: &'static str,
    spaces: &[Uuid],
    ids: &[&str],
) -> Result<Vec<(SpaceId, MutationId, Answer)>, Error> {
    let rows = sqlx::query(sql).bind(spaces).bind(ids).fetch_all(connection).await?;
    let answer = |row: &PgRow| {
        let answer = answers::answer(row, 2)?;
        Ok((SpaceId(row.try_get(0)?), MutationId::from_stored(row.try_get(1)?), answer))
    };
    rows.iter().map(answer).collect()
}

async fn find_sequences(
    connection: &mut PgConnection,
    wanted: &[(SpaceId, OwnDevice)],
) -> Result<Vec<(SpaceId, OwnDevice, Sequence)>, Error> {
    let rows = sqlx::query(LOAD_SEQUENCES)
        .bind(wanted.iter().map(|(space, _)| space.0).collect::<Vec<_>>())
        .bind(wanted.iter().map(|(_, own)| own.user.as_str()).collect::<Vec<_>>())
        .bind(wanted.iter().map(|(_, own)| own.device.as_str()).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let sequence = |row: &PgRow| {
        let user = UserId::from_stored(row.try_get(1)?);
        let own = OwnDevice { user, device: DeviceId::from_stored(row.try_get(2)?) };
        let sequence = Sequence::new(row.try_get(3)?).unwrap_or_default();
        Ok((SpaceId(row.try_get(0)?), own, sequence))
    };
    rows.iter().map(sequence).collect()
}
