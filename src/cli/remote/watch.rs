//! `syncline watch`: follows changes, over as many streams as that takes. What was shown is not
//! shown again: each stream goes on where the one before has ended.

use std::time::Duration;

use serde_json::{Value, json};
use tracing::debug;

use super::output::{note, safe};
use super::{Session, failed, shown};
use crate::cli::asked_to_stop;
use crate::client::remote::{Code, Fault, duration};
use crate::config::{Secret, WatchConfig, read_token};
use crate::exit::Failure;
use crate::rpc::proto::watch_response::Frame;
use crate::rpc::proto::{
    ChangesFrame, Cursor, DocumentForm, EchoMode, ResyncReason, Start, SubscribeFrame, WatchRequest,
};

/// Before another stream is opened; twice as long each time that one fails at once.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Where the next stream begins.
enum Place {
    /// With what happens from then on.
    Now,
    /// At the beginning.
    Start,
    At(Cursor),
}

/// Why a stream has ended.
enum Ended {
    /// Open another one, after this long if the server has said so.
    Again(Option<Duration>),
    Failed(Failure),
}

struct Watcher<'s> {
    session: &'s Session,
    collections: Vec<String>,
    place: Place,
    epoch: String,
    /// The one that is used.
    token: Option<Secret>,
    /// The server was there once: if it goes, it is waited for.
    has_begun: bool,
    /// This stream has begun.
    is_open: bool,
}

pub(super) async fn run(session: &Session, config: WatchConfig) -> Result<(), Failure> {
    let place = match config.cursor {
        Some(it) => Place::At(Cursor { epoch: it.epoch, revision: it.revision }),
        None if config.from_start => Place::Start,
        None => Place::Now,
    };
    let mut watcher = Watcher {
        session,
        collections: config.collections,
        place,
        epoch: String::new(),
        token: session.connection.token.clone(),
        has_begun: false,
        is_open: false,
    };
    // Cancel: the stream is dropped; what was received has been printed.
    tokio::select! {
        stop = asked_to_stop() => Ok(stop?),
        failure = watcher.follow() => Err(failure),
    }
}

impl Watcher<'_> {
    /// Goes on until it cannot.
    async fn follow(&mut self) -> Failure {
        let mut pause = PAUSE_MIN;
        loop {
            self.is_open = false;
            let wanted = match self.stream().await {
                Ok(Ended::Again(wanted)) => wanted,
                Ok(Ended::Failed(failure)) | Err(failure) => return failure,
            };
            pause = if self.is_open { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            // A server that stops needs a moment to come back, and is not to be called all the time.
            tokio::time::sleep(wanted.unwrap_or(pause).min(PAUSE_MAX)).await;
        }
    }

    fn request(&self) -> WatchRequest {
        let (cursor, start) = match &self.place {
            Place::Now => (None, Start::Now),
            Place::Start => (None, Start::Unspecified),
            Place::At(cursor) => (Some(cursor.clone()), Start::Unspecified),
        };
        let subscription = SubscribeFrame {
            space: self.session.space(),
            cursor,
            start: start.into(),
            collections: self.collections.clone(),
            device: self.session.device(),
            echo: EchoMode::All.into(),
            document_form: DocumentForm::Json.into(),
            ..Default::default()
        };
        WatchRequest { subscription: Some(subscription) }
    }

    async fn stream(&mut self) -> Result<Ended, Failure> {
        let mut frames = match self.session.remote.sync().watch(self.request()).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return self.broken(status.into()),
        };
        loop {
            match frames.message().await {
                Ok(Some(message)) => {
                    if let Some(ended) = message.frame.map(|frame| self.heard(frame)).transpose()?
                        && let Some(ended) = ended
                    {
                        return Ok(ended);
                    }
                }
                Ok(None) => return Ok(Ended::Again(None)),
                Err(status) => return self.broken(status.into()),
            }
        }
    }

    /// Whether another stream may do better.
    fn broken(&mut self, fault: Fault) -> Result<Ended, Failure> {
        if fault.reason == "ACCESS_CHANGED" && self.is_open {
            let why = "what you may see here is something else now";
            return self.begin_again("access_changed", why);
        }
        if fault.code == Code::Unauthenticated && self.takes_new_token() {
            return Ok(Ended::Again(Some(Duration::ZERO)));
        }
        if self.has_begun && fault.is_transient() {
            debug!(%fault, "the stream broke");
            if self.is_open {
                note(&format!("the connection broke, opening another: {}", safe(&fault.message)));
            }
            return Ok(Ended::Again(fault.retry_after));
        }
        Ok(Ended::Failed(failed("cannot watch", fault)))
    }

    /// Whether the file of the token has another one by now, which is then used.
    fn takes_new_token(&mut self) -> bool {
        let Some(path) = &self.session.connection.token_file else { return false };
        let Ok(Some(token)) = read_token(path) else { return false };
        if self.token.as_ref() == Some(&token) {
            return false;
        }
        let is_usable = self.session.remote.set_token(Some(token.expose())).is_ok();
        self.token = Some(token);
        is_usable
    }

    fn heard(&mut self, frame: Frame) -> Result<Option<Ended>, Failure> {
        match frame {
            Frame::Subscribed(it) => {
                (self.has_begun, self.is_open) = (true, true);
                if let Place::Now = self.place {
                    self.place = Place::At(Cursor { epoch: it.epoch.clone(), revision: it.head });
                }
                self.epoch = it.epoch;
                let cursor = self.cursor();
                let told = format!("watching {} from {cursor}", safe(&it.space));
                self.tell(
                    &json!({"type": "subscribed", "space": it.space, "cursor": cursor}),
                    &told,
                )?;
            }
            Frame::Changes(it) => self.changes(&it)?,
            Frame::CaughtUp(it) => {
                self.move_to(it.up_to);
                self.tell(&json!({"type": "caught_up", "cursor": self.cursor()}), "caught up")?;
            }
            Frame::Progress(it) => {
                if let Some(subscription) = it.subscriptions.first() {
                    self.move_to(subscription.up_to);
                }
                if !it.store_ok {
                    note("the database does not answer; what is shown may be old");
                }
            }
            Frame::ResyncRequired(it) => {
                let reason = shown::word(it.reason().as_str_name(), "RESYNC_REASON_");
                let why = match it.reason() {
                    ResyncReason::EpochChanged => "the space's history was replaced",
                    ResyncReason::CursorAhead => "the cursor is ahead of the space",
                    _ => "changes after the cursor are no longer kept",
                };
                return self.begin_again(&reason, why).map(Some);
            }
            Frame::RemovedFromView(_) => {
                self.tell(
                    &json!({"type": "removed_from_view"}),
                    "you may no longer see this: forget what was shown",
                )?;
            }
            Frame::Closed(it) => {
                let fault = Fault::of(Code::from(it.code), it.message);
                let violations = shown::violations(&it.violations);
                let fault = Fault { reason: it.reason, violations, ..fault };
                return self.broken(fault).map(Some);
            }
            Frame::GoingAway(it) => {
                let retry_after = duration(it.retry_after.as_ref());
                debug!(reason = it.reason().as_str_name(), "the server ends the stream");
                return Ok(match it.reason() {
                    crate::rpc::proto::GoingAwayReason::TokenExpired => None,
                    _ => Some(Ended::Again(retry_after)),
                });
            }
            _ => {}
        }
        Ok(None)
    }

    /// What was shown is no beginning of what comes.
    fn begin_again(&mut self, reason: &str, why: &str) -> Result<Ended, Failure> {
        let told = format!("{why}: beginning again, forget what was shown before");
        self.tell(&json!({"type": "resync_required", "reason": reason}), &told)?;
        self.place = Place::Start;
        Ok(Ended::Again(Some(Duration::ZERO)))
    }

    fn changes(&mut self, frame: &ChangesFrame) -> Result<(), Failure> {
        for change in &frame.changes {
            let out = self.session.out;
            match self.session.json() {
                true => out.say_json(&shown::change(change, &self.epoch))?,
                false => out.say(&shown::change_line(out, change))?,
            }
        }
        self.move_to(frame.up_to);
        Ok(())
    }

    fn move_to(&mut self, revision: i64) {
        self.place = Place::At(Cursor { epoch: self.epoch.clone(), revision });
    }

    fn cursor(&self) -> String {
        match &self.place {
            Place::At(cursor) => format!("{}:{}", cursor.epoch, cursor.revision),
            Place::Start | Place::Now => format!("{}:0", self.epoch),
        }
    }

    /// To programs as data, to people beside the data.
    fn tell(&self, value: &Value, text: &str) -> Result<(), Failure> {
        match self.session.json() {
            true => self.session.out.say_json(value),
            false => {
                note(text);
                Ok(())
            }
        }
    }
}
