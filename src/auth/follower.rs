//! Keeps the keys of a JWKS fresh: every so often, and when a token names a key that is not known.
//! However many such tokens come, they cause one refresh in a while. What cannot be read changes
//! nothing: an issuer that is away does not lock out those whom it has let in.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::jwks::{Jwks, JwksError, JwksSource, Reader};
use super::{Principal, TokenError, Verifier};
use crate::chain::Chain;

/// When keys are read anew.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// After they were read. A key that was withdrawn is refused after that.
    pub interval: Duration,
    /// After they could not be read.
    pub retry: Duration,
    /// Between two times because of unknown keys: tokens that nobody has signed name such.
    pub unknown_interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            retry: Duration::from_secs(10),
            unknown_interval: Duration::from_secs(30),
        }
    }
}

/// How long a request with an unknown key waits for a refresh.
const PATIENCE: Duration = Duration::from_secs(3);

/// Reads a JWKS for a verifier.
pub(super) struct Follower {
    reader: Reader,
    pace: Pace,
    /// The text that was read last, to notice whether it has changed.
    text: Mutex<Vec<u8>>,
    wish: Mutex<Wish>,
    wished: Notify,
    /// How often it was tried.
    rounds: watch::Sender<u64>,
}

/// Whether somebody waits for a refresh.
struct Wish {
    state: State,
    /// Sooner none is granted.
    next_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    None,
    /// No refresh has begun since.
    Made,
    /// One that has begun since is under way.
    Heard,
}

impl Follower {
    /// Also the keys, if they can be read without a network.
    pub(super) fn new(source: JwksSource, pace: Pace) -> Result<(Self, Option<Jwks>), JwksError> {
        let reader = Reader::new(source)?;
        let (mut text, mut found) = (Vec::new(), None);
        if reader.source().is_file() {
            text = reader.read_now()?;
            found = Some(Jwks::parse(&text)?);
        }
        let follower = Self {
            reader,
            pace,
            text: Mutex::new(text),
            wish: Mutex::new(Wish { state: State::None, next_at: None }),
            wished: Notify::new(),
            rounds: watch::Sender::new(0),
        };
        Ok((follower, found))
    }

    /// Asks for a refresh; whether there will be one.
    pub(super) fn wish(&self) -> bool {
        let mut wish = self.wish.lock();
        let now = Instant::now();
        if wish.state == State::None && wish.next_at.is_none_or(|at| now >= at) {
            *wish = Wish { state: State::Made, next_at: Some(now + self.pace.unknown_interval) };
            self.wished.notify_one();
        }
        wish.state != State::None
    }

    async fn refresh(&self, verifier: &Verifier) -> Result<(), JwksError> {
        {
            let mut wish = self.wish.lock();
            if wish.state == State::Made {
                wish.state = State::Heard;
            }
        }
        let read = self.reader.read().await.and_then(|text| self.take(text, verifier));
        {
            let mut wish = self.wish.lock();
            if wish.state == State::Heard {
                wish.state = State::None;
            }
        }
        self.rounds.send_modify(|rounds| *rounds = rounds.wrapping_add(1));
        read
    }

    fn take(&self, text: Vec<u8>, verifier: &Verifier) -> Result<(), JwksError> {
        let mut last = self.text.lock();
        if *last != text {
            let Jwks { keys } = Jwks::parse(&text)?;
            info!(keys = keys.len(), "the issuer's keys were read");
            verifier.learn(keys);
            *last = text;
        }
        Ok(())
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.reader.source(), f)
    }
}

impl Verifier {
    /// Reads the keys that are behind a URL for the first time. If that fails, their tokens are
    /// refused until it does not.
    pub async fn first_refresh(&self) {
        if let Some(follower) = self.follower.as_ref().filter(|it| !it.reader.source().is_file()) {
            self.refresh(follower).await;
        }
    }

    /// Whether it worked.
    async fn refresh(&self, follower: &Follower) -> bool {
        let read = follower.refresh(self).await;
        if let Err(error) = &read {
            let jwks = follower.reader.source();
            warn!(%jwks, error = %Chain(error), "the issuer's keys stay as they are");
        }
        read.is_ok()
    }

    /// Keeps keys fresh until `stop`.
    pub async fn follow(&self, stop: CancellationToken) {
        let Some(follower) = &self.follower else { return };
        let pace = follower.pace;
        let was_read = !follower.text.lock().is_empty();
        let mut next_at = Instant::now() + if was_read { pace.interval } else { pace.retry };
        loop {
            // Cancel: a wish that is not heard now is kept by `wished`.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = follower.wished.notified() => {
                    // The last refresh may have begun just after it was made.
                    if follower.wish.lock().state == State::None {
                        continue;
                    }
                }
                // The issuer does not say when its keys change.
                () = tokio::time::sleep_until(next_at) => {}
            }
            // Cancel: whoever stops does not need keys any longer.
            let worked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                worked = self.refresh(follower) => worked,
            };
            next_at = Instant::now() + if worked { pace.interval } else { pace.retry };
        }
    }

    /// As [`Verifier::verify`], for a token that was refused with [`TokenError::UnknownKey`]: waits
    /// for a refresh of the keys if there may be one, and decides then.
    pub async fn verify_when_refreshed(
        &self,
        token: &str,
        now_unix_seconds: i64,
    ) -> Result<Principal, TokenError> {
        let Some(follower) = &self.follower else { return self.verify(token, now_unix_seconds) };
        let mut rounds = follower.rounds.subscribe();
        let patience_ends_at = Instant::now() + PATIENCE;
        loop {
            // After the subscription: no refresh falls between.
            let verified = self.verify(token, now_unix_seconds);
            if verified != Err(TokenError::UnknownKey) || !follower.wish() {
                return verified;
            }
            match timeout_at(patience_ends_at, rounds.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return verified,
            }
        }
    }
}
