//! Reads that many want at the same time, such as the first pages after a restart,
//! when every subscriber comes back to the place where all of them were. The first
//! one reads; those who come meanwhile, or a little later, get the same.
//!
//! A read belongs to a task, not to who asked for it: whoever gives up and asks
//! again finds it under way, or done.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Error;
use crate::tasks::Tasks;

/// What was read is given to others for this long.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// Reads that are kept, whatever their size.
const KEPT_MAX: usize = 256;

/// What has a size in memory, about.
pub(super) trait Sized {
    fn size_bytes(&self) -> usize;
}

/// Results of reads, by what was asked.
pub(super) struct Shared<K, V> {
    tasks: Tasks,
    reads: Mutex<VecDeque<Read<K, V>>>,
    bytes_max: usize,
    kept_for: Duration,
}

type Result<V> = std::result::Result<V, Error>;
/// A read under way, or done, with the size of what it found.
type Reading<V> = future::Shared<BoxFuture<'static, Result<(V, usize)>>>;

struct Read<K, V> {
    key: K,
    key_bytes: usize,
    began: Instant,
    result: Reading<V>,
}

impl<K, V> Shared<K, V>
where
    K: PartialEq + Sized,
    V: Clone + Sized + Send + Sync + 'static,
{
    pub(super) fn new(bytes_max: usize, tasks: Tasks) -> Self {
        Self { tasks, reads: Mutex::default(), bytes_max, kept_for: KEPT_FOR }
    }

    /// The result of `read`, or that of another one of the same key which will do.
    /// Cancel safe: what was begun goes on, for the next who asks.
    pub(super) async fn get<F>(
        &self,
        key: impl Fn() -> K,
        will_do: impl Fn(&V) -> bool,
        read: impl Fn() -> F,
    ) -> Result<V>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        loop {
            let (reading, own) = self.find(&key, &will_do, &read);
            let (value, _) = reading.await?;
            // What began before may be older than what this caller needs.
            if own || will_do(&value) {
                return Ok(value);
            }
        }
    }

    /// A read of the key, and whether it is a new one.
    fn find<F>(
        &self,
        key: impl Fn() -> K,
        will_do: impl Fn(&V) -> bool,
        read: impl Fn() -> F,
    ) -> (Reading<V>, bool)
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let key = key();
        let mut reads = self.reads.lock();
        self.forget(&mut reads);
        if let Some(index) = reads.iter().position(|read| read.key == key)
            && let Some(known) = reads.get(index)
        {
            let good = known
                .result
                .peek()
                .is_none_or(|it| it.as_ref().is_ok_and(|(value, _)| will_do(value)));
            if good {
                return (known.result.clone(), false);
            }
            reads.remove(index);
        }
        let reading = read();
        let task = self.tasks.spawn("read", async move {
            let value = reading.await?;
            let bytes = value.size_bytes();
            Ok((value, bytes))
        });
        let result = task.map(|it| it.unwrap_or_else(|panic| Err(panic.into()))).boxed().shared();
        let (key_bytes, began) = (key.size_bytes(), Instant::now());
        reads.push_back(Read { key, key_bytes, began, result: result.clone() });
        (result, true)
    }

    /// Forgets what is old or too much, the oldest first. What is under way stays.
    fn forget(&self, reads: &mut VecDeque<Read<K, V>>) {
        let (mut bytes, mut count) = (0, 0);
        let mut keep: Vec<_> = reads
            .iter()
            .rev()
            .map(|read| {
                let found = read.result.peek();
                bytes += read.key_bytes;
                bytes += found.map_or(0, |it| it.as_ref().map_or(0, |(_, bytes)| *bytes));
                count += 1;
                let fits = bytes <= self.bytes_max && count < KEPT_MAX;
                found.is_none() || (fits && read.began.elapsed() < self.kept_for)
            })
            .collect();
        reads.retain(|_| keep.pop().unwrap_or(false));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use futures_util::future::join_all;
    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    impl Sized for u64 {
        fn size_bytes(&self) -> usize {
            10
        }
    }

    impl Sized for &str {
        fn size_bytes(&self) -> usize {
            0
        }
    }

    #[derive(Clone, Default)]
    struct Source(Arc<AtomicU64>);

    impl Source {
        /// How often it was read, as a value.
        fn read(&self) -> impl Future<Output = Result<u64>> + Send + 'static {
            let count = Arc::clone(&self.0);
            async move {
                tokio::task::yield_now().await;
                Ok(count.fetch_add(1, SeqCst) + 1)
            }
        }
    }

    fn shared<K: PartialEq + Sized>(bytes_max: usize) -> (Shared<K, u64>, Source) {
        (Shared::new(bytes_max, Tasks::new()), Source::default())
    }

    #[tokio::test]
    async fn many_who_ask_at_once_cost_one_read() {
        let (shared, source) = shared(1_000);
        let all = (0..1_000).map(|_| shared.get(|| "a", |_| true, || source.read()));
        assert!(join_all(all).await.iter().all(|it| *it.as_ref().unwrap() == 1));
        assert_eq!(shared.get(|| "b", |_| true, || source.read()).await.unwrap(), 2);
        assert_eq!(shared.get(|| "a", |_| true, || source.read()).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn what_is_old_is_read_again() {
        let (fresh, source) = shared(1_000);
        let shared = Shared { kept_for: Duration::ZERO, ..fresh };
        assert_eq!(shared.get(|| "a", |_| true, || source.read()).await.unwrap(), 1);
        assert_eq!(shared.get(|| "a", |_| true, || source.read()).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn what_is_too_old_for_somebody_is_read_again() {
        let (shared, source) = shared(1_000);
        assert_eq!(shared.get(|| "a", |_| true, || source.read()).await.unwrap(), 1);
        let newer = (0..100).map(|_| shared.get(|| "a", |it| *it >= 2, || source.read()));
        assert!(join_all(newer).await.iter().all(|it| *it.as_ref().unwrap() == 2));
        // A read of one's own will do, whatever it says: otherwise this would not end.
        assert_eq!(shared.get(|| "a", |_| false, || source.read()).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_read_that_fails_is_begun_anew_and_one_that_is_given_up_goes_on() {
        let (shared, source) = shared(1_000);
        let failed = shared.get(|| "a", |_| true, || async { Err(Error::Overloaded) }).await;
        assert!(matches!(failed, Err(Error::Overloaded)));
        let go = Arc::new(Notify::new());
        let slow = || {
            let (go, read) = (Arc::clone(&go), source.read());
            async move {
                go.notified().await;
                read.await
            }
        };
        let short = Duration::from_millis(1);
        assert!(timeout(short, shared.get(|| "a", |_| true, slow)).await.is_err());
        assert!(timeout(short, shared.get(|| "a", |_| true, slow)).await.is_err());
        go.notify_one();
        assert_eq!(shared.get(|| "a", |_| true, slow).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        for (bytes_max, kept) in [(40, 3), (usize::MAX, KEPT_MAX)] {
            let (shared, source) = shared(bytes_max);
            for key in 0..1_000u64 {
                shared.get(|| key, |_| true, || source.read()).await.unwrap();
            }
            assert!(shared.reads.lock().len() <= kept, "{}", shared.reads.lock().len());
        }
    }
}
