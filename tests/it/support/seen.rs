//! What one subscriber saw, over all its streams, and whether that is what was
//! promised: ranges that join, revisions in order, nothing twice, nothing lost
//! but what a later change of the same record replaced.

use std::collections::{BTreeMap, HashSet};

use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    Change, Cursor, Document, DocumentForm, SnapshotFrame, Start, SubscribeFrame, document::Form,
};
use tonic::Status;

use super::history::{Line, Log};
use super::{Client, Stream, text};

/// What a subscriber asked for.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Empty = all.
    pub collections: Vec<String>,
    pub not_by: Option<String>,
    /// Begins with a snapshot.
    pub snapshot: bool,
}

impl View {
    fn has(&self, collection: &String) -> bool {
        self.collections.is_empty() || self.collections.contains(collection)
    }

    pub fn passes(&self, line: &Line) -> bool {
        self.has(&line.collection) && (self.not_by.is_none() || self.not_by != line.device)
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
    /// Where it first had caught up: before, who began from nothing is sent its own
    /// changes as well.
    pub has_all_from: Option<i64>,
    /// The last range ended inside something.
    pub partial: bool,
    /// How often it began a stream.
    pub streams: u64,
}

impl Seen {
    pub fn new(view: View) -> Self {
        Self { view, ..Self::default() }
    }

    /// Opens a stream and subscribes from where it is.
    pub async fn open(&mut self, client: &Client) -> Result<Stream, Status> {
        let stream = Stream::open(client).await?;
        let snapshot = self.view.snapshot && self.cursor == 0;
        let start = if snapshot { Start::Snapshot } else { Start::Unspecified };
        let token = if snapshot { self.snapshot_token.clone() } else { String::new() };
        let cursor = Cursor { epoch: self.epoch.clone(), revision: self.cursor };
        let frame = SubscribeFrame {
            subscription_id: "s".into(),
            cursor: (self.cursor > 0).then_some(cursor),
            start: start.into(),
            snapshot_token: token,
            collections: self.view.collections.clone(),
            device: self.view.not_by.clone().unwrap_or_default(),
            document_form: DocumentForm::Json.into(),
            ..SubscribeFrame::default()
        };
        stream.subscribe(frame).await;
        self.streams += 1;
        Ok(stream)
    }

    /// The same, and reads until it has caught up.
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
            Frame::Subscribed(frame) => {
                if !self.epoch.is_empty() && self.epoch != frame.epoch {
                    return Err("another epoch".into());
                }
                self.epoch = frame.epoch;
            }
            Frame::Changes(frame) => {
                if frame.after != self.cursor {
                    return Err(format!("at {}, got a range after {}", self.cursor, frame.after));
                }
                let mut last = frame.after;
                for change in frame.changes {
                    if change.revision <= last || change.revision > frame.up_to {
                        return Err(format!("{} after {last}", change.revision));
                    }
                    last = change.revision;
                    self.changes.insert(last, change);
                }
                if frame.up_to <= frame.after {
                    return Err("an empty range".into());
                }
                self.cursor = frame.up_to;
                self.partial = frame.partial;
            }
            Frame::CaughtUp(frame) => {
                self.caught_up += 1;
                self.has_all_from.get_or_insert(frame.up_to);
                if self.partial {
                    return Err(format!("caught up at {} inside something", frame.up_to));
                }
                self.advance(frame.up_to)?;
            }
            Frame::Progress(frame) => {
                for at in frame.subscriptions {
                    self.advance(at.up_to)?;
                }
            }
            Frame::Conflict(_) | Frame::Mutated(_) | Frame::Event(_) => {}
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

    /// The records of a snapshot come in the order of their keys, all of one revision.
    fn take_snapshot(&mut self, frame: SnapshotFrame) -> Result<(), String> {
        let at = *self.snapshot_at.get_or_insert(frame.revision);
        if at != frame.revision {
            return Err(format!("a snapshot of {at} and of {}", frame.revision));
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
            self.began = at;
            self.cursor = at;
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

    /// The records as this subscriber knows them: revision and document of each.
    pub fn state(&self) -> BTreeMap<(String, String), (i64, Option<String>)> {
        let lines = self.changes.values().filter_map(line);
        let mut state = self.snapshot.clone();
        state.extend(lines.map(|it| ((it.collection, it.id), (it.revision, it.document))));
        state
    }

    /// Holds it against the log: what came is the log's, and what did not come
    /// was replaced by a later change of the same record.
    pub fn check(&self, log: &Log) -> Result<(), String> {
        self.compare(log, false)
    }

    /// The same, of a subscriber that was live all the time: not even what was
    /// replaced is missing.
    pub fn check_every_step(&self, log: &Log) -> Result<(), String> {
        self.compare(log, true)
    }

    fn compare(&self, log: &Log, every_step: bool) -> Result<(), String> {
        let mut replaced = HashSet::new();
        self.check_snapshot(log)?;
        let since = self.began;
        let covered =
            log.lines.iter().filter(|it| it.revision <= self.cursor && it.revision > since);
        if self.cursor > log.head {
            return Err(format!("at {}, the head is {}", self.cursor, log.head));
        }
        for line in log.lines.iter().rev().filter(|line| line.revision > self.cursor) {
            replaced.insert(line.key());
        }
        for line in covered.rev() {
            match (self.changes.get(&line.revision), self.view.passes(line)) {
                (Some(_), false)
                    if every_step
                        || !(self.had_nothing(line) || self.stands_for_another(log, line)) =>
                {
                    return Err(format!("{} was filtered out", line.revision));
                }
                (Some(change), _) => {
                    same(change, line)?;
                    // Only what was seen can stand for what was not.
                    replaced.insert(line.key());
                }
                (None, true) if every_step || !replaced.contains(&line.key()) => {
                    return Err(format!("{} is lost", line.revision));
                }
                (None, _) => {}
            }
        }
        match self.changes.keys().next_back() {
            Some(last) if *last > self.cursor => Err(format!("{last} is beyond the cursor")),
            _ => Ok(()),
        }
    }
}

impl Seen {
    /// The snapshot is the log, folded up to its revision.
    fn check_snapshot(&self, log: &Log) -> Result<(), String> {
        let mut state = BTreeMap::new();
        for line in log.lines.iter().filter(|line| line.revision <= self.began) {
            let key = (line.collection.clone(), line.id.clone());
            state.insert(key, (line.revision, line.document.clone()));
        }
        let wanted = |collection: &String| self.view.has(collection);
        state.retain(|(collection, _), (_, document)| document.is_some() && wanted(collection));
        let complete = self.began == 0 || self.snapshot == state;
        complete.then_some(()).ok_or_else(|| {
            let differs = state.iter().find(|(key, it)| self.snapshot.get(*key) != Some(it));
            let extra = self.snapshot.keys().find(|key| !state.contains_key(*key));
            format!("the snapshot at {} is wrong: {differs:?} {extra:?}", self.began)
        })
    }

    /// Whether it began from nothing, and this came while it caught up.
    fn had_nothing(&self, own: &Line) -> bool {
        let until = self.has_all_from.unwrap_or(i64::MAX);
        !self.view.snapshot && self.view.has(&own.collection) && own.revision <= until
    }

    /// Whether a change that the view leaves out replaced one that it wants.
    fn stands_for_another(&self, log: &Log, own: &Line) -> bool {
        let earlier = log.lines.iter().filter(|it| it.revision < own.revision);
        let mut same_record = earlier.filter(|it| it.key() == own.key());
        same_record.any(|it| self.view.passes(it) && !self.changes.contains_key(&it.revision))
    }
}

fn same(change: &Change, expected: &Line) -> Result<(), String> {
    let seen = line(change).ok_or("no key, or another form than JSON")?;
    (seen == *expected).then_some(()).ok_or_else(|| format!("{seen:?} is not {expected:?}"))
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
    })
}
