//! The commands that talk to a server, or work on a local file: their flags, and what these come
//! to. Must not know how a command does what it does, nor connect; files with tokens and
//! certificates are read here.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Subcommand};
use clap_complete::Shell;

use super::args::{Cli, DatabaseArgs};
use super::calls::{
    ChangesConfig, ConflictsConfig, ExportConfig, GetConfig, ImportConfig, LsConfig, PutConfig,
    ResolveConfig, RmConfig, WatchConfig,
};
use super::local::{LocalConfig, NoArgs, ParkedConfig, StoreArgs};
use super::values::Secret;
use super::{Command, Error, database, read, wrong};

/// Where `syncline dev` leaves the token that is taken when none is given.
const DEV_TOKEN: &str = ".syncline/dev.token";

#[derive(Debug, Subcommand)]
pub(super) enum RemoteArgs {
    /// Write a record.
    Put(OnStore<PutConfig>),
    /// Print a record's document.
    Get(OnStore<GetConfig>),
    /// List the collections of a space, or the records of a collection.
    Ls(OnStore<LsConfig>),
    /// Delete records.
    Rm(OnStore<RmConfig>),
    /// Follow the changes as they happen, until Ctrl-C.
    Watch(OnStore<WatchConfig>),
    /// Print what has changed, and the cursor to go on from.
    Changes(OnRecords<ChangesConfig>),
    /// Show where a space is, what it holds, and the server's limits.
    Status(OnStore<NoArgs>),
    /// List the conflicts of a space.
    Conflicts(OnStore<ConflictsConfig>),
    /// Settle a conflict: keep a side, write a document, or ask and edit.
    Resolve(OnStore<ResolveConfig>),
    /// Write edits from stdin to a local file, and sync it until nothing waits to be sent.
    ///
    /// Edits are JSON Lines such as {"op": "patch", "collection": …, "id": …, "document": …}: put,
    /// create, patch (also with "unset": [path, …] and "increment": {path: number}) and delete.
    Sync(OnStore<NoArgs>),
    /// List the edits of a local file that were refused, and why.
    Parked(OnStore<NoArgs>),
    /// Queue edits again that were refused.
    Retry(OnStore<ParkedConfig>),
    /// Give up edits that were refused, or that were not sent yet.
    Discard(OnStore<ParkedConfig>),
    /// Write records from JSON Lines, beside those that are there.
    ///
    /// To make a space hold what an export of a whole space has and nothing else, there is the call
    /// ImportSpace.
    Import(OnRecords<ImportConfig>),
    /// Write the living records to a file as JSON Lines, as of one revision.
    ///
    /// Everything of a space, with its history and members, is what the call ExportSpace gives.
    Export(OnRecords<ExportConfig>),
    /// Look for what is wrong with a server, a token or a database, and say what to do.
    Doctor(DoctorArgs),
    /// Print a script with which a shell completes commands and flags.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Which server, and who asks it for what.
#[derive(Debug, Args)]
pub(super) struct ConnectionArgs {
    /// The server's address: http://host:port or https://host:port.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:50051")]
    #[arg(value_parser = server)]
    server: http::Uri,
    /// The token; other users of the machine see flags, so rather use the file or the environment.
    /// On this machine the one in `.syncline/dev.token` is taken if none is given.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<Secret>,
    /// File with the token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the authorities that vouch for the server, in PEM; by default the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with a certificate for servers that want to know their clients, in PEM.
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// File with its private key, in PEM.
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// The space, such as users/bob or spaces/acme; by default your own.
    #[arg(long, value_name = "NAME")]
    space: Option<String>,
    /// The device that asks.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Print JSON: one value, or one on each line of a list; failures as well, on stderr.
    #[arg(long)]
    json: bool,
}

/// A command with its own flags, on a server.
#[derive(Debug, Args)]
pub(super) struct OnRecords<T: Args> {
    #[command(flatten)]
    call: T,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A command with its own flags, on a server or a local file.
#[derive(Debug, Args)]
pub(super) struct OnStore<T: Args> {
    #[command(flatten)]
    call: T,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A command that talks to a server, or works on a local file.
#[derive(Debug)]
pub struct RemoteConfig {
    /// Which server, and who asks.
    pub connection: ConnectionConfig,
    /// The file, if it is to be one.
    pub local: Option<LocalConfig>,
    /// What is asked.
    pub call: Call,
}

/// Which server, and who asks it for what.
#[derive(Debug)]
pub struct ConnectionConfig {
    /// Its address, http or https.
    pub server: http::Uri,
    /// The token, if there is one.
    pub token: Option<Secret>,
    /// Where that came from, if a file: it may have another one later.
    pub token_file: Option<PathBuf>,
    /// The authorities that vouch for the server, in PEM; by default the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// A certificate and its key for mutual TLS, in PEM.
    pub identity: Option<(Vec<u8>, Secret)>,
    /// The space; empty = the caller's own.
    pub space: String,
    /// The device; may be empty.
    pub device: String,
    /// Print JSON.
    pub json: bool,
}

/// What is asked of a server.
#[derive(Debug)]
pub enum Call {
    /// Write a record.
    Put(PutConfig),
    /// Print a record.
    Get(GetConfig),
    /// List collections or records.
    Ls(LsConfig),
    /// Delete records.
    Rm(RmConfig),
    /// Follow changes.
    Watch(WatchConfig),
    /// Print changes.
    Changes(ChangesConfig),
    /// Show a space.
    Status,
    /// List conflicts.
    Conflicts(ConflictsConfig),
    /// Settle a conflict.
    Resolve(ResolveConfig),
    /// Write edits to a local file and sync it.
    Sync,
    /// List what was refused.
    Parked,
    /// Queue it again.
    Retry(ParkedConfig),
    /// Give it up.
    Discard(ParkedConfig),
    /// Write records from a file.
    Import(ImportConfig),
    /// Write records to a file.
    Export(ExportConfig),
    /// Look for what is wrong; also with this database.
    Doctor(Option<Secret>),
}

impl RemoteArgs {
    /// The command that these make.
    pub(super) fn command(self) -> Result<Command, Error> {
        let (connection, local, call) = match self {
            Self::Put(it) => it.on(Call::Put)?,
            Self::Get(it) => it.on(Call::Get)?,
            Self::Ls(it) => it.on(Call::Ls)?,
            Self::Rm(it) => it.on(Call::Rm)?,
            Self::Watch(it) => it.on(Call::Watch)?,
            Self::Changes(it) => (it.connection, None, Call::Changes(it.call)),
            Self::Status(it) => it.on(|NoArgs {}| Call::Status)?,
            Self::Conflicts(it) => it.on(Call::Conflicts)?,
            Self::Resolve(it) => it.on(Call::Resolve)?,
            Self::Sync(it) => it.on_file(|NoArgs {}| Call::Sync)?,
            Self::Parked(it) => it.on_file(|NoArgs {}| Call::Parked)?,
            Self::Retry(it) => it.on_file(Call::Retry)?,
            Self::Discard(it) => it.on_file(Call::Discard)?,
            Self::Import(it) => (it.connection, None, Call::Import(it.call)),
            Self::Export(it) => (it.connection, None, Call::Export(it.call)),
            Self::Doctor(it) => (it.connection, None, Call::Doctor(database(it.database)?)),
            Self::Completions { shell } => return Ok(Command::Completions(completions(shell))),
        };
        let connection = connection.config()?;
        Ok(Command::Remote(Box::new(RemoteConfig { connection, local, call })))
    }
}

type Parts = (ConnectionArgs, Option<LocalConfig>, Call);

impl<T: Args> OnStore<T> {
    fn on(self, call: impl FnOnce(T) -> Call) -> Result<Parts, Error> {
        Ok((self.connection, self.store.config()?, call(self.call)))
    }

    fn on_file(self, call: impl FnOnce(T) -> Call) -> Result<Parts, Error> {
        Ok((self.connection, self.store.required()?, call(self.call)))
    }
}

impl ConnectionArgs {
    fn config(self) -> Result<ConnectionConfig, Error> {
        let identity = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => {
                let key_pem = String::from_utf8_lossy(&read(key)?).into_owned();
                Some((read(cert)?, Secret::from(key_pem)))
            }
            (None, None) => None,
            (None, _) => return Err(wrong("--client-cert", "missing: the key has one")),
            (_, None) => return Err(wrong("--client-key", "missing: the certificate has one")),
        };
        let ca_pem = self.ca.as_deref().map(read).transpose()?;
        let dev = Path::new(DEV_TOKEN);
        let local = is_loopback(&self.server) && self.token.is_none() && dev.exists();
        let token_file = self.token_file.or_else(|| local.then(|| dev.to_owned()));
        let token = match &token_file {
            Some(path) => read_token(path)?,
            None => self.token.filter(|token| !token.expose().trim().is_empty()),
        };
        Ok(ConnectionConfig {
            server: self.server,
            token,
            token_file,
            ca_pem,
            identity,
            space: self.space.unwrap_or_default(),
            device: self.device.unwrap_or_default(),
            json: self.json,
        })
    }
}

/// The token in a file, without the space around it; none if there is nothing else.
pub fn read_token(path: &Path) -> Result<Option<Secret>, Error> {
    let text = String::from_utf8_lossy(&read(path)?).trim().to_owned();
    Ok(Some(text).filter(|text| !text.is_empty()).map(Secret::from))
}

/// Whether the address is this machine's own.
pub fn is_loopback(server: &http::Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "syncline", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn server(text: &str) -> Result<http::Uri, String> {
    let uri: Option<http::Uri> = text.parse().ok();
    let plain = |uri: &http::Uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.path_and_query().is_none_or(|path| path == "/")
    };
    uri.filter(plain).ok_or_else(|| "expected http://host:port or https://host:port".to_owned())
}
