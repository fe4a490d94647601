//! Brings the schema up to date. Replicas that start together wait for each
//! other: the migrator holds an advisory lock.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection, SqlSafeStr};

use super::{Error, Store};

/// All migrations, oldest first. A landed one is never edited.
pub(super) const MIGRATIONS: [(i64, &str, &str); 10] = [
    (1, "foundation", include_str!("../../migrations/0001_foundation.sql")),
    (2, "conflicts", include_str!("../../migrations/0002_conflicts.sql")),
    (3, "policies", include_str!("../../migrations/0003_policies.sql")),
    (4, "conflict_lists", include_str!("../../migrations/0004_conflict_lists.sql")),
    (5, "streams", include_str!("../../migrations/0005_streams.sql")),
    (6, "whole_state", include_str!("../../migrations/0006_whole_state.sql")),
    (7, "queue", include_str!("../../migrations/0007_queue.sql")),
    (8, "queue times", include_str!("../../migrations/0008_queue_times.sql")),
    (9, "access", include_str!("../../migrations/0009_access.sql")),
    (10, "own devices", include_str!("../../migrations/0010_own_devices.sql")),
];

impl Store {
    /// Runs the migrations that are missing; returns how many.
    pub async fn migrate(&self) -> Result<usize, Error> {
        let migrator = Migrator::with_migrations(
            MIGRATIONS
                .into_iter()
                .map(|(version, name, sql)| {
                    let sql = sql.into_sql_str();
                    Migration::new(version, name.into(), MigrationType::Simple, sql, false)
                })
                .collect(),
        );
        let mut connection = self.connection().await?;
        // A migration may take its time; waiting for locks, such as another replica's, may not.
        sqlx::raw_sql("set statement_timeout = 0; set lock_timeout = '10min'; set idle_in_transaction_session_timeout = 0")
            .execute(&mut connection)
            .await?;
        let before = applied(&mut connection).await?;
        migrator.run(&mut connection).await.map_err(Error::Migrate)?;
        let after = applied(&mut connection).await?;
        connection.close().await?;
        Ok(after.saturating_sub(before))
    }
}

pub(super) async fn applied(connection: &mut sqlx::PgConnection) -> Result<usize, Error> {
    let exists: bool = sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null")
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok(0);
    }
    let count: i64 = sqlx::query_scalar("select count(*) from _sqlx_migrations where success")
        .fetch_one(connection)
        .await?;
    Ok(usize::try_from(count).unwrap_or(0))
}
