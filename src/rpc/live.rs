//! How live subscriptions go on. Those of a stream that follow the same space in
//! the same way, and are at the same place, do it together: what the first of
//! them is given is read and encoded once, and one frame names them all.

use std::collections::HashMap;
use std::hash::Hash;

use bytes::Bytes;

use super::encoded::Encoded;
use super::page::PageBuilder;
use super::subscription::{Phase, Subscription};
use super::{proto, to_proto};
use crate::app::ConflictPlace;
use crate::domain::{Change, DocumentForm, Epoch, Filter, Revision, Sight, SpaceId, limits};
use crate::hub::{Ahead, Entry};

/// What a subscription follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) space: SpaceId,
    pub(super) epoch: Epoch,
    pub(super) filter: Filter,
    pub(super) form: DocumentForm,
    /// With differences, where there are some.
    pub(super) delta: bool,
    /// With the conflicts of these changes.
    pub(super) conflicts: bool,
}

impl View {
    /// A change as this view shows it, if it does.
    pub(super) fn show(&self, entry: &Entry, sight: Sight) -> Option<Bytes> {
        let form = self.form;
        let delta = || entry.delta(form, |before, it| to_proto::delta_entry(before, it, form));
        let whole = || entry.whole(form, |it| to_proto::change_entry(it, form));
        match sight {
            Sight::Not => None,
            Sight::Whole if self.delta => Some(delta().unwrap_or_else(whole).clone()),
            Sight::Whole => Some(whole().clone()),
            Sight::Marked => Some(to_proto::marked_entry(&entry.change)),
        }
    }
}

/// Where a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// Everything up to here was looked at.
    pub(super) read_to: Revision,
    /// What the client was told of. Behind `read_to` where nothing passed the
    /// filter: the next frame, or the next progress, covers it.
    pub(super) told_to: Revision,
    /// That was the middle of something: its end is told, even if nothing more of it
    /// passes the filter.
    pub(super) partial: bool,
    /// The last conflict that the client was told of, if it wants to be.
    pub(super) conflicts: Option<ConflictPlace>,
}

/// A subscription's name in a frame.
pub(super) const NAME_BYTES_MAX: usize = limits::SUBSCRIPTION_ID_BYTES_MAX + 2;

/// What a step comes to.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing is ahead, until the space moves.
    Stay,
    /// It went on, perhaps without having anything to tell, and perhaps not as far as
    /// it can.
    Go { frame: Option<Encoded>, more: bool },
    /// The space has another epoch by now, and this head.
    Replaced(Epoch, Revision),
}

/// The live subscriptions that go together, by their indices.
pub(super) fn parties(subscriptions: &[Subscription]) -> Vec<Vec<usize>> {
    let live = subscriptions.iter().enumerate().filter(|(_, it)| it.phase == Phase::Live);
    together(live.map(|(index, it)| (index, Some((it.view_number, it.place)))))
}

/// Those who have the same, in the order of the first of each; who has nothing is
/// alone.
pub(super) fn together<K: Eq + Hash>(
    all: impl Iterator<Item = (usize, Option<K>)>,
) -> Vec<Vec<usize>> {
    let mut parties: Vec<Vec<usize>> = Vec::new();
    let mut known = HashMap::new();
    for (index, key) in all {
        let new = parties.len();
        let number = key.map_or(new, |key| *known.entry(key).or_insert(new));
        match parties.get_mut(number) {
            Some(party) => party.push(index),
            None => parties.push(vec![index]),
        }
    }
    parties
}

/// Lets a party go one frame of the hub further, but not beyond `bound`.
pub(super) fn step(
    subscriptions: &mut [Subscription],
    party: &[usize],
    bound: Option<Revision>,
) -> Step {
    let Some(first) = party.first().and_then(|index| subscriptions.get(*index)) else {
        return Step::Stay;
    };
    let Subscription { view, place: before, .. } = first;
    let (before, mut after, mut phase) = (*before, *before, Phase::Live);
    let mut changes = PageBuilder::beside(party.len() * NAME_BYTES_MAX);
    let (mut partial, mut more) = (false, true);
    let conflicts = before.conflicts.map(|place| place.number);
    let bytes_max = limits::FRAME_CHANGE_BYTES_MAX;
    match first.watch.ahead(view.epoch, before.read_to, conflicts, bytes_max) {
        Ahead::Nothing => return Step::Stay,
        Ahead::InStore => phase = Phase::CatchUp,
        Ahead::Replaced(epoch, head) => return Step::Replaced(epoch, head),
        Ahead::Entries(entries, end) => {
            for entry in &entries {
                let Change { revision, .. } = *entry.change;
                if bound.is_some_and(|bound| revision > bound) {
                    break;
                }
                let shown = view.show(entry, view.filter.sight(&entry.change));
                if shown.is_some_and(|shown| !changes.push(&shown)) {
                    break;
                }
                (after.read_to, partial) = (revision, entry.change.goes_on());
            }
            if after.read_to == before.read_to {
                return Step::Stay;
            }
            // What comes later wakes again.
            more = after.read_to < end;
        }
    }
    let tells = !changes.is_empty() || (before.partial && !partial && phase == Phase::Live);
    if tells {
        (after.told_to, after.partial) = (after.read_to, partial);
    }
    let mut ids = Vec::new();
    for index in party {
        if let Some(subscription) = subscriptions.get_mut(*index) {
            subscription.go_on(phase.clone(), after);
            ids.extend(tells.then(|| subscription.id.clone()));
        }
    }
    let range = Range { after: before.told_to, up_to: after.told_to, partial };
    Step::Go { frame: tells.then(|| changes_frame(ids, range, changes)), more }
}

/// What a frame of changes covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) after: Revision,
    pub(super) up_to: Revision,
    pub(super) partial: bool,
}

/// A frame with the changes of a range.
pub(super) fn changes_frame(
    subscription_ids: Vec<String>,
    range: Range,
    changes: PageBuilder,
) -> Encoded {
    let rest = proto::ChangesFrame {
        changes: Vec::new(),
        subscription_ids,
        after: range.after.get(),
        up_to: range.up_to.get(),
        partial: range.partial,
    };
    changes.finish_in(2, &rest)
}
