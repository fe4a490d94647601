//! `syncline compact`: forgets now what need not be kept any longer.

use super::{database, init_log, print};
use crate::app::compact_once;
use crate::clock::Clock;
use crate::config::CompactConfig;
use crate::exit::{Exit, Failure};
use crate::store::{Settings, Store};

pub(super) async fn run(config: CompactConfig) -> Result<(), Failure> {
    init_log(&config.log)?;
    // Nothing is acknowledged here, so a test database will do.
    let settings = Settings { read_connections: 1, allow_unsafe: true };
    let store = Store::connect(config.database_url.expose(), settings).await.map_err(database)?;
    let now = Clock::system().now_to_store();
    let forgotten = compact_once(&store, config.retention, now).await.map_err(database)?;
    store.close().await;
    match forgotten {
        Some(forgotten) => print(&format!("{forgotten}\n")),
        None => {
            let busy = anyhow::anyhow!("a server, or somebody else, is compacting already");
            Err(Failure::new(Exit::Database, busy).hint("try again when that one has ended"))
        }
    }
}
