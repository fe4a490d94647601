//! What can keep a private PostgreSQL from starting, each with what to do about it.

use std::{io, path::PathBuf};

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable installation; `notes` says what was looked at and refused.
    #[error(
        "no PostgreSQL 13 or newer found{notes}; install it (Debian, Ubuntu: apt install postgresql; \
         Fedora: dnf install postgresql-server; macOS: brew install postgresql@17), or set \
         SYNCLINE_PG_BIN to the folder that holds postgres and initdb, or use a server you already \
         have: DATABASE_URL=postgres://... syncline serve"
    )]
    NotFound { notes: String },

    #[error("{} is in use by another syncline", dir.display())]
    InUse { dir: PathBuf },

    #[error(
        "the data in {} belongs to PostgreSQL {data}, but the server found is {server}: install \
         PostgreSQL {data}, or set SYNCLINE_PG_BIN to its folder, or move the data away to start \
         empty", dir.display()
    )]
    OtherVersion { dir: PathBuf, data: String, server: String },

    /// Without our marker nothing there may be deleted.
    #[error("{} holds files but no database: move them away", dir.display())]
    ForeignFiles { dir: PathBuf },

    #[error(
        "{} is closed to user {user}, as which PostgreSQL must run when we are root: open it with \
         chmod o+x, or use another folder, or do not run as root", folder.display()
    )]
    Unreachable { folder: PathBuf, user: String },

    #[error("running as root, and there is no user postgres or nobody to run PostgreSQL as")]
    NoUser,

    /// Neither there nor in the temporary folder.
    #[error("no unix socket fits into {}: set TMPDIR to a short path", dir.display())]
    SocketPath { dir: PathBuf },

    #[error("initdb ended with an error: {output}")]
    Initdb { output: String },

    /// `log` is what the server itself wrote.
    #[error("postgresql did not start: {log}")]
    NotStarted { log: String },

    #[error("processes of an earlier server on {} do not end", dir.display())]
    Leftovers { dir: PathBuf },

    #[error("input or output at {}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Says which path an I/O error is about.
pub(super) trait IoContext<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T, Error>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T, Error> {
        self.map_err(|source| Error::Io { path: path.into(), source })
    }
}
