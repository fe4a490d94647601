//! Replacing a whole space: what it is to hold is staged in a table of the connection's
//! own, which nobody else sees and which goes with the connection. What differs is found
//! before the space is locked, and again under the lock if the space has moved.

use sqlx::postgres::PgRow;
use sqlx::{Executor, PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::write::{Locked, Writer};
use super::{Error, Store, row};
use crate::domain::{
    CollectionName, Document, Fingerprint, MutationId, RecordId, RecordKey, Revision, SpaceId,
    limits,
};

/// What became of a replacement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// The space's head afterwards.
    pub revision: Revision,
    pub created: i64,
    pub updated: i64,
    pub deleted: i64,
    pub unchanged: i64,
}

/// A record that is to be written or, without a document, deleted.
pub type Difference = (RecordKey, Option<Document>);

/// A replacement may take longer than other statements, but not for ever.
const SESSION: &str =
    "set statement_timeout = '60s'; set idle_in_transaction_session_timeout = '60s';
     create temporary table staged (
         collection text collate \"C\" not null,
         id         text collate \"C\" not null,
         document   text not null,
         primary key (collection, id)
     );
     create temporary table differing (
         number     bigint generated always as identity primary key,
         collection text collate \"C\" not null,
         id         text collate \"C\" not null,
         deletes    boolean not null
     )";

const STAGE: &str = "insert into staged (collection, id, document)
     select * from unnest($1::text[], $2::text[], $3::text[])
     on conflict (collection, id) do nothing
     returning collection, id";

/// Looked up as in `load`, so that only the index by key can serve it.
const WRITES: &str = "insert into differing (collection, id, deletes)
     select d.collection, d.id, false
     from staged d
     left join lateral (
         select * from latest l
         where l.space_id = $1 and (l.collection, l.id) >= (d.collection, d.id)
         order by l.collection, l.id limit 1
     ) l on l.collection = d.collection and l.id = d.id
     left join changes c on c.space_id = l.space_id and c.revision = l.revision
     where c.document is distinct from d.document
     order by d.collection, d.id";

const DELETES: &str = "insert into differing (collection, id, deletes)
     select l.collection, l.id, true
     from latest l
     where l.space_id = $1 and not l.deleted and not exists (
         select from staged d where d.collection = l.collection and d.id = l.id
     )
     order by l.collection, l.id";

/// Cut where the documents reach so many bytes; always at least one.
const PAGE: &str = "select p.number, p.collection, p.id, p.document from (
         select w.*, sum(octet_length(w.document)) over (
             order by w.number rows between unbounded preceding and 1 preceding
         ) as before
         from (
             select d.number, d.collection, d.id, s.document
             from differing d
             left join staged s
                 on not d.deletes and s.collection = d.collection and s.id = d.id
             where d.number > $1 order by d.number limit $2
         ) w
     ) p
     where coalesce(p.before, 0) < $3
     order by p.number";

const REMEMBER: &str = "insert into replacements (space_id, id, fingerprint, revision, created,
         updated, deleted, unchanged, replaced_at)
     values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

impl Store {
    /// What became of a replacement, if it took place before, and what it had asked for.
    pub async fn replacement(
        &self,
        space: SpaceId,
        id: &MutationId,
    ) -> Result<Option<(Fingerprint, Replaced)>, Error> {
        const SELECT: &str = "select fingerprint, revision, created, updated, deleted, unchanged
             from replacements where space_id = $1 and id = $2";
        let query = sqlx::query(SELECT).bind(space.0).bind(id.as_str());
        self.read(query).await?.first().map(replaced).transpose()
    }
}

fn replaced(row: &PgRow) -> Result<(Fingerprint, Replaced), Error> {
    let fingerprint = row.try_get::<&[u8], _>(0)?.try_into().map(Fingerprint);
    let fingerprint = fingerprint.map_err(|_short| Error::Corrupt("fingerprint".into()))?;
    let replaced = Replaced {
        revision: row::revision(row, 1)?,
        created: row.try_get(2)?,
        updated: row.try_get(3)?,
        deleted: row.try_get(4)?,
        unchanged: row.try_get(5)?,
    };
    Ok((fingerprint, replaced))
}

impl Writer {
    /// A connection with room for what a space is to hold. Not cancel safe.
    pub async fn for_replacing(store: &Store) -> Result<Self, Error> {
        let mut writer = Self::connect(store).await?;
        writer.connection.execute(SESSION).await?;
        Ok(writer)
    }

    /// Stages records; the first key that was staged before, if there is one. Not cancel
    /// safe.
    pub async fn stage(
        &mut self,
        records: &[(RecordKey, Document)],
    ) -> Result<Option<RecordKey>, Error> {
        let keys = || records.iter().map(|(key, _)| key);
        let query = sqlx::query(STAGE)
            .bind(keys().map(|key| key.collection.as_str()).collect::<Vec<_>>())
            .bind(keys().map(|key| key.id.as_str()).collect::<Vec<_>>())
            .bind(records.iter().map(|(_, document)| document.as_str()).collect::<Vec<_>>());
        let rows = query.fetch_all(&mut self.connection).await?;
        if rows.len() == records.len() {
            return Ok(None);
        }
        let staged = rows.iter().map(|row| row::key(row, 0)).collect::<Result<Vec<_>, _>>()?;
        let mut seen = std::collections::HashSet::new();
        Ok(keys().find(|key| !staged.contains(key) || !seen.insert(*key)).cloned())
    }

    /// Finds what differs; how much. Not cancel safe.
    pub async fn compare(&mut self, space: SpaceId) -> Result<i64, Error> {
        compare(&mut self.connection, space.0).await
    }
}

impl Locked<'_> {
    /// The same under the lock. Not cancel safe.
    pub async fn compare(&mut self, space: SpaceId) -> Result<i64, Error> {
        compare(self.connection(), space.0).await
    }

    /// The next of what differs after a number, and the number of the last of them. Not
    /// cancel safe.
    pub async fn differing(&mut self, after: i64) -> Result<(Vec<Difference>, i64), Error> {
        let query = sqlx::query(PAGE)
            .bind(after)
            .bind(i64::try_from(limits::BATCH_MUTATIONS_MAX).unwrap_or(i64::MAX))
            .bind(i64::try_from(limits::REQUEST_DOCUMENT_BYTES_MAX / 2).unwrap_or(i64::MAX));
        let rows = query.fetch_all(self.connection()).await?;
        let last = rows.last().map_or(Ok(after), |row| row.try_get(0))?;
        let difference = |row: &PgRow| {
            let key = RecordKey {
                collection: CollectionName::from_stored(row.try_get(1)?),
                id: RecordId::from_stored(row.try_get(2)?),
            };
            let document: Option<String> = row.try_get(3)?;
            Ok((key, document.map(Document::from_canonical)))
        };
        Ok((rows.iter().map(difference).collect::<Result<_, Error>>()?, last))
    }

    /// How many records were staged. Not cancel safe.
    pub async fn staged(&mut self) -> Result<i64, Error> {
        let row = sqlx::query("select count(*) from staged").fetch_one(self.connection()).await?;
        Ok(row.try_get(0)?)
    }

    /// Keeps what became of it, for when it is asked for again. Not cancel safe.
    pub async fn remember(
        &mut self,
        (space, id): (SpaceId, &MutationId),
        fingerprint: Fingerprint,
        it: Replaced,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let query = sqlx::query(REMEMBER)
            .bind(space.0)
            .bind(id.as_str())
            .bind(fingerprint.0)
            .bind(it.revision.get())
            .bind(it.created)
            .bind(it.updated)
            .bind(it.deleted)
            .bind(it.unchanged)
            .bind(now);
        query.execute(self.connection()).await.map_err(Error::of_write)?;
        Ok(())
    }
}

async fn compare(connection: &mut PgConnection, space: Uuid) -> Result<i64, Error> {
    connection.execute("truncate differing").await?;
    let mut count = 0;
    for sql in [WRITES, DELETES] {
        count += sqlx::query(sql).bind(space).execute(&mut *connection).await?.rows_affected();
    }
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}
