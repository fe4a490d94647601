//! The commands that talk to a server, or work on a local file. Owns what they have in common: the
//! connection, and how a failed call ends the program. Must not know anything of the server's inside.

mod changes;
mod conflicts;
mod doctor;
mod ends;
mod export;
mod import;
mod local;
mod output;
mod place;
mod progress;
mod put;
mod records;
mod resolve;
mod shown;
mod status;
mod token;
mod watch;

use std::io::Read;

use anyhow::anyhow;
use serde_json::Value;

use self::ends::{failed, incomplete, no_token, unusable, usage};
use self::output::{Output, ReaderGone};
use crate::client::remote::{Identity, Remote, Target};
use crate::config::{Call, ConnectionConfig, RemoteConfig};
use crate::exit::{Exit, Failure};
use crate::rpc::proto::{GetStatusRequest, GetStatusResponse};

/// The largest page that a server gives.
const PAGE_SIZE_MAX: usize = 1_000;

/// A command's connection, and where it prints.
struct Session {
    remote: Remote,
    connection: ConnectionConfig,
    out: Output,
}

/// Runs one of these commands. To one that reads, a reader that has gone, as with `| head`, is no
/// failure.
pub(super) async fn run(config: RemoteConfig) -> Result<Exit, Failure> {
    let json = config.connection.json;
    let out = match only_reads(&config.call) {
        true => Output::of_reading(),
        false => Output::of_writing(),
    };
    let ran = match (config.call, config.local) {
        (Call::Doctor(database_url), _) => doctor::run(config.connection, database_url, out).await,
        (call, Some(local)) => local::run(config.connection, local, call, out).await,
        (call, None) => match Session::open(config.connection, out) {
            Ok(session) => session.run(call).await,
            Err(failure) => Err(failure),
        },
    };
    match ran {
        Err(failure) if failure.error.is::<ReaderGone>() => Ok(Exit::Success),
        Err(failure) if json => Ok(ends::tell(&failure, json)),
        other => other,
    }
}

/// Whether there is nothing to do for a command that nobody listens to.
fn only_reads(call: &Call) -> bool {
    match call {
        Call::Get(_) | Call::Ls(_) | Call::Watch(_) | Call::Changes(_) | Call::Status => true,
        Call::Conflicts(_) | Call::Parked | Call::Export(_) => true,
        Call::Put(_) | Call::Rm(_) | Call::Resolve(_) | Call::Sync | Call::Retry(_) => false,
        Call::Discard(_) | Call::Import(_) | Call::Doctor(_) => false,
    }
}

impl Session {
    fn open(connection: ConnectionConfig, out: Output) -> Result<Self, Failure> {
        let target = target(&connection);
        let remote = Remote::new(&target)
            .map_err(|fault| failed(format!("cannot use {}", target.url), fault))?;
        let Some(token) = &connection.token else {
            return Err(no_token());
        };
        let used = remote.set_token(Some(token.expose().trim()));
        used.map_err(|fault| failed("cannot use the token", fault))?;
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
            Call::Sync | Call::Parked | Call::Retry(_) | Call::Discard(_) => {
                Err(usage("this command works on a local file only"))
            }
            Call::Doctor(_) => Err(usage("the doctor needs no session")),
        };
        done.map(|()| Exit::Success)
    }

    /// What the server says of the space.
    async fn status(
        &self,
        what: &str,
        request: GetStatusRequest,
    ) -> Result<GetStatusResponse, Failure> {
        let request = GetStatusRequest { space: self.space(), ..request };
        let answer = self.remote.sync().get_status(request).await;
        Ok(answer.map_err(|status| failed(what, status))?.into_inner())
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

/// The text of an argument, or of stdin where it is `-`.
fn argument_or_stdin(given: &str) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| unusable("cannot read stdin", error))?;
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
