//! The local file that a command may work on in place of a server: its flags, and what these come
//! to. Must not know what is in the file, nor open it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::duration;
use super::{Error, wrong};
use crate::domain::UserId;

/// Which local file, and how it is synced.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    /// Work on this file, a copy of this device's own, which is made if there is none: at once,
    /// whether the server can be reached or not. What is written is sent when it can be.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Whose file it is; by default the token's user.
    #[arg(long, value_name = "USER", value_parser = UserId::parse)]
    user: Option<UserId>,
    /// Do not even try to reach the server.
    #[arg(long)]
    offline: bool,
    /// How long to wait for the server: by default 5s after a write, and with `sync` until nothing
    /// waits to be sent.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
}

/// A local file.
#[derive(Debug)]
pub struct LocalConfig {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is; None = the token's user.
    pub user: Option<UserId>,
    /// The server is not to be asked.
    pub offline: bool,
    /// How long to wait for it, if somebody has said so.
    pub wait: Option<Duration>,
}

/// `syncline retry` and `discard`.
#[derive(Debug, Args)]
pub struct ParkedConfig {
    /// The edits, as `parked` lists them.
    #[arg(required = true, value_name = "EDIT")]
    pub edits: Vec<String>,
}

/// Nothing of its own.
#[derive(Debug, Args)]
pub(super) struct NoArgs {}

impl StoreArgs {
    /// The file, if there is to be one.
    pub(super) fn config(self) -> Result<Option<LocalConfig>, Error> {
        let Self { store, user, offline, wait } = self;
        match store {
            Some(path) => Ok(Some(LocalConfig { path, user, offline, wait })),
            // Whoever says so does not want the server to be written to.
            None if offline => Err(wrong("--offline", "needs --store: which local file?")),
            None => Ok(None),
        }
    }

    /// The same for a command that can do nothing without one.
    pub(super) fn required(self) -> Result<Option<LocalConfig>, Error> {
        match self.config()? {
            None => Err(wrong("--store", "missing: which local file?")),
            config => Ok(config),
        }
    }
}
