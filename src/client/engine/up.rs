//! A connection that is up: its silence, its token, and how it ends. Must not know what it is
//! used for.

use std::time::Duration;

use super::link::TOKEN_MAX;
use super::turn::{Turn, Wait};
use super::{Action, Fault, Mode, RequestNo};
use crate::client::backoff::Backoff;

/// What a server that goes away may take to end the link.
pub(super) const GOING_MAX: Duration = Duration::from_secs(10);
/// A token is renewed when less than that is left of it.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Up {
    pub(super) request: RequestNo,
    pub(super) since: Duration,
    /// The server has answered something: it is there, and takes the token.
    pub(super) spoken: bool,
    /// When the silence has lasted too long.
    pub(super) silent_until: Duration,
    pub(super) useful: bool,
    pub(super) going: Option<Going>,
    /// The most that was left of the token, as it is now.
    pub(super) token_life: Duration,
    pub(super) renewal: Renewal,
}

#[derive(Debug)]
pub(super) struct Going {
    pub(super) retry_after: Duration,
    pub(super) token_expired: bool,
    pub(super) until: Duration,
}

/// Another token while the link is up.
#[derive(Debug)]
pub(super) enum Renewal {
    NotNeeded,
    Needed {
        wait: Wait,
        backoff: Backoff,
    },
    Fetching {
        request: RequestNo,
        until: Duration,
        backoff: Backoff,
    },
    /// Sent: what is left of it shows in the server's next sign of life.
    Sent,
}

impl Up {
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        let now = turn.now;
        if turn.mode == Mode::Live && now >= self.silent_until {
            turn.hang_up(Fault::silence("nothing was heard of the server for too long"));
        }
        if self.going.as_ref().is_some_and(|going| now >= going.until) {
            turn.hang_up(Fault::silence("the server said that it goes, and did not"));
        }
        match &mut self.renewal {
            Renewal::Needed { wait, backoff } if wait.is_over(now) => {
                let (request, backoff) = (turn.request(), backoff.clone());
                turn.act(Action::FetchToken { request, force: true });
                self.renewal = Renewal::Fetching { request, until: now + TOKEN_MAX, backoff };
            }
            Renewal::Fetching { request, until, .. } if now >= *until => {
                let request = *request;
                self.token_failed(request, turn);
            }
            Renewal::NotNeeded
            | Renewal::Needed { .. }
            | Renewal::Fetching { .. }
            | Renewal::Sent => {}
        }
    }

    /// The server says what is left of the token.
    pub(super) fn token_left(&mut self, left: Duration, now: Duration) {
        self.token_life = self.token_life.max(left);
        // Of tokens that live shortly, half: else each would be renewed at once.
        let enough = (self.token_life / 5).max(RENEW_BEFORE.min(self.token_life / 2));
        match self.renewal {
            Renewal::NotNeeded if left < enough => {
                let backoff = Backoff::default();
                self.renewal = Renewal::Needed { wait: Wait::none(now), backoff };
            }
            Renewal::Sent if left >= enough => self.renewal = Renewal::NotNeeded,
            Renewal::NotNeeded
            | Renewal::Needed { .. }
            | Renewal::Fetching { .. }
            | Renewal::Sent => {}
        }
    }

    pub(super) fn token_ready(&mut self, number: RequestNo, turn: &mut Turn) {
        if matches!(&self.renewal, Renewal::Fetching { request, .. } if *request == number) {
            turn.act(Action::RefreshToken);
            self.renewal = Renewal::Sent;
            self.token_life = Duration::ZERO;
        }
    }

    pub(super) fn token_failed(&mut self, number: RequestNo, turn: &mut Turn) {
        if let Renewal::Fetching { request, backoff, .. } = &mut self.renewal
            && *request == number
        {
            let mut backoff = backoff.clone();
            let wait = Wait::long(turn.now, backoff.failed(&mut turn.random));
            self.renewal = Renewal::Needed { wait, backoff };
        }
    }

    pub(super) fn wake(&self, mode: Mode) -> Option<Duration> {
        let silent = (mode == Mode::Live).then_some(self.silent_until);
        let going = self.going.as_ref().map(|going| going.until);
        let renewal = match &self.renewal {
            Renewal::Needed { wait, .. } => Some(wait.until),
            Renewal::Fetching { until, .. } => Some(*until),
            Renewal::NotNeeded | Renewal::Sent => None,
        };
        [silent, going, renewal].into_iter().flatten().min()
    }
}
