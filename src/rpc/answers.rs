//! Answers of calls that have many: a stream of what a task makes.

use std::pin::Pin;

use futures_util::stream::try_unfold;
use tokio_stream::Stream;
use tonic::Status;

use crate::app::{Error, Produced};

/// A stream of answers.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What is made, as it is sent. Dropped, it ends the task.
pub(super) fn answers<P, T, E>(
    produced: Produced<P, E>,
    render: impl FnMut(P) -> Result<T, Status> + Send + 'static,
) -> Answers<T>
where
    P: Send + 'static,
    T: Send + 'static,
    E: From<Error> + Into<Status> + Send + 'static,
{
    Box::pin(try_unfold((produced, render), async |(mut produced, mut render)| {
        let part = produced.next().await.map_err(Into::into)?;
        let answer = part.map(&mut render).transpose()?;
        Ok(answer.map(|answer| (answer, (produced, render))))
    }))
}
