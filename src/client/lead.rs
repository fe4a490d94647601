//! Who syncs a file that several processes have open: the one that holds the lock beside it.
//! The others write into the file; it sees that they have. The lock goes with its process,
//! however that ends.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::Trigger;
use super::engine::{self, EngineState, Mode};
use super::news::News;
use super::options::Token;
use super::remote::Target;
use super::session::{self, Wish, Wishes};
use super::store::{Facts, Sentinel, Store, StoreError};
use crate::domain::Space;
use crate::tasks::Tasks;

/// How often a process looks whether another one has written.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it tries to become the one that syncs.
const LOCK_EVERY: Duration = Duration::from_secs(1);
/// How often what is old is taken away.
const COLLECT_EVERY: Duration = Duration::from_secs(600);

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

/// A handle on whoever syncs: the session, if this process has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lead {
    wishes: Arc<Wishes>,
    leads: Arc<AtomicBool>,
}

impl Lead {
    pub(super) fn start(parts: Parts, tasks: &Tasks) -> Self {
        let lead = Self::default();
        tasks.spawn("lead", run(parts, lead.clone(), tasks.clone()));
        lead
    }

    /// Whether this process syncs the file.
    pub(super) fn is_leading(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }

    pub(super) fn spaces_changed(&self) {
        self.wishes.add(Wish::Spaces);
    }

    /// Something was queued in a space.
    pub(super) fn queued(&self, space: i64) {
        let space = session::number(space);
        self.wishes.add(Wish::Trigger(engine::Trigger::Changed { space }));
    }

    /// Something told that a space has moved.
    pub(super) fn hint(&self, space: i64) {
        let space = session::number(space);
        self.wishes.add(Wish::Trigger(engine::Trigger::Hint { space }));
    }

    /// The session has ended, and nobody has told it to.
    async fn ended(&self, session: JoinHandle<()>) {
        self.leads.store(false, Ordering::Release);
        let panic = session.await.err();
        error!(?panic, "the session has ended; another one is begun");
    }

    pub(super) fn trigger(&self, why: Trigger) {
        self.wishes.add(Wish::Trigger(match why {
            Trigger::Network => engine::Trigger::Network,
            Trigger::Offline => engine::Trigger::Offline,
            Trigger::Foreground => engine::Trigger::Foreground,
            Trigger::Periodic => engine::Trigger::Periodic,
            Trigger::Demand => engine::Trigger::Demand,
        }));
    }
}

/// What was seen of the file.
#[derive(Debug, Default)]
struct Seen {
    /// Somebody has written, and not all of it was looked at.
    moved: bool,
    spaces: Vec<(i64, Space, i64)>,
}

/// Looks after the file until the client is closed.
async fn run(mut parts: Parts, lead: Lead, tasks: Tasks) {
    let stop = tasks.token();
    let mut session: Option<JoinHandle<()>> = None;
    let (mut next_lock, mut next_collect) = (Instant::now(), Instant::now() + COLLECT_EVERY);
    let mut seen = Seen::default();
    while !stop.is_cancelled() {
        let now = Instant::now();
        if let Some(ended) = session.take_if(|it| it.is_finished()) {
            lead.ended(ended).await;
        }
        // Who has no server leaves the lock to others that may have one.
        if session.is_none() && now >= next_lock {
            next_lock = now + LOCK_EVERY;
            session = parts.begin(&lead, &tasks).await;
        }
        parts.look(&lead, &mut seen).await;
        if (session.is_some() || parts.target.is_none()) && now >= next_collect {
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
    // The session ends at the same sign.
    lead.leads.store(false, Ordering::Release);
}

impl Parts {
    /// Begins to sync, if there is a server, and nobody else syncs.
    async fn begin(&self, lead: &Lead, tasks: &Tasks) -> Option<JoinHandle<()>> {
        let (target, token) = self.target.clone()?;
        let lock = try_lock(self.store.path())?;
        debug!("this process syncs the file");
        // Of a time before: whoever begins does all of it anyhow.
        if let Err(error) = self.store.take_wishes().await {
            warn!(%error, "old wishes stay in the local file");
        }
        let parts = session::Parts {
            store: self.store.clone(),
            target,
            token,
            mode: self.mode,
            wishes: Arc::clone(&lead.wishes),
            state: self.state.clone(),
            news: self.news.clone(),
            stop: tasks.token(),
            seed: self.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0),
            silence: self.silence,
        };
        lead.leads.store(true, Ordering::Release);
        Some(tasks.spawn("sync", async move {
            session::run(parts).await;
            // Held until the session has ended, however that happens.
            drop(lock);
        }))
    }

    /// Sees whether somebody has written; tells the session, if this process has it, and otherwise
    /// whoever has it.
    async fn look(&mut self, lead: &Lead, seen: &mut Seen) {
        match self.sentinel.has_moved().await {
            Ok(false) => {}
            Ok(true) => {
                self.store.note_written();
                seen.moved = true;
            }
            Err(error) => warn!(%error, "the local file cannot be looked at"),
        }
        let looked = match lead.is_leading() {
            true if seen.moved => self.look_for_work(lead, seen).await,
            true => Ok(()),
            false => self.pass_on(lead).await,
        };
        if let Err(error) = looked {
            warn!(%error, "the local file cannot be looked at");
        }
    }

    /// What other processes have left: edits to send, spaces to follow, wishes.
    async fn look_for_work(&self, lead: &Lead, seen: &mut Seen) -> Result<(), StoreError> {
        let facts = self.store.facts().await?;
        let of = |it: &Facts| (it.no, it.place.space.clone(), it.followed);
        let spaces: Vec<_> = facts.iter().map(of).collect();
        if seen.spaces != spaces {
            lead.spaces_changed();
            seen.spaces = spaces;
        }
        for facts in facts.iter().filter(|facts| facts.place.counts.pending > 0) {
            lead.queued(facts.no);
        }
        if self.store.has_wishes().await? {
            let wishes = self.store.take_wishes().await?;
            wishes.iter().filter_map(|it| Wish::parse(it)).for_each(|it| lead.wishes.add(it));
        }
        seen.moved = false;
        Ok(())
    }

    /// What is wished in a process that does not sync is done by the one that does.
    async fn pass_on(&self, lead: &Lead) -> Result<(), StoreError> {
        let wishes: Vec<_> = lead.wishes.take().into_iter().filter_map(Wish::stored).collect();
        if wishes.is_empty() {
            return Ok(());
        }
        let passed = self.store.pass_on(wishes.clone()).await;
        if passed.is_err() {
            wishes.iter().filter_map(|it| Wish::parse(it)).for_each(|it| lead.wishes.add(it));
        }
        passed
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
