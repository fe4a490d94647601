//! The local file: one SQLite database for each user and device. Owns its form, and the one
//! task that writes to it; whatever is written together is one transaction, on disk before
//! anybody is told. Readers have connections of their own. Must not know the wire, nor decide
//! what becomes of anything: that is the replica's matter. Several processes may have the
//! same file open.

mod ask;
mod collect;
mod error;
mod load;
mod need;
mod open;
mod read;
mod row;
mod sql;
mod steps;
#[cfg(test)]
mod tests;
mod vault;
mod wishes;
mod works;
mod write;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot, watch};

use super::replica::{Identity, Replica};
use crate::tasks::Tasks;

pub use error::StoreError;
pub(super) use error::StoreError as Error;
pub(super) use need::{Need, Wanted};
pub(super) use open::{FileOptions, Opened, Sentinel};
pub(super) use read::{Facts, FoundEntry, Moved, Row};
pub(super) use sql::Conditions;
pub(super) use steps::NewConflict;
pub(super) use vault::Vault;
use writer::Command;

type SharedIdentity = Arc<Mutex<Arc<Identity>>>;

/// Steps that wait for the disk. More wait for these.
const WAITING_MAX: usize = 1_024;

/// A handle on the local file; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Store {
    commands: mpsc::Sender<Command>,
    readers: SqlitePool,
    tasks: Tasks,
    vault: Vault,
    identity: SharedIdentity,
    /// Rings when anybody has written to the file, in whatever process.
    written: watch::Sender<u64>,
    path: Arc<PathBuf>,
}

/// Rings whenever something was written to the file, as long as that is open.
#[derive(Debug)]
pub(super) struct Written {
    count: watch::Receiver<u64>,
    commands: mpsc::Sender<Command>,
}

impl Written {
    /// What was written up to now is known.
    pub(super) fn know(&mut self) {
        self.count.borrow_and_update();
    }

    /// Waits for what is not known yet; None once the file is closed.
    pub(super) async fn changed(&mut self) -> Option<()> {
        // Cancel: both only wait.
        tokio::select! {
            biased;
            changed = self.count.changed() => changed.ok(),
            () = self.commands.closed() => None,
        }
    }
}

impl Store {
    /// Whose file it is.
    pub(super) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.lock())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Rings whenever something was written.
    pub(super) fn written(&self) -> Written {
        Written { count: self.written.subscribe(), commands: self.commands.clone() }
    }

    /// Tells readers that another process has written.
    pub(super) fn note_written(&self) {
        self.written.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Lets a step happen to a part of a space, and writes down what it has touched: on disk
    /// once this returns. Cancel safe: what was handed over happens.
    pub(super) async fn step<T: Send + 'static>(
        &self,
        space: i64,
        need: Need,
        step: impl FnOnce(&mut Replica) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let step = move |replica: Result<&mut Replica, Error>| -> writer::Done {
            let value = replica.map(step);
            // Whoever asked may have gone.
            Box::new(move |written| drop(reply.send(written.and(value))))
        };
        self.hand_over(Command::Step { space, need, step: Box::new(step) }).await?;
        self.answered(answer).await
    }

    async fn answered<T>(&self, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        let unanswered = |_error| match self.commands.is_closed() {
            true => Error::Closed,
            false => Error::Failed("something that was written together with it failed".into()),
        };
        answer.await.map_err(unanswered)?
    }

    async fn hand_over(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_closed| Error::Closed)
    }

    /// Waits until all that was handed over is on disk, and closes the file.
    pub(super) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.hand_over(Command::Close { reply }).await.is_ok() {
            answer.await.ok();
        }
        self.readers.close().await;
    }
}
