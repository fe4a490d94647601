//! What can go wrong with the local file, and what to do about it.

use std::path::PathBuf;

/// The local file cannot be used, or not now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is of another user.
    #[error("{path} is {owner}'s, not {user}'s; give each user a file of their own", path = path.display())]
    OtherUser { path: PathBuf, owner: String, user: String },
    /// It is of another device than was asked for.
    #[error(
        "{path} is of device {owner}, not of {device}; leave the device out to go on with it",
        path = path.display()
    )]
    OtherDevice { path: PathBuf, owner: String, device: String },
    /// A newer version of this library has written it.
    #[error(
        "{path} has format {found}, and this program knows formats up to {known}; update it",
        path = path.display()
    )]
    NewerFormat { path: PathBuf, found: i64, known: i64 },
    /// It is a database of another program.
    #[error("{path} is not a file of this library", path = path.display())]
    NotOurs { path: PathBuf },
    /// It holds what no version of this library can have written.
    #[error("the local file is damaged: {0}; move it away, and what was not sent with it")]
    Damaged(String),
    /// The disk is full, the file is not ours to write, or the like.
    #[error("the local file cannot be read or written: {0}")]
    Failed(String),
    /// The space was left, and what was here of it is gone.
    #[error("the space is not followed; ask for it again")]
    NoSpace,
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolClosed => Self::Closed,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Damaged(crate::chain::Chain(&error).to_string())
            }
            error => Self::Failed(crate::chain::Chain(&error).to_string()),
        }
    }
}
