//! How live subscriptions go on. Those of a stream that follow the same space in
//! the same way, and are at the same place, do it together: what the first of
//! them is given is read and encoded once, and one frame names them all.

use std::collections::HashMap;

use super::encoded::Encoded;
use super::page::PageBuilder;
use super::subscription::{Phase, Subscription};
use super::{proto, to_proto};
use crate::app::ConflictPlace;
use crate::domain::{Change, DocumentForm, Epoch, Filter, Revision, SpaceId, limits};
use crate::hub::Ahead;

/// What a subscription follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) space: SpaceId,
    pub(super) epoch: Epoch,
    pub(super) filter: Filter,
    pub(super) form: DocumentForm,
    /// With the conflicts of these changes.
    pub(super) conflicts: bool,
}

/// Where a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Everything up to here was looked at.
    pub(super) read_to: Revision,
    /// What the client was told of. Behind `read_to` where nothing passed the
    /// filter: the next frame, or the next progress, covers it.
    pub(super) told_to: Revision,
    /// The last conflict that the client was told of, if it wants to be.
    pub(super) conflicts: Option<ConflictPlace>,
}

/// What a step comes to.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing is ahead, until the space moves.
    Stay,
    /// It went on, perhaps without having anything to tell.
    Go(Option<Encoded>),
    /// The space has another epoch by now, and this head.
    Replaced(Epoch, Revision),
}

/// The live subscriptions that go together, by their indices.
pub(super) fn parties(subscriptions: &[Subscription]) -> Vec<Vec<usize>> {
    let mut parties: Vec<Vec<usize>> = Vec::new();
    let mut known = HashMap::new();
    for (index, it) in subscriptions.iter().enumerate().filter(|(_, it)| it.phase == Phase::Live) {
        let number = *known.entry((it.view_number, it.place)).or_insert(parties.len());
        match parties.get_mut(number) {
            Some(party) => party.push(index),
            None => parties.push(vec![index]),
        }
    }
    parties
}

/// Lets a party go one frame of the hub further.
pub(super) fn step(subscriptions: &mut [Subscription], party: &[usize]) -> Step {
    let Some(first) = party.first().and_then(|index| subscriptions.get(*index)) else {
        return Step::Stay;
    };
    let Subscription { view, place: before, .. } = first;
    let (before, mut after, mut phase) = (*before, *before, Phase::Live);
    let mut changes = PageBuilder::default();
    let conflicts = before.conflicts.map(|place| place.number);
    let bytes_max = limits::FRAME_CHANGE_BYTES_MAX;
    match first.watch.ahead(view.epoch, before.read_to, conflicts, bytes_max) {
        Ahead::Nothing => return Step::Stay,
        Ahead::InStore => phase = Phase::CatchUp,
        Ahead::Replaced(epoch, head) => return Step::Replaced(epoch, head),
        Ahead::Entries(entries, up_to) => {
            let encode = |change: &Change| to_proto::change_entry(change, view.form);
            for entry in entries.iter().filter(|entry| view.filter.passes(&entry.change)) {
                // Always fits, also with a thousand names: the ring gives much
                // less than a message holds.
                changes.push(entry.encoded(view.form, encode));
            }
            after.read_to = up_to;
        }
    }
    let tells = !changes.is_empty();
    if tells {
        after.told_to = after.read_to;
    }
    let mut ids = Vec::new();
    for index in party {
        if let Some(subscription) = subscriptions.get_mut(*index) {
            subscription.go_on(phase, after);
            ids.extend(tells.then(|| subscription.id.clone()));
        }
    }
    Step::Go(tells.then(|| changes_frame(ids, before.told_to, after.told_to, changes)))
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
