//! `syncline serve`: the service on a database that somebody else keeps.

use std::io;

use tracing::info;

use super::{asked_to_stop, database, init_log, listen};
use crate::clock::Clock;
use crate::config::ServeConfig;
use crate::exit::{Exit, Failure};
use crate::server::Server;
use crate::store::{Settings, Store};

pub(super) async fn run(config: ServeConfig) -> Result<(), Failure> {
    init_log(&config.server.log)?;
    let settings = Settings {
        read_connections: config.server.database_connections,
        allow_unsafe: config.allow_unsafe_database,
    };
    let store = Store::connect(config.database_url.expose(), settings).await.map_err(database)?;
    let migrations = store.migrate().await.map_err(database)?;
    let listener = listen(config.server.listen).await?;
    let mut server =
        Server::start(listener, store, config.verifier, Clock::system(), &config.server)
            .await
            .map_err(not_started)?;
    info!(address = %server.address(), migrations, "serving");
    // Cancel: both only wait, and `ended` is cancel safe.
    tokio::select! {
        asked = asked_to_stop() => asked?,
        () = server.ended() => return Err(anyhow::anyhow!("the server ended by itself").into()),
    }
    server.shutdown().await;
    info!("stopped");
    Ok(())
}

/// Only files that were named in the settings make a start invalid.
fn not_started(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidInput => Failure::new(Exit::Usage, error),
        _ => error.into(),
    }
}
