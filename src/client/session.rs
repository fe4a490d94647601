//! Drives the engine: does what it asks for, on the channel and the local file, and tells it
//! what came of that. Owns the connection; decides nothing. One process at a time has a
//! session on a file.

mod act;
mod calls;
mod frames;
mod load;

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::engine::{
    Config, Engine, EngineState, Event, Mode, Queue, RequestNo, SpaceInfo, SpaceNo, Trigger,
};
use super::news::News;
use super::options::Token;
use super::remote::{Remote, Streaming, Target};
use super::store::{Facts, Store, StoreError};
use crate::domain::Scope;
use crate::rpc::proto;
use calls::Ended;

/// Frames to the server that wait for the connection: there are few, because each space has
/// one batch in flight.
const OUTGOING_MAX: usize = 1_024;
/// Parts of snapshots that are stored and not told yet.
const PARTS_MAX: usize = 16;

/// What an app wants of the session.
#[derive(Debug)]
pub(super) enum Wish {
    /// The spaces that are wanted have changed.
    Spaces,
    Trigger(Trigger),
}

/// What the session is made with.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) target: Target,
    pub(super) token: Token,
    pub(super) mode: Mode,
    pub(super) wishes: mpsc::Receiver<Wish>,
    pub(super) state: watch::Sender<Option<EngineState>>,
    pub(super) news: broadcast::Sender<News>,
    pub(super) stop: CancellationToken,
    pub(super) seed: u64,
    pub(super) silence: Option<Duration>,
}

/// See the head of this file.
pub(super) struct Session {
    engine: Engine,
    store: Store,
    target: Target,
    token: Token,
    /// What the app gave last.
    bearer: Option<String>,
    mode: Mode,
    began: Instant,
    spaces: HashMap<SpaceNo, Named>,
    /// What was wanted of each when it was told of last.
    wanted: HashMap<SpaceNo, Scope>,
    link: Option<Link>,
    calls: JoinSet<Ended>,
    parts: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    news: broadcast::Sender<News>,
    stop: CancellationToken,
}

/// A space that is synced.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    /// Refused alone so often, as it is in the file.
    attempts: i64,
    /// The digest that came last.
    digest: Option<proto::SpaceDigest>,
    /// What was sent last.
    sent: Option<Sent>,
}

/// A batch that is out.
#[derive(Clone, Debug)]
struct Sent {
    request: RequestNo,
    entries: usize,
}

/// A connection, and the stream on it if there is one.
struct Link {
    request: RequestNo,
    remote: Remote,
    outgoing: Option<mpsc::Sender<proto::SubscribeRequest>>,
    incoming: Option<Streaming<proto::SubscribeResponse>>,
    /// Whose subscription it is.
    subscriptions: HashMap<RequestNo, SpaceNo>,
}

/// Syncs until it is told to stop.
pub(super) async fn run(parts: Parts) {
    let Parts { store, target, token, mode, mut wishes, state, news, stop, seed, silence } = parts;
    let mut session = Session {
        engine: Engine::new(Config { mode }, seed),
        store,
        target,
        token,
        bearer: None,
        mode,
        began: Instant::now(),
        spaces: HashMap::new(),
        wanted: HashMap::new(),
        link: None,
        calls: JoinSet::new(),
        parts: mpsc::channel(PARTS_MAX),
        news,
        stop: stop.clone(),
    };
    if let Some(silence) = silence {
        session.engine.bear_silence(silence);
    }
    session.read_spaces().await;
    loop {
        state.send_if_modified(|shown| {
            let now = session.engine.state();
            let moved = shown.as_ref() != Some(&now);
            *shown = Some(now);
            moved
        });
        let wake = session.engine.next_wake().map_or(Duration::from_secs(3_600), |wake| wake);
        let wake = session.began + wake;
        // Cancel: each branch only receives; what is done about it happens below, to its end.
        let heard = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            wish = wishes.recv() => match wish {
                Some(wish) => Heard::Wish(wish),
                None => break,
            },
            Some(part) = session.parts.1.recv() => Heard::Event(part),
            Some(ended) = session.calls.join_next() => match ended {
                Ok(ended) => Heard::Ended(Box::new(ended)),
                // Taken back by a hang-up.
                Err(_aborted) => continue,
            },
            frame = next_frame(&mut session.link) => Heard::Frame(Box::new(frame)),
            () = sleep_until(wake) => Heard::Event(Event::Tick),
        };
        session.hear(heard).await;
    }
    session.link = None;
    debug!("the session has ended");
}

/// What has happened.
enum Heard {
    Wish(Wish),
    Event(Event),
    Ended(Box<Ended>),
    Frame(Box<Result<Option<proto::SubscribeResponse>, super::engine::Fault>>),
}

/// The next frame of the stream; never, if there is none. Cancel safe, as the stream is.
async fn next_frame(
    link: &mut Option<Link>,
) -> Result<Option<proto::SubscribeResponse>, super::engine::Fault> {
    match link.as_mut().and_then(|link| link.incoming.as_mut()) {
        Some(incoming) => {
            incoming.message().await.map_err(|status| super::remote::Fault::from(status).into())
        }
        None => std::future::pending().await,
    }
}

impl Session {
    async fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Wish(Wish::Spaces) => self.read_spaces().await,
            Heard::Wish(Wish::Trigger(trigger)) => self.tell(Event::Trigger(trigger)).await,
            Heard::Event(event) => self.tell(event).await,
            Heard::Ended(ended) => self.ended(*ended).await,
            Heard::Frame(frame) => self.framed(*frame).await,
        }
    }

    /// Tells the engine what has happened, and does what it asks for, until it asks for nothing.
    async fn tell(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let actions = self.engine.on(event, self.began.elapsed());
            let mut broken = Vec::new();
            for action in actions {
                if action.space().is_some_and(|space| broken.contains(&space)) {
                    continue;
                }
                let (space, request) = (action.space(), action.request());
                match self.act(action).await {
                    Ok(more) => events.extend(more),
                    Err(error) => {
                        warn!(%error, "the local file failed");
                        let Some(space) = space else { continue };
                        broken.push(space);
                        events.push_back(Event::StoreFailed {
                            space,
                            request,
                            message: error.to_string(),
                        });
                    }
                }
            }
        }
    }

    /// Looks which spaces are to be synced.
    async fn read_spaces(&mut self) {
        let facts = match self.store.facts().await {
            Ok(facts) => facts,
            Err(error) => {
                warn!(%error, "the local file cannot be read");
                return;
            }
        };
        let mut gone: Vec<_> = self.spaces.keys().copied().collect();
        for facts in facts {
            // What nobody wants is sent to its end all the same.
            let counts = facts.place.counts;
            if !facts.wanted && counts.pending + counts.syncing == 0 {
                continue;
            }
            let space = number(facts.no);
            gone.retain(|it| *it != space);
            let scope = facts.place.scope.clone();
            // Whoever is told of a space begins anew with it.
            if self.wanted.get(&space) == Some(&scope) {
                continue;
            }
            // What is out will be answered, whatever is wanted of the space now.
            let sent = self.spaces.remove(&space).and_then(|named| named.sent);
            let named = Named {
                name: facts.place.space.name().to_owned(),
                attempts: facts.attempts,
                digest: None,
                sent,
            };
            info!(space = named.name, "syncing");
            self.spaces.insert(space, named);
            self.wanted.insert(space, scope);
            self.tell(Event::SpaceAdded { space, info: info_of(&facts) }).await;
        }
        for space in gone {
            self.spaces.remove(&space);
            self.wanted.remove(&space);
            self.tell(Event::SpaceRemoved { space }).await;
        }
    }

    /// What waits in a space's queue.
    async fn queue(&self, space: SpaceNo) -> Result<Queue, StoreError> {
        let facts = self.facts(space).await?;
        Ok(info_of(&facts).queue)
    }

    async fn facts(&self, space: SpaceNo) -> Result<Facts, StoreError> {
        let facts = self.store.fact(local(space)).await?;
        facts.ok_or_else(|| StoreError::Failed("the space is gone".into()))
    }
}

/// A space as the engine numbers it.
pub(super) fn number(no: i64) -> SpaceNo {
    SpaceNo(u64::try_from(no).unwrap_or(0))
}

/// A space as the file numbers it.
fn local(space: SpaceNo) -> i64 {
    i64::try_from(space.0).unwrap_or(0)
}

fn info_of(facts: &Facts) -> SpaceInfo {
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    SpaceInfo {
        epoch: facts.place.epoch,
        cursor: facts.place.cursor,
        loaded: facts.place.is_loaded(),
        queue: Queue {
            frozen: count(facts.place.counts.syncing),
            waiting: count(facts.place.counts.pending),
            last_sequence: facts.place.last_sequence,
        },
        attempts: u32::try_from(facts.attempts).unwrap_or(u32::MAX),
    }
}
