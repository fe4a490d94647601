//! `syncline dev`: everything on one machine. Keeps a private PostgreSQL, a
//! secret and a token in the data folder, and tells a newcomer what to paste.

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use tracing::info;
use uuid::Uuid;

use super::{asked_to_stop, database, init_log, listen, print};
use crate::auth::{Grant, KeyConfig, Minter, Verifier};
use crate::clock::Clock;
use crate::config::{self, DEV_AUDIENCE, DEV_ISSUER, DevConfig};
use crate::domain::UserId;
use crate::exit::{Exit, Failure};
use crate::postgres::{Options, PrivatePostgres};
use crate::server::Server;
use crate::store::{Settings, Store};

const DEV_USER: &str = "dev";
const TOKEN_TTL: Duration = Duration::from_secs(30 * 86_400);
/// The database that every fresh PostgreSQL has.
const DATABASE: &str = "postgres";

pub(super) async fn run(config: DevConfig) -> Result<(), Failure> {
    init_log(&config.server.log)?;
    let dir = &config.data_dir;
    // Before PostgreSQL: an address that is taken shows at once.
    let listener = listen(config.server.listen).await?;
    let postgres = start_postgres(dir).await?;
    let settings =
        Settings { read_connections: config.server.database_connections, allow_unsafe: false };
    let store = Store::connect(&postgres.url(DATABASE), settings).await.map_err(database)?;
    store.migrate().await.map_err(database)?;

    let key = KeyConfig::Secret(secret(dir)?);
    let clock = Clock::system();
    let user = UserId::parse(DEV_USER).map_err(anyhow::Error::msg)?;
    let minter = Minter::new(&key)?.with_grants(vec![Grant::Policies, Grant::Audit]);
    let token = minter.mint(&user, TOKEN_TTL, clock.unix_seconds(), DEV_ISSUER, DEV_AUDIENCE)?;
    write_private(&dir.join("dev.token"), &format!("{token}\n"))?;

    let verifier = Verifier::new(&key, DEV_ISSUER, DEV_AUDIENCE)?;
    let mut server = Server::start(listener, store, verifier, clock, &config.server).await?;
    print(&banner(server.address(), dir, &postgres))?;
    // Cancel: both only wait, and `ended` is cancel safe.
    tokio::select! {
        asked = asked_to_stop() => asked?,
        () = server.ended() => return Err(anyhow::anyhow!("the server ended by itself").into()),
    }
    info!("stopping; press Ctrl-C again to stop at once");
    // Cancel: a second Ctrl-C drops the shutdown, and with it what is still being answered. What
    // was acknowledged is in PostgreSQL.
    tokio::select! {
        () = server.shutdown() => {}
        // PostgreSQL is still stopped cleanly, below.
        again = asked_to_stop() => again?,
    }
    tokio::task::spawn_blocking(move || postgres.stop()).await?;
    Ok(())
}

async fn start_postgres(dir: &Path) -> Result<PrivatePostgres, Failure> {
    let progress = ProgressBar::new_spinner();
    if io::stderr().is_terminal() {
        progress.set_message("starting PostgreSQL");
        progress.enable_steady_tick(Duration::from_millis(100));
    }
    let options = Options::new(dir);
    let started = tokio::task::spawn_blocking(move || PrivatePostgres::start(options)).await?;
    progress.finish_and_clear();
    started.map_err(|error| Failure::new(Exit::Postgres, error))
}

/// The secret that signs this folder's tokens, made at the first start.
fn secret(dir: &Path) -> Result<Vec<u8>, Failure> {
    let path = config::dev_secret_path(dir);
    if !path.exists() {
        let random = format!("{}{}\n", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        write_private(&path, &random)?;
    }
    config::read_secret(&path).map_err(|error| Failure::new(Exit::Usage, error))
}

/// Writes a file that only its owner can read. Whole or not at all: who reads
/// it meanwhile gets the old one.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let draft = path.with_extension("new");
    let write = || -> io::Result<()> {
        if draft.exists() {
            fs::remove_file(&draft)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn banner(address: SocketAddr, dir: &Path, postgres: &PrivatePostgres) -> String {
    let (dir, socket) = (dir.display(), postgres.socket_dir().display());
    let call = format!(
        "grpcurl -plaintext -H \"authorization: Bearer $(cat {dir}/dev.token)\" -d '{{DATA}}' \
         {address} syncline.v1.SyncService/"
    );
    let paste = |data: &str, method: &str| format!("{}{method}", call.replace("{DATA}", data));
    let id = Uuid::now_v7();
    format!(
        "Syncline is running.

  address   {address} (plaintext gRPC; health and reflection are on)
  data      {dir}
  token     {dir}/dev.token (user {DEV_USER}, good for 30 days)
  database  psql -h {socket} -U postgres {DATABASE}   (PostgreSQL {version})

Paste into another terminal, to write a record, to read it, and to watch changes:

  {write}

  {read}

  {watch}

Ctrl-C stops everything; the data stays.
",
        version = postgres.version(),
        write = paste(
            &format!(
                r#"{{"mutation": {{"id": "{id}", "key": {{"collection": "task", "id": "1"}}, "put": {{"document": {{"fields": {{"title": "Try Syncline"}}}}}}}}}}"#
            ),
            "Mutate"
        ),
        read = paste(r#"{"key": {"collection": "task", "id": "1"}}"#, "GetRecord"),
        watch = paste(r#"{"subscribe": {"subscription_id": "all"}}"#, "Subscribe"),
    )
}
