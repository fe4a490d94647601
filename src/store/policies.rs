//! Policies: every version of them, in the order of their commits.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection, Row};
use time::OffsetDateTime;

use super::{Error, Store, audit};
use crate::domain::{Actor, AuditAction, AuditEntry, CollectionName, Policy, SERVER_CHAIN, limits};

/// A policy as it is stored; None = it was deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPolicy {
    pub collection: CollectionName,
    pub version: i64,
    pub policy: Option<Policy>,
    /// None if it came from the configuration file.
    pub author: Option<String>,
    pub set_at: OffsetDateTime,
}

/// All policies that are set, by collection.
#[derive(Debug, Default)]
pub struct StoredPolicies {
    pub readable: Vec<StoredPolicy>,
    /// Those that make no sense to this program, with their versions: perhaps a
    /// newer one has set them.
    pub unreadable: Vec<(CollectionName, i64, Error)>,
    /// Of the last that was set or deleted.
    pub number: i64,
}

/// What to store.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    pub collection: CollectionName,
    /// None deletes it.
    pub policy: Option<Policy>,
    pub author: Option<String>,
    pub set_at: OffsetDateTime,
    pub condition: Condition,
    /// Whom the audit log names.
    pub by: Actor,
}

/// When to store it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Always,
    /// This version is set, 0 standing for none that is.
    Version(i64),
    /// None was ever set by anybody, and the file's last one is another.
    FromFile,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum SetOutcome {
    Stored(StoredPolicy),
    /// The condition does not hold: this version is set, 0 if none is.
    Refused {
        version: i64,
    },
    /// There are as many policies as there may be.
    TooMany,
}

impl Store {
    /// The number of the last policy that was set or deleted; 0 if none was.
    pub async fn policies_number(&self) -> Result<i64, Error> {
        let rows = self.read(sqlx::query("select max(number) from policies")).await?;
        let number: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
        Ok(number.unwrap_or(0))
    }

    /// The last version of each, without those that were deleted.
    pub async fn policies(&self) -> Result<StoredPolicies, Error> {
        const ALL: &str = "select p.collection, p.version, p.policy, p.author, p.set_at, p.number
             from policies p
             where not exists (
                 select from policies later
                 where later.collection = p.collection and later.version > p.version
             )
             order by p.collection";
        let mut found = StoredPolicies::default();
        for row in &self.read(sqlx::query(ALL)).await? {
            found.number = found.number.max(row.try_get(5)?);
            match from_row(row) {
                Ok(stored) => found.readable.extend(stored.policy.is_some().then_some(stored)),
                Err(fault) => {
                    let collection = CollectionName::from_stored(row.try_get(0)?);
                    found.unreadable.push((collection, row.try_get(1)?, fault));
                }
            }
        }
        Ok(found)
    }

    /// A page of the policies that are set and can be read, by collection, and the
    /// collection after which the next page begins.
    pub async fn policies_page(
        &self,
        after: &str,
        entries_max: usize,
    ) -> Result<(Vec<StoredPolicy>, Option<String>), Error> {
        const PAGE: &str = "select collection, version, policy, author, set_at, left_over from (
                 select p.*, count(*) over () as left_over, sum(octet_length(p.policy::text)) over (
                     order by p.collection rows between unbounded preceding and 1 preceding
                 ) as before
                 from policies p
                 where p.collection > $1 and p.policy is not null and not exists (
                     select from policies later
                     where later.collection = p.collection and later.version > p.version
                 )
                 order by p.collection limit $2
             ) p
             where before is null or before < $3
             order by collection";
        let query = sqlx::query(PAGE)
            .bind(after)
            .bind(i64::try_from(entries_max).unwrap_or(i64::MAX))
            .bind(i64::try_from(limits::PAGE_DOCUMENT_BYTES_MAX).unwrap_or(i64::MAX));
        let rows = self.read(query).await?;
        let all: i64 = rows.first().map_or(Ok(0), |row| row.try_get(5))?;
        let more = all > i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let next = rows.last().filter(|_| more).map(|row| row.try_get(0)).transpose()?;
        // Whoever cannot be read is told in the log whenever all are read.
        Ok((rows.iter().filter_map(|row| from_row(row).ok()).collect(), next))
    }

    /// A version of a collection's policy; None = the last one.
    pub async fn policy(
        &self,
        collection: &CollectionName,
        version: Option<i64>,
    ) -> Result<Option<StoredPolicy>, Error> {
        const ONE: &str = "select collection, version, policy, author, set_at from policies
             where collection = $1 and ($2::bigint is null or version = $2)
             order by version desc limit 1";
        let query = sqlx::query(ONE).bind(collection.as_str()).bind(version);
        self.read(query).await?.first().map(from_row).transpose()
    }

    /// Stores those policies whose conditions hold. Whoever else does so waits:
    /// numbers follow the order of commits. Not cancel safe.
    pub async fn set_policies(&self, policies: &[NewPolicy]) -> Result<Vec<SetOutcome>, Error> {
        const LOCK: &str = "lock table policies in share row exclusive mode";
        let mut connection = self.connection().await?;
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(LOCK).execute(&mut *transaction).await?;
        let mut outcomes = Vec::new();
        for new in policies {
            let outcome = set(&mut transaction, new).await?;
            if let SetOutcome::Stored(stored) = &outcome {
                let action = match &stored.policy {
                    Some(_) => AuditAction::PolicySet,
                    None => AuditAction::PolicyDeleted,
                };
                let entry = AuditEntry::new(action, new.by.clone())
                    .with("collection", stored.collection.as_str())
                    .with("version", stored.version);
                audit::append(&mut transaction, SERVER_CHAIN, &entry, new.set_at).await?;
            }
            outcomes.push(outcome);
        }
        transaction.commit().await?;
        connection.close().await?;
        Ok(outcomes)
    }
}

async fn set(connection: &mut PgConnection, new: &NewPolicy) -> Result<SetOutcome, Error> {
    // Whether it can be read does not matter: it is set anew.
    const LAST: &str = "select version, policy is not null, author = '', policy is distinct from $2
         from policies where collection = $1 order by version desc limit 1";
    const COUNT: &str = "select count(*) from policies p
         where policy is not null and not exists (
             select from policies later
             where later.collection = p.collection and later.version > p.version
         )";
    const INSERT: &str =
        "insert into policies (collection, version, number, policy, author, set_at)
         select $1, $2, coalesce(max(number), 0) + 1, $3, $4, $5 from policies";
    let name = new.collection.as_str();
    let policy = new.policy.as_ref().map(Json);
    let last = sqlx::query(LAST).bind(name).bind(policy).fetch_optional(&mut *connection).await?;
    let (last, is_set, may_follow) = match last {
        Some(row) => {
            let (from_file, differs): (bool, bool) = (row.try_get(2)?, row.try_get(3)?);
            (row.try_get(0)?, row.try_get(1)?, from_file && differs)
        }
        None => (0, false, true),
    };
    let set: i64 = if is_set { last } else { 0 };
    let holds = match new.condition {
        Condition::Always => true,
        Condition::Version(version) => version == set,
        Condition::FromFile => may_follow,
    };
    // What is not set cannot be deleted, whatever the condition.
    if !holds || (new.policy.is_none() && set == 0) {
        return Ok(SetOutcome::Refused { version: set });
    }
    if set == 0 && new.policy.is_some() {
        let count: i64 = sqlx::query(COUNT).fetch_one(&mut *connection).await?.try_get(0)?;
        if count >= i64::try_from(limits::POLICIES_MAX).unwrap_or(i64::MAX) {
            return Ok(SetOutcome::TooMany);
        }
    }
    let version = last + 1;
    sqlx::query(INSERT)
        .bind(name)
        .bind(version)
        .bind(policy)
        .bind(new.author.as_deref().unwrap_or_default())
        .bind(new.set_at)
        .execute(connection)
        .await?;
    let NewPolicy { collection, policy, author, set_at, condition: _, by: _ } = new.clone();
    Ok(SetOutcome::Stored(StoredPolicy { collection, version, policy, author, set_at }))
}

/// From the columns collection, version, policy, author and set_at.
fn from_row(row: &PgRow) -> Result<StoredPolicy, Error> {
    let collection: &str = row.try_get(0)?;
    let policy: Option<Json<serde_json::Value>> = row.try_get(2)?;
    let policy = policy.map(|Json(stored)| serde_json::from_value(stored)).transpose();
    let policy = policy.map_err(|error| {
        Error::Corrupt(format!("the policy of {collection:?}, which cannot be read: {error}"))
    })?;
    let author: &str = row.try_get(3)?;
    Ok(StoredPolicy {
        collection: CollectionName::from_stored(collection),
        version: row.try_get(1)?,
        policy,
        author: (!author.is_empty()).then(|| author.to_owned()),
        set_at: row.try_get(4)?,
    })
}
