//! What devices say that they have stored. It is written now and then, all of it in
//! one statement: whoever uses it can wait, and what a crash loses is said again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::pause::{Held, Pause};
use crate::chain::Chain;
use crate::clock::Clock;
use crate::domain::{DeviceId, Revision, SpaceId, UserId};
use crate::store::{Acknowledged, Store};

const INTERVAL: Duration = Duration::from_secs(1);
/// Devices that one statement writes, and, times this, that wait at most.
const DEVICES_MAX: usize = 5_000;
const WAITING_MAX: usize = 20 * DEVICES_MAX;

#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: Mutex<HashMap<(SpaceId, UserId, DeviceId), Revision>>,
    writing: Pause,
}

impl Acks {
    /// Notes one. Never waits. What is too much is left out: devices say it again.
    pub(super) fn note(&self, it: Acknowledged) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < WAITING_MAX {
            let known = waiting.entry((it.space, it.user, it.device)).or_default();
            *known = it.revision.max(*known);
        }
    }

    /// Writes them until `stop`, and what is left then.
    pub(super) async fn write(
        self: Arc<Self>,
        store: Store,
        clock: Clock,
        stop: CancellationToken,
    ) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;
        while !stopping {
            // Cancel: both only wait.
            tokio::select! {
                biased;
                () = stop.cancelled() => stopping = true,
                _ = tick.tick() => {}
            }
            let _writing = self.writing.hold().await;
            for some in self.take().chunks(DEVICES_MAX) {
                if let Err(error) = store.acknowledge(some, clock.now_to_store()).await {
                    warn!(error = %Chain(&error), "acknowledgements were not written");
                    some.iter().filter(|_| !stopping).for_each(|it| self.note(it.clone()));
                }
            }
        }
    }

    /// Forgets those of a user, and has no others written as long as the guard lives.
    pub(super) async fn pause(&self, user: &UserId) -> Held {
        let paused = self.writing.hold().await;
        self.forget(user);
        paused
    }

    /// Forgets those of a user.
    pub(super) fn forget(&self, user: &UserId) {
        self.waiting.lock().retain(|(_, of, _), _| of != user);
    }

    fn take(&self) -> Vec<Acknowledged> {
        let waiting = std::mem::take(&mut *self.waiting.lock()).into_iter();
        waiting
            .map(|((space, user, device), revision)| Acknowledged { space, user, device, revision })
            .collect()
    }
}
