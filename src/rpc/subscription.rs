//! One subscription: where it is in its space, and what it sends next. It walks
//! a snapshot, if it wants one, then catch-up (pages of the store), then live (the
//! hub), and back whenever it has fallen off the ring. The place is all its state.

use super::encoded::Encoded;
use super::frames::encode;
use super::from_proto::SnapshotToken;
use super::live::{NAME_BYTES_MAX, Place, Range, View, changes_frame};
use super::page::PageBuilder;
use super::proto::subscribe_response::Frame as Response;
use super::{proto, to_proto};
use crate::app::{
    App, ConflictPlace, ConflictsAhead, Error, Following, SnapshotPlace, SpaceHead, Tallies,
};
use crate::domain::{Event, Revision, Space, limits};
use crate::hub::{Hint, Watch};

/// One subscription of a stream.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) space: Space,
    /// It wanted all collections, and follows those that the caller may see.
    pub(super) narrowed: bool,
    pub(super) view: View,
    /// Equal for those of the stream that have equal views.
    pub(super) view_number: usize,
    pub(super) watch: Watch,
    pub(super) phase: Phase,
    pub(super) place: Place,
    /// Where the catch-up began that goes on, or was the last; 0 if that may have been
    /// on an earlier stream, None if the client began from nothing.
    pub(super) since: Option<Revision>,
    /// Where the space was when the client began from nothing: of the conflicts
    /// before, only those that are open concern it.
    pub(super) began: Option<ConflictPlace>,
    /// The highest head of the pages that it was given. What they left out, because a
    /// later change hides it, comes up to there: no page ends the catch-up before.
    pub(super) looked_to: Revision,
    /// The head to reach before it is said that it has caught up; None once that
    /// was said.
    pub(super) goal: Option<Revision>,
    /// Whether the digest is told with that.
    pub(super) digest: bool,
    /// The digest to tell, read while changes went on: those after it wait until the
    /// subscription has come there.
    pub(super) proof: Option<Box<Tallies>>,
    /// The last event that the client was told of, if it wants to be.
    pub(super) events: Option<u64>,
    /// Events that it missed and has not been told of.
    pub(super) missed: u64,
}

/// Where what it sends next comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The snapshot at the place that it has read to; after this key.
    Snapshot(Option<Box<SnapshotPlace>>),
    CatchUp,
    Live,
}

/// What a step of the store comes to.
#[derive(Debug)]
struct Stepped {
    frames: Vec<Encoded>,
    looked_to: Revision,
    phase: Phase,
    place: Place,
}

impl Subscription {
    /// Goes one page of the store further, but not beyond `bound`; the frames to
    /// send, for all who go together by their names, or None if it has to wait there.
    /// An error ends the subscription, except that of a store that is away, after which
    /// it is where it was.
    pub(super) async fn read_on(
        &mut self,
        app: &App,
        bound: Option<Revision>,
        names: Vec<String>,
    ) -> Result<Option<Vec<Encoded>>, Error> {
        if bound.is_some_and(|bound| bound <= self.place.read_to) {
            return Ok(None);
        }
        let Stepped { frames, looked_to, phase, place } = match &self.phase {
            Phase::Snapshot(after) => self.next_records(app, after.as_deref()).await?,
            Phase::CatchUp | Phase::Live => self.next_changes(app, bound, names).await?,
        };
        (self.phase, self.place) = (phase, place);
        self.looked_to = self.looked_to.max(looked_to);
        Ok(Some(frames))
    }

    /// Who reads the same pages from here on; None if it has some of its own.
    pub(super) fn company(&self) -> Option<(usize, Place, Option<Revision>, Revision)> {
        let alike = self.phase == Phase::CatchUp && !self.view.conflicts;
        alike.then_some((self.view_number, self.place, self.since, self.looked_to))
    }

    /// Goes where another one of its company went.
    pub(super) fn go_with(&mut self, (phase, place, looked_to): (Phase, Place, Revision)) {
        (self.phase, self.place, self.looked_to) = (phase, place, looked_to);
    }

    fn following(&self) -> Following<'_> {
        let Hint { head, conflicts } = self.watch.reach();
        Following {
            space: &self.space,
            epoch: self.view.epoch,
            scope: &self.view.filter.scope,
            reach: Hint { head: head.max(self.looked_to), conflicts },
        }
    }

    async fn next_records(
        &self,
        app: &App,
        after: Option<&SnapshotPlace>,
    ) -> Result<Stepped, Error> {
        let at = self.place.read_to;
        let page = app.snapshot(self.following(), at, after.cloned()).await?;
        let mut builder = PageBuilder::default();
        let mut next = page.next.clone();
        let mut last = after.cloned();
        for record in &page.records {
            if !builder.push(&to_proto::record_entry(record, self.view.form)) {
                next = last;
                break;
            }
            let (collection, id) = (record.key.collection.clone(), record.key.id.to_string());
            last = Some(SnapshotPlace { collection, id });
        }
        let token =
            |after: SnapshotPlace| SnapshotToken { epoch: self.view.epoch, at, after }.seal();
        let frame = proto::SnapshotFrame {
            records: Vec::new(),
            subscription_id: self.id.clone(),
            revision: at.get(),
            last: next.is_none(),
            next_token: next.clone().map_or_else(String::new, token),
        };
        let phase = match next {
            Some(next) => Phase::Snapshot(Some(Box::new(next))),
            None => Phase::CatchUp,
        };
        // A part in which nothing lived is not worth a frame.
        let tells = !builder.is_empty() || frame.last;
        let frames = if tells { vec![builder.finish_in(8, &frame)] } else { Vec::new() };
        Ok(Stepped { frames, looked_to: self.looked_to, phase, place: self.place })
    }

    async fn next_changes(
        &self,
        app: &App,
        bound: Option<Revision>,
        names: Vec<String>,
    ) -> Result<Stepped, Error> {
        let page = app.page(self.following(), self.place.read_to).await?;
        let mut builder = PageBuilder::beside(names.len() * NAME_BYTES_MAX);
        let mut up_to = page.up_to;
        let mut before = self.place.read_to;
        for entry in page.entries.iter() {
            let revision = entry.change.revision;
            // Nothing follows up to the bound, where the range is cut below.
            if bound.is_some_and(|bound| revision > bound) {
                break;
            }
            let sight = self.view.filter.sight_coalesced(&entry.change, self.since);
            let shown = self.view.show(entry, sight);
            if shown.is_some_and(|shown| !builder.push(&shown)) {
                up_to = before;
                break;
            }
            before = revision;
        }
        up_to = bound.map_or(up_to, |bound| up_to.min(bound));
        let place = Place { read_to: up_to, ..self.place };
        let looked_to = page.space.head;
        let mut next = Stepped { frames: Vec::new(), looked_to, phase: Phase::CatchUp, place };
        let partial = up_to < page.space.head;
        if !builder.is_empty() || (self.place.partial && !partial) {
            let after = std::mem::replace(&mut next.place.told_to, up_to);
            next.place.partial = partial;
            let range = Range { after, up_to, partial };
            next.frames.push(changes_frame(names, range, builder));
        }
        if up_to >= page.space.head && self.tell_conflicts(app, page.space, &mut next).await? {
            next.phase = Phase::Live;
        }
        Ok(next)
    }

    /// Tells of conflicts, all changes before them having been told. True if
    /// those were all, as of the place where the space was.
    async fn tell_conflicts(
        &self,
        app: &App,
        at: SpaceHead,
        next: &mut Stepped,
    ) -> Result<bool, Error> {
        let Some(place) = self.place.conflicts.filter(|place| place.number != at.conflicts) else {
            return Ok(true);
        };
        let head = ConflictPlace { moved_at: at.head, number: at.conflicts };
        let began = self.began.filter(|began| place < *began);
        let end = began.unwrap_or(head);
        let ahead =
            ConflictsAhead { after: place, number_max: end.number, open_only: began.is_some() };
        let page = app.conflicts_ahead(self.following(), ahead).await?;
        let (conflicts, has_more) = &*page;
        for (place, conflict) in conflicts {
            let documents = conflict.document_bytes() <= limits::FRAME_DOCUMENT_BYTES_MAX;
            let conflict = to_proto::conflict(conflict, self.view.form, documents);
            let frame = proto::ConflictFrame {
                subscription_id: self.id.clone(),
                conflict: Some(conflict),
                conflict_cursor: to_proto::conflict_cursor(self.view.epoch, Some(*place)),
            };
            next.frames.push(encode(Response::Conflict(Box::new(frame))));
        }
        let last = conflicts.last().map(|(place, _)| *place).filter(|_| *has_more);
        let reached = last.unwrap_or(end);
        next.place.conflicts = Some(reached);
        Ok(reached.number == at.conflicts)
    }

    /// Goes on from where others went.
    pub(super) fn go_on(&mut self, phase: Phase, place: Place) {
        if phase == Phase::CatchUp {
            self.since = Some(place.read_to);
            self.goal = Some(self.watch.head());
            self.proof = None;
        }
        self.place = place;
        self.phase = phase;
    }

    /// Whether it has caught up and was not told yet, if that is not beyond `bound`, and
    /// not inside a batch that is told in parts.
    pub(super) fn has_caught_up(&self, bound: Option<Revision>) -> bool {
        let reached = self.goal.is_some_and(|goal| self.place.read_to >= goal);
        reached && self.phase == Phase::Live && !self.place.partial && !self.waits(bound)
    }

    /// Says so.
    pub(super) fn caught_up(&mut self) -> Encoded {
        self.goal = None;
        self.place.told_to = self.place.read_to;
        let proof = self.proof.take();
        encode(Response::CaughtUp(proto::CaughtUpFrame {
            subscription_id: self.id.clone(),
            up_to: self.place.read_to.get(),
            conflict_cursor: to_proto::conflict_cursor(self.view.epoch, self.place.conflicts),
            digest: proof.as_deref().map(to_proto::digest),
        }))
    }

    /// Takes the digest as it is now: to be told once the subscription has come to the
    /// revision that it holds for.
    pub(super) fn prove(&mut self, tallies: Tallies) {
        if tallies.space.epoch == self.view.epoch && tallies.space.head >= self.place.read_to {
            self.goal = Some(tallies.space.head);
            self.proof = Some(Box::new(tallies));
        }
    }

    /// The events since the last ones, if it wants them.
    pub(super) fn news(&mut self) -> Vec<Encoded> {
        let Some(seen) = self.events.filter(|seen| self.watch.last_event() > *seen) else {
            return Vec::new();
        };
        let news = self.watch.events(seen);
        self.events = Some(news.last);
        self.missed += news.missed;
        let mut frame = |event: &Event| {
            let missed = i64::try_from(std::mem::take(&mut self.missed)).unwrap_or(i64::MAX);
            encode(Response::Event(to_proto::event(&self.id, event, self.view.form, missed)))
        };
        news.events.iter().map(|event| frame(event)).collect()
    }

    /// Whether it is beyond where it may be now.
    fn waits(&self, bound: Option<Revision>) -> bool {
        bound.is_some_and(|bound| bound < self.place.read_to)
    }

    /// Where it is, unless it waits there for an answer. Everything up to there has been
    /// sent before.
    pub(super) fn progress(
        &mut self,
        bound: Option<Revision>,
    ) -> Option<proto::SubscriptionProgress> {
        if self.waits(bound) {
            return None;
        }
        // A snapshot that is under way is nowhere yet.
        let up_to = match self.phase {
            Phase::Snapshot(_) => Revision::ZERO,
            Phase::CatchUp | Phase::Live => self.place.read_to,
        };
        if up_to > Revision::ZERO {
            self.place.told_to = up_to;
        }
        Some(proto::SubscriptionProgress {
            subscription_id: self.id.clone(),
            up_to: up_to.get(),
            head: self.watch.head().max(up_to).get(),
            conflict_cursor: to_proto::conflict_cursor(self.view.epoch, self.place.conflicts),
        })
    }

    /// What the client was told of.
    pub(super) fn told_to(&self) -> Revision {
        match self.phase {
            Phase::Snapshot(_) => Revision::ZERO,
            Phase::CatchUp | Phase::Live => self.place.told_to,
        }
    }
}
