//! Writing: a group of requests, on a connection that its committer keeps.
//!
//! At most two round trips, usually: one statement reads everything that the
//! decisions need, at one instant, unless the caller knows it from before; one
//! statement writes everything, if and only if the heads are still those that
//! the decisions are based on, and commits by itself. Where that does not hold,
//! because another replica wrote in between, or where the head alone would not
//! show it, the same two run in a transaction that has locked the heads before.

mod sql;

pub(super) use sql::{LOCK_HEADS, modulus};

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::heads::INSERT_SPACES;
use super::{
    Error, Found, Loaded, SpaceHead, Standing, Store, Wanted, answers, audit, conflicts, digests,
    load, row,
};
use crate::domain::{AuditEntry, DeviceId, Lack, Record, Revision, Space, SpaceId, UserId, Writes};

/// A connection for writing. Owned by one task, and its futures are never
/// dropped while they run, but together with it.
#[derive(Debug)]
pub struct Writer {
    pub(super) connection: PgConnection,
}

/// A transaction that holds the locks of its spaces. Rolled back when dropped.
#[derive(Debug)]
pub struct Locked<'w> {
    transaction: Transaction<'w, Postgres>,
}

/// What was decided about one space.
#[derive(Debug)]
pub struct Decided {
    pub space: SpaceId,
    /// What the decisions were based on.
    pub before: Standing,
    /// The head that they lead to.
    pub head: Revision,
    /// The number of the last conflict that was opened or closed.
    pub conflicts: i64,
    /// Nobody looked whether the mutations were answered before: it shows when
    /// they are written.
    pub unread: bool,
    pub writes: Writes,
}

impl Decided {
    /// Whether there is anything to store.
    pub fn is_empty(&self) -> bool {
        let Writes { changes, answers, sequences, .. } = &self.writes;
        changes.is_empty() && answers.is_empty() && sequences.is_empty()
    }

    /// Whether anything happened that subscribers are to see.
    pub fn moves_head(&self) -> bool {
        !self.writes.changes.is_empty()
    }

    /// Whether this stores what the head does not show.
    fn stores_answers(&self) -> bool {
        !self.writes.answers.is_empty() || !self.writes.sequences.is_empty()
    }

    /// Whether conflicts were opened or closed.
    pub fn moves_conflicts(&self) -> bool {
        self.conflicts != self.before.at.conflicts
    }

    /// Whether the space has answers that are to be looked at while writing.
    fn checks_answers(&self) -> bool {
        self.unread && self.before.answered > 0
    }

    /// Where the space is once this is stored.
    pub fn after(&self) -> Standing {
        let at = SpaceHead { head: self.head, conflicts: self.conflicts, ..self.before.at };
        Standing {
            at,
            answered: self.before.answered + i64::from(self.stores_answers()),
            usage: self.before.usage + self.writes.usage,
        }
    }
}

impl Writer {
    /// Connects.
    pub async fn connect(store: &Store) -> Result<Self, Error> {
        Ok(Self { connection: store.connection().await? })
    }

    /// Reads without any lock. Not cancel safe.
    pub async fn load(&mut self, wanted: &Wanted<'_>) -> Result<Loaded, Error> {
        load::load(&mut self.connection, wanted).await
    }

    /// Writes and commits, unless something is not as it was known: then nothing
    /// is written, and the error is `Moved` or `Repeated`. After other errors
    /// the outcome may be unknown. Not cancel safe.
    pub async fn write(&mut self, decided: &[Decided], now: OffsetDateTime) -> Result<(), Error> {
        write(&mut self.connection, decided, now).await
    }

    /// The answers of mutations that took effect before. Not cancel safe.
    pub async fn applied(&mut self, wanted: &Wanted<'_>) -> Result<Loaded, Error> {
        load::applied(&mut self.connection, wanted).await
    }

    /// Opens a transaction and locks the spaces, in the order of their ids, so
    /// that two replicas cannot wait for each other. New spaces are born before,
    /// in a transaction that has locked nothing: whoever held others while they
    /// wait for a birth could be waited for by whom they wait for.
    /// Not cancel safe.
    pub async fn lock(&mut self, spaces: &[Space]) -> Result<Locked<'_>, Error> {
        let mut transaction = self.connection.begin().await?;
        let ids: Vec<Uuid> = spaces.iter().map(|space| space.id.0).collect();
        let locked = sqlx::query(sql::LOCK_HEADS).bind(&ids).fetch_all(&mut *transaction).await?;
        if locked.len() < spaces.len() {
            // Shared ones are created, and not born by being written to.
            let private = || spaces.iter().filter(|space| !space.is_shared());
            sqlx::query("rollback and chain").execute(&mut *transaction).await?;
            sqlx::query(INSERT_SPACES)
                .bind(private().map(|space| space.id.0).collect::<Vec<_>>())
                .bind(private().map(Space::name).collect::<Vec<_>>())
                .bind(private().map(|_| Uuid::new_v4()).collect::<Vec<_>>())
                .execute(&mut *transaction)
                .await?;
            sqlx::query("commit and chain").execute(&mut *transaction).await?;
            let locked = sqlx::query(sql::LOCK_HEADS).bind(&ids).fetch_all(&mut *transaction);
            if locked.await?.len() < spaces.len() {
                return Err(Error::Gone);
            }
        }
        Ok(Locked { transaction })
    }

    /// Says goodbye.
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.connection.close().await?)
    }
}

impl Locked<'_> {
    /// For other statements of the same transaction.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Reads under the locks. Not cancel safe.
    pub async fn load(&mut self, wanted: &Wanted<'_>) -> Result<Loaded, Error> {
        load::load(&mut self.transaction, wanted).await
    }

    /// Writes under the locks. Not cancel safe.
    pub async fn write(&mut self, decided: &[Decided], now: OffsetDateTime) -> Result<(), Error> {
        write(&mut self.transaction, decided, now).await
    }

    /// Adds an entry to the audit log of a space. Not cancel safe.
    pub async fn note(
        &mut self,
        space: SpaceId,
        entry: &AuditEntry,
        at: OffsetDateTime,
    ) -> Result<(), Error> {
        audit::append(&mut self.transaction, space, entry, at).await.map(drop)
    }

    /// Makes it durable. After an error the outcome is unknown. Not cancel safe.
    pub async fn commit(self) -> Result<(), Error> {
        Ok(self.transaction.commit().await?)
    }
}

/// Where decisions find what they turned out to need.
pub trait Source {
    /// Reads it. Not cancel safe.
    fn find(
        &mut self,
        lacks: &[(SpaceId, Lack)],
    ) -> impl Future<Output = Result<Found, Error>> + Send;
}

impl Source for Writer {
    fn find(
        &mut self,
        lacks: &[(SpaceId, Lack)],
    ) -> impl Future<Output = Result<Found, Error>> + Send {
        load::find(&mut self.connection, lacks)
    }
}

impl Source for Locked<'_> {
    fn find(
        &mut self,
        lacks: &[(SpaceId, Lack)],
    ) -> impl Future<Output = Result<Found, Error>> + Send {
        load::find(&mut self.transaction, lacks)
    }
}

async fn write(
    connection: &mut PgConnection,
    decided: &[Decided],
    now: OffsetDateTime,
) -> Result<(), Error> {
    let columns = Columns::of(decided);
    let written = || decided.iter().filter(|it| !it.is_empty());
    let plain = decided.iter().all(|it| !it.stores_answers() && !it.checks_answers());
    let new = decided.iter().all(|it| it.writes.updates.is_empty());
    let peaceful = decided.iter().all(|it| !it.moves_conflicts());
    let tallied = decided.iter().any(|it| !it.writes.tallies.is_empty());
    let sql = match (plain, peaceful, new) {
        (true, true, _) if !tallied => sql::WRITE_UNTALLIED,
        (true, true, true) => sql::WRITE_NEW,
        (true, true, false) => sql::WRITE_CHANGES,
        (true, false, _) => sql::WRITE_CONFLICTS,
        (false, _, _) => sql::WRITE_ALL,
    };
    let query = sqlx::query(sql)
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
        .bind(columns.open_conflicts)
        .bind(columns.state)
        .bind(written().map(|it| it.space.0).collect::<Vec<_>>())
        .bind(written().map(|it| it.before.at.head.get()).collect::<Vec<_>>())
        .bind(written().map(|it| it.head.get()).collect::<Vec<_>>())
        .bind(now)
        .bind(written().map(|it| it.before.answered).collect::<Vec<_>>())
        .bind(written().map(|it| i64::from(it.stores_answers())).collect::<Vec<_>>())
        .bind(columns.bytes)
        .bind(written().map(|it| it.before.at.epoch.0).collect::<Vec<_>>())
        .bind(columns.micros)
        .bind(columns.sequence)
        .bind(columns.parents)
        .bind(columns.others)
        .bind(columns.settlement)
        .bind(written().map(|it| it.conflicts).collect::<Vec<_>>())
        .bind(columns.batch_end)
        .bind(columns.actor);
    let query = bind_tallies(bind_usage(query, decided), decided);
    let query = if plain && peaceful { query } else { bind_conflicts(query, decided)? };
    let query = if plain {
        query
    } else {
        let rows = answers::Rows::of(decided);
        let query = query
            .bind(rows.space_id)
            .bind(rows.mutation_id)
            .bind(rows.fingerprint)
            .bind(rows.outcome)
            .bind(rows.record_revision)
            .bind(rows.rejection);
        bind_sequences(query, decided)
    };
    match query.execute(connection).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::of_write(error)),
    }
}

type Bound<'q> = Query<'q, Postgres, PgArguments>;

fn bind_sequences<'q>(query: Bound<'q>, decided: &'q [Decided]) -> Bound<'q> {
    let mut sequences = Vec::new();
    for Decided { space, writes, .. } in decided {
        sequences.extend(writes.sequences.iter().map(|(own, last)| (space.0, own, last)));
    }
    query
        .bind(sequences.iter().map(|(space, _, _)| *space).collect::<Vec<_>>())
        .bind(sequences.iter().map(|(_, own, _)| own.user.as_str()).collect::<Vec<_>>())
        .bind(sequences.iter().map(|(_, own, _)| own.device.as_str()).collect::<Vec<_>>())
        .bind(sequences.iter().map(|(_, _, last)| last.get()).collect::<Vec<_>>())
}

fn bind_usage<'q>(query: Bound<'q>, decided: &'q [Decided]) -> Bound<'q> {
    let written = || decided.iter().filter(|it| !it.is_empty());
    query
        .bind(written().map(|it| it.writes.usage.records).collect::<Vec<_>>())
        .bind(written().map(|it| it.writes.usage.bytes).collect::<Vec<_>>())
}

fn bind_tallies<'q>(query: Bound<'q>, decided: &'q [Decided]) -> Bound<'q> {
    let tallies = digests::Columns::of(decided);
    query.bind(tallies.space_id).bind(tallies.collection).bind(tallies.records).bind(tallies.digest)
}

fn bind_conflicts<'q>(query: Bound<'q>, decided: &'q [Decided]) -> Result<Bound<'q>, Error> {
    let (mut found, mut closed, mut touched) = (Vec::new(), Vec::new(), Vec::new());
    for Decided { space, writes, .. } in decided {
        found.extend(writes.conflicts.iter().map(|it| conflicts::Row::of(*space, it)));
        closed.extend(writes.closed.iter().map(|it| conflicts::Closed::of(*space, it)));
        touched.extend(writes.touched.iter().map(|it| (space.0, it)));
    }
    Ok(query
        .bind(json(&found)?)
        .bind(json(&closed)?)
        .bind(touched.iter().map(|(space, _)| *space).collect::<Vec<_>>())
        .bind(touched.iter().map(|(_, it)| it.key.collection.as_str()).collect::<Vec<_>>())
        .bind(touched.iter().map(|(_, it)| it.key.id.as_str()).collect::<Vec<_>>())
        .bind(touched.iter().map(|(_, it)| it.open_conflicts).collect::<Vec<_>>()))
}

/// Rows as a JSON list, which costs PostgreSQL less than a jsonb.
fn json(rows: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(rows).map_err(|_unwritten| Error::Corrupt("a conflict".into()))
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
    open_conflicts: Vec<i32>,
    state: Vec<i16>,
    /// Of the document; None if there is none.
    bytes: Vec<Option<i32>>,
    micros: Vec<i64>,
    sequence: Vec<i64>,
    parents: Vec<Option<&'d str>>,
    others: Vec<Option<String>>,
    settlement: Vec<Option<String>>,
    batch_end: Vec<Option<i64>>,
    actor: Vec<Option<&'d str>>,
}

impl<'d> Columns<'d> {
    fn of(decided: &'d [Decided]) -> Self {
        let mut columns = Self::default();
        for Decided { space, writes, .. } in decided {
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
                columns.open_conflicts.push(last.map_or(0, |(record, _)| record.open_conflicts));
                columns.state.push(last.map_or(0, |(_, state)| *state));
                let bytes = change.document.as_ref().map(|it| it.as_str().len());
                columns.bytes.push(bytes.map(|it| i32::try_from(it).unwrap_or(i32::MAX)));
                columns.micros.push(change.micros);
                columns.sequence.push(change.sequence);
                let parents = Some(change.parents.as_str()).filter(|it| !it.is_empty());
                columns.parents.push(parents);
                columns.others.push(row::others_to_sql(&change.others));
                let settlement = change.settlement.as_deref();
                columns.settlement.push(settlement.and_then(row::settlement_to_sql));
                let batch_end = Some(change.batch_end.get()).filter(|end| *end > 0);
                columns.batch_end.push(batch_end);
                columns.actor.push(change.actor.as_ref().map(UserId::as_str));
            }
        }
        columns
    }
}
