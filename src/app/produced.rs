//! What a task makes part by part for somebody who fetches it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Error;
use crate::tasks::Tasks;

/// Parts that are ready while others are sent.
const PARTS_READY: usize = 1;
/// Who fetches nothing for so long is no longer waited for.
const UNREAD_MAX: Duration = Duration::from_secs(60);

/// The end where parts are fetched. Dropped, it ends the task.
#[derive(Debug)]
pub struct Produced<T, E> {
    parts: mpsc::Receiver<T>,
    task: JoinHandle<Result<(), E>>,
}

/// The end where parts are put in.
#[derive(Debug)]
pub struct Outlet<T>(mpsc::Sender<T>);

impl<T: Send + 'static, E: From<Error> + Send + 'static> Produced<T, E> {
    /// Begins to make parts.
    pub fn begin<W>(tasks: &Tasks, name: &'static str, work: impl FnOnce(Outlet<T>) -> W) -> Self
    where
        W: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (sender, parts) = mpsc::channel(PARTS_READY);
        Self { parts, task: tasks.spawn(name, work(Outlet(sender))) }
    }

    /// The next part; None after the last one. To be called no more after that, or after
    /// an error.
    pub async fn next(&mut self) -> Result<Option<T>, E> {
        match self.parts.recv().await {
            Some(part) => Ok(Some(part)),
            None => match (&mut self.task).await {
                Ok(ended) => ended.map(|()| None),
                Err(panic) => Err(Error::from(panic).into()),
            },
        }
    }
}

impl<T> Outlet<T> {
    /// Hands a part on; fails if none was fetched for long: what a reader keeps waiting, others
    /// wait for too.
    pub async fn send(&self, part: T) -> Result<(), Error> {
        // Cancel: a part that is not sent is not told of.
        match timeout(UNREAD_MAX, self.0.send(part)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Unread),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    /// So many numbers, and word of when there is nothing more to come.
    fn numbers(up_to: u8) -> (Produced<u8, Error>, oneshot::Receiver<()>) {
        let (word, ended) = oneshot::channel();
        let numbers = Produced::begin(&Tasks::default(), "numbers", async move |outlet| {
            let _word = word;
            for number in 0..up_to {
                outlet.send(number).await?;
            }
            Ok(())
        });
        (numbers, ended)
    }

    #[tokio::test]
    async fn who_fetches_gets_all() {
        let (mut all, _ended) = numbers(3);
        for number in 0..3 {
            assert_eq!(all.next().await.unwrap(), Some(number));
        }
        assert_eq!(all.next().await.unwrap(), None);
    }

    /// Time passes while everybody waits.
    #[tokio::test(start_paused = true)]
    async fn who_fetches_nothing_for_long_is_told() {
        let (mut unread, ended) = numbers(5);
        let before = Instant::now();
        assert!(ended.await.is_err(), "it is dropped");
        assert!(before.elapsed() >= UNREAD_MAX);
        assert_eq!(unread.next().await.unwrap(), Some(0));
        assert!(matches!(unread.next().await, Err(Error::Unread)));
    }
}
