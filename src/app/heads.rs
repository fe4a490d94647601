//! Where spaces are, for those who begin to follow them. What is asked while one
//! read is under way is answered by the next, all in one statement: however many
//! come back at once, they cost the store a few reads. Every answer was read after
//! it was asked for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::app::Error;
use crate::domain::{Space, SpaceId};
use crate::store::{self, SpaceHead, Store};

type Answer = Result<SpaceHead, Error>;

#[derive(Debug)]
pub(super) struct Heads {
    /// None once nobody answers any more.
    asked: Mutex<Option<HashMap<SpaceId, Asked>>>,
    ask: Notify,
}

#[derive(Debug)]
struct Asked {
    space: Space,
    replies: Vec<oneshot::Sender<Answer>>,
}

impl Default for Heads {
    fn default() -> Self {
        Self { asked: Mutex::new(Some(HashMap::new())), ask: Notify::new() }
    }
}

impl Heads {
    /// Where the space is. It is born when it is first asked for. Cancel safe.
    pub(super) async fn read(&self, space: &Space) -> Answer {
        let (reply, answer) = oneshot::channel();
        match &mut *self.asked.lock() {
            None => return Err(Error::Stopping),
            Some(asked) => {
                let new = || Asked { space: space.clone(), replies: Vec::new() };
                asked.entry(space.id).or_insert_with(new).replies.push(reply);
            }
        }
        self.ask.notify_one();
        answer.await.unwrap_or(Err(Error::Stopping))
    }

    /// Answers until `stop`.
    pub(super) async fn answer(self: Arc<Self>, store: Store, stop: CancellationToken) {
        loop {
            // Cancel: both only wait.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.ask.notified() => {}
            }
            let mut asked = self.asked.lock().as_mut().map(std::mem::take).unwrap_or_default();
            let read = answer_known(&store, &mut asked).await;
            // Those that are not there yet hold up nobody who is.
            let read = match read {
                Ok(()) if !asked.is_empty() => {
                    let spaces: Vec<_> = asked.values().map(|asked| asked.space.clone()).collect();
                    match store.create_spaces(&spaces.iter().collect::<Vec<_>>()).await {
                        Ok(()) => answer_known(&store, &mut asked).await,
                        Err(error) => Err(error),
                    }
                }
                other => other,
            };
            // A shared space that is not there is not born by being asked for.
            let answer = Err(read.map_or_else(Error::from, |()| Error::SpaceNotFound));
            asked.into_values().for_each(|asked| asked.tell(&answer));
        }
        // Whoever has not been answered hears that there is no answer.
        drop(self.asked.lock().take());
    }
}

/// Answers those whose spaces are there, and leaves the others.
async fn answer_known(
    store: &Store,
    asked: &mut HashMap<SpaceId, Asked>,
) -> Result<(), store::Error> {
    let ids: Vec<_> = asked.keys().copied().collect();
    for (id, head) in store.heads(&ids).await? {
        if let Some(asked) = asked.remove(&id) {
            asked.tell(&Ok(head));
        }
    }
    Ok(())
}

impl Asked {
    fn tell(self, answer: &Answer) {
        for reply in self.replies {
            // Who has gone needs no answer.
            let _gone = reply.send(answer.clone());
        }
    }
}
