//! The audit log: entries are added in the transaction of what they tell of.

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store};
use crate::domain::{
    AuditAction, AuditEntry, Link, SERVER_CHAIN, SpaceId, UserId, commitment, link,
};

/// An entry as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEntry {
    pub number: i64,
    pub at: OffsetDateTime,
    /// By its name, which a newer program may have given.
    pub action: String,
    pub actor: Option<UserId>,
    pub acted_for: Option<UserId>,
    pub subject: Option<UserId>,
    /// What else there is to say, as JSON; None where it was erased.
    pub more: Option<String>,
    pub link: Link,
}

/// Which entries, the latest first.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Who did it, had it done in their name, or was concerned.
    pub user: Option<UserId>,
    pub action: Option<AuditAction>,
    pub since: Option<OffsetDateTime>,
    pub until: Option<OffsetDateTime>,
    /// Only those before this number.
    pub before: Option<i64>,
    pub entries_max: usize,
}

/// Whoever adds to the chain waits here until others have committed.
const LOCK_END: &str = "insert into audit_ends (space_id, number, link) values ($1, 0, $2)
     on conflict (space_id) do update set number = audit_ends.number
     returning number, link";

const APPEND: &str = "with added as (
         insert into audit (space_id, number, at, action, actor, acted_for, subject, details,
             commitment, link)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
     )
     update audit_ends set number = $2, link = $10 where space_id = $1";

/// Adds an entry to a chain; its number. Of several chains of one transaction the
/// server's is the last. Not cancel safe.
pub(super) async fn append(
    connection: &mut PgConnection,
    chain: SpaceId,
    entry: &AuditEntry,
    at: OffsetDateTime,
) -> Result<i64, Error> {
    let end = sqlx::query(LOCK_END).bind(chain.0).bind(Link::default().0.as_slice());
    let end = end.fetch_one(&mut *connection).await?;
    let (number, before) = (end.try_get::<i64, _>(0)? + 1, link_from_row(&end, 1)?);
    let details = entry.details(&Uuid::new_v4().simple().to_string());
    let (action, commitment) = (entry.action.as_str(), commitment(&details));
    let link = link(chain, before, number, micros(at), action, commitment);
    sqlx::query(APPEND)
        .bind(chain.0)
        .bind(number)
        .bind(at)
        .bind(action)
        .bind(entry.by.user.as_ref().map(UserId::as_str))
        .bind(entry.by.acted_for.as_ref().map(UserId::as_str))
        .bind(entry.subject.as_ref().map(UserId::as_str))
        .bind(details)
        .bind(commitment.0.as_slice())
        .bind(link.0.as_slice())
        .execute(connection)
        .await?;
    Ok(number)
}

/// As links count time.
pub(super) fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

pub(super) fn link_from_row(row: &PgRow, column: usize) -> Result<Link, Error> {
    let bytes: &[u8] = row.try_get(column)?;
    let bytes =
        bytes.try_into().map_err(|_size| Error::Corrupt("a link of the audit log".into()))?;
    Ok(Link(bytes))
}

/// Adds entries that nothing else is written with.
#[derive(Debug)]
pub struct Noter(PgConnection);

impl Noter {
    /// Adds one to the chain of a space if that is there, else to the server's. Not cancel
    /// safe.
    pub async fn note(
        &mut self,
        space: SpaceId,
        entry: &AuditEntry,
        at: OffsetDateTime,
    ) -> Result<(), Error> {
        let mut transaction = self.0.begin().await?;
        // Not erased as long as this goes on.
        let there = sqlx::query("select from spaces where id = $1 for key share").bind(space.0);
        let there = there.fetch_optional(&mut *transaction).await?.is_some();
        let chain = if there { space } else { SERVER_CHAIN };
        append(&mut transaction, chain, entry, at).await?;
        Ok(transaction.commit().await?)
    }

    /// Ends the connection. Not cancel safe.
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.0.close().await?)
    }
}

impl Store {
    /// Opens a connection for entries that nothing else is written with. Not cancel safe.
    pub async fn noter(&self) -> Result<Noter, Error> {
        Ok(Noter(self.connection().await?))
    }

    /// A page of a chain, and whether there is more.
    pub async fn audit(
        &self,
        chain: SpaceId,
        query: &AuditQuery,
    ) -> Result<(Vec<StoredEntry>, bool), Error> {
        let entries_max = i64::try_from(query.entries_max).unwrap_or(i64::MAX);
        let sql = if query.user.is_some() { OF_USER } else { OF_ALL };
        let query = sqlx::query(sql)
            .bind(chain.0)
            .bind(query.before.unwrap_or(i64::MAX))
            .bind(entries_max.saturating_add(1))
            .bind(query.action.map(AuditAction::as_str))
            .bind(query.since)
            .bind(query.until)
            .bind(query.user.as_ref().map(UserId::as_str));
        let rows = self.read(query).await?;
        let mut entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let has_more = i64::try_from(entries.len()).unwrap_or(i64::MAX) > entries_max;
        if has_more {
            entries.pop();
        }
        Ok((entries, has_more))
    }
}

macro_rules! wanted {
    ($of_user:literal) => {
        concat!(
            "select number, at, action, actor, acted_for, subject, details, link from audit
             where space_id = $1 and number < $2 and ($4::text is null or action = $4)
                 and ($5::timestamptz is null or at >= $5) and ($6::timestamptz is null or at < $6)
                 and ",
            $of_user,
            " order by number desc limit $3"
        )
    };
}

/// The last parameter counts only where there is a user.
const OF_ALL: &str = wanted!("$7::text is null");

/// Each by an index of its own: one condition for the three would walk the chain.
const OF_USER: &str = concat!(
    "select distinct on (number) number, at, action, actor, acted_for, subject, details, link from (
         (", wanted!("actor = $7"), ") union all (", wanted!("acted_for = $7"), ") union all (",
    wanted!("subject = $7"), ")) found order by number desc limit $3"
);

fn entry(row: &PgRow) -> Result<StoredEntry, Error> {
    let user = |column| -> Result<_, Error> {
        Ok(row.try_get::<Option<&str>, _>(column)?.map(UserId::from_stored))
    };
    let details: Option<&str> = row.try_get(6)?;
    let more = |details: &str| {
        let parsed: serde_json::Value = serde_json::from_str(details).ok()?;
        Some(parsed.get("more")?.to_string())
    };
    Ok(StoredEntry {
        number: row.try_get(0)?,
        at: row.try_get(1)?,
        action: row.try_get(2)?,
        actor: user(3)?,
        acted_for: user(4)?,
        subject: user(5)?,
        more: details.and_then(more),
        link: link_from_row(row, 7)?,
    })
}
