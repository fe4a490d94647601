//! Every background task of the program: named, counted, and stopped together. Owns the one way to
//! spawn; must not know what a task does. A task that is spawned here listens to [`Tasks::token`]
//! and ends soon after it is cancelled.

use std::{collections::BTreeMap, fmt, io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// A group of tasks; clones are the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    live: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

/// Tasks that did not end by the deadline: their names, each with how many of them there are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct StillRunning {
    /// How long they were waited for.
    pub deadline: Duration,
    /// What still runs.
    pub tasks: BTreeMap<&'static str, usize>,
}

impl fmt::Display for StillRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "still running after {:?}:", self.deadline)?;
        for (at, (name, count)) in self.tasks.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma} {name} × {count}")?;
        }
        Ok(())
    }
}

impl Tasks {
    /// A group without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task inside a span with its name. Dropping the handle does not stop the task.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        // Counted before it first runs, and until its future is dropped: also if it panics.
        let live = Live::new(name, Arc::clone(&self.live));
        // In a box: every layer around a future would be as large as itself.
        let future = Box::pin(future);
        let task = async move {
            let _live = live;
            future.await
        };
        self.tracker.spawn(task.instrument(tracing::info_span!("task", name)))
    }

    /// Starts a task on a thread and a runtime of its own: what it waits for is
    /// then not queued behind everything else that the program has to do.
    pub fn spawn_thread<F>(&self, name: &'static str, future: F) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (done, ended) = tokio::sync::oneshot::channel::<()>();
        let body = move || {
            runtime.block_on(future.instrument(tracing::info_span!("task", name)));
            drop(done);
        };
        std::thread::Builder::new().name(name.into()).spawn(body)?;
        // Counted here; the thread's end, also by a panic, drops the sender.
        drop(self.spawn(name, async move {
            let _dropped = ended.await;
        }));
        Ok(())
    }

    /// Cancelled when the group is to stop; take a `child_token` for a part of it.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// The tasks that run now, by name.
    pub fn live(&self) -> BTreeMap<&'static str, usize> {
        self.live.lock().clone()
    }

    /// Asks all tasks to stop and waits for them, at most until the deadline.
    ///
    /// Cancel safe: the tasks stay asked to stop.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), StillRunning> {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .map_err(|_| StillRunning { deadline, tasks: self.live() })
    }
}

/// Counts one task for as long as its future exists.
struct Live {
    name: &'static str,
    counts: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Live {
    fn new(name: &'static str, counts: Arc<Mutex<BTreeMap<&'static str, usize>>>) -> Self {
        *counts.lock().entry(name).or_default() += 1;
        Self { name, counts }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tasks_that_listen_end_and_are_counted_until_then() {
        let tasks = Tasks::new();
        let token = tasks.token();
        let handle = tasks.spawn("listener", async move {
            token.cancelled().await;
            7
        });
        assert_eq!(tasks.live(), BTreeMap::from([("listener", 1)]));
        assert_eq!(tasks.shutdown(Duration::from_secs(5)).await, Ok(()));
        assert_eq!(handle.await.unwrap(), 7);
        assert_eq!(tasks.live(), BTreeMap::new());
    }

    #[tokio::test]
    async fn tasks_that_do_not_listen_are_named() {
        let tasks = Tasks::new();
        for name in ["deaf", "mute", "deaf"] {
            drop(tasks.spawn(name, std::future::pending::<()>()));
        }
        let error = tasks.shutdown(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.to_string(), "still running after 20ms: deaf × 2, mute × 1");
    }

    #[tokio::test]
    async fn a_panic_is_one_tasks_own() {
        let tasks = Tasks::new();
        let handle = tasks.spawn("clumsy", async { panic!("as planned") });
        assert!(handle.await.unwrap_err().is_panic());
        assert_eq!(tasks.shutdown(Duration::from_secs(5)).await, Ok(()));
        assert_eq!(tasks.live(), BTreeMap::new());
    }
}
