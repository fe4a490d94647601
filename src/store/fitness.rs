//! Whether a database is fit to keep acknowledged writes, and how far its schema is: what a start
//! insists on, and what somebody who looks for a fault wants to know. Must not change anything.

use sqlx::{Connection, PgConnection, Row};

use super::migrate::{MIGRATIONS, applied};
use super::{Error, connect};

const VERSION_MIN: i32 = 130_000;

/// What a database says of itself.
#[derive(Clone, Debug)]
pub struct Fitness {
    /// Such as 160004.
    pub version: i32,
    /// Of the database.
    pub encoding: String,
    /// `fsync`, `full_page_writes` and `synchronous_commit`, with their values.
    pub safety: [(&'static str, String); 3],
    /// Connections that it takes, but for those that it keeps for its superusers.
    pub connections_max: i64,
    /// Connections that are open now.
    pub connections: i64,
    /// Migrations that were applied.
    pub migrations: usize,
}

impl Fitness {
    /// Migrations that this program knows.
    pub const MIGRATIONS: usize = MIGRATIONS.len();

    /// Asks a database, on a connection of its own. Not cancel safe.
    pub async fn of(url: &str) -> Result<Self, Error> {
        let mut connection = PgConnection::connect_with(&connect::options(url)?).await?;
        let fitness = Self::read(&mut connection).await?;
        connection.close().await?;
        Ok(fitness)
    }

    pub(super) async fn read(connection: &mut PgConnection) -> Result<Self, Error> {
        let row = sqlx::query(
            "select current_setting('server_version_num')::int, current_setting('fsync'),
                    current_setting('full_page_writes'), current_setting('synchronous_commit'),
                    current_setting('server_encoding'),
                    current_setting('max_connections')::int8
                        - current_setting('superuser_reserved_connections')::int8,
                    (select count(*) from pg_stat_activity where backend_type = 'client backend')",
        )
        .fetch_one(&mut *connection)
        .await?;
        Ok(Self {
            version: row.try_get(0)?,
            encoding: row.try_get(4)?,
            safety: [
                ("fsync", row.try_get(1)?),
                ("full_page_writes", row.try_get(2)?),
                ("synchronous_commit", row.try_get(3)?),
            ],
            connections_max: row.try_get(5)?,
            connections: row.try_get(6)?,
            migrations: applied(connection).await?,
        })
    }

    /// Why it must not be used; with `allow_unsafe`, losing acknowledged writes is no reason.
    pub fn problems(&self, allow_unsafe: bool) -> Vec<Error> {
        let mut problems = Vec::new();
        if self.version < VERSION_MIN {
            let version = self.version / 10_000;
            problems.push(Error::Unfit {
                problem: format!("the database is PostgreSQL {version}, which is too old"),
                hint: "use PostgreSQL 13 or newer".into(),
            });
        }
        if self.encoding != "UTF8" {
            problems.push(Error::Unfit {
                problem: format!("the database's encoding is {}", self.encoding),
                hint: "create the database with encoding UTF8".into(),
            });
        }
        for (name, _) in self.safety.iter().filter(|(_, value)| value == "off" && !allow_unsafe) {
            problems.push(Error::Unfit {
                problem: format!("the database has {name} off and can lose acknowledged writes"),
                hint: format!("set {name} = on, or say --allow-unsafe-database if this is a test"),
            });
        }
        problems
    }
}
