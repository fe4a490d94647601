//! What devices say that they have stored. It is written now and then, all of it in
//! one statement: whoever uses it can wait, and what a crash loses is said again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::chain::Chain;
use crate::clock::Clock;
use crate::domain::{DeviceId, Revision, SpaceId};
use crate::store::{Acknowledged, Store};

const INTERVAL: Duration = Duration::from_secs(1);
/// Devices that one statement writes, and, times this, that wait at most.
const DEVICES_MAX: usize = 5_000;
const WAITING_MAX: usize = 20 * DEVICES_MAX;

#[derive(Debug, Default)]
pub(super) struct Acks {
    waiting: Mutex<HashMap<(SpaceId, DeviceId), Revision>>,
}

impl Acks {
    /// Notes one. Never waits. What is too much is left out: devices say it again.
    pub(super) fn note(&self, space: SpaceId, device: DeviceId, revision: Revision) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < WAITING_MAX {
            let known = waiting.entry((space, device)).or_default();
            *known = revision.max(*known);
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
            let waiting = std::mem::take(&mut *self.waiting.lock());
            let acknowledged: Vec<_> = waiting
                .into_iter()
                .map(|((space, device), revision)| Acknowledged { space, device, revision })
                .collect();
            for some in acknowledged.chunks(DEVICES_MAX) {
                if let Err(error) = store.acknowledge(some, clock.now_to_store()).await {
                    warn!(error = %Chain(&error), "acknowledgements were not written");
                    if !stopping {
                        some.iter()
                            .for_each(|it| self.note(it.space, it.device.clone(), it.revision));
                    }
                }
            }
        }
    }
}
