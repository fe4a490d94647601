//! What the client is doing, for an app to show: where the link is, how far each space is,
//! what waits, and what to do about what is wrong.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use super::engine::{self, EngineState, Fault, LinkState, Phase, SpaceStanding, TokenTrouble};
use super::store::{Facts, StoreError, Written};
use super::{Client, Error, session};

/// There is no token that the server takes.
const UNAUTHENTICATED: &str = "UNAUTHENTICATED";

/// The client at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The connection.
    pub link: Link,
    /// The spaces that are followed, or still sent.
    pub spaces: Vec<SpaceStatus>,
    /// What is wrong, if anything is.
    pub problem: Option<Problem>,
}

/// The connection to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// There is no server, or nothing to sync.
    None,
    /// Another process syncs this file.
    Elsewhere,
    /// There is no network, or the server cannot be reached. Tried again by itself.
    Offline,
    Connecting,
    Online,
}

/// One space at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SpaceStatus {
    pub name: String,
    /// Where it is on its way; None if this process does not sync it.
    pub phase: Option<Phase>,
    /// All that is wanted of it is here, as it was at some moment.
    pub loaded: bool,
    /// How much of a catch-up is done, from 0 to 1.
    pub progress: Option<f64>,
    /// Everything up to there is here, and what the server is known to have.
    pub up_to: i64,
    pub head: i64,
    /// Edits that wait to be sent, for their answer, or for their change to come.
    pub pending: u64,
    /// Edits that were refused, and wait for the app.
    pub parked: u64,
    /// Conflicts that wait for a decision.
    pub conflicts: u64,
    /// What is wrong with this space.
    pub problem: Option<Problem>,
}

impl SpaceStatus {
    /// Whether changes come as they happen, and nothing waits.
    pub fn is_synced(&self) -> bool {
        self.loaded && self.phase == Some(Phase::Live) && self.pending == 0
    }

    /// Revisions that the server has and this file has not.
    pub fn lag(&self) -> i64 {
        (self.head - self.up_to).max(0)
    }
}

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For programs, such as `UNAUTHENTICATED`; empty if there is none.
    pub reason: String,
    pub what: String,
    pub advice: String,
}

impl Problem {
    fn new(reason: &str, what: impl Into<String>, advice: &str) -> Self {
        Self { reason: reason.into(), what: what.into(), advice: advice.into() }
    }

    fn of(fault: &Fault) -> Self {
        let advice = match fault.reason.as_str() {
            UNAUTHENTICATED => "give a token that this server accepts",
            "PERMISSION_DENIED" | "SPACE_NOT_FOUND" => {
                "ask an admin of the space to let you in; what was queued is set aside"
            }
            "QUOTA_EXCEEDED" => "make room in the space",
            "RATE_LIMITED" | "OVERLOADED" => "nothing: it is sent again a little later",
            _ => match fault.code {
                engine::Code::Unavailable | engine::Code::DeadlineExceeded => {
                    "check the network and the address; it is tried again by itself"
                }
                engine::Code::Unauthenticated => "give a token that this server accepts",
                _ => "see the log; it is tried again by itself",
            },
        };
        let reason = match (fault.reason.as_str(), fault.code) {
            ("", engine::Code::Unauthenticated) => UNAUTHENTICATED,
            (reason, _) => reason,
        };
        Self::new(reason, fault.to_string(), advice)
    }
}

impl Client {
    /// What the client is doing now.
    ///
    /// ```
    /// use serde_json::json;
    /// use syncline::client::{Client, Link, Options};
    ///
    /// # async fn run() -> Result<(), syncline::client::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let client = Client::open(Options::new(dir.path().join("alice.db"), "alice")).await?;
    /// client.own().await?.put("task", "1", json!({"title": "Sleep"})).await?;
    /// let status = client.status().await?;
    /// assert_eq!(status.link, Link::None);
    /// for space in &status.spaces {
    ///     println!("{}: {} to send, {} to look at", space.name, space.pending, space.parked);
    /// }
    /// # assert_eq!(status.spaces[0].pending, 1);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    pub async fn status(&self) -> Result<Status, Error> {
        let state = self.inner.state.borrow().clone();
        let facts = self.inner.store.facts().await?;
        let leads = self.inner.lead.is_leading();
        let synced = self.inner.options.server.is_some() && self.inner.options.token.is_some();
        Ok(status(state.filter(|_| leads).as_ref(), &facts, synced))
    }

    /// The same, whenever it becomes another one.
    pub fn watch_status(&self) -> BoxStream<'static, Result<Status, Error>> {
        let (client, written) = (self.clone(), self.inner.store.written());
        let state = self.inner.state.clone();
        stream::unfold(Some((client, written, state, None)), async |it| {
            let (client, mut written, mut state, mut told) = it?;
            loop {
                written.know();
                state.borrow_and_update();
                match client.status().await {
                    Err(error) => return Some((Err(error), None)),
                    Ok(status) if told.as_ref() != Some(&status) => {
                        told = Some(status.clone());
                        return Some((Ok(status), Some((client, written, state, told))));
                    }
                    Ok(_) => changed(&mut written, &mut state).await?,
                }
            }
        })
        .boxed()
    }

    /// Waits until everything is synced: all spaces live, and nothing waits. What was set aside
    /// does not count. Err after so long.
    pub async fn synced(&self, within: Duration) -> Result<Status, Error> {
        let late = |_elapsed| {
            let message = format!("not synced within {within:?}; see `status` for why");
            Error::Server(Fault::new(engine::Code::DeadlineExceeded, "", message))
        };
        tokio::time::timeout(within, self.all_synced()).await.map_err(late)?
    }

    async fn all_synced(&self) -> Result<Status, Error> {
        let (mut written, mut state) = (self.inner.store.written(), self.inner.state.clone());
        loop {
            written.know();
            state.borrow_and_update();
            let status = self.status().await?;
            if !status.spaces.is_empty() && status.spaces.iter().all(SpaceStatus::is_synced) {
                return Ok(status);
            }
            if changed(&mut written, &mut state).await.is_none() {
                return Err(StoreError::Closed.into());
            }
        }
    }
}

/// Waits until either has changed; None once there is nobody to change it.
async fn changed(
    written: &mut Written,
    state: &mut watch::Receiver<Option<EngineState>>,
) -> Option<()> {
    // Cancel: both only wait, and are asked for their state afterwards.
    tokio::select! {
        changed = written.changed() => changed,
        changed = state.changed() => match changed {
            Ok(()) => Some(()),
            // Without a session only the file changes.
            Err(_) => written.changed().await,
        },
    }
}

fn status(state: Option<&EngineState>, facts: &[Facts], synced: bool) -> Status {
    let standing = |facts: &Facts| {
        let no = session::number(facts.no);
        state.and_then(|state| state.spaces.iter().find(|it| it.space == no))
    };
    let spaces = facts.iter().filter(|it| {
        let counts = it.place.counts;
        it.wanted || counts.pending + counts.syncing + counts.failed > 0
    });
    let spaces = spaces.map(|facts| space(facts, standing(facts))).collect();
    let link = match state {
        None if synced => Link::Elsewhere,
        None => Link::None,
        Some(state) => match &state.link {
            LinkState::Idle => Link::None,
            LinkState::Offline { .. } | LinkState::Waiting { .. } => Link::Offline,
            LinkState::FetchingToken | LinkState::Connecting => Link::Connecting,
            LinkState::Up { .. } => Link::Online,
        },
    };
    Status { link, spaces, problem: state.and_then(problem) }
}

fn problem(state: &EngineState) -> Option<Problem> {
    match (&state.token, &state.link) {
        (Some(TokenTrouble::Failed { message }), _) => {
            let what = format!("the app gives no token: {message}");
            Some(Problem::new(UNAUTHENTICATED, what, "sign in again"))
        }
        (Some(TokenTrouble::Refused { fault }), _) => Some(Problem::of(fault)),
        (None, LinkState::Waiting { why: Some(fault), .. }) => Some(Problem::of(fault)),
        (None, _) if !state.store_ok => Some(Problem::new(
            "",
            "the server's database does not answer",
            "nothing: what is shown may be old until it does",
        )),
        (None, _) => None,
    }
}

fn space(facts: &Facts, standing: Option<&SpaceStanding>) -> SpaceStatus {
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let counts = facts.place.counts;
    let head = standing.map_or(0, |it| it.head.get()).max(facts.place.cursor.get());
    SpaceStatus {
        name: facts.place.space.name().to_owned(),
        phase: standing.map(|it| it.phase.clone()),
        loaded: facts.place.is_loaded(),
        progress: standing.and_then(progress),
        up_to: facts.place.cursor.get(),
        head,
        pending: count(counts.pending + counts.syncing + counts.answered),
        parked: count(counts.failed),
        conflicts: count(facts.conflicts),
        problem: standing.and_then(space_problem),
    }
}

/// How much of a catch-up is done.
fn progress(standing: &SpaceStanding) -> Option<f64> {
    let Phase::CatchingUp { from, up_to, head } = &standing.phase else { return None };
    let whole = u32::try_from(head.since(*from)).unwrap_or(u32::MAX);
    let done = u32::try_from(up_to.since(*from)).unwrap_or(u32::MAX);
    Some(if whole == 0 { 1.0 } else { (f64::from(done) / f64::from(whole)).min(1.0) })
}

fn space_problem(standing: &SpaceStanding) -> Option<Problem> {
    if let Phase::Halted(engine::HaltReason::FileIsBehind { .. }) = standing.phase {
        return Some(Problem::new(
            "FILE_IS_BEHIND",
            "the server has edits of this device that are not in this file: it is an older copy, \
             or another installation uses the same device name",
            "open a new file, with a device name of its own",
        ));
    }
    let disk = |error: &String| {
        let advice = "see that the disk has room, and that the file may be written";
        Problem::new("", error.clone(), advice)
    };
    standing.store_error.as_ref().map(disk).or_else(|| standing.fault.as_ref().map(Problem::of))
}
