//! The one task that writes to the file. It takes all that waits, makes one transaction of it,
//! and tells everybody once that is on disk. No future that somebody can drop ever holds a
//! transaction.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::error;

use super::need::{Need, Wanted};
use super::steps::Work;
use super::vault::{Staged, Vault};
use super::{Error, load, write};
use crate::client::replica::{Identity, Replica};
use crate::failpoint;

/// What is done in one transaction at most: who waits for a small write waits no longer.
const GROUP_MAX: usize = 256;

/// Tells whoever asked, once it is written or was not.
pub(super) type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;
/// Happens to a part of a space, if there is one.
pub(super) type Step = Box<dyn FnOnce(Result<&mut Replica, Error>) -> Done + Send>;

/// Something to write.
pub(super) enum Command {
    Step {
        space: i64,
        need: Need,
        step: Step,
    },
    /// What takes more than one step.
    Work(Box<Work>),
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// See the head of this file.
pub(super) struct Writer {
    pub(super) db: SqliteConnection,
    pub(super) vault: Vault,
    pub(super) identity: Arc<Mutex<Arc<Identity>>>,
    pub(super) written: watch::Sender<u64>,
    /// What was kept before the transaction that is being committed.
    pub(super) before: Staged,
}

/// A transaction while it is made.
pub(super) struct Transaction<'w> {
    pub(super) db: &'w mut SqliteConnection,
    pub(super) vault: &'w Vault,
    pub(super) identity: Arc<Identity>,
}

/// Writes what is handed over, until nobody can hand over anything or it is told to close.
pub(super) async fn run(mut writer: Writer, mut commands: mpsc::Receiver<Command>) {
    let mut group = Vec::new();
    while commands.recv_many(&mut group, GROUP_MAX).await > 0 {
        let mut closes = Vec::new();
        let mut rest = Vec::with_capacity(group.len());
        for command in group.drain(..) {
            match command {
                Command::Close { reply } => closes.push(reply),
                command => rest.push(command),
            }
        }
        writer.write(rest).await;
        if !closes.is_empty() {
            commands.close();
            while let Some(command) = commands.recv().await {
                match command {
                    Command::Close { reply } => closes.push(reply),
                    command => writer.write(vec![command]).await,
                }
            }
            // What is in the log goes to the file: by itself only if nobody else has it open, and
            // readers of this process may still have.
            sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&mut writer.db).await.ok();
            writer.db.close().await.ok();
            for reply in closes {
                reply.send(()).ok();
            }
            return;
        }
    }
}

impl Writer {
    /// Writes a group; where that panics, it is not written, and the next one is not to blame.
    async fn write(&mut self, group: Vec<Command>) {
        if group.is_empty() {
            return;
        }
        if AssertUnwindSafe(self.write_group(group)).catch_unwind().await.is_err() {
            error!("what writes the local file panicked; that is taken back");
            self.take_back().await;
        }
    }

    async fn write_group(&mut self, group: Vec<Command>) {
        failpoint::reach("client.before_begin");
        let mut dones: Vec<Done> = Vec::with_capacity(group.len());
        let written = self.transaction(group, &mut dones).await;
        if written.is_ok() {
            failpoint::reach("client.after_commit");
            self.written.send_modify(|count| *count = count.wrapping_add(1));
        }
        for done in dones {
            done(written.clone());
        }
        failpoint::reach("client.after_reply");
    }

    async fn transaction(
        &mut self,
        group: Vec<Command>,
        dones: &mut Vec<Done>,
    ) -> Result<(), Error> {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut self.db).await?;
        failpoint::reach("client.after_begin");
        let mut done = self.fill(group, dones).await;
        if done.is_ok() {
            self.before = self.vault.settle();
            failpoint::reach("client.before_commit");
            done = sqlx::query("COMMIT").execute(&mut self.db).await.map(drop).map_err(Error::from);
        }
        match &done {
            Ok(()) => self.before.clear(),
            // Also if it is the commit that failed, as on a full disk: nothing of it may stay open.
            Err(_) => self.take_back().await,
        }
        done
    }

    async fn take_back(&mut self) {
        sqlx::query("ROLLBACK").execute(&mut self.db).await.ok();
        self.vault.take_back(std::mem::take(&mut self.before));
    }

    async fn fill(&mut self, group: Vec<Command>, dones: &mut Vec<Done>) -> Result<(), Error> {
        let identity = Arc::clone(&self.identity.lock());
        let mut transaction = Transaction { db: &mut self.db, vault: &self.vault, identity };
        let mut group = group.into_iter().peekable();
        // A failure is everybody's, also of those whose turn has not come: they hear of it
        // because nobody answers them.
        while let Some(command) = group.next() {
            match command {
                Command::Close { .. } => {}
                Command::Work(work) => work.run(&mut transaction, dones).await?,
                Command::Step { space, need, step } => {
                    let (mut steps, mut need) = (vec![step], need);
                    while let Some(Command::Step { step, need: more, .. }) =
                        group.next_if(|next| next.joins(space, &need))
                    {
                        steps.push(step);
                        need.records.extend(more.records);
                    }
                    transaction.steps(space, need, steps, dones).await?;
                }
            }
        }
        Ok(())
    }
}

impl Command {
    /// Whether it is a step that can happen to the same part of the same space.
    fn joins(&self, space: i64, need: &Need) -> bool {
        matches!(self, Self::Step { space: other, need: more, .. }
            if *other == space && need.entries == more.entries && need.entries == Wanted::None)
    }
}

impl Transaction<'_> {
    /// Lets steps happen to a part of a space, one after the other.
    pub(super) async fn steps(
        &mut self,
        space: i64,
        need: Need,
        steps: Vec<Step>,
        dones: &mut Vec<Done>,
    ) -> Result<(), Error> {
        let mut replica = match self.replica(space, &need).await {
            // Of whoever asked for that, and of nobody else.
            Err(Error::NoSpace) => {
                dones.extend(steps.into_iter().map(|step| step(Err(Error::NoSpace))));
                return Ok(());
            }
            replica => replica?,
        };
        dones.extend(steps.into_iter().map(|step| step(Ok(&mut replica))));
        self.write(space, &mut replica).await
    }

    pub(super) async fn replica(&mut self, space: i64, need: &Need) -> Result<Replica, Error> {
        load::replica(self.db, &self.identity, space, need, self.vault).await
    }

    pub(super) async fn write(&mut self, space: i64, replica: &mut Replica) -> Result<(), Error> {
        failpoint::reach("client.before_write");
        write::replica(self.db, space, replica, self.vault).await?;
        failpoint::reach("client.after_write");
        Ok(())
    }
}
