//! Who syncs a file that several processes have open: the one that holds the lock beside it.
//! The others write into the file; it sees that they have. The lock goes with its process,
//! however that ends.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::Trigger;
use super::engine::{self, EngineState, Mode};
use super::news::News;
use super::options::Token;
use super::remote::Target;
use super::session::{self, Wish};
use super::store::{Sentinel, Store};
use crate::tasks::Tasks;

/// How often a process looks whether another one has written.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it tries to become the one that syncs.
const LOCK_EVERY: Duration = Duration::from_secs(1);
/// How often what is old is taken away.
const COLLECT_EVERY: Duration = Duration::from_secs(600);
/// Wishes that wait for the session. More of them say nothing new.
const WISHES_MAX: usize = 256;

/// What is needed to lead.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) sentinel: Sentinel,
    pub(super) target: Option<(Target, Token)>,
    pub(super) mode: Mode,
    pub(super) state: watch::Sender<Option<EngineState>>,
    pub(super) news: broadcast::Sender<News>,
    pub(super) seed: Option<u64>,
    pub(super) silence: Option<Duration>,
}

/// A handle on the session, if this process has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lead {
    wishes: Arc<Mutex<Option<mpsc::Sender<Wish>>>>,
}

impl Lead {
    pub(super) fn start(parts: Parts, tasks: &Tasks) -> Self {
        let lead = Self::default();
        tasks.spawn("lead", run(parts, lead.clone(), tasks.clone()));
        lead
    }

    /// Whether this process syncs the file.
    pub(super) fn is_leading(&self) -> bool {
        self.wishes.lock().is_some()
    }

    pub(super) fn spaces_changed(&self) {
        self.wish(Wish::Spaces);
    }

    /// Something was queued in a space.
    pub(super) fn queued(&self, space: i64) {
        let space = session::number(space);
        self.wish(Wish::Trigger(engine::Trigger::Changed { space }));
    }

    /// Something told that a space has moved.
    pub(super) fn hint(&self, space: i64) {
        let space = session::number(space);
        self.wish(Wish::Trigger(engine::Trigger::Hint { space }));
    }

    pub(super) fn trigger(&self, why: Trigger) {
        self.wish(Wish::Trigger(match why {
            Trigger::Network => engine::Trigger::Network,
            Trigger::Offline => engine::Trigger::Offline,
            Trigger::Foreground => engine::Trigger::Foreground,
            Trigger::Periodic => engine::Trigger::Periodic,
            Trigger::Demand => engine::Trigger::Demand,
        }));
    }

    fn wish(&self, wish: Wish) {
        if let Some(wishes) = self.wishes.lock().as_ref() {
            // So many that wait will be seen; what is in the file is looked at besides.
            wishes.try_send(wish).ok();
        }
    }
}

/// Looks after the file until the client is closed.
async fn run(mut parts: Parts, lead: Lead, tasks: Tasks) {
    let stop = tasks.token().clone();
    let mut lock: Option<File> = None;
    let (mut next_lock, mut next_collect) = (Instant::now(), Instant::now() + COLLECT_EVERY);
    let mut known = Vec::new();
    while !stop.is_cancelled() {
        let now = Instant::now();
        // Who has no server leaves the lock to others that may have one.
        if lock.is_none() && parts.target.is_some() && now >= next_lock {
            next_lock = now + LOCK_EVERY;
            lock = try_lock(parts.store.path());
            if let (Some(_), Some((target, token))) = (&lock, parts.target.clone()) {
                begin(&parts, &lead, &tasks, target, token, &stop);
            }
        }
        parts.look(lock.is_some().then_some(&lead), &mut known).await;
        if (lock.is_some() || parts.target.is_none()) && now >= next_collect {
            next_collect = now + COLLECT_EVERY;
            if let Err(error) = parts.store.collect().await {
                warn!(%error, "what is old stays in the local file");
            }
        }
        // Other processes cannot ring here: SQLite tells nobody what it writes.
        // Cancel: both only wait.
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep(LOOK_EVERY) => {}
        }
    }
    *lead.wishes.lock() = None;
    // Held until the session has ended, which it does at the same sign.
    drop(lock);
}

impl Parts {
    /// Sees whether somebody has written, and tells the session, if this process has it.
    async fn look(&mut self, lead: Option<&Lead>, known: &mut Vec<(i64, bool, String)>) {
        match self.sentinel.has_moved().await {
            Ok(false) => {}
            Ok(true) => {
                self.store.note_written();
                if let Some(lead) = lead {
                    look(&self.store, lead, known).await;
                }
            }
            Err(error) => warn!(%error, "the local file cannot be looked at"),
        }
    }
}

fn begin(
    parts: &Parts,
    lead: &Lead,
    tasks: &Tasks,
    target: Target,
    token: Token,
    stop: &CancellationToken,
) {
    let (wishes, waiting) = mpsc::channel(WISHES_MAX);
    *lead.wishes.lock() = Some(wishes);
    debug!("this process syncs the file");
    let parts = session::Parts {
        store: parts.store.clone(),
        target,
        token,
        mode: parts.mode,
        wishes: waiting,
        state: parts.state.clone(),
        news: parts.news.clone(),
        stop: stop.clone(),
        seed: parts.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0),
        silence: parts.silence,
    };
    tasks.spawn("sync", session::run(parts));
}

/// What other processes have left: edits to send, spaces to follow.
async fn look(store: &Store, lead: &Lead, known: &mut Vec<(i64, bool, String)>) {
    let Ok(facts) = store.facts().await else { return };
    let now: Vec<_> =
        facts.iter().map(|it| (it.no, it.wanted, format!("{:?}", it.place.scope))).collect();
    if *known != now {
        if !known.is_empty() {
            lead.spaces_changed();
        }
        *known = now;
    }
    for facts in facts.iter().filter(|facts| facts.place.counts.pending > 0) {
        lead.queued(facts.no);
    }
}

/// The lock, if nobody else has it.
fn try_lock(path: &Path) -> Option<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(PathBuf::from(name));
    match file {
        Ok(file) => file.try_lock().is_ok().then_some(file),
        Err(error) => {
            warn!(%error, "the lock beside the local file cannot be opened");
            None
        }
    }
}
