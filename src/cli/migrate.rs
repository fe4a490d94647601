//! `syncline migrate`: brings the schema up to date and ends.

use super::{database, init_log, print};
use crate::config::MigrateConfig;
use crate::exit::Failure;
use crate::store::{Settings, Store};

pub(super) async fn run(config: MigrateConfig) -> Result<(), Failure> {
    init_log(&config.log)?;
    // Nothing is acknowledged here, so a test database will do.
    let settings = Settings { read_connections: 1, allow_unsafe: true };
    let store = Store::connect(config.database_url.expose(), settings).await.map_err(database)?;
    let count = store.migrate().await.map_err(database)?;
    store.close().await;
    print(&match count {
        0 => "the schema is up to date\n".to_owned(),
        1 => "1 migration was applied\n".to_owned(),
        _ => format!("{count} migrations were applied\n"),
    })
}
