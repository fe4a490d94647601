//! Who may do what: the one place that every call and every frame passes. What is known
//! of memberships is remembered, and forgotten when anything about it has changed: every
//! replica looks for that each second.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::{App, Error};
use crate::bell::Bell;
use crate::chain::Chain;
use crate::domain::{Access, Caller, Denied, Right, Space, SpaceId, UserId, limits};
use crate::store::{self, AccessChange, Seat, Store, user_key};

/// What has changed on another replica is known this late at most.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Without having looked for this long, nothing is taken for known.
const KNOWN_WITHIN: Duration = Duration::from_secs(3);
/// So long are changes told: see `store::members`.
const TOLD_MAX: usize = 100_000;

/// A user in a shared space.
type Place = (SpaceId, UserId);
type Answer = Result<Arc<Seat>, Error>;

/// What is known of memberships, and who wants to hear of them.
#[derive(Debug)]
pub(super) struct Members {
    known: Mutex<Known>,
    /// None once nobody answers any more.
    asked: Mutex<Option<HashMap<Place, Vec<oneshot::Sender<Answer>>>>>,
    ask: Notify,
    holds: Mutex<HashMap<Uuid, Vec<Weak<Hold>>>>,
}

#[derive(Debug, Default)]
struct Known {
    seats: HashMap<(SpaceId, Uuid), Arc<Seat>>,
    /// Rises whenever something is forgotten: what was read before is not kept then.
    forgotten: u64,
    looked: Option<Instant>,
}

/// A stream's wish to hear of its user's memberships.
#[derive(Debug, Default)]
pub struct Hold {
    /// Rung when there is news.
    pub bell: Arc<Bell>,
    news: Mutex<BTreeSet<SpaceId>>,
}

impl Hold {
    /// The spaces in which something has changed since the last call. If they are as many
    /// as are kept, there may be others.
    pub fn news(&self) -> BTreeSet<SpaceId> {
        std::mem::take(&mut *self.news.lock())
    }

    /// Keeps one of them for the next call.
    pub fn put_back(&self, space: SpaceId) {
        let mut news = self.news.lock();
        if news.len() < limits::ACCESS_NEWS_MAX {
            news.insert(space);
        }
    }

    fn tell(&self, space: SpaceId) {
        self.put_back(space);
        self.bell.ring();
    }
}

impl Default for Members {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            asked: Mutex::new(Some(HashMap::new())),
            ask: Notify::new(),
            holds: Mutex::default(),
        }
    }
}

impl Members {
    /// What is known of a user in a shared space. Cancel safe.
    async fn seat(&self, user: &UserId, space: &Space) -> Answer {
        if let Some(seat) = self.known.lock().seat(space.id, user_key(user)) {
            return Ok(seat);
        }
        let (reply, answer) = oneshot::channel();
        match &mut *self.asked.lock() {
            None => return Err(Error::Stopping),
            Some(asked) => asked.entry((space.id, user.clone())).or_default().push(reply),
        }
        self.ask.notify_one();
        answer.await.unwrap_or(Err(Error::Stopping))
    }

    /// Answers until `stop`: all who ask while one read is under way by the next.
    pub(super) async fn answer(self: Arc<Self>, store: Store, stop: CancellationToken) {
        loop {
            // Cancel: both only wait.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.ask.notified() => {}
            }
            let asked = self.asked.lock().as_mut().map(std::mem::take).unwrap_or_default();
            let (places, replies): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
            let before = self.known.lock().forgotten;
            match store.seats(&places).await {
                Ok(seats) => {
                    for ((place, seat), replies) in places.into_iter().zip(seats).zip(replies) {
                        let seat = Arc::new(seat);
                        self.known.lock().keep(place, &seat, before);
                        tell(replies, &Ok(seat));
                    }
                }
                Err(error) => {
                    let answer = Err(Error::from(error));
                    replies.into_iter().for_each(|replies| tell(replies, &answer));
                }
            }
        }
        // Whoever has not been answered hears that there is no answer.
        drop(self.asked.lock().take());
    }

    /// Looks for what has changed, until `stop`.
    pub(super) async fn follow(self: Arc<Self>, store: Store, stop: CancellationToken) {
        let mut poll = interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = HashSet::new();
        let (mut since, mut failing) = (None, false);
        loop {
            // Cancel: both only wait.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = poll.tick() => {}
            }
            match self.look(&store, since, &mut told).await {
                Ok(up_to) => (since, failing) = (up_to.or(since), false),
                // Once is enough: the database says the same every second.
                Err(_) if failing => {}
                Err(failure) => {
                    failing = true;
                    warn!(error = %Chain(&failure), "memberships were not looked at");
                }
            }
        }
    }

    async fn look(
        &self,
        store: &Store,
        since: Option<OffsetDateTime>,
        told: &mut HashSet<i64>,
    ) -> Result<Option<OffsetDateTime>, store::Error> {
        let began = Instant::now();
        let (changes, up_to) = store.access_changes(since).await?;
        for AccessChange { number, user_key, space } in &changes {
            if told.insert(*number) {
                self.changed(*space, *user_key);
            }
        }
        // What is told no more is not asked for either.
        if told.len() > TOLD_MAX {
            let still: HashSet<_> = changes.iter().map(|it| it.number).collect();
            told.retain(|number| still.contains(number));
        }
        self.known.lock().looked = Some(began);
        Ok(up_to)
    }

    /// Something has changed for a user in a space.
    fn changed(&self, space: SpaceId, user_key: Uuid) {
        self.known.lock().forget(space, user_key);
        let holds = self.holds.lock().get(&user_key).cloned().unwrap_or_default();
        holds.iter().filter_map(Weak::upgrade).for_each(|hold| hold.tell(space));
    }

    /// Has a stream hear of its user's memberships, as long as it keeps what it is given.
    fn hold(&self, user: &UserId) -> Arc<Hold> {
        let hold = Arc::new(Hold::default());
        let mut holds = self.holds.lock();
        let of_user = holds.entry(user_key(user)).or_default();
        of_user.retain(|hold| hold.strong_count() > 0);
        of_user.push(Arc::downgrade(&hold));
        hold
    }

    /// Forgets whose streams have ended.
    fn trim(&self) {
        self.holds.lock().retain(|_, holds| {
            holds.retain(|hold| hold.strong_count() > 0);
            !holds.is_empty()
        });
    }
}

impl Known {
    fn seat(&self, space: SpaceId, user_key: Uuid) -> Option<Arc<Seat>> {
        let looked = self.looked.is_some_and(|looked| looked.elapsed() < KNOWN_WITHIN);
        self.seats.get(&(space, user_key)).filter(|_| looked).cloned()
    }

    fn keep(&mut self, (space, user): Place, seat: &Arc<Seat>, before: u64) {
        // Otherwise it may be what has changed since.
        if self.forgotten == before {
            if self.seats.len() >= limits::ACCESS_CACHE_ENTRIES_MAX {
                self.seats.clear();
            }
            self.seats.insert((space, user_key(&user)), Arc::clone(seat));
        }
    }

    fn forget(&mut self, space: SpaceId, user_key: Uuid) {
        self.forgotten += 1;
        self.seats.remove(&(space, user_key));
    }
}

fn tell(replies: Vec<oneshot::Sender<Answer>>, answer: &Answer) {
    for reply in replies {
        // Who has gone needs no answer.
        let _gone = reply.send(answer.clone());
    }
}

impl App {
    /// What a caller may do in the space that they mean by a name, if they may do this
    /// there; empty = their own. Whether a space is closed to them or does not exist
    /// cannot be told apart. Cancel safe.
    pub async fn access(
        &self,
        caller: &Caller,
        name: &str,
        wanted: Right,
    ) -> Result<Access, Error> {
        let found = self.find_access(caller, name, wanted).await;
        if let Err(Error::SpaceNotFound | Error::NotGranted(_)) = found {
            self.note_refused(caller, name, &wanted.to_string());
        }
        found
    }

    async fn find_access(
        &self,
        caller: &Caller,
        name: &str,
        wanted: Right,
    ) -> Result<Access, Error> {
        if name.is_empty() {
            let own = Space::private(&caller.user);
            return Ok(caller.access(own, None, wanted)?);
        }
        let space = Space::named(name).map_err(|_rule| Error::SpaceNotFound)?;
        if !space.is_shared() {
            return Ok(caller.access(space, None, wanted)?);
        }
        let seat = self.members.seat(&caller.user, &space).await?;
        if seat.space.is_none() {
            return Err(Denied::Unseen.into());
        }
        Ok(caller.access(space, seat.membership.as_ref(), wanted)?)
    }

    /// Notes that a caller lacks something; empty = it concerns no space.
    pub fn note_refused(&self, caller: &Caller, space: &str, wanted: &str) {
        self.metrics.access_refused.inc();
        self.noted.refused(caller, space, wanted);
    }

    /// Counts a call or a frame that was beyond a rate.
    pub fn count_limited(&self) {
        self.metrics.calls_limited.inc();
    }

    /// Has a stream hear of its user's memberships.
    pub fn hold_access(&self, user: &UserId) -> Arc<Hold> {
        self.members.hold(user)
    }

    /// What is known of a user in a shared space now.
    pub async fn seat(&self, user: &UserId, space: SpaceId) -> Result<Seat, Error> {
        let (store, place) = (self.store.clone(), (space, user.clone()));
        let seats = self.detached(async move { store.seats(&[place]).await }).await?;
        Ok(seats.into_iter().next().unwrap_or_default())
    }

    /// Something has changed for a user in a space; other replicas find out by themselves.
    pub(super) fn access_changed(&self, space: SpaceId, user: &UserId) {
        self.members.changed(space, user_key(user));
        self.members.trim();
    }
}
