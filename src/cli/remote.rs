//! The commands that talk to a server. Owns what they have in common: the connection, and how a
//! failed call ends the program. Must not know anything of the server's inside.

mod changes;
mod conflicts;
mod doctor;
mod export;
mod import;
mod output;
mod place;
mod progress;
mod put;
mod records;
mod resolve;
mod shown;
mod status;
mod watch;

use std::fmt::Display;
use std::io::Read;

use anyhow::{Context, anyhow};
use serde_json::Value;

use self::output::{Output, ReaderGone};
use crate::client::remote::{Code, Fault, Identity, Remote, Target};
use crate::config::{Call, ConnectionConfig, RemoteConfig};
use crate::exit::{Exit, Failure};

/// The largest page that a server gives.
const PAGE_SIZE_MAX: usize = 1_000;

/// A command's connection, and where it prints.
struct Session {
    remote: Remote,
    connection: ConnectionConfig,
    out: Output,
}

/// Runs one of these commands. A reader that has gone, as with `| head`, is no failure.
pub(super) async fn run(config: RemoteConfig) -> Result<Exit, Failure> {
    let ran = match config.call {
        Call::Doctor(database_url) => doctor::run(config.connection, database_url).await,

        call => match Session::open(config.connection) {
            Ok(session) => session.run(call).await,
            Err(failure) => Err(failure),
        },
    };
    match ran {
        Err(failure) if failure.error.is::<ReaderGone>() => Ok(Exit::Success),
        other => other,
    }
}

impl Session {
    fn open(connection: ConnectionConfig) -> Result<Self, Failure> {
        let target = target(&connection);
        let remote = Remote::new(&target)
            .map_err(|fault| failed(format!("cannot use {}", target.url), fault))?;
        let Some(token) = &connection.token else {
            let hint = "give --token-file, or SYNCLINE_TOKEN in the environment; beside `syncline \
                        dev`, its own token is found where it runs";
            return Err(Failure::new(Exit::Token, anyhow!("there is no token")).hint(hint));
        };
        let used = remote.set_token(Some(token.expose().trim()));
        used.map_err(|fault| failed("cannot use the token", fault))?;
        let out = Output::new();
        Ok(Self { remote, connection, out })
    }

    async fn run(&self, call: Call) -> Result<Exit, Failure> {
        let done = match call {
            Call::Put(config) => return put::run(self, config).await,
            Call::Get(config) => records::get(self, config).await,
            Call::Ls(config) => records::ls(self, config).await,
            Call::Rm(config) => return records::rm(self, config).await,
            Call::Watch(config) => watch::run(self, config).await,
            Call::Changes(config) => changes::run(self, config).await,
            Call::Status => status::run(self).await,
            Call::Conflicts(config) => conflicts::run(self, config).await,
            Call::Resolve(config) => return resolve::run(self, config).await,

            Call::Import(config) => return import::run(self, config).await,
            Call::Export(config) => export::run(self, config).await,
            Call::Doctor(_) => Ok(()),
        };
        done.map(|()| Exit::Success)
    }

    fn json(&self) -> bool {
        self.connection.json
    }

    fn space(&self) -> String {
        self.connection.space.clone()
    }

    fn device(&self) -> String {
        self.connection.device.clone()
    }
}

fn target(connection: &ConnectionConfig) -> Target {
    let identity = connection.identity.as_ref().map(|(cert_pem, key)| Identity {
        cert_pem: cert_pem.clone(),
        key_pem: key.expose().as_bytes().to_vec(),
    });
    Target { url: connection.server.clone(), ca_pem: connection.ca_pem.clone(), identity }
}

/// How the program ends because of a failed call.
fn failed(what: impl Display, fault: impl Into<Fault>) -> Failure {
    let fault = fault.into();
    let exit = match fault.code {
        Code::Unavailable | Code::DeadlineExceeded => Exit::Unreachable,
        Code::Unauthenticated => Exit::Token,
        Code::NotFound => Exit::NotFound,
        Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange => Exit::Refused,
        _ => Exit::Failure,
    };
    let mut hint = fault.hint().map(str::to_owned);
    if let (Code::Unavailable, "", Some(hint)) = (fault.code, fault.reason.as_str(), &mut hint) {
        hint.push_str("; `syncline doctor` looks closer");
    }
    let failure = Failure::new(exit, anyhow::Error::new(fault).context(what.to_string()));
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A command that makes no sense as it was given.
fn usage(reason: impl Display) -> Failure {
    Failure::new(Exit::Usage, anyhow!("{reason}"))
}

/// An answer without what it always has.
fn incomplete() -> Failure {
    Failure::from(anyhow!("the server's answer is not complete"))
        .hint("the server may be newer than this program")
}

/// The text of an argument, or of stdin where it is `-`.
fn argument_or_stdin(given: &str) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
    Ok(text)
}

/// A document as somebody has typed it, which has to be a JSON object.
fn typed_document(text: &str) -> Result<String, Failure> {
    let wrong = |reason: String| {
        let error = anyhow!(reason).context("the document is not usable");
        Failure::new(Exit::Usage, error).hint("give a JSON object, as in '{\"title\": \"…\"}'")
    };
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_)) => Ok(text.to_owned()),
        Ok(_) => Err(wrong("it is no JSON object".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}
