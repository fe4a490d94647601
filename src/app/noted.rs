//! What is noted in the audit log although nothing is written with it: refused accesses,
//! and that somebody acted for another. The same is noted once a minute, with how often
//! it was, so that nobody can fill the log by being refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::chain::Chain;
use crate::clock::Clock;
use crate::domain::{Actor, AuditAction, AuditEntry, Caller, SERVER_CHAIN, Space, SpaceId, UserId};
use crate::store::Store;

/// What came up is noted this late at most.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
/// The same is not noted again before.
const AGAIN: Duration = Duration::from_secs(60);
/// Different things that are counted at a time; more are only counted as such.
const THINGS_MAX: usize = 10_000;
/// Names that cannot be those of a space are cut.
const NAME_CHARS_MAX: usize = 100;

/// Something that may come up again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Thing {
    action: AuditAction,
    actor: UserId,
    acted_for: Option<UserId>,
    space: String,
    /// The right, or whatever else they lack.
    wanted: String,
}

#[derive(Debug, Default)]
struct Count {
    /// How often since it was last noted.
    times: u64,
    noted_at: Option<Instant>,
}

/// What has come up.
#[derive(Debug, Default)]
pub(super) struct Noted {
    things: Mutex<HashMap<Thing, Count>>,
    left_out: Mutex<u64>,
}

impl Noted {
    /// Somebody was refused.
    pub(super) fn refused(&self, caller: &Caller, space: &str, wanted: &str) {
        let space = space.chars().take(NAME_CHARS_MAX).collect();
        self.note(AuditAction::AccessRefused, caller, space, wanted);
    }

    /// Somebody acts for another.
    pub(super) fn acted(&self, caller: &Caller) {
        if caller.actor.is_some() {
            self.note(AuditAction::ActedFor, caller, String::new(), "");
        }
    }

    fn note(&self, action: AuditAction, caller: &Caller, space: String, wanted: &str) {
        let (actor, acted_for) = match &caller.actor {
            Some(actor) => (actor.clone(), Some(caller.user.clone())),
            None => (caller.user.clone(), None),
        };
        let wanted = wanted.to_owned();
        let thing = Thing { action, actor, acted_for, space, wanted };
        let mut things = self.things.lock();
        if things.len() < THINGS_MAX || things.contains_key(&thing) {
            things.entry(thing).or_default().times += 1;
        } else {
            *self.left_out.lock() += 1;
        }
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
        loop {
            // Cancel: both only wait.
            let stopping = tokio::select! {
                biased;
                () = stop.cancelled() => true,
                _ = tick.tick() => false,
            };
            let due = self.due(stopping);
            if !due.is_empty()
                && let Err(failure) = store.note(&due, clock.now_to_store()).await
            {
                warn!(error = %Chain(&failure), entries = due.len(), "not noted in the audit log");
            }
            if stopping {
                return;
            }
        }
    }

    /// What is to be noted now.
    fn due(&self, all: bool) -> Vec<(SpaceId, AuditEntry)> {
        let now = Instant::now();
        let mut due = Vec::new();
        self.things.lock().retain(|thing, count| {
            let rests = count.noted_at.is_some_and(|at| now.duration_since(at) < AGAIN);
            if count.times > 0 && (all || !rests) {
                due.push(entry(thing, count.times));
                (count.times, count.noted_at) = (0, Some(now));
            }
            count.times > 0 || count.noted_at.is_some_and(|at| now.duration_since(at) < AGAIN)
        });
        let left_out = std::mem::take(&mut *self.left_out.lock());
        if left_out > 0 {
            let entry = AuditEntry::new(AuditAction::AccessRefused, Actor::default());
            due.push((SERVER_CHAIN, entry.with("left_out", left_out)));
        }
        due
    }
}

fn entry(thing: &Thing, times: u64) -> (SpaceId, AuditEntry) {
    let Thing { action, actor, acted_for, space, wanted } = thing;
    let by = Actor { user: Some(actor.clone()), acted_for: acted_for.clone() };
    let mut entry = AuditEntry::new(*action, by).with("times", times);
    if *action == AuditAction::AccessRefused {
        entry = entry.with("space", space.as_str()).with("wanted", wanted.as_str());
    }
    let chain = Space::named(space).map_or(SERVER_CHAIN, |space| space.id);
    (chain, entry)
}
