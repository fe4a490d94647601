//! One subscription: where it is in its space, and what it sends next. It walks
//! catch-up (pages of the store), then live (the hub), and back whenever it has
//! fallen off the ring. The cursor is all its state.

use tonic::Status;
use tonic_types::StatusExt;

use super::encoded::Encoded;
use super::live::{Place, View, changes_frame};
use super::page::PageBuilder;
use super::proto::subscribe_response::Frame as Response;
use super::{proto, to_proto};
use crate::app::{App, ConflictPlace, Error, SpaceHead};
use crate::domain::{Cursor, Revision, Space, limits};
use crate::hub::Watch;

/// One subscription of a stream.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) space: Space,
    pub(super) view: View,
    /// Equal for those of the stream that have equal views.
    pub(super) view_number: usize,
    pub(super) watch: Watch,
    pub(super) phase: Phase,
    pub(super) place: Place,
    /// Where the catch-up began that goes on, or was the last.
    pub(super) since: Revision,
    /// Where the space was when the client began from nothing: of the conflicts
    /// before, only those that are open concern it.
    pub(super) began: Option<ConflictPlace>,
}

/// Where the next changes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    CatchUp,
    Live,
}

/// What a step of a catch-up comes to.
#[derive(Debug)]
struct CaughtUp {
    frames: Vec<Encoded>,
    phase: Phase,
    place: Place,
}

impl Subscription {
    /// Goes one page of the store further; the frames to send. An error ends the subscription,
    /// except that of a store that is away, after which it is where it was.
    pub(super) async fn catch_up(&mut self, app: &App) -> Result<Vec<Encoded>, Error> {
        let CaughtUp { frames, phase, place } = self.next_page(app).await?;
        (self.phase, self.place) = (phase, place);
        Ok(frames)
    }

    async fn next_page(&self, app: &App) -> Result<CaughtUp, Error> {
        let cursor = Cursor { epoch: Some(self.view.epoch), revision: self.place.read_to };
        let space = self.space.clone();
        // Small pages: what a reader who stops reading can hold is made of them.
        let bounds = (limits::PAGE_ENTRIES_MAX, limits::FRAME_DOCUMENT_BYTES_MAX);
        let page = app.changes(space, cursor, &self.view.filter, false, bounds).await?;
        let mut builder = PageBuilder::default();
        let mut up_to = page.up_to;
        let mut before = self.place.read_to;
        for change in &page.changes {
            let passes = self.view.filter.passes_coalesced(change, self.since);
            if passes && !builder.push(&to_proto::change_entry(change, self.view.form)) {
                up_to = before;
                break;
            }
            before = change.revision;
        }
        let place = Place { read_to: up_to, ..self.place };
        let mut next = CaughtUp { frames: Vec::new(), phase: Phase::CatchUp, place };
        if !builder.is_empty() {
            let after = std::mem::replace(&mut next.place.told_to, up_to);
            next.frames.push(changes_frame(vec![self.id.clone()], after, up_to, builder));
        }
        if up_to >= page.space.head && self.tell_conflicts(app, page.space, &mut next).await? {
            next.phase = Phase::Live;
            next.place.told_to = up_to;
            next.frames.push(self.caught_up(next.place));
        }
        Ok(next)
    }

    /// Tells of conflicts, all changes before them having been told. True if
    /// those were all, as of the place where the space was.
    async fn tell_conflicts(
        &self,
        app: &App,
        at: SpaceHead,
        next: &mut CaughtUp,
    ) -> Result<bool, Error> {
        let Some(place) = self.place.conflicts.filter(|place| place.number != at.conflicts) else {
            return Ok(true);
        };
        let head = ConflictPlace { moved_at: at.head, number: at.conflicts };
        let began = self.began.filter(|began| place < *began);
        let end = began.unwrap_or(head);
        let page = app.moved_conflicts(
            self.space.clone(),
            place,
            end.number,
            self.view.filter.collections.clone(),
            began.is_some(),
        );
        let page = page.await?;
        for (place, conflict) in &page.conflicts {
            let documents = conflict.document_bytes() <= limits::FRAME_DOCUMENT_BYTES_MAX;
            let conflict = to_proto::conflict(conflict, self.view.form, documents);
            let frame = proto::ConflictFrame {
                subscription_id: self.id.clone(),
                conflict: Some(conflict),
                conflict_cursor: to_proto::conflict_cursor(self.view.epoch, Some(*place)),
            };
            next.frames.push(encode(Response::Conflict(Box::new(frame))));
        }
        let last = page.conflicts.last().map(|(place, _)| *place).filter(|_| page.has_more);
        let reached = last.unwrap_or(end);
        next.place.conflicts = Some(reached);
        Ok(reached.number == at.conflicts)
    }

    /// Goes on from where others went.
    pub(super) fn go_on(&mut self, phase: Phase, place: Place) {
        self.place = place;
        self.phase = phase;
        if phase == Phase::CatchUp {
            self.since = place.read_to;
        }
    }

    fn caught_up(&self, place: Place) -> Encoded {
        let frame = proto::CaughtUpFrame {
            subscription_id: self.id.clone(),
            up_to: place.read_to.get(),
            conflict_cursor: to_proto::conflict_cursor(self.view.epoch, place.conflicts),
        };
        encode(Response::CaughtUp(frame))
    }

    /// Where it is. Everything up to there has been sent before.
    pub(super) fn progress(&mut self) -> proto::SubscriptionProgress {
        let up_to = self.place.read_to;
        self.place.told_to = up_to;
        proto::SubscriptionProgress {
            subscription_id: self.id.clone(),
            up_to: up_to.get(),
            head: self.watch.head().max(up_to).get(),
            conflict_cursor: to_proto::conflict_cursor(self.view.epoch, self.place.conflicts),
        }
    }
}

/// A frame, encoded.
pub(super) fn encode(frame: Response) -> Encoded {
    Encoded::from_message(&proto::SubscribeResponse { frame: Some(frame) })
}

/// The last frame of a subscription that an error ended.
pub(super) fn ending(subscription_id: String, error: Error) -> Encoded {
    match error {
        Error::Cursor { fault, epoch, head, floor } => {
            encode(Response::ResyncRequired(proto::ResyncRequiredFrame {
                subscription_id,
                reason: to_proto::resync_reason(fault).into(),
                epoch: epoch.to_string(),
                head: head.get(),
                floor: floor.get(),
            }))
        }
        other => closed(subscription_id, &other.into()),
    }
}

/// The last frame of a subscription that ended for another reason.
pub(super) fn closed(subscription_id: String, status: &Status) -> Encoded {
    let details = status.get_error_details();
    let violations = details.bad_request().into_iter().flat_map(|it| &it.field_violations);
    let violations = violations.map(|it| proto::FieldViolation {
        field: it.field.clone(),
        description: it.description.clone(),
    });
    encode(Response::Closed(proto::ClosedFrame {
        subscription_id,
        code: status.code().into(),
        reason: details.error_info().map_or_else(String::new, |info| info.reason.clone()),
        message: status.message().to_owned(),
        violations: violations.collect(),
    }))
}
