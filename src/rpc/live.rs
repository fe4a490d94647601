//! One round of a stream's live subscriptions. Those that follow the same space
//! in the same way, and are at the same place, go on together: what the first of
//! them is given is read and encoded once, and one frame names them all.

use super::encoded::Encoded;
use super::page::PageBuilder;
use super::subscription::{Phase, Subscription};
use super::{proto, to_proto};
use crate::app::Error;
use crate::domain::{Change, CursorFault, DocumentForm, Epoch, Filter, Revision, SpaceId, limits};
use crate::hub::Ahead;

/// What subscriptions have gone through so far in this round.
#[derive(Debug, Default)]
pub(super) struct Round {
    strides: Vec<Stride>,
}

/// One way that some of them went.
#[derive(Debug)]
struct Stride {
    view: View,
    before: Place,
    after: Place,
    phase: Phase,
    changes: PageBuilder,
    /// Who went it.
    ids: Vec<String>,
}

/// What a subscription follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) space: SpaceId,
    pub(super) epoch: Epoch,
    pub(super) filter: Filter,
    pub(super) form: DocumentForm,
}

/// Where a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Everything up to here was looked at.
    pub(super) read_to: Revision,
    /// What the client was told of. Behind `read_to` where nothing passed the
    /// filter: the next frame, or the next progress, covers it.
    pub(super) told_to: Revision,
}

impl Round {
    /// Lets a live subscription go one frame of the hub further. False if it
    /// stays where it is, until its space moves. An error ends it.
    pub(super) fn step(&mut self, subscription: &mut Subscription) -> Result<bool, Error> {
        let (view, at) = (&subscription.view, subscription.place);
        let gone = self.strides.iter().position(|it| it.before == at && it.view == *view);
        let index = match gone {
            Some(index) => index,
            None => {
                self.strides.push(Stride::of(subscription)?);
                self.strides.len() - 1
            }
        };
        let Some(stride) = self.strides.get_mut(index) else { return Ok(false) };
        if !stride.changes.is_empty() {
            stride.ids.push(subscription.id.clone());
        }
        subscription.go_on(stride.phase, stride.after);
        Ok(stride.phase == Phase::CatchUp || stride.after != at)
    }

    /// The frames of all that have changes to tell.
    pub(super) fn frames(self) -> impl Iterator<Item = Encoded> {
        let tells = |stride: &Stride| !stride.changes.is_empty();
        self.strides.into_iter().filter(tells).map(|stride| {
            let Stride { before, after, changes, ids, .. } = stride;
            changes_frame(ids, before.told_to, after.told_to, changes)
        })
    }
}

impl Stride {
    fn of(subscription: &Subscription) -> Result<Self, Error> {
        let Subscription { view, place: before, .. } = subscription;
        let mut stride = Self {
            view: view.clone(),
            before: *before,
            after: *before,
            phase: Phase::Live,
            changes: PageBuilder::default(),
            ids: Vec::new(),
        };
        let bytes_max = limits::FRAME_CHANGE_BYTES_MAX;
        match subscription.watch.ahead(view.epoch, before.read_to, bytes_max) {
            Ahead::Nothing => {}
            Ahead::InStore => stride.phase = Phase::CatchUp,
            Ahead::Replaced(epoch, head) => {
                let (fault, floor) = (CursorFault::EpochChanged, Revision::ZERO);
                return Err(Error::Cursor { fault, epoch, head, floor });
            }
            Ahead::Entries(entries, up_to) => {
                let encode = |change: &Change| to_proto::change_entry(change, view.form);
                for entry in entries.iter().filter(|entry| view.filter.passes(&entry.change)) {
                    // Always fits: the ring gives much less than a message holds.
                    stride.changes.push(entry.encoded(view.form, encode));
                }
                stride.after.read_to = up_to;
                if !stride.changes.is_empty() {
                    stride.after.told_to = up_to;
                }
            }
        }
        Ok(stride)
    }
}

/// A frame with the changes of a range.
pub(super) fn changes_frame(
    subscription_ids: Vec<String>,
    after: Revision,
    up_to: Revision,
    changes: PageBuilder,
) -> Encoded {
    let rest = proto::ChangesFrame {
        changes: Vec::new(),
        subscription_ids,
        after: after.get(),
        up_to: up_to.get(),
    };
    changes.finish_in(2, &rest)
}
