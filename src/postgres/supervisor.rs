//! The thread that owns the server: watches it, starts it again, stops it when asked.
//!
//! Only this thread signals the server, and only before it has collected its exit: a process id
//! that it uses cannot have passed to somebody else.

use std::{
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use super::{cluster::Cluster, leftovers, now, process::Server};

/// How soon a death is seen.
const WATCH_POLL: Duration = Duration::from_millis(50);
/// How soon a server that comes up is announced.
const READY_POLL: Duration = Duration::from_millis(5);
/// A server that ran this long owes nothing to earlier failures.
const STABLE: Duration = Duration::from_secs(30);
const DELAY_MAX_S: u64 = 30;

#[derive(Debug)]
pub(super) enum Request {
    Stop,
    /// Answered once the processes have been killed.
    Kill9(SyncSender<()>),
}

/// What others may know about the server.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Zero while there is none.
    pid: AtomicU32,
    restarts: AtomicU64,
}

impl State {
    pub(super) fn pid(&self) -> Option<u32> {
        Some(self.pid.load(SeqCst)).filter(|pid| *pid != 0)
    }

    pub(super) fn restarts(&self) -> u64 {
        self.restarts.load(SeqCst)
    }

    pub(super) fn up(&self, pid: u32) {
        self.pid.store(pid, SeqCst);
    }
}

/// Delays before starts: none, then 1 s, doubled each time.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let delay_s = (1_u64 << self.failures.min(16)) >> 1;
        self.failures += 1;
        Duration::from_secs(delay_s.min(DELAY_MAX_S))
    }
}

enum Phase {
    Down { delay: Duration },
    Starting(Server),
    Up { server: Server, since: Instant },
}

pub(super) struct Supervisor {
    cluster: Cluster,
    state: Arc<State>,
    backoff: Backoff,
}

impl Supervisor {
    pub(super) fn new(cluster: Cluster, state: Arc<State>) -> Self {
        Self { cluster, state, backoff: Backoff::default() }
    }

    /// Runs until it is asked to stop, or until nobody is left who could ask.
    pub(super) fn run(mut self, server: Server, inbox: &Receiver<Request>) {
        let mut phase = Phase::Up { server, since: now() };
        loop {
            let wait = match &phase {
                Phase::Down { delay } => *delay,
                Phase::Starting(_) => READY_POLL,
                Phase::Up { .. } => WATCH_POLL,
            };
            let request = inbox.recv_timeout(wait);
            if matches!(request, Err(RecvTimeoutError::Timeout)) {
                phase = self.advance(phase);
                continue;
            }
            self.state.pid.store(0, SeqCst);
            let server = match phase {
                Phase::Down { .. } => None,
                Phase::Starting(server) | Phase::Up { server, .. } => Some(server),
            };
            let Ok(Request::Kill9(done)) = request else {
                server.into_iter().for_each(|server| server.stop(&self.cluster));
                return;
            };
            server.into_iter().for_each(|server| server.kill9(&self.cluster.data));
            done.send(()).ok();
            // Asked for, so not a failure.
            self.backoff = Backoff::default();
            phase = Phase::Down { delay: self.backoff.next() };
        }
    }

    /// What follows when a phase has lasted for the time it was given.
    fn advance(&mut self, phase: Phase) -> Phase {
        match phase {
            Phase::Down { .. } => self.restart(),
            Phase::Starting(server) if server.is_ready(&self.cluster) => {
                self.state.up(server.pid());
                // After the pid, so that whoever sees the count sees the new pid as well.
                self.state.restarts.fetch_add(1, SeqCst);
                tracing::info!(pid = server.pid(), "postgresql runs again");
                Phase::Up { server, since: now() }
            }
            Phase::Starting(mut server) => match server.exited() {
                Some(status) => self.ended(&server, status),
                None => Phase::Starting(server),
            },
            Phase::Up { mut server, since } => {
                let Some(status) = server.exited() else { return Phase::Up { server, since } };
                self.state.pid.store(0, SeqCst);
                if since.elapsed() >= STABLE {
                    self.backoff = Backoff::default();
                }
                self.ended(&server, status)
            }
        }
    }

    fn restart(&mut self) -> Phase {
        let cluster = &self.cluster;
        let cleared = leftovers::clear(&cluster.data, &cluster.socket.path);
        match cleared.and_then(|()| Server::start(cluster)) {
            Ok(server) => Phase::Starting(server),
            Err(error) => {
                let delay = self.backoff.next();
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, ?delay, "postgresql cannot be started again, will retry");
                Phase::Down { delay }
            }
        }
    }

    fn ended(&mut self, server: &Server, status: ExitStatus) -> Phase {
        let (delay, log) = (self.backoff.next(), server.log_tail(&self.cluster));
        tracing::warn!(%status, ?delay, log, "postgresql ended by itself, will start it again");
        Phase::Down { delay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_begin_with_none_and_have_a_ceiling() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = (0..40).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(delays[..8], [0, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(delays[39], 30);
    }
}
