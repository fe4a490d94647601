//! Writing: one transaction for a group of requests, on a connection that its
//! committer keeps. First the heads are locked, then, in further statements
//! that see what the lock waited for, whatever is missing is read; the
//! decisions are stored with few statements, however many there are.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{Connection, PgConnection, Postgres, Row, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::heads::INSERT_SPACES;
use super::row::{self, change_columns};
use super::{Error, SpaceHead, Store};
use crate::domain::{
    Answer, DeviceId, MutationId, Record, RecordKey, Revision, Sequence, Space, SpaceId, Writes,
};

/// A connection for transactions. Owned by one task, and its futures are never
/// dropped while they run.
#[derive(Debug)]
pub struct Writer {
    connection: PgConnection,
}

/// An open transaction that holds the locks of its spaces. Rolled back when
/// dropped.
#[derive(Debug)]
pub struct Group<'w> {
    transaction: Transaction<'w, Postgres>,
    /// Where the spaces were when they were locked.
    pub heads: HashMap<SpaceId, SpaceHead>,
}

/// What to read under the lock.
#[derive(Debug, Default)]
pub struct Wanted {
    pub records: Vec<(SpaceId, RecordKey)>,
    pub answers: Vec<(SpaceId, MutationId)>,
    pub sequences: Vec<(SpaceId, DeviceId)>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Loaded {
    pub records: Vec<(SpaceId, Arc<Record>)>,
    pub answers: Vec<(SpaceId, MutationId, Answer)>,
    pub sequences: Vec<(SpaceId, DeviceId, Sequence)>,
}

const LOCK_HEADS: &str =
    "select id, epoch, head, floor from spaces where id = any($1) order by id for update";

const LOAD_RECORDS: &str = concat!(
    "select w.space_id, ",
    change_columns!("c"),
    ", r.foreign_revision
     from unnest($1::uuid[], $2::text[], $3::text[]) w (space_id, collection, id)
     join records r on r.space_id = w.space_id and r.collection = w.collection and r.id = w.id
     join changes c on c.space_id = r.space_id and c.revision = r.revision"
);

const LOAD_SEQUENCES: &str = "select d.space_id, d.device, d.sequence
     from unnest($1::uuid[], $2::text[]) w (space_id, device)
     join devices d on d.space_id = w.space_id and d.device = w.device";

/// All changes of a group: the log, the records and the heads in one statement,
/// so that each document travels once. `state` is 1 for a record's last change
/// in this group when the record is new, 2 when it has a row, 0 for earlier
/// changes of the group to the same record.
const WRITE_CHANGES: &str = "with w as (
         select * from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::smallint[],
             $6::text[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::bytea[],
             $12::timestamptz[], $13::bigint[], $14::smallint[])
         as w (space_id, revision, collection, id, action, document, previous_revision, author,
             device, mutation_id, fingerprint, committed_at, foreign_revision, state)
     ), logged as (
         insert into changes (space_id, revision, collection, id, action, document,
             previous_revision, author, device, mutation_id, fingerprint, committed_at)
         select space_id, revision, collection, id, action, document,
             previous_revision, author, device, mutation_id, fingerprint, committed_at
         from w
     ), inserted as (
         insert into records (space_id, collection, id, revision, foreign_revision, document,
             updated_at)
         select space_id, collection, id, revision, foreign_revision, document::jsonb, committed_at
         from w where state = 1
     ), updated as (
         update records r set revision = w.revision, foreign_revision = w.foreign_revision,
             document = w.document::jsonb, updated_at = w.committed_at
         from w
         where w.state = 2 and r.space_id = w.space_id and r.collection = w.collection
           and r.id = w.id
     )
     update spaces s set head = h.head
     from unnest($15::uuid[], $16::bigint[]) h (id, head) where s.id = h.id";

const WRITE_SEQUENCES: &str = "insert into devices (space_id, device, sequence, updated_at)
     select * , $4::timestamptz from unnest($1::uuid[], $2::text[], $3::bigint[])
     on conflict (space_id, device) do update
     set sequence = excluded.sequence, updated_at = excluded.updated_at";

impl Writer {
    /// Connects.
    pub async fn connect(store: &Store) -> Result<Self, Error> {
        Ok(Self { connection: store.connection().await? })
    }

    /// Opens a transaction and locks the spaces, in the order of their ids, so
    /// that two replicas cannot wait for each other. New spaces are born.
    ///
    /// Not cancel safe.
    pub async fn begin(&mut self, spaces: &[Space]) -> Result<Group<'_>, Error> {
        let mut transaction = self.connection.begin().await?;
        let ids: Vec<Uuid> = spaces.iter().map(|space| space.id.0).collect();
        let mut heads = lock(&mut transaction, &ids).await?;
        if heads.len() < spaces.len() {
            let born = spaces.iter().filter(|space| !heads.contains_key(&space.id));
            let (born, names): (Vec<_>, Vec<_>) = born.map(|it| (it.id.0, it.name())).unzip();
            let epochs: Vec<_> = born.iter().map(|_| Uuid::new_v4()).collect();
            sqlx::query(INSERT_SPACES)
                .bind(born)
                .bind(names)
                .bind(epochs)
                .execute(&mut *transaction)
                .await?;
            heads = lock(&mut transaction, &ids).await?;
        }
        Ok(Group { transaction, heads })
    }

    /// Says goodbye.
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.connection.close().await?)
    }
}

async fn lock(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<SpaceId, SpaceHead>, Error> {
    sqlx::query(LOCK_HEADS)
        .bind(ids)
        .fetch_all(connection)
        .await?
        .iter()
        .map(|row| Ok((SpaceId(row.try_get(0)?), SpaceHead::from_row(row, 1)?)))
        .collect()
}

impl Group<'_> {
    /// Reads what the decisions need. Not cancel safe.
    pub async fn load(&mut self, wanted: &Wanted) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        if !wanted.records.is_empty() {
            loaded.records = self.load_records(&wanted.records).await?;
        }
        if !wanted.answers.is_empty() {
            loaded.answers = self.load_answers(&wanted.answers).await?;
        }
        if !wanted.sequences.is_empty() {
            loaded.sequences = self.load_sequences(&wanted.sequences).await?;
        }
        Ok(loaded)
    }

    async fn load_records(
        &mut self,
        wanted: &[(SpaceId, RecordKey)],
    ) -> Result<Vec<(SpaceId, Arc<Record>)>, Error> {
        let spaces: Vec<_> = wanted.iter().map(|(space, _)| space.0).collect();
        let collections: Vec<_> = wanted.iter().map(|(_, key)| key.collection.as_str()).collect();
        let ids: Vec<_> = wanted.iter().map(|(_, key)| key.id.as_str()).collect();
        sqlx::query(LOAD_RECORDS)
            .bind(spaces)
            .bind(collections)
            .bind(ids)
            .fetch_all(&mut *self.transaction)
            .await?
            .iter()
            .map(|row| {
                let foreign_revision = row::revision(row, 11)?;
                let record = row::record(row::change(row, 1)?, foreign_revision);
                Ok((SpaceId(row.try_get(0)?), record))
            })
            .collect()
    }

    async fn load_answers(
        &mut self,
        wanted: &[(SpaceId, MutationId)],
    ) -> Result<Vec<(SpaceId, MutationId, Answer)>, Error> {
        super::answers::load(&mut self.transaction, wanted).await
    }

    async fn load_sequences(
        &mut self,
        wanted: &[(SpaceId, DeviceId)],
    ) -> Result<Vec<(SpaceId, DeviceId, Sequence)>, Error> {
        let spaces: Vec<_> = wanted.iter().map(|(space, _)| space.0).collect();
        let devices: Vec<_> = wanted.iter().map(|(_, device)| device.as_str()).collect();
        sqlx::query(LOAD_SEQUENCES)
            .bind(spaces)
            .bind(devices)
            .fetch_all(&mut *self.transaction)
            .await?
            .iter()
            .map(|row| {
                let sequence = Sequence::new(row.try_get(2)?).unwrap_or_default();
                Ok((SpaceId(row.try_get(0)?), DeviceId::from_stored(row.try_get(1)?), sequence))
            })
            .collect()
    }

    /// Stores what was decided. Not cancel safe.
    pub async fn write(
        &mut self,
        decided: &[(SpaceId, Revision, Writes)],
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        if decided.iter().any(|(_, _, writes)| !writes.changes.is_empty()) {
            self.write_changes(decided).await?;
        }
        if decided.iter().any(|(_, _, writes)| !writes.answers.is_empty()) {
            super::answers::insert(&mut self.transaction, decided, now).await?;
        }
        if decided.iter().any(|(_, _, writes)| !writes.sequences.is_empty()) {
            self.write_sequences(decided, now).await?;
        }
        Ok(())
    }

    async fn write_changes(
        &mut self,
        decided: &[(SpaceId, Revision, Writes)],
    ) -> Result<(), Error> {
        let columns = Columns::of(decided);
        let moved = decided.iter().filter(|(_, _, writes)| !writes.changes.is_empty());
        let (spaces, heads): (Vec<_>, Vec<_>) =
            moved.map(|(space, head, _)| (space.0, head.get())).unzip();
        sqlx::query(WRITE_CHANGES)
            .bind(columns.space_id)
            .bind(columns.revision)
            .bind(columns.collection)
            .bind(columns.id)
            .bind(columns.action)
            .bind(columns.document)
            .bind(columns.previous_revision)
            .bind(columns.author)
            .bind(columns.device)
            .bind(columns.mutation_id)
            .bind(columns.fingerprint)
            .bind(columns.committed_at)
            .bind(columns.foreign_revision)
            .bind(columns.state)
            .bind(spaces)
            .bind(heads)
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    async fn write_sequences(
        &mut self,
        decided: &[(SpaceId, Revision, Writes)],
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let (mut spaces, mut devices, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for (space, _, writes) in decided {
            for (device, sequence) in &writes.sequences {
                spaces.push(space.0);
                devices.push(device.as_str());
                sequences.push(sequence.get());
            }
        }
        sqlx::query(WRITE_SEQUENCES)
            .bind(spaces)
            .bind(devices)
            .bind(sequences)
            .bind(now)
            .execute(&mut *self.transaction)
            .await?;
        Ok(())
    }

    /// Makes it durable. After an error the outcome is unknown. Not cancel safe.
    pub async fn commit(self) -> Result<(), Error> {
        Ok(self.transaction.commit().await?)
    }

    /// Leaves everything as it was. Not cancel safe.
    pub async fn rollback(self) -> Result<(), Error> {
        Ok(self.transaction.rollback().await?)
    }
}

/// The changes of a group, column by column.
#[derive(Default)]
struct Columns<'d> {
    space_id: Vec<Uuid>,
    revision: Vec<i64>,
    collection: Vec<&'d str>,
    id: Vec<&'d str>,
    action: Vec<i16>,
    document: Vec<Option<&'d str>>,
    previous_revision: Vec<i64>,
    author: Vec<&'d str>,
    device: Vec<Option<&'d str>>,
    mutation_id: Vec<&'d str>,
    fingerprint: Vec<&'d [u8]>,
    committed_at: Vec<OffsetDateTime>,
    foreign_revision: Vec<i64>,
    state: Vec<i16>,
}

impl<'d> Columns<'d> {
    fn of(decided: &'d [(SpaceId, Revision, Writes)]) -> Self {
        let mut columns = Self::default();
        for (space, _, writes) in decided {
            // A record's final state has the revision of its last change.
            let finals = |records: &'d [Arc<Record>], state| {
                records.iter().map(move |record| (record.revision, (record, state)))
            };
            let finals: HashMap<Revision, (&Arc<Record>, i16)> =
                finals(&writes.inserts, 1).chain(finals(&writes.updates, 2)).collect();
            for (change, fingerprint) in &writes.changes {
                let last = finals.get(&change.revision);
                columns.space_id.push(space.0);
                columns.revision.push(change.revision.get());
                columns.collection.push(change.key.collection.as_str());
                columns.id.push(change.key.id.as_str());
                columns.action.push(row::action_to_sql(change.action));
                columns.document.push(change.document.as_ref().map(|it| it.as_str()));
                columns.previous_revision.push(change.previous_revision.get());
                columns.author.push(change.author.as_str());
                columns.device.push(change.device.as_ref().map(DeviceId::as_str));
                columns.mutation_id.push(change.mutation_id.as_str());
                columns.fingerprint.push(&fingerprint.0);
                columns.committed_at.push(change.committed_at);
                columns
                    .foreign_revision
                    .push(last.map_or(0, |(record, _)| record.foreign_revision.get()));
                columns.state.push(last.map_or(0, |(_, state)| *state));
            }
        }
        columns
    }
}
