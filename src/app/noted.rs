//! What is noted in the audit log although nothing is written with it: refused accesses,
//! and that somebody acted for another. The same is noted once a minute, with how often
//! it was, so that nobody can fill the log by being refused.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::pause::{Held, Pause};
use super::things::{Due, Things, What};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::domain::{AuditAction, Caller, SERVER_CHAIN, Space, UserId};
use crate::store::{Error, Store};

/// What came up is noted this late at most.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
/// After so many entries that could not be written, others wait for the next time.
const FAILURES_MAX: usize = 3;
/// Names that cannot be those of a space are cut.
const NAME_CHARS_MAX: usize = 100;

/// What has come up.
#[derive(Debug)]
pub(super) struct Noted {
    refused: Mutex<Things>,
    acted: Mutex<Things>,
    writing: Pause,
}

impl Default for Noted {
    fn default() -> Self {
        Self {
            // Whoever is refused must not be able to hide that somebody acts.
            refused: Mutex::new(Things::new(AuditAction::AccessRefused, 100)),
            acted: Mutex::new(Things::new(AuditAction::ActedFor, 1_000)),
            writing: Pause::default(),
        }
    }
}

impl Noted {
    /// Somebody was refused.
    pub(super) fn refused(&self, caller: &Caller, space: &str, wanted: &str) {
        let (chain, space) = match Space::named(space) {
            Ok(named) => (named.id, space.to_owned()),
            Err(_rule) => (SERVER_CHAIN, space.chars().take(NAME_CHARS_MAX).collect()),
        };
        let acted_for = caller.actor.as_ref().map(|_| caller.user.clone());
        let what = What::Refused { acted_for, chain, space, wanted: wanted.to_owned() };
        self.refused.lock().note(caller.really(), what, 1);
    }

    /// Somebody acts for another.
    pub(super) fn acted(&self, caller: &Caller) {
        if let Some(actor) = &caller.actor {
            self.acted.lock().note(actor, What::Acted(caller.user.clone()), 1);
        }
    }

    /// Forgets what would name a user, and has nothing noted as long as the guard lives.
    pub(super) async fn pause(&self, user: &UserId) -> Held {
        let paused = self.writing.hold().await;
        self.forget(user);
        paused
    }

    /// Forgets what would name a user.
    pub(super) fn forget(&self, user: &UserId) {
        self.refused.lock().forget(user);
        self.acted.lock().forget(user);
    }

    /// Notes until `stop`, and what is there then.
    pub(super) async fn keep_noting(
        self: Arc<Self>,
        store: Store,
        clock: Clock,
        stop: CancellationToken,
    ) {
        let mut tick = interval(NOTE_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        while !stopping {
            // Cancel: both only wait.
            stopping = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                _ = tick.tick() => false,
            };
            let _writing = self.writing.hold().await;
            for things in [&self.refused, &self.acted] {
                let due = things.lock().due(stopping, Instant::now());
                let failed = write(&store, due, clock.now_to_store()).await;
                let mut things = things.lock();
                failed.into_iter().for_each(|it| things.put_back(it));
            }
        }
    }
}

/// Writes what is due; what could not be written.
async fn write(store: &Store, due: Vec<Due>, at: OffsetDateTime) -> Vec<Due> {
    if due.is_empty() {
        return due;
    }
    let mut noter = match store.noter().await {
        Ok(noter) => noter,
        Err(failure) => {
            complain(&failure, due.len());
            return due;
        }
    };
    let (mut failed, mut last) = (Vec::new(), None);
    for it in due {
        if failed.len() < FAILURES_MAX {
            let (chain, entry) = it.entry();
            match noter.note(chain, &entry, at).await {
                Ok(()) => continue,
                Err(failure) => last = Some(failure),
            }
        }
        failed.push(it);
    }
    let last = noter.close().await.err().or(last);
    if let Some(failure) = last {
        complain(&failure, failed.len());
    }
    failed
}

fn complain(failure: &Error, entries: usize) {
    warn!(error = %Chain(failure), entries, "not noted in the audit log yet");
}
