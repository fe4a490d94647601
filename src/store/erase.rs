//! Erasing: everything that is kept of a space, or of a user, goes in one transaction. Only
//! the fact stays, in the server's audit log, with a name that tells nothing.

use sqlx::{Connection, PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store, audit, members};
use crate::domain::{AuditEntry, SERVER_CHAIN, Space, SpaceId, UserId};

/// What was erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    pub spaces: i64,
    pub records: i64,
    pub changes: i64,
    /// Shared spaces of which the user was a member.
    pub memberships: i64,
    /// Those of them that have no admin now.
    pub without_admin: Vec<String>,
    /// Who was a member of what, and is no longer.
    pub left: Vec<(SpaceId, UserId)>,
}

/// Whoever enqueues, changes members or writes waits for these.
const LOCK: &str = "select from spaces where id = $1 for update";
const LOCK_QUEUE: &str = "select pg_advisory_xact_lock(hashtextextended($1::text, 7))";

/// Tables whose rows are of one space each; the row of the space itself goes last.
pub(super) const TABLES: [&str; 13] = [
    "delete from latest where space_id = $1",
    "delete from changes where space_id = $1",
    "delete from answers where space_id = $1",
    "delete from devices where space_id = $1",
    "delete from acknowledgements where space_id = $1",
    "delete from conflicts where space_id = $1",
    "delete from digests where space_id = $1",
    "delete from retained where space_id = $1",
    "delete from replacements where space_id = $1",
    "delete from queue where space_id = $1",
    "delete from lanes where space_id = $1",
    "delete from audit where space_id = $1",
    "delete from audit_ends where space_id = $1",
];

/// Rows that name a user in spaces of others; $2 stands in for the name.
const RENAMED: [&str; 9] = [
    "update changes set author = $2 where author = $1",
    "update changes set actor = $2 where actor = $1",
    "update conflicts set author = $2 where author = $1",
    "update conflicts set server_author = $2 where server_author = $1",
    "update conflicts set closing = jsonb_set(closing, '{author}', to_jsonb($2::text))
     where closing ->> 'author' = $1",
    "update queue set author = $2 where author = $1",
    "update queue set actor = $2 where actor = $1",
    "update policies set author = $2 where author = $1",
    "update members set granted_by = $2 where granted_by = $1",
];

impl Store {
    /// Erases a space; `entry` says so in the server's audit log. Not cancel safe.
    pub async fn erase_space(
        &self,
        space: &Space,
        entry: &AuditEntry,
        now: OffsetDateTime,
    ) -> Result<Erased, Error> {
        let mut connection = self.patient().await?;
        let mut transaction = connection.begin().await?;
        let mut erased = Erased::default();
        erase(&mut transaction, space.id, &mut erased).await?;
        audit::append(&mut transaction, SERVER_CHAIN, entry, now).await?;
        tell(&mut transaction, &erased).await?;
        transaction.commit().await?;
        connection.close().await?;
        Ok(erased)
    }

    /// Erases a user: their private space, their memberships, and their name wherever else
    /// it stands, where `pseudonym` takes its place. Not cancel safe.
    pub async fn erase_user(
        &self,
        user: &UserId,
        pseudonym: &str,
        entry: &AuditEntry,
        now: OffsetDateTime,
    ) -> Result<Erased, Error> {
        const WRITTEN: &str = "select space_id from changes where author = $1 or actor = $1
             union select space_id from devices where author = $1 order by space_id";
        // Whoever has cached what they wrote reads it anew.
        const STIR: &str = "update spaces set answered = answered + 1 where id = any($1)";
        const FORGET: [&str; 2] = [
            "delete from acknowledgements where author = $1",
            "delete from devices where author = $1",
        ];
        let mut connection = self.patient().await?;
        let mut transaction = connection.begin().await?;
        let mut erased = Erased::default();
        erase(&mut transaction, Space::private(user).id, &mut erased).await?;
        leave_all(&mut transaction, user, &mut erased).await?;
        let written = sqlx::query(WRITTEN).bind(user.as_str()).fetch_all(&mut *transaction).await?;
        let written = written.iter().map(|row| row.try_get::<Uuid, _>(0));
        let written = written.collect::<Result<Vec<_>, _>>()?;
        sqlx::query(super::write::LOCK_HEADS).bind(&written).execute(&mut *transaction).await?;
        for sql in RENAMED {
            let rename = sqlx::query(sql).bind(user.as_str()).bind(pseudonym);
            rename.execute(&mut *transaction).await?;
        }
        for sql in FORGET {
            sqlx::query(sql).bind(user.as_str()).execute(&mut *transaction).await?;
        }
        sqlx::query(STIR).bind(written).execute(&mut *transaction).await?;
        let number = audit::append(&mut transaction, SERVER_CHAIN, entry, now).await?;
        redact(&mut transaction, user, number).await?;
        tell(&mut transaction, &erased).await?;
        transaction.commit().await?;
        connection.close().await?;
        Ok(erased)
    }

    /// A connection for what may take its time.
    async fn patient(&self) -> Result<PgConnection, Error> {
        const SETTINGS: &str = "set statement_timeout = 0; set lock_timeout = '60s'";
        let mut connection = self.connection().await?;
        sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
        Ok(connection)
    }
}

async fn erase(
    connection: &mut PgConnection,
    space: SpaceId,
    erased: &mut Erased,
) -> Result<(), Error> {
    const COUNT: &str = "select count(*) from latest where space_id = $1 and not deleted";
    const COUNT_CHANGES: &str = "select count(*) from changes where space_id = $1";
    const MEMBERS: &str = "delete from members where space_id = $1 returning user_id";
    const SPACE: &str = "delete from spaces where id = $1";
    sqlx::query(LOCK).bind(space.0).execute(&mut *connection).await?;
    sqlx::query(LOCK_QUEUE).bind(space.0).execute(&mut *connection).await?;
    for (sql, count) in [(COUNT, &mut erased.records), (COUNT_CHANGES, &mut erased.changes)] {
        let row = sqlx::query(sql).bind(space.0).fetch_one(&mut *connection).await?;
        *count += row.try_get::<i64, _>(0)?;
    }
    for row in sqlx::query(MEMBERS).bind(space.0).fetch_all(&mut *connection).await? {
        erased.left.push((space, UserId::from_stored(row.try_get(0)?)));
    }
    for sql in TABLES {
        sqlx::query(sql).bind(space.0).execute(&mut *connection).await?;
    }
    let gone = sqlx::query(SPACE).bind(space.0).execute(&mut *connection).await?;
    erased.spaces += i64::try_from(gone.rows_affected()).unwrap_or(i64::MAX);
    Ok(())
}

/// Ends all memberships of a user.
async fn leave_all(
    connection: &mut PgConnection,
    user: &UserId,
    erased: &mut Erased,
) -> Result<(), Error> {
    const LEAVE: &str = "with left_ones as (
             delete from members where user_id = $1 returning space_id
         )
         select l.space_id, s.name, exists (
             select from members m where m.space_id = l.space_id and m.role = 3 and m.user_id <> $1
         ) from left_ones l join spaces s on s.id = l.space_id order by l.space_id";
    for row in sqlx::query(LEAVE).bind(user.as_str()).fetch_all(&mut *connection).await? {
        erased.left.push((SpaceId(row.try_get(0)?), user.clone()));
        erased.memberships += 1;
        if !row.try_get::<bool, _>(2)? {
            erased.without_admin.push(row.try_get(1)?);
        }
    }
    Ok(())
}

/// Has every replica look at who has left. At the very end, because replicas look at what was
/// told in the last seconds only, and see it once this has committed.
async fn tell(connection: &mut PgConnection, erased: &Erased) -> Result<(), Error> {
    for (space, user) in &erased.left {
        members::tell(connection, *space, user).await?;
    }
    Ok(())
}

/// Takes the details out of whatever entry of an audit log names a user; their hashes stay.
async fn redact(connection: &mut PgConnection, user: &UserId, number: i64) -> Result<(), Error> {
    const REDACT: &str = "update audit set actor = null, acted_for = null, subject = null,
             details = null, erased_in = $3
         where actor = $1 or acted_for = $1 or subject = $1 or position($2 in details) > 0
             or position($4 in details) > 0";
    // As values of the details: the name of the private space, and the right to be the user.
    let value = |text: String| serde_json::Value::from(text).to_string();
    let redact = sqlx::query(REDACT).bind(user.as_str()).bind(value(format!("users/{user}")));
    let redact = redact.bind(number).bind(value(format!("act_for:{user}")));
    redact.execute(connection).await?;
    Ok(())
}
