//! What takes several steps, as it is asked for: each is handed to the writer, and told once it
//! is on disk. Cancel safe: what was handed over happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::steps::{NewConflict, Reply, Work};
use super::writer::Command;
use super::{Error, Store};
use crate::client::replica::{Absorbed, Held, Lacking, Range};
use crate::domain::{PolicySet, RecordKey, Scope, Space};
use crate::failpoint;

impl Store {
    async fn work<T>(&self, work: impl FnOnce(Reply<T>) -> Work) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.hand_over(Command::Work(Box::new(work(reply)))).await?;
        self.answered(answer).await
    }

    /// Takes a range of changes in, all of it or nothing.
    pub(in crate::client) async fn absorb(
        &self,
        space: i64,
        range: Arc<Range>,
        fetched: BTreeMap<RecordKey, Held>,
    ) -> Result<Result<Absorbed, Lacking>, Error> {
        self.work(|reply| Work::Absorb { space, range, fetched, reply }).await
    }

    /// Swaps a snapshot in that is all here; false if another one was begun since.
    pub(in crate::client) async fn finish_load(
        &self,
        space: i64,
        generation: i64,
    ) -> Result<bool, Error> {
        self.work(|reply| Work::FinishLoad { space, generation, reply }).await
    }

    /// Forgets what the server had of a space; its queue stays.
    pub(in crate::client) async fn forget(&self, space: i64) -> Result<(), Error> {
        failpoint::reach("client.before_forget");
        self.work(|reply| Work::Forget { space, reply }).await
    }

    /// Wants a space, or a part of it; tells its number in this file.
    pub(in crate::client) async fn follow(&self, space: Space, scope: Scope) -> Result<i64, Error> {
        failpoint::reach("client.before_follow");
        self.work(|reply| Work::Follow { space, scope, reply }).await
    }

    /// Wants a space no longer; its queue is still sent.
    pub(in crate::client) async fn unfollow(&self, space: i64) -> Result<(), Error> {
        failpoint::reach("client.before_leave");
        self.work(|reply| Work::Unfollow { space, reply }).await
    }

    /// Keeps the rules of the server, for what is shown before it answers.
    pub(in crate::client) async fn keep_policies(&self, policies: PolicySet) -> Result<(), Error> {
        failpoint::reach("client.before_policies");
        let identity = Arc::clone(&self.identity);
        self.work(|reply| Work::Policies { policies, identity, reply }).await
    }

    /// Keeps conflicts that wait, and forgets those that do not.
    pub(in crate::client) async fn keep_conflicts(
        &self,
        space: i64,
        news: Vec<NewConflict>,
        cursor: Option<String>,
    ) -> Result<(), Error> {
        failpoint::reach("client.before_conflicts");
        self.work(|reply| Work::Conflicts { space, news, cursor, reply }).await
    }

    /// These conflicts wait, and no others.
    pub(in crate::client) async fn replace_conflicts(
        &self,
        space: i64,
        all: Vec<NewConflict>,
    ) -> Result<(), Error> {
        failpoint::reach("client.before_all_conflicts");
        self.work(|reply| Work::ReplaceConflicts { space, all, reply }).await
    }

    /// Leaves wishes for whoever syncs the file.
    pub(in crate::client) async fn pass_on(&self, wishes: Vec<String>) -> Result<(), Error> {
        failpoint::reach("client.before_pass_on");
        self.work(|reply| Work::PassOn { wishes, reply }).await
    }

    /// The wishes that others have left, in their order; they are there no longer.
    pub(in crate::client) async fn take_wishes(&self) -> Result<Vec<String>, Error> {
        failpoint::reach("client.before_take_wishes");
        self.work(|reply| Work::TakeWishes { reply }).await
    }

    /// How often the front entry was refused alone.
    pub(in crate::client) async fn keep_attempts(
        &self,
        space: i64,
        attempts: i64,
    ) -> Result<(), Error> {
        failpoint::reach("client.before_attempts");
        self.work(|reply| Work::Attempts { space, attempts, reply }).await
    }

    /// Takes away what nobody needs any more.
    pub(in crate::client) async fn collect(&self) -> Result<(), Error> {
        failpoint::reach("client.before_collect");
        while self.work(|reply| Work::Collect { reply }).await? {}
        Ok(())
    }
}
