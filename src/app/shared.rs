//! Reads that many want at the same time, such as the first pages after a restart,
//! when every subscriber comes back to the place where all of them were. The first
//! one reads; those who come meanwhile, or a little later, get the same.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// What was read is given to others for this long.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// Reads that are kept, whatever their size.
const KEPT_MAX: usize = 256;

/// What has a size.
pub(super) trait Sized {
    fn size_bytes(&self) -> usize;
}

/// Results of reads, by what was asked.
#[derive(Debug)]
pub(super) struct Shared<K, V> {
    reads: Mutex<VecDeque<Read<K, V>>>,
    bytes_max: usize,
    kept_for: Duration,
}

#[derive(Debug)]
struct Read<K, V> {
    key: K,
    began: Instant,
    result: Arc<OnceCell<V>>,
}

impl<K: PartialEq + Clone, V: Clone + Sized> Shared<K, V> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { reads: Mutex::default(), bytes_max, kept_for: KEPT_FOR }
    }

    /// The result of `read`, or that of another one of the same key which will do.
    /// Cancel safe, if `read` is: the next one who waits reads then.
    pub(super) async fn get<E, F: Future<Output = Result<V, E>>>(
        &self,
        key: K,
        will_do: impl Fn(&V) -> bool,
        read: impl Fn() -> F,
    ) -> Result<V, E> {
        let (mut result, mut own) = self.find(&key, &will_do);
        loop {
            let value = result.get_or_try_init(&read).await?;
            // What began before may be older than what this caller needs.
            if own || will_do(value) {
                return Ok(value.clone());
            }
            (result, own) = self.find(&key, &will_do);
        }
    }

    /// A read of the key, and whether it is a new one.
    fn find(&self, key: &K, will_do: impl Fn(&V) -> bool) -> (Arc<OnceCell<V>>, bool) {
        let mut reads = self.reads.lock();
        let mut bytes = 0;
        let Self { bytes_max, kept_for, .. } = *self;
        // From the latest on, so that what is oldest goes first.
        let mut keep: Vec<_> = reads
            .iter()
            .rev()
            .map(|read| {
                bytes += read.result.get().map_or(0, Sized::size_bytes);
                bytes <= bytes_max && read.began.elapsed() < kept_for
            })
            .collect();
        reads.retain(|_| keep.pop().unwrap_or(false));
        let found = reads.iter().position(|read| read.key == *key);
        if let Some(index) = found
            && let Some(read) = reads.get(index)
        {
            if read.result.get().is_none_or(will_do) {
                return (Arc::clone(&read.result), false);
            }
            reads.remove(index);
        }
        let result = Arc::new(OnceCell::new());
        let (key, began) = (key.clone(), Instant::now());
        reads.push_back(Read { key, began, result: Arc::clone(&result) });
        while reads.len() > KEPT_MAX {
            reads.pop_front();
        }
        (result, true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use futures_util::future::join_all;

    use super::*;

    impl Sized for u64 {
        fn size_bytes(&self) -> usize {
            10
        }
    }

    #[derive(Default)]
    struct Source(AtomicU64);

    impl Source {
        /// How often it was read, as a value.
        async fn read(&self) -> Result<u64, ()> {
            tokio::task::yield_now().await;
            Ok(self.0.fetch_add(1, SeqCst) + 1)
        }
    }

    #[tokio::test]
    async fn many_who_ask_at_once_cost_one_read() {
        let (shared, source) = (Shared::new(1_000), Source::default());
        let all = (0..1_000).map(|_| shared.get("a", |_| true, || source.read()));
        assert!(join_all(all).await.iter().all(|it| *it == Ok(1)));
        assert_eq!(shared.get("b", |_| true, || source.read()).await, Ok(2));
        assert_eq!(shared.get("a", |_| true, || source.read()).await, Ok(1));
    }

    #[tokio::test]
    async fn what_is_old_is_read_again() {
        let kept_for = Duration::ZERO;
        let (shared, source) = (Shared { kept_for, ..Shared::new(1_000) }, Source::default());
        assert_eq!(shared.get("a", |_| true, || source.read()).await, Ok(1));
        assert_eq!(shared.get("a", |_| true, || source.read()).await, Ok(2));
    }

    #[tokio::test]
    async fn what_is_too_old_for_somebody_is_read_again() {
        let (shared, source) = (Shared::new(1_000), Source::default());
        assert_eq!(shared.get("a", |_| true, || source.read()).await, Ok(1));
        let newer = (0..100).map(|_| shared.get("a", |it| *it >= 2, || source.read()));
        assert!(join_all(newer).await.iter().all(|it| *it == Ok(2)));
        // A read of one's own will do, whatever it says: otherwise this would not end.
        assert_eq!(shared.get("a", |_| false, || source.read()).await, Ok(3));
    }

    #[tokio::test]
    async fn a_read_that_fails_or_is_given_up_is_begun_anew_by_the_next() {
        let (shared, source) = (Shared::new(1_000), Source::default());
        assert_eq!(shared.get("a", |_| true, || async { Err("away") }).await, Err("away"));
        let given_up = shared.get("a", |_| true, std::future::pending::<Result<u64, ()>>);
        assert!(tokio::time::timeout(Duration::from_millis(1), given_up).await.is_err());
        assert_eq!(shared.get("a", |_| true, || source.read()).await, Ok(1));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let (shared, source) = (Shared::new(20), Source::default());
        for key in 0..10u64 {
            shared.get(key, |_| true, || source.read()).await.unwrap();
        }
        assert!(shared.reads.lock().len() <= 3);
        let shared = Shared::new(usize::MAX);
        for key in 0..1_000u64 {
            shared.get(key, |_| true, || source.read()).await.unwrap();
        }
        assert_eq!(shared.reads.lock().len(), KEPT_MAX);
    }
}
