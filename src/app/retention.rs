//! Forgets what need not be kept any longer. Any number of replicas may do so.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::chain::Chain;
use crate::clock::Clock;
use crate::store::Store;

/// Nobody waits for it: soon enough for a retention of seconds, and next to nothing
/// where there is nothing to forget.
const INTERVAL: Duration = Duration::from_secs(5);

/// Forgets conflicts whose time has come, until `stop`.
pub(super) async fn forget_conflicts(store: Store, clock: Clock, stop: CancellationToken) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Cancel: both only wait.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // In small parts, so that nobody waits for long, and a stop is heard.
        while !stop.is_cancelled() {
            match store.expire_conflicts(clock.now()).await {
                Ok(0) => break,
                Ok(count) => debug!(count, "conflicts were forgotten"),
                Err(failure) => {
                    warn!(error = %Chain(&failure), "conflicts were not forgotten; later");
                    break;
                }
            }
        }
    }
}
