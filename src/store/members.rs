//! Shared spaces and who may enter them. Whatever changes is noted in the space's audit
//! log, and told to other replicas, in the same transaction.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Postgres, Row, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Error, Store, audit};
use crate::domain::{
    AuditEntry, CollectionName, Membership, Right, Space, SpaceId, UserId, limits,
};

/// What is known of a user in a shared space.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seat {
    /// The space, if it is there, by its name and title.
    pub space: Option<(Arc<str>, Arc<str>)>,
    pub membership: Option<Membership>,
}

/// A shared space.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedSpace {
    pub space: Space,
    pub title: String,
    pub created_at: OffsetDateTime,
    /// Of whoever asks.
    pub membership: Option<Membership>,
}

/// A member of a space.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub user: UserId,
    pub membership: Membership,
    pub granted_by: UserId,
    pub granted_at: OffsetDateTime,
}

/// What a change of the members comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberOutcome {
    Done,
    /// It was so before.
    Nothing,
    /// There is no such space.
    Gone,
    /// Then nobody could let anybody in any more.
    LastAdmin,
    /// The space has as many members as it may, or the user as many spaces.
    TooMany,
}

/// That something has changed for a user in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessChange {
    pub number: i64,
    /// The id of their private space.
    pub user_key: Uuid,
    pub space: SpaceId,
}

/// The user as `access_changes` knows them.
pub fn user_key(user: &UserId) -> Uuid {
    Space::private(user).id.0
}

const SEATS: &str = "select w.number::int, s.name, s.title, m.role, m.collections
     from unnest($1::uuid[], $2::text[]) with ordinality w (space_id, user_id, number)
     left join spaces s on s.id = w.space_id
     left join members m on m.space_id = w.space_id and m.user_id = w.user_id
     order by w.number";

/// A change is told up to so late after its time, because its transaction goes on.
const NEWS: &str = "select n.now, a.number, a.user_key, a.space_id
     from (select clock_timestamp() as now) n
     left join access_changes a on a.changed_at > coalesce($1, n.now) - interval '20 seconds'";

const TELL: &str = "insert into access_changes (space_id, user_key) values ($1, $2)";

impl Store {
    /// What is known of these users in these spaces, in their order.
    pub async fn seats(&self, wanted: &[(SpaceId, UserId)]) -> Result<Vec<Seat>, Error> {
        let query = sqlx::query(SEATS)
            .bind(wanted.iter().map(|(space, _)| space.0).collect::<Vec<_>>())
            .bind(wanted.iter().map(|(_, user)| user.as_str()).collect::<Vec<_>>());
        let seat = |row: &PgRow| {
            let name: Option<&str> = row.try_get(1)?;
            let title: Option<&str> = row.try_get(2)?;
            let space = name.zip(title).map(|(name, title)| (name.into(), title.into()));
            Ok(Seat { space, membership: membership(row, 3)? })
        };
        self.read(query).await?.iter().map(seat).collect()
    }

    /// What has changed lately for whom: since the time that an earlier look came to, or
    /// just now; and the time that this one comes to. Some are told again.
    pub async fn access_changes(
        &self,
        since: Option<OffsetDateTime>,
    ) -> Result<(Vec<AccessChange>, Option<OffsetDateTime>), Error> {
        let rows = self.read(sqlx::query(NEWS).bind(since)).await?;
        let change = |row: &PgRow| -> Result<Option<AccessChange>, Error> {
            let Some(number) = row.try_get(1)? else { return Ok(None) };
            let space = SpaceId(row.try_get(3)?);
            Ok(Some(AccessChange { number, user_key: row.try_get(2)?, space }))
        };
        let changes = rows.iter().filter_map(|row| change(row).transpose());
        let changes = changes.collect::<Result<_, _>>()?;
        Ok((changes, rows.first().map(|row| row.try_get(0)).transpose()?))
    }

    /// Creates a shared space with its first admin; true if it is new. Not cancel safe.
    pub async fn create_space(
        &self,
        space: &Space,
        title: &str,
        (creator, entry): (&UserId, &AuditEntry),
        now: OffsetDateTime,
    ) -> Result<Option<bool>, Error> {
        const INSERT: &str = "insert into spaces (id, name, epoch, title, created_at)
             values ($1, $2, $3, $4, $5) on conflict (id) do nothing returning 1";
        const COUNT: &str = "select count(*) from members where user_id = $1";
        let mut connection = self.connection().await?;
        let mut transaction = connection.begin().await?;
        let count: i64 = sqlx::query(COUNT)
            .bind(creator.as_str())
            .fetch_one(&mut *transaction)
            .await?
            .try_get(0)?;
        let insert = sqlx::query(INSERT).bind(space.id.0).bind(space.name());
        let insert = insert.bind(Uuid::new_v4()).bind(title).bind(now);
        let new = insert.fetch_optional(&mut *transaction).await?.is_some();
        if new {
            if count >= limits::USER_SPACES_MAX {
                return Ok(None);
            }
            let admin = Membership { right: Right::Admin, collections: None };
            set_row(&mut transaction, space.id, creator, &admin, (creator, now)).await?;
            audit::append(&mut transaction, space.id, entry, now).await?;
        }
        transaction.commit().await?;
        connection.close().await?;
        Ok(Some(new))
    }

    /// A shared space, as a user sees it; None if it is not there.
    pub async fn shared_space(
        &self,
        space: &Space,
        user: &UserId,
    ) -> Result<Option<SharedSpace>, Error> {
        const ONE: &str = "select s.id, s.name, s.title, s.created_at, m.role, m.collections
             from spaces s left join members m on m.space_id = s.id and m.user_id = $2
             where s.id = $1";
        let query = sqlx::query(ONE).bind(space.id.0).bind(user.as_str());
        self.read(query).await?.first().map(shared_space).transpose()
    }

    /// A page of the spaces of which the user is a member, or, with `all`, of all shared
    /// ones, by their ids; and whether there is more.
    pub async fn shared_spaces(
        &self,
        user: &UserId,
        all: bool,
        after: Option<SpaceId>,
        entries_max: usize,
    ) -> Result<(Vec<SharedSpace>, bool), Error> {
        const MINE: &str = "select s.id, s.name, s.title, s.created_at, m.role, m.collections
             from members m join spaces s on s.id = m.space_id
             where m.user_id = $1 and m.space_id > $2 order by m.space_id limit $3";
        const ALL: &str = "select s.id, s.name, s.title, s.created_at, m.role, m.collections
             from spaces s left join members m on m.space_id = s.id and m.user_id = $1
             where s.id > $2 and s.name like 'spaces/%' order by s.id limit $3";
        let limit = i64::try_from(entries_max).unwrap_or(i64::MAX).saturating_add(1);
        let query = sqlx::query(if all { ALL } else { MINE })
            .bind(user.as_str())
            .bind(after.map_or(Uuid::nil(), |after| after.0))
            .bind(limit);
        let spaces = self.read(query).await?.iter().map(shared_space).collect();
        cut(spaces, entries_max)
    }

    /// Calls a space otherwise; false if it is not there. Not cancel safe.
    pub async fn rename_space(
        &self,
        space: SpaceId,
        title: &str,
        entry: &AuditEntry,
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        const RENAME: &str = "update spaces set title = $2 where id = $1";
        let mut connection = self.connection().await?;
        let mut transaction = connection.begin().await?;
        let renamed = sqlx::query(RENAME).bind(space.0).bind(title);
        let renamed = renamed.execute(&mut *transaction).await?.rows_affected() > 0;
        if renamed {
            audit::append(&mut transaction, space, entry, now).await?;
        }
        transaction.commit().await?;
        connection.close().await?;
        Ok(renamed)
    }

    /// A page of a space's members, by their names; and whether there is more.
    pub async fn members(
        &self,
        space: SpaceId,
        after: &str,
        entries_max: usize,
    ) -> Result<(Vec<Member>, bool), Error> {
        const PAGE: &str = "select user_id, role, collections, granted_by, granted_at
             from members where space_id = $1 and user_id > $2 order by user_id limit $3";
        let limit = i64::try_from(entries_max).unwrap_or(i64::MAX).saturating_add(1);
        let query = sqlx::query(PAGE).bind(space.0).bind(after).bind(limit);
        let member = |row: &PgRow| {
            let membership = membership(row, 1)?;
            Ok(Member {
                user: UserId::from_stored(row.try_get(0)?),
                membership: membership.ok_or_else(|| Error::Corrupt("a role".into()))?,
                granted_by: UserId::from_stored(row.try_get(3)?),
                granted_at: row.try_get(4)?,
            })
        };
        cut(self.read(query).await?.iter().map(member).collect(), entries_max)
    }

    /// Makes somebody a member like this, or, with None, no longer one. Not cancel safe.
    pub async fn set_member(
        &self,
        space: SpaceId,
        (user, membership): (&UserId, Option<&Membership>),
        (by, entry): (&UserId, &AuditEntry),
        now: OffsetDateTime,
    ) -> Result<MemberOutcome, Error> {
        let mut connection = self.connection().await?;
        let mut transaction = connection.begin().await?;
        let outcome = set(&mut transaction, space, (user, membership), (by, now)).await?;
        if outcome == MemberOutcome::Done {
            audit::append(&mut transaction, space, entry, now).await?;
        }
        transaction.commit().await?;
        connection.close().await?;
        Ok(outcome)
    }

    /// Forgets which memberships have changed: every replica has looked since. Not cancel
    /// safe.
    pub async fn forget_access_changes(&self, before: OffsetDateTime) -> Result<(), Error> {
        const FORGET: &str = "delete from access_changes where changed_at < $1";
        self.read(sqlx::query(FORGET).bind(before)).await.map(drop)
    }
}

async fn set(
    transaction: &mut Transaction<'_, Postgres>,
    space: SpaceId,
    (user, membership): (&UserId, Option<&Membership>),
    by: (&UserId, OffsetDateTime),
) -> Result<MemberOutcome, Error> {
    // Who else changes members waits, so that the last admin is seen to be the last.
    const LOCK: &str = "select from spaces where id = $1 for update";
    const NOW: &str = "select role, collections,
             (select count(*) from members where space_id = $1),
             (select count(*) from members where user_id = $2),
             (select count(*) from members where space_id = $1 and role = 3 and user_id <> $2)
         from (select 1) one
         left join members m on m.space_id = $1 and m.user_id = $2";
    if sqlx::query(LOCK).bind(space.0).fetch_optional(&mut **transaction).await?.is_none() {
        return Ok(MemberOutcome::Gone);
    }
    let now = sqlx::query(NOW).bind(space.0).bind(user.as_str());
    let now = now.fetch_one(&mut **transaction).await?;
    let before = self::membership(&now, 0)?;
    let (members, spaces, other_admins): (i64, i64, i64) =
        (now.try_get(2)?, now.try_get(3)?, now.try_get(4)?);
    if before.as_ref() == membership {
        return Ok(MemberOutcome::Nothing);
    }
    let is_admin = |it: Option<&Membership>| it.is_some_and(|it| it.right == Right::Admin);
    if is_admin(before.as_ref()) && !is_admin(membership) && other_admins == 0 {
        return Ok(MemberOutcome::LastAdmin);
    }
    let full = members >= limits::SPACE_MEMBERS_MAX || spaces >= limits::USER_SPACES_MAX;
    if before.is_none() && full {
        return Ok(MemberOutcome::TooMany);
    }
    match membership {
        Some(membership) => set_row(transaction, space, user, membership, by).await?,
        None => {
            const REMOVE: &str = "delete from members where space_id = $1 and user_id = $2";
            let remove = sqlx::query(REMOVE).bind(space.0).bind(user.as_str());
            remove.execute(&mut **transaction).await?;
            tell(transaction, space, user).await?;
        }
    }
    Ok(MemberOutcome::Done)
}

async fn set_row(
    connection: &mut PgConnection,
    space: SpaceId,
    user: &UserId,
    membership: &Membership,
    (by, now): (&UserId, OffsetDateTime),
) -> Result<(), Error> {
    const SET: &str = "insert into members (space_id, user_id, role, collections, granted_by,
             granted_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (space_id, user_id) do update set role = excluded.role,
             collections = excluded.collections, granted_by = excluded.granted_by,
             granted_at = excluded.granted_at";
    let role: i16 = match membership.right {
        Right::Read => 1,
        Right::Write => 2,
        Right::Admin => 3,
    };
    let collections = membership.collections.as_ref();
    sqlx::query(SET)
        .bind(space.0)
        .bind(user.as_str())
        .bind(role)
        .bind(collections.map(|some| some.iter().map(|it| it.as_str()).collect::<Vec<_>>()))
        .bind(by.as_str())
        .bind(now)
        .execute(&mut *connection)
        .await?;
    tell(connection, space, user).await
}

/// Has every replica look at a user's membership again.
pub(super) async fn tell(
    connection: &mut PgConnection,
    space: SpaceId,
    user: &UserId,
) -> Result<(), Error> {
    sqlx::query(TELL).bind(space.0).bind(user_key(user)).execute(connection).await?;
    Ok(())
}

/// From the columns role and collections.
fn membership(row: &PgRow, first: usize) -> Result<Option<Membership>, Error> {
    let right = match row.try_get::<Option<i16>, _>(first)? {
        None => return Ok(None),
        Some(1) => Right::Read,
        Some(2) => Right::Write,
        Some(3) => Right::Admin,
        Some(other) => return Err(Error::Corrupt(format!("role {other}"))),
    };
    let collections: Option<Vec<String>> = row.try_get(first + 1)?;
    let name = |name: String| CollectionName::from_stored(&name);
    let collections = collections.map(|some| some.into_iter().map(name).collect());
    Ok(Some(Membership { right, collections }))
}

fn shared_space(row: &PgRow) -> Result<SharedSpace, Error> {
    Ok(SharedSpace {
        space: Space::from_stored(SpaceId(row.try_get(0)?), row.try_get(1)?),
        title: row.try_get(2)?,
        created_at: row.try_get(3)?,
        membership: membership(row, 4)?,
    })
}

/// A page, and whether one more than it takes was found.
fn cut<T>(found: Result<Vec<T>, Error>, entries_max: usize) -> Result<(Vec<T>, bool), Error> {
    let mut found = found?;
    let has_more = found.len() > entries_max;
    found.truncate(entries_max);
    Ok((found, has_more))
}
