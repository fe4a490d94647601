//! Tells other replicas which spaces moved, and hears it from them. Only ever a
//! hint: whatever is lost here, the feeder's poll finds a little later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::feeder::Feeder;
use crate::chain::Chain;
use crate::domain::{Event, Revision, SpaceId, limits};
use crate::hub::Hint;
use crate::store::{Error, Heard, Listener, Notifier, Store};

/// What moves within this time goes out in one notification.
const GATHER: Duration = Duration::from_millis(5);
/// Between attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(500);
/// Connecting, or sending, takes longer only if the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// A listener that hears nothing for this long may be cut off without having
/// been told, so it is replaced.
const LISTEN_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Wakeup {
    /// Tells our own notifications from those of others.
    replica: Uuid,
    moved: Mutex<HashMap<SpaceId, Hint>>,
    events: Mutex<Vec<(SpaceId, Arc<Event>)>>,
    wake: Notify,
}

impl Wakeup {
    pub(super) fn new(replica: Uuid) -> Self {
        Self { replica, moved: Mutex::default(), events: Mutex::default(), wake: Notify::new() }
    }

    /// A space has moved. Never waits.
    pub(super) fn moved(&self, space: SpaceId, to: Hint) {
        self.moved.lock().insert(space, to);
        self.wake.notify_one();
    }

    /// An event was published here. Never waits; what is too much is dropped.
    pub(super) fn published(&self, space: SpaceId, event: Arc<Event>) {
        let mut events = self.events.lock();
        if events.len() < limits::EVENT_QUEUE_MAX {
            events.push((space, event));
            self.wake.notify_one();
        }
    }

    /// Sends notifications until `stop`.
    pub(super) async fn notify(self: Arc<Self>, store: Store, stop: CancellationToken) {
        let mut notifier = None;
        loop {
            // Cancel: both only wait. Heads that have moved and were not sent
            // before `stop` never are; other replicas find them by polling.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.wake.notified() => {}
            }
            // Many commits, one notification.
            sleep(GATHER).await;
            let moved = std::mem::take(&mut *self.moved.lock()).into_iter();
            let heads: Vec<_> = moved.map(|(space, it)| (space, it.head, it.conflicts)).collect();
            // What cannot be sent now is not sent later: nobody waits for old events.
            let events = std::mem::take(&mut *self.events.lock());
            let sending = self.send(&store, &mut notifier, &heads, &events);
            // Cancel: the connection goes with the future.
            let sent = timeout(SILENCE_MAX, sending).await;
            if let Err(error) = sent.unwrap_or(Err(Error::TimedOut("a notification"))) {
                debug!(error = %Chain(&error), "a notification was not sent");
                notifier = None;
                // A database that is away must not be asked without pause.
                sleep(RECONNECT).await;
            }
        }
        if let Some(notifier) = notifier
            && let Err(error) = notifier.close().await
        {
            debug!(error = %Chain(&error), "the notifier's connection did not close cleanly");
        }
    }

    async fn send(
        &self,
        store: &Store,
        notifier: &mut Option<Notifier>,
        heads: &[(SpaceId, Revision, i64)],
        events: &[(SpaceId, Arc<Event>)],
    ) -> Result<(), Error> {
        let mut connected = match notifier.take() {
            Some(connected) => connected,
            None => Notifier::connect(store).await?,
        };
        connected.notify(self.replica, heads).await?;
        connected.tell(self.replica, events).await?;
        *notifier = Some(connected);
        Ok(())
    }

    /// Hears notifications until `stop`. After any fault it connects anew, and
    /// has the heads polled once it listens: then nothing lies in between.
    pub(super) async fn listen(
        self: Arc<Self>,
        store: Store,
        feeder: Arc<Feeder>,
        stop: CancellationToken,
    ) {
        loop {
            let heard = tokio::select! {
                biased;
                // Cancel: the listener's connection is its own and goes with it.
                () = stop.cancelled() => return,
                ended = self.hear(&store, &feeder) => ended,
            };
            if let Err(error) = heard {
                warn!(error = %Chain(&error), "the listener lost its connection; connecting anew");
            }
            feeder.poll_now();
            // Cancel: both only wait.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // As above: not without pause.
                () = sleep(RECONNECT) => {}
            }
        }
    }

    async fn hear(&self, store: &Store, feeder: &Feeder) -> Result<(), Error> {
        let mut listener = listener(store).await?;
        feeder.poll_now();
        loop {
            let Ok(heard) = timeout(LISTEN_MAX, listener.hear(self.replica)).await else {
                // The old one goes only when the new one listens.
                listener = self::listener(store).await?;
                feeder.poll_now();
                continue;
            };
            match heard? {
                Heard::Heads(heads) => {
                    for (space, head, conflicts) in heads {
                        feeder.hint(space, Hint { head, conflicts });
                    }
                }
                Heard::Event(space, event) => feeder.event(space, event),
                Heard::Nothing => {}
                Heard::Gap => feeder.poll_now(),
            }
        }
    }
}

async fn listener(store: &Store) -> Result<Listener, Error> {
    // Cancel: the connection goes with the future.
    let connecting = timeout(SILENCE_MAX, Listener::connect(store)).await;
    connecting.unwrap_or(Err(Error::TimedOut("listening")))
}
