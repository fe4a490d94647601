//! What one subscriber saw, over all its streams, and whether each frame keeps what
//! is promised as it comes: ranges that join, revisions in order, nothing twice, no
//! batch in parts. Whether nothing is missing or wrong is for `check` to say, which
//! has the log.

mod apply;
mod check;
mod shown;

use std::collections::{BTreeMap, BTreeSet};

use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    Change, ChangesFrame, Cursor, Document, DocumentForm, EchoMode, RecordKey, ResyncReason,
    ResyncRequiredFrame, SnapshotFrame, Start, SubscribeFrame, SubscribedFrame,
    SubscriptionProgress, document::Form,
};
use tonic::Status;

use super::history::Line;
use super::{Client, Stream, text};

/// What a subscriber asked for.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Empty = all.
    pub collections: Vec<String>,
    /// Empty = all.
    pub keys: Vec<(String, String)>,
    /// Its own device.
    pub not_by: Option<String>,
    /// What becomes of its own changes.
    pub echo: EchoMode,
    /// With differences.
    pub delta: bool,
    /// Begins with a snapshot.
    pub snapshot: bool,
    /// Begins with what happens from now on.
    pub now: bool,
}

/// How a view shows a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    Not,
    Whole,
    Marked,
}

impl View {
    fn has(&self, (collection, id): (&str, &str)) -> bool {
        let named = |it: &(String, String)| (it.0.as_str(), it.1.as_str()) == (collection, id);
        let wanted = self.collections.iter().any(|it| it == collection);
        (self.collections.is_empty() || wanted)
            && (self.keys.is_empty() || self.keys.iter().any(named))
    }

    fn is_own(&self, line: &Line) -> bool {
        self.not_by.is_some() && self.not_by == line.device
    }

    fn sight(&self, line: &Line) -> Sight {
        match self.echo {
            _ if !self.has(line.key()) => Sight::Not,
            EchoMode::Unspecified if self.is_own(line) => Sight::Not,
            EchoMode::Mark if self.is_own(line) => Sight::Marked,
            EchoMode::Unspecified | EchoMode::Mark | EchoMode::All => Sight::Whole,
        }
    }

    pub fn passes(&self, line: &Line) -> bool {
        self.sight(line) != Sight::Not
    }
}

/// A subscriber's memory.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub view: View,
    pub epoch: String,
    pub cursor: i64,
    pub changes: BTreeMap<i64, Change>,
    pub caught_up: u64,
    /// What a snapshot showed, and its revision.
    pub snapshot: BTreeMap<(String, String), (i64, Option<String>)>,
    pub snapshot_at: Option<i64>,
    pub snapshot_token: String,
    /// Where its changes begin.
    pub began: i64,
    /// The last range ended inside something.
    pub partial: bool,
    /// How often it began a stream.
    pub streams: u64,
    /// Where it may show what it has: nothing is half there.
    pub points: Vec<i64>,
    /// Where it had caught up first.
    pub live_since: Option<i64>,
    /// What it saw before it had to begin anew, and why each ended.
    pub earlier: Vec<Self>,
    /// The space's head when its stream began.
    pub head: i64,
    /// Its stream has not caught up yet.
    pub catching_up: bool,
    /// What came within catch-ups: of a page the server does not know any more what
    /// those before it showed, and what they hid.
    pub paged: BTreeSet<i64>,
    /// Those of them that came to somebody who had nothing, not even its own.
    pub first: BTreeSet<i64>,
    /// Its stream began from nothing.
    pub nothing: bool,
    /// The end of the batches that came.
    pub batch_end: i64,
}

impl Seen {
    pub fn new(view: View) -> Self {
        Self { view, ..Self::default() }
    }

    /// Opens a stream and subscribes from where it is.
    pub async fn open(&mut self, client: &Client) -> Result<Stream, Status> {
        let stream = Stream::open(client).await?;
        stream.subscribe(self.frame("s")).await;
        self.streams += 1;
        Ok(stream)
    }

    /// What begins, or resumes, the subscription.
    pub fn frame(&self, id: &str) -> SubscribeFrame {
        let View { collections, keys, not_by, echo, delta, snapshot, now } = self.view.clone();
        let start = match self.cursor {
            0 if snapshot => Start::Snapshot,
            0 if now => Start::Now,
            _ => Start::Unspecified,
        };
        let cursor = Cursor { epoch: self.epoch.clone(), revision: self.cursor };
        let key = |(collection, id)| RecordKey { collection, id };
        SubscribeFrame {
            subscription_id: id.into(),
            cursor: (self.cursor > 0).then_some(cursor),
            start: start.into(),
            snapshot_token: match start {
                Start::Snapshot => self.snapshot_token.clone(),
                Start::Unspecified | Start::Now => String::new(),
            },
            collections,
            keys: keys.into_iter().map(key).collect(),
            device: not_by.unwrap_or_default(),
            echo: echo.into(),
            delta,
            document_form: DocumentForm::Json.into(),
            ..SubscribeFrame::default()
        }
    }

    /// The same as `open`, and reads until it has caught up.
    pub async fn open_live(&mut self, client: &Client) -> Result<Stream, Status> {
        let mut stream = self.open(client).await?;
        let caught_up = self.caught_up;
        while self.caught_up == caught_up {
            let frame = stream.next().await?;
            self.take(frame.ok_or_else(|| Status::unavailable("the stream ended"))?).unwrap();
        }
        Ok(stream)
    }

    /// Reads an open stream up to a revision.
    pub async fn follow(&mut self, stream: &mut Stream, up_to: i64) -> Result<(), Status> {
        while self.cursor < up_to {
            let frame = stream.next().await?;
            let frame = frame.ok_or_else(|| Status::unavailable("the stream ended"))?;
            self.take(frame).unwrap();
        }
        Ok(())
    }

    /// Takes a frame in, if it keeps what is promised.
    pub fn take(&mut self, frame: Frame) -> Result<(), String> {
        match frame {
            Frame::Subscribed(frame) => self.begin(frame)?,
            Frame::Changes(frame) => self.take_changes(frame)?,
            Frame::CaughtUp(frame) => {
                self.caught_up += 1;
                if self.partial {
                    return Err(format!("caught up at {} inside something", frame.up_to));
                }
                self.advance(frame.up_to)?;
                self.points.push(self.cursor);
                self.live_since.get_or_insert(self.cursor);
                self.catching_up = false;
            }
            Frame::Progress(frame) => {
                for SubscriptionProgress { up_to, head, .. } in frame.subscriptions {
                    if head < up_to {
                        return Err(format!("told of {up_to}, where the head is {head}"));
                    }
                    self.advance(up_to)?;
                }
            }
            Frame::Conflict(_) | Frame::Mutated(_) | Frame::Event(_) | Frame::Access(_) => {}
            Frame::Snapshot(frame) => self.take_snapshot(frame)?,
            other @ (Frame::Closed(_)
            | Frame::ResyncRequired(_)
            | Frame::RemovedFromView(_)
            | Frame::GoingAway(_)) => {
                return Err(format!("ended: {other:?}"));
            }
        }
        Ok(())
    }

    fn begin(&mut self, frame: SubscribedFrame) -> Result<(), String> {
        let SubscribedFrame { epoch, head, floor, .. } = frame;
        if !self.epoch.is_empty() && self.epoch != epoch {
            return Err("another epoch".into());
        }
        if self.cursor > head {
            return Err(format!("resumed at {}, where the head is {head}", self.cursor));
        }
        if self.cursor > 0 && self.cursor < floor {
            return Err(format!("resumed at {}, where the floor is {floor}", self.cursor));
        }
        self.catching_up = true;
        self.nothing = self.cursor == 0 && !self.view.snapshot && !self.view.now;
        if self.view.now && self.cursor == 0 {
            (self.began, self.cursor, self.catching_up) = (head, head, false);
        }
        (self.epoch, self.head) = (epoch, head);
        Ok(())
    }

    fn take_changes(&mut self, frame: ChangesFrame) -> Result<(), String> {
        if frame.after != self.cursor {
            return Err(format!("at {}, got a range after {}", self.cursor, frame.after));
        }
        let mut last = frame.after;
        for change in frame.changes {
            if change.revision <= last || change.revision > frame.up_to {
                return Err(format!("{} after {last}", change.revision));
            }
            last = change.revision;
            self.batch_end = self.batch_end.max(change.batch_end);
            if self.catching_up || self.partial {
                self.paged.insert(last);
                if self.nothing && self.catching_up {
                    self.first.insert(last);
                }
            }
            self.changes.insert(last, change);
        }
        if frame.up_to <= frame.after {
            return Err("an empty range".into());
        }
        self.cursor = frame.up_to;
        self.partial = frame.partial;
        if !self.partial {
            if self.batch_end > self.cursor {
                return Err(format!(
                    "at {}, inside the batch up to {}",
                    self.cursor, self.batch_end
                ));
            }
            self.points.push(self.cursor);
        }
        Ok(())
    }

    /// The records of a snapshot come in the order of their keys, all of one revision.
    fn take_snapshot(&mut self, frame: SnapshotFrame) -> Result<(), String> {
        let at = *self.snapshot_at.get_or_insert(frame.revision);
        if at != frame.revision {
            return Err(format!("a snapshot of {at} and of {}", frame.revision));
        }
        if self.cursor > 0 {
            return Err(format!("a snapshot of {at} at {}", self.cursor));
        }
        for record in frame.records {
            let key = record.key.clone().unwrap_or_default();
            let key = (key.collection, key.id);
            if self.snapshot.keys().next_back().is_some_and(|last| *last >= key) {
                return Err(format!("{key:?} is out of order"));
            }
            if record.revision > at || record.deleted {
                return Err(format!("{key:?} was not so at {at}"));
            }
            let document = record.document.as_ref().map(text);
            self.snapshot.insert(key, (record.revision, document));
        }
        if frame.last != frame.next_token.is_empty() {
            return Err("the last frame has no token, and all others have one".into());
        }
        self.snapshot_token = frame.next_token;
        if frame.last {
            (self.began, self.cursor) = (at, at);
            self.points.push(at);
            // Where there was nothing, another one may begin.
            self.snapshot_at = self.snapshot_at.filter(|at| *at > 0);
        }
        Ok(())
    }

    fn advance(&mut self, up_to: i64) -> Result<(), String> {
        if up_to < self.cursor {
            return Err(format!("at {}, told of {up_to}", self.cursor));
        }
        self.cursor = up_to;
        Ok(())
    }

    /// Forgets everything, as a client does that is told to, and begins with a
    /// snapshot; only a floor that has passed it is a reason.
    pub fn begin_anew(&mut self, frame: &ResyncRequiredFrame) -> Result<(), String> {
        let ResyncRequiredFrame { reason, epoch, head, floor, .. } = frame;
        if *reason != i32::from(ResyncReason::CursorExpired) {
            return Err(format!("told to begin anew for reason {reason}"));
        }
        if !self.epoch.is_empty() && self.epoch != *epoch {
            return Err("another epoch".into());
        }
        let at = match self.cursor {
            0 if self.view.snapshot => self.snapshot_at.unwrap_or(self.head),
            cursor => cursor,
        };
        if at >= *floor || floor > head {
            return Err(format!("at {at}, told that the floor is {floor} and the head {head}"));
        }
        let mut old = std::mem::take(self);
        *self = Self {
            view: View { snapshot: true, now: false, ..old.view.clone() },
            epoch: old.epoch.clone(),
            caught_up: old.caught_up,
            streams: old.streams,
            earlier: std::mem::take(&mut old.earlier),
            ..Self::default()
        };
        self.earlier.push(old);
        Ok(())
    }

    /// The records as this subscriber knows them: revision and document of each.
    /// Only for views whose changes are all whole.
    pub fn state(&self) -> BTreeMap<(String, String), (i64, Option<String>)> {
        let lines = self.changes.values().filter_map(line);
        let mut state = self.snapshot.clone();
        state.extend(lines.map(|it| ((it.collection, it.id), (it.revision, it.document))));
        state
    }
}

/// The change as a line of the log.
fn line(change: &Change) -> Option<Line> {
    let key = change.key.as_ref()?;
    let document = match &change.document {
        Some(Document { form: Some(Form::Json(text)) }) => {
            Some(String::from_utf8_lossy(text).into_owned())
        }
        Some(_) => return None,
        None => None,
    };
    Some(Line {
        revision: change.revision,
        collection: key.collection.clone(),
        id: key.id.clone(),
        document,
        previous: change.previous_revision,
        device: (!change.device.is_empty()).then(|| change.device.clone()),
        mutation: change.mutation_id.clone(),
        batch_end: change.batch_end,
    })
}
