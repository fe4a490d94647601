//! What tells that two states are the same: kept by the statement that writes, and read
//! together with the head that it holds for.

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::scope::ScopeColumns;
use super::write::modulus;
use super::{Decided, Error, SpaceHead, Store};
use crate::domain::{CollectionName, CollectionTally, Digest, Scope, SpaceId, Tally, limits};

/// The tallies of a space, or of some of its collections.
#[derive(Clone, Debug)]
pub struct Tallies {
    /// Where the space is: they hold for its head.
    pub space: SpaceHead,
    /// All together.
    pub total: Tally,
    /// By name; not all, if they are too many to be told.
    pub collections: Vec<CollectionTally>,
}

/// How far tallies move, column by column.
#[derive(Default)]
pub(super) struct Columns<'d> {
    pub(super) space_id: Vec<Uuid>,
    pub(super) collection: Vec<&'d str>,
    pub(super) records: Vec<i64>,
    pub(super) digest: Vec<String>,
}

impl<'d> Columns<'d> {
    pub(super) fn of(decided: &'d [Decided]) -> Self {
        let mut columns = Self::default();
        for Decided { space, writes, .. } in decided {
            for (collection, tally) in &writes.tallies {
                columns.space_id.push(space.0);
                columns.collection.push(collection.as_str());
                columns.records.push(tally.records);
                columns.digest.push(tally.digest.to_decimal());
            }
        }
        columns
    }
}

const SELECT: &str = concat!(
    "select s.epoch, s.head, s.floor, s.conflicts, t.records, t.digest::text,
         d.collection, d.records, d.digest::text
     from spaces s
     cross join lateral (
         select coalesce(sum(d.records), 0)::bigint as records,
             coalesce(mod(sum(d.digest), ",
    modulus!(),
    "), 0) as digest
         from digests d
         where d.space_id = s.id and ($2::text[] is null or d.collection = any($2))
     ) t
     left join lateral (
         select * from digests d
         where d.space_id = s.id and ($2::text[] is null or d.collection = any($2))
         order by d.collection limit $3
     ) d on true
     where s.id = $1"
);

impl Store {
    /// The tallies of a part of a space, which is not single records; None if the space
    /// does not exist.
    pub async fn tallies(&self, space: SpaceId, scope: &Scope) -> Result<Option<Tallies>, Error> {
        let query = sqlx::query(SELECT)
            .bind(space.0)
            .bind(ScopeColumns::of(scope).collections)
            .bind(i64::try_from(limits::DIGEST_COLLECTIONS_MAX).unwrap_or(i64::MAX));
        let rows = self.read(query).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let collection = |row: &PgRow| {
            let name = row.try_get::<Option<&str>, _>(6)?.map(CollectionName::from_stored);
            name.map(|name| Ok((name, tally(row, 7)?))).transpose()
        };
        let collections = rows.iter().filter_map(|row| collection(row).transpose());
        Ok(Some(Tallies {
            space: SpaceHead::from_row(first, 0)?,
            total: tally(first, 4)?,
            collections: collections.collect::<Result<_, Error>>()?,
        }))
    }
}

/// A tally from the columns records and digest, beginning at `first`.
pub(super) fn tally(row: &PgRow, first: usize) -> Result<Tally, Error> {
    let digest = Digest::from_decimal(row.try_get(first + 1)?);
    let digest = digest.ok_or_else(|| Error::Corrupt("a digest".into()))?;
    Ok(Tally { records: row.try_get(first)?, digest })
}
