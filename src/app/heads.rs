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

#[derive(Debug, Default)]
pub(super) struct Heads {
    asked: Mutex<HashMap<SpaceId, Asked>>,
    ask: Notify,
}

#[derive(Debug)]
struct Asked {
    space: Space,
    replies: Vec<oneshot::Sender<Answer>>,
}

impl Heads {
    /// Where the space is. It is born when it is first asked for. Cancel safe.
    pub(super) async fn read(&self, space: &Space) -> Answer {
        let (reply, answer) = oneshot::channel();
        let asked = |space: &Space| Asked { space: space.clone(), replies: Vec::new() };
        self.asked.lock().entry(space.id).or_insert_with(|| asked(space)).replies.push(reply);
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
            let asked = std::mem::take(&mut *self.asked.lock());
            let ids: Vec<_> = asked.keys().copied().collect();
            match store.heads(&ids).await {
                Ok(heads) => {
                    let heads: HashMap<_, _> = heads.into_iter().collect();
                    for (id, asked) in asked {
                        let answer = match heads.get(&id) {
                            Some(head) => Ok(*head),
                            None => born(&store, &asked.space).await,
                        };
                        asked.tell(&answer.map_err(Arc::new));
                    }
                }
                Err(error) => {
                    let answer = Err(Arc::new(error));
                    asked.into_values().for_each(|asked| asked.tell(&answer));
                }
            }
        }
        // Whoever asks from now on, or has not been answered, hears that there is no answer.
        self.asked.lock().clear();
    }
}

async fn born(store: &Store, space: &Space) -> Result<SpaceHead, store::Error> {
    store.status(space, None).await.map(|(head, _sequence)| head)
}

impl Asked {
    fn tell(self, answer: &Result<SpaceHead, Arc<store::Error>>) {
        for reply in self.replies {
            // Who has gone needs no answer.
            let _gone = reply.send(answer.clone().map_err(Error::Store));
        }
    }
}
