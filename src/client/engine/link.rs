//! The one connection, and the tokens for it. Must not know what the connection is used for.

use std::time::Duration;

use super::fault::{FaultKind, kind};
use super::turn::{Turn, Wait};
use super::up::{GOING_MAX, Going, Renewal, Up};
use super::{Action, Fault, LinkState, Mode, Report, RequestNo, TokenTrouble};
use crate::client::backoff::Backoff;

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// The app may ask a person.
pub(super) const TOKEN_MAX: Duration = Duration::from_secs(30);
/// The server gives a sign of life every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// The system may be wrong when it says that there is no network.
const OFFLINE_MAX: Duration = Duration::from_secs(60);
/// What a wait after a server that went away is at least spread over.
const FIRST: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(super) struct Link {
    state: State,
    backoff: Backoff,
    /// Why it was last lost, until something useful is answered.
    why: Option<Fault>,
    /// The next token must not be the one that the app gave before.
    force: bool,
    /// Tokens that were refused in a row.
    refused: u32,
    trouble: Option<TokenTrouble>,
    store_ok: bool,
    /// How long the server may say nothing.
    pub(super) silence: Duration,
}

#[derive(Debug)]
enum State {
    Waiting { wait: Wait, offline: bool },
    Fetching { request: RequestNo, until: Duration },
    Connecting { request: RequestNo, until: Duration },
    Up(Up),
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            state: State::Waiting { wait: Wait::default(), offline: false },
            backoff: Backoff::default(),
            why: None,
            force: false,
            refused: 0,
            trouble: None,
            store_ok: true,
            silence: SILENCE_MAX,
        }
    }

    /// Whether there is something to hang up.
    pub(super) fn has_connection(&self) -> bool {
        matches!(self.state, State::Connecting { .. } | State::Up(_))
    }

    /// Nothing is to be synced.
    pub(super) fn close(&mut self, turn: &mut Turn) {
        if self.has_connection() {
            turn.act(Action::Hangup);
        }
        if !matches!(self.state, State::Waiting { .. }) {
            self.state = State::Waiting { wait: Wait::none(turn.now), offline: false };
        }
    }

    #[cfg(debug_assertions)]
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether new things may be asked on it.
    pub(super) fn is_open(&self) -> bool {
        matches!(&self.state, State::Up(up) if up.going.is_none())
    }

    /// Whether it is this connection, and is up or on its way.
    pub(super) fn is(&self, number: RequestNo) -> bool {
        match &self.state {
            State::Connecting { request, .. } => *request == number,
            State::Up(up) => up.request == number,
            State::Waiting { .. } | State::Fetching { .. } => false,
        }
    }

    /// What time asks for. `wanted`: there is something to sync.
    pub(super) fn advance(&mut self, wanted: bool, turn: &mut Turn) {
        let now = turn.now;
        match &mut self.state {
            State::Waiting { wait, .. } if wanted && wait.is_over(now) => {
                let request = turn.request();
                turn.act(Action::FetchToken { request, force: self.force });
                self.state = State::Fetching { request, until: now + TOKEN_MAX };
            }
            State::Fetching { until, .. } if now >= *until => {
                self.no_token("the app was asked for a token and did not answer".into(), turn);
            }
            State::Connecting { until, .. } if now >= *until => {
                turn.hang_up(Fault::silence("the server could not be reached in time"));
            }
            State::Up(up) => up.advance(turn),
            State::Waiting { .. } | State::Fetching { .. } | State::Connecting { .. } => {}
        }
    }

    pub(super) fn token_ready(&mut self, number: RequestNo, turn: &mut Turn) {
        match &mut self.state {
            State::Fetching { request, .. } if *request == number => {
                self.force = false;
                let request = turn.request();
                turn.act(Action::Connect { request });
                self.state = State::Connecting { request, until: turn.now + CONNECT_MAX };
            }
            State::Up(up) => up.token_ready(number, turn),
            State::Waiting { .. } | State::Fetching { .. } | State::Connecting { .. } => {}
        }
    }

    pub(super) fn token_failed(&mut self, number: RequestNo, message: String, turn: &mut Turn) {
        match &mut self.state {
            State::Fetching { request, .. } if *request == number => self.no_token(message, turn),
            State::Up(up) => up.token_failed(number, turn),
            State::Waiting { .. } | State::Fetching { .. } | State::Connecting { .. } => {}
        }
    }

    fn no_token(&mut self, message: String, turn: &mut Turn) {
        turn.report(Report::TokenFailed { message: message.clone() });
        self.trouble = Some(TokenTrouble::Failed { message });
        let wait = Wait::long(turn.now, self.backoff.failed(&mut turn.random));
        self.state = State::Waiting { wait, offline: false };
    }

    pub(super) fn connected(&mut self, turn: &Turn) {
        if let State::Connecting { request, .. } = self.state {
            self.state = State::Up(Up {
                request,
                since: turn.now,
                spoken: false,
                silent_until: turn.now + self.silence,
                useful: false,
                going: None,
                token_life: Duration::ZERO,
                renewal: Renewal::NotNeeded,
            });
        }
    }

    /// The link is no longer there.
    pub(super) fn lost(&mut self, fault: Fault, turn: &mut Turn) {
        let now = turn.now;
        let going = match &mut self.state {
            State::Up(up) => up.going.take().filter(|_| up.useful),
            State::Waiting { .. } | State::Fetching { .. } | State::Connecting { .. } => None,
        };
        turn.report(Report::LinkLost { fault: fault.clone() });
        let wait = if let Some(going) = going {
            self.force |= going.token_expired;
            // All others are sent away at the same moment. Never at once, whatever it says.
            let told = turn.told_to_wait(Some(going.retry_after));
            let spread = turn.random.jittered((told.until - now).max(FIRST));
            told.and(Wait::long(now, (told.until - now) / 2 + spread))
        } else if kind(&fault) == FaultKind::Token {
            self.refuse(&fault, turn)
        } else {
            turn.after(&mut self.backoff, &fault)
        };
        self.why = Some(fault);
        self.state = State::Waiting { wait, offline: false };
    }

    /// A token was not taken: perhaps the app has a better one.
    fn refuse(&mut self, fault: &Fault, turn: &mut Turn) -> Wait {
        self.force = true;
        self.refused = self.refused.saturating_add(1);
        if self.refused == 1 {
            return turn.told_to_wait(fault.retry_after);
        }
        turn.report(Report::TokenRefused { fault: fault.clone() });
        self.trouble = Some(TokenTrouble::Refused { fault: fault.clone() });
        turn.after(&mut self.backoff, fault)
    }

    /// Something useful was answered.
    pub(super) fn useful(&mut self) {
        if let State::Up(up) = &mut self.state {
            up.useful = true;
            self.backoff.reset();
            self.why = None;
        }
    }

    /// The server has answered something, and not that the token is bad.
    pub(super) fn spoken(&mut self) {
        if let State::Up(up) = &mut self.state {
            up.spoken = true;
            self.refused = 0;
            self.trouble = None;
        }
    }

    pub(super) fn heard(&mut self, now: Duration) {
        if let State::Up(up) = &mut self.state {
            up.silent_until = now + self.silence;
        }
    }

    pub(super) fn progress(&mut self, store_ok: bool, left: Option<Duration>, now: Duration) {
        self.store_ok = store_ok;
        if let (State::Up(up), Some(left)) = (&mut self.state, left) {
            up.token_left(left, now);
        }
    }

    pub(super) fn going_away(&mut self, retry_after: Duration, token_expired: bool, now: Duration) {
        if let State::Up(up) = &mut self.state {
            up.going = Some(Going { retry_after, token_expired, until: now + GOING_MAX });
        }
    }

    /// Something says that it is worth trying now; `sure`: even that there is a network.
    pub(super) fn hurry(&mut self, sure: bool, now: Duration) {
        match &mut self.state {
            State::Waiting { wait, offline } if sure || !*offline => {
                wait.hurry(now);
                *offline = false;
                self.backoff.reset();
            }
            // The connection may be one of a network that is gone: half as long will do.
            State::Up(up) => up.silent_until = up.silent_until.min(now + self.silence / 2),
            State::Waiting { .. } | State::Fetching { .. } | State::Connecting { .. } => {}
        }
    }

    /// The system says that there is no network.
    pub(super) fn offline(&mut self, turn: &mut Turn) {
        if self.has_connection() {
            turn.act(Action::Hangup);
        }
        // What the server asked for holds nevertheless.
        let wait = match self.state {
            State::Waiting { wait, .. } => wait,
            State::Fetching { .. } | State::Connecting { .. } | State::Up(_) => {
                Wait::none(turn.now)
            }
        };
        let wait = wait.put_off(turn.now + OFFLINE_MAX);
        self.state = State::Waiting { wait, offline: true };
    }

    /// When time asks for something.
    pub(super) fn wake(&self, wanted: bool, mode: Mode) -> Option<Duration> {
        match &self.state {
            State::Waiting { wait, .. } => wanted.then_some(wait.until),
            State::Fetching { until, .. } | State::Connecting { until, .. } => Some(*until),
            State::Up(up) => up.wake(mode),
        }
    }

    pub(super) fn show(&self, wanted: bool, mode: Mode) -> LinkState {
        match &self.state {
            State::Waiting { wait, offline: true } => LinkState::Offline { until: wait.until },
            State::Waiting { .. } if !wanted => LinkState::Idle,
            State::Waiting { wait, .. } => {
                let (attempt, why) = (self.backoff.failures(), self.why.clone());
                LinkState::Waiting { until: wait.until, attempt, why }
            }
            State::Fetching { .. } => LinkState::FetchingToken,
            State::Connecting { .. } => LinkState::Connecting,
            // Without a stream the first answer shows whether anybody is there.
            State::Up(up) if mode != Mode::Live && !up.spoken => LinkState::Connecting,
            State::Up(up) => LinkState::Up { since: up.since },
        }
    }

    /// Whether it waits because a server has asked for that.
    #[cfg(debug_assertions)]
    pub(super) fn is_told_to_wait(&self, now: Duration) -> bool {
        matches!(self.state, State::Waiting { wait, .. } if wait.is_told(now))
    }

    pub(super) fn trouble(&self) -> Option<&TokenTrouble> {
        self.trouble.as_ref()
    }

    pub(super) fn store_ok(&self) -> bool {
        self.store_ok
    }
}
