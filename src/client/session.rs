//! Drives the engine: does what it asks for, on the channel and the local file, and tells it
//! what came of that. Owns the connection; decides nothing. One process at a time has a
//! session on a file.

mod absorb;
mod act;
mod calls;
mod conflicts;
mod digest;
mod frames;
mod load;
mod settle;
mod wishes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::engine::{
    Config, Engine, EngineState, Event, Mode, Queue, RequestNo, SpaceInfo, SpaceNo, Trigger,
};
use super::news::News;
use super::options::Token;
use super::remote::{Remote, Streaming, Target};
use super::store::{Facts, Store, StoreError};
use crate::domain::Scope;
use crate::rpc::proto;
use absorb::Reading;
use calls::Ended;
use conflicts::Conflicts;
pub(super) use wishes::{Wish, Wishes};

/// Frames to the server that wait for the connection: there are few, because each space has
/// one batch in flight.
const OUTGOING_MAX: usize = 1_024;
/// Parts of snapshots that are stored and not told yet.
const PARTS_MAX: usize = 16;
/// After the list of spaces could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What the session is made with.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) target: Target,
    pub(super) token: Token,
    pub(super) mode: Mode,
    pub(super) wishes: Arc<Wishes>,
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
    /// When it is looked again which spaces there are.
    read_at: Option<Instant>,
    link: Option<Link>,
    calls: JoinSet<Ended>,
    parts: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    news: broadcast::Sender<News>,
    stop: CancellationToken,
}

/// A space that is synced.
#[derive(Debug)]
struct Named {
    name: String,
    /// What of it is wanted, as it was told last.
    scope: Scope,
    /// What the file counted when it was wanted so.
    followed: i64,
    /// Refused alone so often, as it is in the file.
    attempts: i64,
    /// The digest that came last.
    digest: Option<proto::SpaceDigest>,
    /// What was sent last.
    sent: Option<Sent>,
    conflicts: Conflicts,
}

impl Named {
    /// Whether nothing else is wanted of it.
    fn is_as(&self, facts: &Facts) -> bool {
        self.followed == facts.followed && self.name == facts.place.space.name()
    }
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
    /// Spaces whose last range lacks records.
    reading: HashMap<SpaceNo, Reading>,
}

/// Syncs until it is told to stop.
pub(super) async fn run(parts: Parts) {
    let Parts { store, target, token, mode, wishes, state, news, stop, seed, silence } = parts;
    let mut session = Session {
        engine: Engine::new(Config { mode }, seed),
        store,
        target,
        token,
        bearer: None,
        mode,
        began: Instant::now(),
        spaces: HashMap::new(),
        read_at: None,
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
        let wake = session.wake();
        // Cancel: each branch only receives; what is done about it happens below, to its end.
        let heard = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = wishes.added() => Heard::Wishes(wishes.take()),
            Some(part) = session.parts.1.recv() => Heard::Event(part),
            Some(ended) = session.calls.join_next() => Heard::Ended(ended.map(Box::new)),
            frame = next_frame(&mut session.link) => Heard::Frame(Box::new(frame)),
            () = sleep_until(wake) => Heard::Time,
        };
        session.hear(heard).await;
        session.go_on_all().await;
    }
    session.link = None;
    // None of them may write once another process has the file.
    session.calls.shutdown().await;
    debug!("the session has ended");
}

/// What has happened.
enum Heard {
    Wishes(Vec<Wish>),
    Event(Event),
    Ended(Result<Box<Ended>, JoinError>),
    Frame(Box<Result<Option<proto::SubscribeResponse>, super::engine::Fault>>),
    Time,
}

/// The next frame of the stream; never, if there is none, or too much waits behind a range.
/// Cancel safe, as the stream is.
async fn next_frame(
    link: &mut Option<Link>,
) -> Result<Option<proto::SubscribeResponse>, super::engine::Fault> {
    let link = link.as_mut().filter(|link| !link.reading.values().any(Reading::is_full));
    match link.and_then(|link| link.incoming.as_mut()) {
        Some(incoming) => incoming.message().await.map_err(calls::fault),
        None => std::future::pending().await,
    }
}

impl Session {
    /// When time asks for something.
    fn wake(&self) -> Instant {
        let wake = self.engine.next_wake().unwrap_or(Duration::from_secs(3_600));
        let wake = self.began + wake;
        self.read_at.map_or(wake, |read_at| wake.min(read_at))
    }

    async fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Wishes(wishes) => {
                for wish in wishes {
                    self.wished(wish).await;
                }
            }
            Heard::Event(event) => self.tell(event).await,
            Heard::Ended(Ok(ended)) => self.ended(*ended).await,
            // Missed at its deadline.
            Heard::Ended(Err(error)) if error.is_panic() => error!(%error, "a call has panicked"),
            // Taken back by a hang-up.
            Heard::Ended(Err(_aborted)) => {}
            Heard::Frame(frame) => self.framed(*frame).await,
            Heard::Time => {
                if self.read_at.is_some_and(|read_at| read_at <= Instant::now()) {
                    self.read_spaces().await;
                }
                self.tell(Event::Tick).await;
            }
        }
    }

    async fn wished(&mut self, wish: Wish) {
        match wish {
            Wish::Spaces => self.read_spaces().await,
            // Also what was put into a space that nobody wants is sent.
            Wish::Trigger(Trigger::Changed { space }) if !self.spaces.contains_key(&space) => {
                self.read_spaces().await;
            }
            Wish::Trigger(trigger) => self.tell(Event::Trigger(trigger)).await,
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
        #[cfg(debug_assertions)]
        self.engine.assert_awake();
    }

    /// Looks which spaces are to be synced.
    async fn read_spaces(&mut self) {
        self.read_at = None;
        let facts = match self.store.facts().await {
            Ok(facts) => facts,
            Err(error) => {
                warn!(%error, "the local file cannot be read");
                self.read_at = Some(Instant::now() + READ_AGAIN);
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
            let before = self.spaces.get(&space);
            if before.is_some_and(|it| it.name != facts.place.space.name()) {
                self.remove_space(space).await;
            }
            gone.retain(|it| *it != space);
            // Whoever is told of a space begins anew with it.
            if !self.spaces.get(&space).is_some_and(|it| it.is_as(&facts)) {
                self.add_space(space, &facts).await;
            }
        }
        for space in gone {
            self.remove_space(space).await;
        }
    }

    async fn add_space(&mut self, space: SpaceNo, facts: &Facts) {
        // What is out will be answered, whatever is wanted of the space now.
        let sent = self.spaces.remove(&space).and_then(|named| named.sent);
        let named = Named {
            name: facts.place.space.name().to_owned(),
            scope: facts.place.scope.clone(),
            followed: facts.followed,
            attempts: facts.attempts,
            digest: None,
            sent,
            conflicts: Conflicts::default(),
        };
        info!(space = named.name, "syncing");
        self.spaces.insert(space, named);
        self.tell(Event::SpaceAdded { space, info: info_of(facts) }).await;
    }

    async fn remove_space(&mut self, space: SpaceNo) {
        self.spaces.remove(&space);
        self.tell(Event::SpaceRemoved { space }).await;
    }

    /// There is no link any more, and nothing of what was called for is waited for; what is
    /// written is written.
    fn hang_up(&mut self) {
        self.link = None;
        self.calls = JoinSet::new();
        for named in self.spaces.values_mut() {
            named.conflicts.unread();
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
        wanted: facts.wanted,
        loaded: facts.place.is_loaded(),
        queue: Queue {
            frozen: count(facts.place.counts.syncing),
            waiting: count(facts.place.counts.pending),
            last_sequence: facts.place.last_sequence,
        },
        attempts: u32::try_from(facts.attempts).unwrap_or(u32::MAX),
    }
}
