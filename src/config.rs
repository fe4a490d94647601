//! What the operator asked for, as plain typed values, or why it makes no sense: [`load`] is the
//! only way in. Owns the settings, their layers and their rules; must not know what the program
//! does with them. Nothing here shows a secret.

mod args;
mod bench;
mod calls;
mod keys;
mod layers;
mod limits;
mod local;
mod remote;
mod retention;
mod tls;
mod values;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

pub use self::args::{DevConfig, HealthConfig, LogConfig, ServerConfig};
use self::bench::BenchArgs;
pub use self::bench::{BenchKind, BenchPlan};
pub use self::calls::{
    ChangesConfig, ConflictsConfig, CursorAt, ExportConfig, GetConfig, ImportConfig, Increment,
    LsConfig, Number, PutConfig, ResolveConfig, RmConfig, Side, State, WatchConfig,
};
pub use self::limits::{QuotaConfig, RateConfig};
pub use self::local::{LocalConfig, ParkedConfig};
pub use self::remote::{Call, ConnectionConfig, RemoteConfig, is_loopback, read_token};
pub use self::retention::RetentionConfig;
pub use self::tls::TlsConfig;
pub use self::values::{Origins, Policies, Secret};
use crate::auth::{Grant, JwksError, KeyConfig, KeyError, Minter, Verifier};
use crate::domain::{Retention, UserId};
use crate::exit::Exit;
use args::{
    CommandArgs, CompactArgs, DatabaseArgs, ServeArgs, SignerArgs, SigningKeyArgs, TokenArgs,
    TokenNameArgs, VerifyArgs,
};

/// The issuer of development tokens.
pub const DEV_ISSUER: &str = "syncline-dev";
/// The audience of development tokens.
pub const DEV_AUDIENCE: &str = "syncline";

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Run everything on this machine.
    Dev(Box<DevConfig>),
    /// Run the service.
    Serve(Box<ServeConfig>),
    /// Print a token.
    Token(TokenConfig),
    /// Update the schema.
    Migrate(MigrateConfig),
    /// Forget what is old.
    Compact(CompactConfig),
    /// Hold the tables against each other.
    Verify(VerifyConfig),
    /// Ask a server whether it serves.
    Health(HealthConfig),
    /// Measure.
    Bench(BenchConfig),
    /// Talk to a server, or work on a local file.
    Remote(Box<RemoteConfig>),
    /// Print this script, with which a shell completes commands.
    Completions(String),
}

/// `syncline serve`.
#[derive(Debug)]
pub struct ServeConfig {
    /// The database.
    pub database_url: Secret,
    /// Checks the tokens of the configured issuer.
    pub verifier: Verifier,
    /// Start even on a database that may lose acknowledged writes.
    pub allow_unsafe_database: bool,
    /// What it has in common with `dev`.
    pub server: ServerConfig,
}

/// `syncline token`.
#[derive(Debug)]
pub struct TokenConfig {
    /// Whom the token is for.
    pub user: UserId,
    /// How long it is good.
    pub ttl: Duration,
    /// Who signs it.
    pub signer: Signer,
}

/// `syncline migrate`.
#[derive(Debug)]
pub struct MigrateConfig {
    /// The database.
    pub database_url: Secret,
    /// How it logs.
    pub log: LogConfig,
}

/// `syncline compact`.
#[derive(Debug)]
pub struct CompactConfig {
    /// The database.
    pub database_url: Secret,
    /// How long what is kept.
    pub retention: Retention,
    /// How it logs.
    pub log: LogConfig,
}

/// `syncline verify`.
#[derive(Debug)]
pub struct VerifyConfig {
    /// The database.
    pub database_url: Secret,
    /// Only this space.
    pub space: Option<String>,
    /// How it logs.
    pub log: LogConfig,
}

/// `syncline bench`.
#[derive(Debug)]
pub struct BenchConfig {
    /// What is measured, and how.
    pub plan: BenchPlan,
    /// Whom.
    pub target: BenchTarget,
}

/// The server that `syncline bench` measures.
#[derive(Debug)]
pub enum BenchTarget {
    /// A private one.
    Dev,
    /// One that runs already.
    Remote {
        /// Its address.
        uri: http::Uri,
        /// Signs tokens that it accepts.
        signer: Box<Signer>,
        /// Its database, to measure that as well.
        database_url: Option<Secret>,
    },
}

/// A key to sign with, and the names that go into tokens.
#[derive(Debug)]
pub struct Signer {
    minter: Minter,
    issuer: String,
    audience: String,
}

impl Signer {
    fn with_grants(self, grants: Vec<Grant>) -> Self {
        Self { minter: self.minter.with_grants(grants), ..self }
    }

    /// A token for the user that is good for `ttl` from now on.
    pub fn mint(
        &self,
        user: &UserId,
        ttl: Duration,
        now_unix_seconds: i64,
    ) -> Result<String, KeyError> {
        self.minter.mint(user, ttl, now_unix_seconds, &self.issuer, &self.audience)
    }
}

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A wrong flag, or one that asks for help or the version: clap has the whole text.
    #[error("{}", .0.to_string().trim_start_matches("error: ").trim_end())]
    Clap(#[from] clap::Error),
    /// A file that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A mistake in the configuration file.
    #[error("{}:{line}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1.
        line: usize,
        /// What is wrong, and what is allowed.
        message: String,
    },
    /// A setting that is missing or not allowed.
    #[error("{setting}: {reason}")]
    Setting {
        /// Its flag or variable.
        setting: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// A key that cannot be used.
    #[error("{setting}: the key cannot be used")]
    Key {
        /// The flag that named it.
        setting: &'static str,
        /// Why.
        source: KeyError,
    },
    /// A key set that cannot be used.
    #[error("--jwks: {jwks}")]
    Jwks {
        /// Where it should be.
        jwks: String,
        /// Why.
        source: JwksError,
    },
}

impl Error {
    /// Prints it: help to stdout, an error to stderr. Gives the code to end with.
    pub fn report(self) -> Exit {
        match self {
            Self::Clap(asked) if !asked.use_stderr() => {
                asked.print().ok();
                Exit::Success
            }
            Self::Clap(wrong) => {
                wrong.print().ok();
                Exit::Usage
            }
            error => {
                crate::exit::report(&error.into(), None);
                Exit::Usage
            }
        }
    }
}

/// Turns the command line, the environment and the file that they name into one command.
///
/// `arguments` begin with the program's name; `environment` reads one variable.
pub fn load(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, Error> {
    let cli = layers::parse(arguments.into_iter().collect(), &environment)?;
    match cli.command {
        CommandArgs::Dev(config) => Ok(Command::Dev(config)),
        CommandArgs::Serve(args) => serve(*args).map(Box::new).map(Command::Serve),
        CommandArgs::Token(args) => token(args).map(Command::Token),
        CommandArgs::Migrate(args) => {
            let database_url = required_database(args.database)?;
            Ok(Command::Migrate(MigrateConfig { database_url, log: args.log }))
        }
        CommandArgs::Compact(CompactArgs { database, retention, log }) => {
            let (database_url, retention) = (required_database(database)?, retention.spans());
            Ok(Command::Compact(CompactConfig { database_url, retention, log }))
        }
        CommandArgs::Verify(VerifyArgs { database, space, log }) => {
            let database_url = required_database(database)?;
            Ok(Command::Verify(VerifyConfig { database_url, space, log }))
        }
        CommandArgs::Health(config) => Ok(Command::Health(config)),
        CommandArgs::Bench(args) => measured(args).map(Command::Bench),
        CommandArgs::Remote(args) => args.command(),
    }
}

fn serve(args: ServeArgs) -> Result<ServeConfig, Error> {
    let listen = args.server.listen;
    let tls = args.tls.config()?;
    let is_reachable = !listen.ip().to_canonical().is_loopback();
    if is_reachable && tls.is_none() && !args.allow_plaintext {
        return Err(wrong(
            "--listen",
            format!(
                "`{listen}` is reachable from other machines, and there is no TLS: give --tls-cert \
                 and --tls-key, or put a proxy that provides it in front and add \
                 --allow-plaintext, or use a loopback address"
            ),
        ));
    }
    let database_url = required_database(args.database)?;
    let verifier = keys::verifier(args.key, args.names, args.claims)?;
    let allow_unsafe_database = args.allow_unsafe_database;
    let server = ServerConfig { tls, ..args.server };
    Ok(ServeConfig { database_url, verifier, allow_unsafe_database, server })
}

fn token(args: TokenArgs) -> Result<TokenConfig, Error> {
    let user = args.sub.ok_or_else(|| wrong("--sub", "missing: whom is the token for?"))?;
    let signer = signer(args.signer)?.with_grants(args.grants);
    Ok(TokenConfig { user, ttl: args.ttl, signer })
}

fn measured(args: BenchArgs) -> Result<BenchConfig, Error> {
    let target = match args.target {
        Some(uri) => BenchTarget::Remote {
            uri,
            signer: Box::new(signer(args.signer)?.with_grants(vec![Grant::Policies])),
            database_url: database(args.database)?,
        },
        None => BenchTarget::Dev,
    };
    Ok(BenchConfig { plan: args.plan, target })
}

/// The key that was given, if any, and the flag that gave it; clap takes no more than one.
fn signing_key(args: &SigningKeyArgs) -> Result<Option<(&'static str, KeyConfig)>, Error> {
    let SigningKeyArgs { jwt_secret, jwt_secret_file, jwt_private_key } = args;
    Ok(match (jwt_secret, jwt_secret_file, jwt_private_key) {
        (Some(secret), ..) => Some(("--jwt-secret", KeyConfig::Secret(secret.expose().into()))),
        (_, Some(path), _) => Some(("--jwt-secret-file", KeyConfig::Secret(read_secret(path)?))),
        (.., Some(path)) => Some(("--jwt-private-key", KeyConfig::Pem(read(path)?))),
        (None, None, None) => None,
    })
}

/// Without a key, the development secret signs, and then the names are its own as well: a token
/// with others would be good nowhere.
fn signer(args: SignerArgs) -> Result<Signer, Error> {
    let TokenNameArgs { jwt_issuer, jwt_audience } = args.names;
    if let Some((setting, key)) = signing_key(&args.key)? {
        let issuer = required_name("--jwt-issuer", jwt_issuer)?;
        let audience = required_name("--jwt-audience", jwt_audience)?;
        return Ok(Signer { minter: minter(setting, &key)?, issuer, audience });
    }
    if jwt_issuer.is_some() || jwt_audience.is_some() {
        let reason = "need a key: give --jwt-private-key, --jwt-secret-file or --jwt-secret";
        return Err(wrong("--jwt-issuer and --jwt-audience", reason));
    }
    let path = dev_secret_path(&args.data_dir);
    if !path.exists() {
        let path = path.display();
        let reason = format!("there is no {path}: run `syncline dev` once, or give a key");
        return Err(wrong("--data-dir", reason));
    }
    let minter = minter("--data-dir", &KeyConfig::Secret(read_secret(&path)?))?;
    Ok(Signer { minter, issuer: DEV_ISSUER.to_owned(), audience: DEV_AUDIENCE.to_owned() })
}

fn minter(setting: &'static str, key: &KeyConfig) -> Result<Minter, Error> {
    Minter::new(key).map_err(|source| Error::Key { setting, source })
}

/// Where `syncline dev` keeps the secret of its tokens.
pub fn dev_secret_path(data_dir: &Path) -> PathBuf {
    data_dir.join("dev.secret")
}

/// A secret from a file, without the line's end that editors and `echo` leave.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, Error> {
    let mut secret = read(path)?;
    let end = secret.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
    secret.truncate(end);
    Ok(secret)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn required_name(flag: &'static str, name: Option<String>) -> Result<String, Error> {
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| wrong(flag, "missing: without it, tokens for others would pass"))
}

fn required_database(args: DatabaseArgs) -> Result<Secret, Error> {
    database(args)?
        .ok_or_else(|| wrong("--database-url", "missing: give postgres://user:password@host/name"))
}

/// The URL holds a password, so that no message can show it.
fn database(args: DatabaseArgs) -> Result<Option<Secret>, Error> {
    let Some(url) = args.database_url else { return Ok(None) };
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
        return Err(wrong("--database-url", "must begin with postgres:// or postgresql://"));
    }
    Ok(Some(url))
}

fn wrong(flag: &'static str, reason: impl Into<String>) -> Error {
    Error::Setting { setting: flag.to_owned(), reason: reason.into() }
}
