//! The commands on a local file, this device's own copy: they read and write it at once, and what is
//! written is sent when the server can be reached. Owns how the file is opened, and how what fails
//! there ends the program. Must not know what a command does.

mod edits;
mod lines;
mod outcome;
mod parked;
mod records;
mod resolve;
mod status;
mod sync;
mod watch;

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;

use super::ends;
use super::output::Output;
use super::{no_token, target, token, usage};
use crate::client::remote::{Code, Fault};
use crate::client::{Client, Error, Options, Space, StoreError};
use crate::config::{Call, ConnectionConfig, LocalConfig, read_token};
use crate::domain::UserId;
use crate::exit::{Exit, Failure};

/// For what becomes of a write, if nobody says otherwise.
const WAIT: Duration = Duration::from_secs(5);

/// A command's file, and where it prints.
struct Local {
    client: Client,
    space: Space,
    out: Output,
    json: bool,
    /// How long to wait for the server, if somebody has said so.
    wait: Option<Duration>,
    /// Whether there is a server to wait for.
    syncs: bool,
}

/// Runs one of these commands, and closes the file.
pub(super) async fn run(
    connection: ConnectionConfig,
    config: LocalConfig,
    call: Call,
    out: Output,
) -> Result<Exit, Failure> {
    let local = Local::open(&connection, config, &call, out).await?;
    let ran = match call {
        Call::Resolve(config) => resolve::run(&local, connection, config).await,
        call => local.run(call).await,
    };
    // What was acknowledged is on disk already.
    local.client.close().await;
    ran
}

impl Local {
    async fn open(
        connection: &ConnectionConfig,
        config: LocalConfig,
        call: &Call,
        out: Output,
    ) -> Result<Self, Failure> {
        let user = user(connection, &config)?;
        if matches!(call, Call::Sync) && connection.token.is_none() && !config.offline {
            return Err(no_token());
        }
        // What is only looked at needs no server.
        let looks = matches!(
            call,
            Call::Get(_) | Call::Ls(_) | Call::Conflicts(_) | Call::Parked | Call::Discard(_)
        );
        let syncs = !looks && !config.offline && connection.token.is_some();
        let mut options = Options::new(&config.path, user.as_str());
        if !connection.device.is_empty() {
            options = options.device(&connection.device);
        }
        if syncs {
            options = with_server(options, connection);
        }
        let what = format!("cannot use {}", config.path.display());
        check_place(&config.path).map_err(|error| ends::unusable(&what, error))?;
        let client = Client::open(options).await.map_err(|error| failed(&what, error))?;
        let space = match connection.space.as_str() {
            "" => client.own().await,
            name => client.space(name).await,
        };
        let space = match space {
            Ok(space) => space,
            Err(error) => {
                client.close().await;
                return Err(failed(what, error));
            }
        };
        let (json, wait) = (connection.json, config.wait);
        Ok(Self { client, space, out, json, wait, syncs })
    }

    async fn run(&self, call: Call) -> Result<Exit, Failure> {
        let done = match call {
            Call::Put(config) => return edits::put(self, config).await,
            Call::Rm(config) => return edits::rm(self, config).await,
            Call::Get(config) => records::get(self, config).await,
            Call::Ls(config) => records::ls(self, config).await,
            Call::Watch(config) => watch::run(self, config).await,
            Call::Status => status::run(self).await,
            Call::Conflicts(config) => resolve::list(self, config).await,
            Call::Sync => return sync::run(self).await,
            Call::Parked => parked::list(self).await,
            Call::Retry(config) => return parked::retry(self, config).await,
            Call::Discard(config) => return parked::discard(self, config).await,
            Call::Changes(_)
            | Call::Import(_)
            | Call::Export(_)
            | Call::Doctor(_)
            | Call::Resolve(_) => Err(usage("this command works on a server only")),
        };
        done.map(|()| Exit::Success)
    }
}

/// Whether there can be a file in that place; what is in it is looked at later.
fn check_place(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => std::fs::metadata(folder).map(|_| ()),
        None => Ok(()),
    }
}

/// Whose file it is.
fn user(connection: &ConnectionConfig, config: &LocalConfig) -> Result<UserId, Failure> {
    if let Some(user) = &config.user {
        return Ok(user.clone());
    }
    let Some(token) = &connection.token else {
        return Err(usage("whose file it is cannot be told: give --user, or a token"));
    };
    // Nobody has checked it; the server will.
    let claims = token::claims(token.expose()).map_err(|wrong| {
        let error = anyhow!(wrong).context("the token does not say whose file it is");
        Failure::new(Exit::Token, error).hint("give --user")
    })?;
    UserId::parse(&claims.subject).map_err(|rule| usage(format!("the token's user {rule}")))
}

fn with_server(options: Options, connection: &ConnectionConfig) -> Options {
    let target = target(connection);
    let mut options = options.server(&target.url.to_string());
    if let Some(pem) = target.ca_pem {
        options = options.authorities(pem);
    }
    if let Some(identity) = target.identity {
        options = options.identity(identity);
    }
    let given = connection.token.clone();
    let file: Option<PathBuf> = connection.token_file.clone();
    options.tokens(move |_force| {
        // A file may have another one by now.
        let read = file.as_deref().map(read_token);
        let token = match read {
            Some(Ok(Some(token))) => Ok(token),
            Some(Ok(None)) => Err("the file of the token is empty".to_owned()),
            Some(Err(error)) => Err(error.to_string()),
            None => given.clone().ok_or_else(|| "there is none".to_owned()),
        };
        async move { token.map(|token| token.expose().trim().to_owned()) }
    })
}

/// How the program ends because of what failed on the file.
fn failed(what: impl Display, error: Error) -> Failure {
    let (exit, hint) = match error {
        Error::Hopeless(trouble) => {
            let what = format!("{what}: the edit can never take effect");
            let violations = outcome::violations(&trouble);
            return ends::rejected(what, &trouble.reason, &trouble.message, violations);
        }
        Error::Server(fault) => {
            let code = Code::from(fault.code as i32);
            let fault = Fault { reason: fault.reason, ..Fault::of(code, fault.message) };
            return ends::failed(what, fault);
        }
        Error::Invalid(_) => (Exit::Usage, None),
        Error::BeingSent | Error::Decided => (Exit::Refused, None),
        Error::NotParked => (Exit::NotFound, Some("`syncline parked` lists what was refused")),
        Error::NoConflict => (Exit::NotFound, Some("`syncline conflicts` lists what is open")),
        Error::NoServer => (Exit::Unreachable, Some("a conflict is decided on the server")),
        Error::Store(StoreError::OtherUser { .. }) => (Exit::Usage, Some("look at --user")),
        Error::Store(StoreError::OtherDevice { .. }) => (Exit::Usage, Some("leave out --device")),
        Error::Store(StoreError::NotOurs { .. } | StoreError::NewerFormat { .. }) => {
            (Exit::Usage, None)
        }
        Error::NotLeading | Error::Store(_) => (Exit::Failure, None),
    };
    let failure = Failure::new(exit, anyhow!(error).context(what.to_string()));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
