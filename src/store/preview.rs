//! Reading what a policy is tried on, beside the log of conflicts.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::PgRow;

use super::row::{self, change_columns};
use super::{Error, Store};
use crate::domain::{Change, CollectionName, Revision, SpaceId};

/// What is read of writes at once: with the largest documents still a few MiB.
const WRITES_AT_ONCE: usize = 50;
/// So many of a space's last changes are looked through for writes.
const WRITES_LOOKED_THROUGH: i64 = 20_000;

const LAST_WRITES: &str = concat!(
    "select ",
    change_columns!("c"),
    " from changes c
     where c.space_id = $1 and c.revision < $3
         and c.revision > (select s.head - $5 from spaces s where s.id = $1)
         and c.collection = $2 and c.document is not null
     order by c.revision desc limit $4"
);

impl Store {
    /// The last writes of documents of a collection before a revision, the latest
    /// first; of a space's last changes only, so that a collection that is rarely
    /// written does not cost the whole log.
    pub async fn last_writes(
        &self,
        space: SpaceId,
        collection: &CollectionName,
        before: Option<Revision>,
        entries_max: usize,
    ) -> Result<Vec<Arc<Change>>, Error> {
        let rows = sqlx::query(LAST_WRITES)
            .bind(space.0)
            .bind(collection.as_str())
            .bind(before.unwrap_or(Revision::MAX).get())
            .bind(i64::try_from(entries_max.min(WRITES_AT_ONCE)).unwrap_or(i64::MAX))
            .bind(WRITES_LOOKED_THROUGH);
        let rows = self.read(rows).await?;
        let changes = rows.iter().map(|row| Ok(Arc::new(row::change(row, 0)?)));
        let mut changes = changes.collect::<Result<Vec<_>, Error>>()?;
        changes.sort_by_key(|change| std::cmp::Reverse(change.revision));
        Ok(changes)
    }

    /// The checksums of the documents that these changes made, where they are kept.
    pub async fn checksums(
        &self,
        space: SpaceId,
        revisions: &[Revision],
    ) -> Result<HashMap<Revision, [u8; 32]>, Error> {
        const CHECKSUMS: &str = "select revision, sha256(convert_to(document, 'UTF8'))
             from changes
             where space_id = $1 and revision = any($2) and document is not null";
        let revisions: Vec<_> = revisions.iter().map(|it| it.get()).collect();
        let rows = self.read(sqlx::query(CHECKSUMS).bind(space.0).bind(revisions)).await?;
        let checksum = |row: &PgRow| {
            let bytes: &[u8] = row.try_get(1)?;
            let checksum = bytes.try_into().map_err(|_short| Error::Corrupt("checksum".into()))?;
            Ok((row::revision(row, 0)?, checksum))
        };
        rows.iter().map(checksum).collect()
    }
}
