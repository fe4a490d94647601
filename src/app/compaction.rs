//! Forgets what is old: changes that later ones have replaced, tombstones, answers. On one
//! replica at a time, little by little, so that nobody who writes waits for it.
//!
//! A space's floor rises to what is older than the log is kept, but waits for devices
//! that are active and have not acknowledged so much, up to a bound.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::policies::Policies;
use crate::chain::Chain;
use crate::clock::Clock;
use crate::domain::{CollectionName, PolicySet, Retention, Revision, SetPolicy};
use crate::failpoint;
use crate::store::{self, Candidate, Compactor, FIRST_SPACE, LogSpans, Rise, Store};

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Spaces whose floor has risen.
    pub spaces: i64,
    pub changes: i64,
    pub tombstones: i64,
    pub answers: i64,
    pub conflicts: i64,
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spaces, changes, tombstones, answers, conflicts } = self;
        write!(
            f,
            "raised the floors of {spaces} spaces; forgot {changes} changes, {tombstones} \
             tombstones, {answers} answers and {conflicts} conflicts"
        )
    }
}

/// After a step in the background it rests so many times as long as the step took.
const RESTS: u32 = 4;
/// But no longer: a step that had to wait for others has done nothing meanwhile.
const REST_MAX: Duration = Duration::from_millis(200);

/// Compacts until `stop`, on whichever replica comes first.
/// Whoever has not looked at changes of memberships for so long takes nothing for known.
const ACCESS_CHANGES_KEPT: time::Duration = time::Duration::hours(1);

pub(super) async fn keep_compacting(
    store: Store,
    policies: Arc<Policies>,
    (retention, every): (Retention, Duration),
    clock: Clock,
    stop: CancellationToken,
) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Cancel: both only wait.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let policies = policies.current();
        let pace = Pace { rests: RESTS, stop: stop.clone() };
        match compact(&store, &policies, retention, clock.now_to_store(), &pace).await {
            Ok(None) => {}
            Ok(Some(forgotten)) if forgotten == Forgotten::default() => {}
            Ok(Some(forgotten)) => info!("{forgotten}"),
            Err(failure) => warn!(error = %Chain(&failure), "compaction ended early; later"),
        }
    }
}

/// One whole round by hand, as fast as it goes; None if another one is under way. Not
/// cancel safe.
pub async fn compact_once(
    store: &Store,
    retention: Retention,
    now: OffsetDateTime,
) -> Result<Option<Forgotten>, store::Error> {
    let policies = Policies::default();
    policies.read(store).await?;
    let pace = Pace { rests: 0, stop: CancellationToken::new() };
    compact(store, &policies.current(), retention, now, &pace).await
}

/// How fast it goes.
struct Pace {
    rests: u32,
    stop: CancellationToken,
}

impl Pace {
    /// Rests after a step; whether to stop.
    async fn after(&self, began: Instant) -> bool {
        let rest = (began.elapsed() * self.rests).min(REST_MAX);
        // Cancel: both only wait.
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            // Writers have the database for themselves in between.
            () = sleep(rest) => {}
        }
        self.stop.is_cancelled()
    }
}

async fn compact(
    store: &Store,
    policies: &PolicySet,
    retention: Retention,
    now: OffsetDateTime,
    pace: &Pace,
) -> Result<Option<Forgotten>, store::Error> {
    let Some(compactor) = store.compactor().await? else { return Ok(None) };
    let forgotten = Forgotten::default();
    let mut round = Round { compactor, policies, retention, now, pace, forgotten };
    round.forget_answers().await?;
    store.forget_access_changes(now - ACCESS_CHANGES_KEPT).await?;
    while !pace.stop.is_cancelled() {
        let count = store.expire_conflicts(now).await?;
        round.forgotten.conflicts += i64::try_from(count).unwrap_or(i64::MAX);
        if count == 0 {
            break;
        }
    }
    if !pace.stop.is_cancelled() {
        round.release().await?;
    }
    if !pace.stop.is_cancelled() {
        round.go_through_spaces().await?;
    }
    round.compactor.close().await?;
    Ok(Some(round.forgotten))
}

/// A round through all spaces.
struct Round<'r> {
    compactor: Compactor,
    policies: &'r PolicySet,
    retention: Retention,
    now: OffsetDateTime,
    pace: &'r Pace,
    forgotten: Forgotten,
}

impl Round<'_> {
    /// Before changes: an answer may speak of one.
    async fn forget_answers(&mut self) -> Result<(), store::Error> {
        let before = ago(self.now, self.retention.log);
        loop {
            let began = Instant::now();
            let count = self.compactor.forget_answers(before).await?;
            self.forgotten.answers += count;
            if count == 0 || self.pace.after(began).await {
                return Ok(());
            }
        }
    }

    async fn release(&mut self) -> Result<(), store::Error> {
        loop {
            let began = Instant::now();
            let (due, deleted) = self.compactor.release(self.now).await?;
            self.forgotten.changes += deleted;
            if due == 0 || self.pace.after(began).await {
                return Ok(());
            }
        }
    }

    async fn go_through_spaces(&mut self) -> Result<(), store::Error> {
        let spans = log_spans(self.policies, self.retention.log);
        let mut after = FIRST_SPACE;
        loop {
            let began = Instant::now();
            let spaces = self.compactor.spaces(after, ago(self.now, self.retention.log)).await?;
            let Some(last) = spaces.last() else { return Ok(()) };
            after = last.space;
            for space in spaces {
                let raised = if space.log { self.raise(space, &spans).await? } else { space.floor };
                if space.tombstones || raised > space.floor {
                    self.bury(space, raised).await?;
                }
                if self.pace.stop.is_cancelled() {
                    return Ok(());
                }
            }
            if self.pace.after(began).await {
                return Ok(());
            }
        }
    }

    /// Raises a floor as far as it goes.
    async fn raise(&mut self, it: Candidate, spans: &LogSpans) -> Result<Revision, store::Error> {
        let Retention { log, device_wait, .. } = self.retention;
        let rise = Rise {
            old: ago(self.now, log),
            older: ago(self.now, log.saturating_add(device_wait)),
            active: ago(self.now, device_wait),
        };
        let mut floor = it.floor;
        loop {
            let began = Instant::now();
            let to = self.compactor.rise(it.space, floor, rise).await?;
            if to == floor {
                break;
            }
            failpoint::reach("compaction.rise");
            let raised = self.compactor.raise(it.space, floor, to, spans, self.now).await;
            match raised {
                Ok(deleted) => self.forgotten.changes += deleted,
                // The space was erased or replaced meanwhile; the next round sees.
                Err(store::Error::Moved) => break,
                Err(error) => return Err(error),
            }
            failpoint::reach("compaction.raised");
            floor = to;
            if self.pace.after(began).await {
                break;
            }
        }
        self.forgotten.spaces += i64::from(floor > it.floor);
        Ok(floor)
    }

    /// Forgets tombstones up to the floor whose time has come.
    async fn bury(&mut self, it: Candidate, floor: Revision) -> Result<(), store::Error> {
        let mut after = Revision::ZERO;
        loop {
            let began = Instant::now();
            let tombstones = self.compactor.tombstones(it.space, after, floor).await?;
            let Some(last) = tombstones.last() else { return Ok(()) };
            after = last.revision;
            let is_due = |it: &&store::Tombstone| {
                let kept = self.tombstone_span(&it.collection);
                it.committed_at < ago(self.now, kept)
            };
            let due: Vec<_> = tombstones.iter().filter(is_due).map(|it| it.revision).collect();
            if !due.is_empty() {
                self.forgotten.tombstones += self.compactor.bury(it.space, &due).await?;
                failpoint::reach("compaction.buried");
            }
            if self.pace.after(began).await {
                return Ok(());
            }
        }
    }

    fn tombstone_span(&self, collection: &CollectionName) -> Duration {
        let own = self.policies.of(collection);
        let seconds = own.and_then(|set| set.policy.tombstone_retention_seconds);
        seconds.map_or(self.retention.tombstones, Duration::from_secs)
    }
}

/// How long each collection keeps what was replaced: not shorter than all do.
fn log_spans(policies: &PolicySet, all: Duration) -> LogSpans {
    let seconds = |set: &SetPolicy| {
        let own = set.policy.log_retention_seconds.unwrap_or(0).max(all.as_secs());
        i64::try_from(own).unwrap_or(i64::MAX)
    };
    let own = policies.all().map(|set| (set.collection.clone(), seconds(set)));
    let least = i64::try_from(all.as_secs()).unwrap_or(i64::MAX);
    LogSpans {
        others: policies.others().map_or(least, |set| seconds(set)),
        by_collection: own.collect(),
    }
}

/// A time before; the beginning of time if there is none.
fn ago(now: OffsetDateTime, span: Duration) -> OffsetDateTime {
    now.checked_sub(span.try_into().unwrap_or(time::Duration::MAX))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
