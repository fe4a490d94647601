//! `syncline verify`: whether what the tables say twice is the same.

use super::{database, init_log, print};
use crate::config::VerifyConfig;
use crate::exit::{Exit, Failure};
use crate::store::{Settings, Store};

pub(super) async fn run(config: VerifyConfig) -> Result<Exit, Failure> {
    init_log(&config.log)?;
    let settings = Settings { read_connections: 1, allow_unsafe: true };
    let store = Store::connect(config.database_url.expose(), settings).await.map_err(database)?;
    let verified = store.verify(config.space.as_deref()).await.map_err(database)?;
    store.close().await;
    match verified {
        Ok(it) if it.spaces == 0 && config.space.is_some() => {
            print("there is no such space\n")?;
            Ok(Exit::Failure)
        }
        Ok(it) => {
            let spaces = if it.spaces == 1 { "space" } else { "spaces" };
            print(&format!(
                "no difference in {} {spaces}, {} records, {} changes and {} audit entries\n",
                it.spaces, it.records, it.changes, it.audited
            ))?;
            Ok(Exit::Success)
        }
        Err(difference) => {
            print(&format!("{difference}\n"))?;
            Ok(Exit::Failure)
        }
    }
}
