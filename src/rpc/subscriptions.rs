//! The subscriptions of a stream, and how those that are live go on in rounds: each
//! goes one step, as long as there is room for what they send, and who has none is
//! the first of the next round.

use super::live::{self, Step};
use super::outbox::Gathered;
use super::subscription::{Phase, Subscription};
use crate::app::Error;
use crate::domain::{CursorFault, Revision, SpaceId};

/// Subscriptions that a round ended, by their indices, and why.
pub(super) type EndedOnes = Vec<(usize, Error)>;

/// The subscriptions of one stream.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    pub(super) all: Vec<Subscription>,
    /// Whose turn it is, by their indices.
    live: usize,
    events: usize,
}

impl Subscriptions {
    /// Whether none reads the store, or waits to be told that it is there.
    pub(super) fn are_live(&self) -> bool {
        self.all.iter().all(|it| it.phase == Phase::Live && it.goal.is_none())
    }

    /// Where subscriptions of a space wait, because the digest that one of them is told
    /// holds there.
    pub(super) fn proofs(&self) -> Vec<(SpaceId, Revision)> {
        let proof = |it: &Subscription| Some((it.view.space, it.proof.as_ref()?.space.head));
        self.all.iter().filter_map(proof).collect()
    }

    /// Lets all that are live go one step, but not beyond their spaces' bounds. True if
    /// some may go on at once.
    pub(super) fn round_of_live(
        &mut self,
        out: &mut Gathered,
        bound: impl Fn(SpaceId) -> Option<Revision>,
        ended: &mut EndedOnes,
    ) -> bool {
        // Mostly there is one, which need not look for others that go with it.
        if let [only] = &*self.all {
            let alone = only.phase == Phase::Live;
            return alone && (out.is_full() || self.step(&[0], out, &bound, ended));
        }
        let mut behind = false;
        let parties = live::parties(&self.all);
        for number in from(place_of(&parties, self.live), parties.len()) {
            let Some(party) = parties.get(number) else { break };
            if out.is_full() {
                self.live = leader(party);
                return true;
            }
            behind |= self.step(party, out, &bound, ended);
        }
        behind
    }

    /// Lets a party go one step. True if it may go on at once.
    fn step(
        &mut self,
        party: &[usize],
        out: &mut Gathered,
        bound: impl Fn(SpaceId) -> Option<Revision>,
        ended: &mut EndedOnes,
    ) -> bool {
        let bound = self.all.get(leader(party)).and_then(|it| bound(it.view.space));
        match live::step(&mut self.all, party, bound) {
            Step::Stay => false,
            Step::Go { frame, more } => {
                frame.into_iter().for_each(|frame| out.push(frame));
                more
            }
            Step::Replaced(epoch, head) => {
                ended.extend(party.iter().map(|index| {
                    let (fault, floor) = (CursorFault::EpochChanged, Revision::ZERO);
                    (*index, Error::Cursor { fault, epoch, head, floor })
                }));
                false
            }
        }
    }

    /// Tells of events: they wait where they are, are few, and are counted if they are
    /// missed. True if some were not told.
    pub(super) fn round_of_events(&mut self, out: &mut Gathered) -> bool {
        for index in from(self.events, self.all.len()) {
            if out.is_full() {
                self.events = index;
                return true;
            }
            let Some(subscription) = self.all.get_mut(index) else { break };
            subscription.news().into_iter().for_each(|frame| out.push(frame));
        }
        false
    }
}

/// The first of those who go together.
pub(super) fn leader(party: &[usize]) -> usize {
    party.first().copied().unwrap_or_default()
}

/// The party that is led by this one, or by the next; they are in the order of theirs.
pub(super) fn place_of(parties: &[Vec<usize>], first: usize) -> usize {
    parties.partition_point(|party| leader(party) < first)
}

/// All of so many, from one of them on.
pub(super) fn from(begin: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |number| (begin + number) % count)
}
