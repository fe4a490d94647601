//! One subscription: where it is in its space, and what it sends next. It walks
//! catch-up (pages of the store), then live (the hub), and back whenever it has
//! fallen off the ring. The cursor is all its state.

use super::encoded::Encoded;
use super::page::PageBuilder;
use super::{proto, to_proto};
use crate::app::{App, Error};
use crate::domain::{
    Change, Cursor, CursorFault, DocumentForm, Epoch, Filter, Revision, Space, limits,
};
use crate::hub::{Ahead, Watch};

/// One subscription of a stream.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) space: Space,
    pub(super) filter: Filter,
    pub(super) form: DocumentForm,
    pub(super) epoch: Epoch,
    pub(super) watch: Watch,
    pub(super) phase: Phase,
    /// Where the catch-up began that goes on, or was the last.
    pub(super) since: Revision,
    /// Everything up to here was looked at.
    pub(super) read_to: Revision,
    /// What the client was told of. Behind `read_to` where nothing passed the
    /// filter: the next frame, or the next progress, covers it.
    pub(super) told_to: Revision,
}

/// Where the next changes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    CatchUp,
    Live,
}

/// What a subscription does next.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing, until its space moves.
    Wait,
    /// It went on without having anything to tell.
    Quiet,
    /// Sends these.
    Send(Vec<Encoded>),
}

impl Subscription {
    /// Goes one page of the store further. An error ends the subscription,
    /// except that of a store that is away.
    pub(super) async fn catch_up(&mut self, app: &App) -> Result<Step, Error> {
        let cursor = Cursor { epoch: Some(self.epoch), revision: self.read_to };
        let space = self.space.clone();
        // Small pages: what a reader who stops reading can hold is made of them.
        let bounds = (limits::PAGE_ENTRIES_MAX, limits::FRAME_DOCUMENT_BYTES_MAX);
        let page = app.changes(space, cursor, &self.filter, false, bounds).await?;
        let mut builder = PageBuilder::default();
        let mut up_to = page.up_to;
        let mut before = self.read_to;
        for entry in &page.entries {
            let (change, foreign) = (&entry.change, entry.foreign_revision);
            let passes = self.filter.passes_coalesced(change, foreign, self.since);
            if passes && !builder.push(&to_proto::change_entry(change, self.form)) {
                up_to = before;
                break;
            }
            before = change.revision;
        }
        self.read_to = up_to;
        let mut frames = Vec::new();
        if !builder.is_empty() {
            frames.push(self.changes(builder));
        }
        if up_to >= page.space.head {
            self.phase = Phase::Live;
            self.told_to = up_to;
            frames.push(self.caught_up());
        }
        Ok(if frames.is_empty() { Step::Quiet } else { Step::Send(frames) })
    }

    /// Goes one frame of the hub further. An error ends the subscription.
    pub(super) fn live(&mut self) -> Result<Step, Error> {
        Ok(match self.watch.ahead(self.epoch, self.read_to, limits::FRAME_CHANGE_BYTES_MAX) {
            Ahead::Nothing => Step::Wait,
            Ahead::InStore => {
                self.phase = Phase::CatchUp;
                self.since = self.read_to;
                Step::Quiet
            }
            Ahead::Replaced(epoch, head) => {
                let (fault, floor) = (CursorFault::EpochChanged, Revision::ZERO);
                return Err(Error::Cursor { fault, epoch, head, floor });
            }
            Ahead::Entries(entries, up_to) => {
                let mut builder = PageBuilder::default();
                let encode = |change: &Change| to_proto::change_entry(change, self.form);
                for entry in entries.iter().filter(|entry| self.filter.passes(&entry.change)) {
                    // Always fits: the ring gives much less than a message holds.
                    builder.push(entry.encoded(self.form, encode));
                }
                self.read_to = up_to;
                if builder.is_empty() {
                    return Ok(Step::Quiet);
                }
                Step::Send(vec![self.changes(builder)])
            }
        })
    }

    /// The frame for the range that was looked at since the last one.
    fn changes(&mut self, builder: PageBuilder) -> Encoded {
        let rest = proto::ChangesFrame {
            changes: Vec::new(),
            subscription_id: self.id.clone(),
            after: self.told_to.get(),
            up_to: self.read_to.get(),
        };
        self.told_to = self.read_to;
        builder.finish_in(2, &rest)
    }

    fn caught_up(&self) -> Encoded {
        let frame =
            proto::CaughtUpFrame { subscription_id: self.id.clone(), up_to: self.read_to.get() };
        encode(proto::subscribe_response::Frame::CaughtUp(frame))
    }

    /// Where it is. Everything up to there has been sent before.
    pub(super) fn progress(&mut self) -> proto::SubscriptionProgress {
        self.told_to = self.read_to;
        proto::SubscriptionProgress {
            subscription_id: self.id.clone(),
            up_to: self.read_to.get(),
            head: self.watch.head().max(self.read_to).get(),
        }
    }
}

/// A frame, encoded.
pub(super) fn encode(frame: proto::subscribe_response::Frame) -> Encoded {
    Encoded::from_message(&proto::SubscribeResponse { frame: Some(frame) })
}
