//! Keeps the account of one crowd of subscribers: when each write was sent, how
//! many subscriptions have not told of it yet, and how long they took. All by one
//! clock, and an event counts once its subscriber has received it.

use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::lean::LeanFrame;
use crate::bench::load::{Measured, latencies};
use crate::bench::process::cpu_time;

/// The account.
#[derive(Debug)]
pub(super) struct Book {
    subscriptions: u64,
    pages: Mutex<Pages>,
    /// How many subscriptions have caught up.
    pub(super) caught_up: watch::Sender<u64>,
}

#[derive(Debug)]
struct Pages {
    /// By their numbers.
    writes: Vec<Sent>,
    since: Option<Since>,
    delivered: u64,
    latency: Histogram<u64>,
}

/// When counting began, by both clocks.
#[derive(Clone, Copy, Debug)]
struct Since {
    at: Instant,
    cpu: Duration,
}

#[derive(Debug)]
struct Sent {
    at: Instant,
    /// Subscriptions that have not told of it.
    missing: u64,
    /// Its place among the writes that may be undelivered, until it is delivered.
    room: Option<OwnedSemaphorePermit>,
}

impl Book {
    pub(super) fn new(subscriptions: usize) -> anyhow::Result<Self> {
        let (since, delivered, latency) = (None, 0, latencies()?);
        let pages = Pages { writes: Vec::new(), since, delivered, latency };
        let (subscriptions, caught_up) = (subscriptions as u64, watch::Sender::default());
        Ok(Self { subscriptions, pages: Mutex::new(pages), caught_up })
    }

    /// Notes that a write is sent now; gives it its number.
    pub(super) fn send(&self, room: OwnedSemaphorePermit) -> usize {
        let missing = self.subscriptions;
        // Where nobody follows it is delivered at once.
        let room = (missing > 0).then_some(room);
        let sent = Sent { at: Instant::now(), missing, room };
        let mut pages = self.pages.lock();
        pages.writes.push(sent);
        pages.writes.len() - 1
    }

    /// Notes what a subscriber was told.
    pub(super) fn receive(&self, frame: &LeanFrame) -> anyhow::Result<()> {
        anyhow::ensure!(frame.closed.is_none() && frame.resync.is_none(), "ended: {frame:?}");
        if frame.caught_up.is_some() {
            self.caught_up.send_modify(|caught_up| *caught_up += 1);
        }
        let Some(changes) = &frame.changes else { return Ok(()) };
        let now = Instant::now();
        let mut pages = self.pages.lock();
        for number in changes.numbers() {
            let known = number.is_some_and(|number| pages.note(number, now, changes.subscriptions));
            anyhow::ensure!(known, "an event that nobody waits for: {frame:?}");
        }
        Ok(())
    }

    /// Begins to count.
    pub(super) fn begin(&self) {
        let mut pages = self.pages.lock();
        (pages.since, pages.delivered) = (Some(Since { at: Instant::now(), cpu: cpu_time() }), 0);
        pages.latency.reset();
    }

    /// Ends that; what was counted.
    pub(super) fn end(&self) -> Measured {
        let mut pages = self.pages.lock();
        let since = pages.since.take();
        Measured {
            operations: pages.delivered,
            elapsed: since.map(|since| since.at.elapsed()).unwrap_or_default(),
            latency: pages.latency.clone(),
            cpu: since.map(|since| cpu_time().saturating_sub(since.cpu)),
        }
    }
}

impl Pages {
    /// False if there is no such write, or everybody had told of it.
    fn note(&mut self, number: usize, now: Instant, subscriptions: u64) -> bool {
        let Some(sent) = self.writes.get_mut(number) else { return false };
        let Some(missing) = sent.missing.checked_sub(subscriptions) else { return false };
        sent.missing = missing;
        if missing == 0 {
            drop(sent.room.take());
        }
        if self.since.is_some() {
            self.delivered += subscriptions;
            let micros = now.duration_since(sent.at).as_micros();
            let micros = u64::try_from(micros).unwrap_or(u64::MAX);
            self.latency.saturating_record_n(micros, subscriptions);
        }
        true
    }
}
