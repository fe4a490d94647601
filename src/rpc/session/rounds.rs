//! The rounds of a session: every subscription goes one step, as long as there is room
//! for what they send. Who has no room is the first of the next round, and so is each
//! kind of work in its turn: what one of them has to send may be without end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Session;
use crate::app::Error;
use crate::domain::{Revision, SpaceId};
use crate::rpc::live;
use crate::rpc::subscription::Phase;
use crate::rpc::subscriptions::{EndedOnes, from, leader, place_of};

/// Between attempts to read a store that is away.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// A step that takes longer is looked at again later, so that a slow store does not
/// keep the stream from what else it has to do: what was begun goes on meanwhile.
const STEP_TIMEOUT: Duration = Duration::from_millis(250);
/// Until then.
const STEP_RETRY: Duration = Duration::from_millis(20);
/// Who catches up rests after each page for this many times as long as it took, as
/// long as others are live: they are not to notice.
const RESTS: u32 = 2;
const REST_MAX: Duration = Duration::from_millis(50);
/// Nor do many steps, one after the other.
const READING_TIMEOUT: Duration = Duration::from_millis(250);

/// Where rounds begin.
#[derive(Debug, Default)]
pub(super) struct Turns {
    rounds: usize,
    /// The index of a subscription.
    reading: usize,
}

/// What a round is made of.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Pages of the store.
    Reading,
    /// What the hub has.
    Live,
    /// What is not stored.
    Events,
}

impl Turns {
    /// The order of the next round.
    fn next(&mut self) -> [Work; 3] {
        self.rounds = self.rounds.wrapping_add(1);
        match self.rounds % 3 {
            0 => [Work::Events, Work::Reading, Work::Live],
            1 => [Work::Reading, Work::Live, Work::Events],
            _ => [Work::Live, Work::Events, Work::Reading],
        }
    }
}

impl Session {
    /// Lets every subscription go one step, as long as there is room for what they
    /// send. True if some may go on at once.
    pub(super) async fn round(&mut self) -> bool {
        let mut ended = Vec::new();
        let mut behind = false;
        let reads = self.subscriptions.all.iter().any(|it| it.phase != Phase::Live);
        self.retry_at = self.retry_at.filter(|at| Instant::now() < *at);
        for work in self.turns.next() {
            behind |= match work {
                // In a box: a stream that only waits is small.
                Work::Reading => reads && Box::pin(self.round_of_reading(&mut ended)).await,
                Work::Live => {
                    let proofs = self.subscriptions.proofs();
                    let Self { mutates, out, .. } = self;
                    let bound = |space| lower(mutates.bound(space), &proofs, space);
                    self.subscriptions.round_of_live(&mut out.gathered, bound, &mut ended)
                }
                Work::Events => self.subscriptions.round_of_events(&mut self.out.gathered),
            };
        }
        ended.sort_by_key(|(index, _)| *index);
        ended.dedup_by_key(|(index, _)| *index);
        for (index, error) in ended.into_iter().rev() {
            let id = self.subscriptions.all.swap_remove(index).id;
            self.end_subscription(id, error.into());
        }
        if self.subscriptions.all.iter().any(|it| it.goal.is_some()) {
            behind |= Box::pin(self.say_who_caught_up()).await;
        }
        behind
    }

    /// True if some may go on at once.
    async fn say_who_caught_up(&mut self) -> bool {
        let (began, mut freed) = (Instant::now(), false);
        for subscription in &mut self.subscriptions.all {
            // The others have their turn in the next round.
            if began.elapsed() > READING_TIMEOUT {
                return true;
            }
            let bound = self.mutates.bound(subscription.view.space);
            if !subscription.has_caught_up(bound) {
                continue;
            }
            if subscription.digest && subscription.proof.is_none() {
                if self.retry_at.is_some() {
                    continue;
                }
                let scope = subscription.view.filter.scope.clone();
                let reading = self.app.tallies(subscription.space.clone(), scope);
                // Cancel: a read that is late goes on, and is begun anew later.
                match timeout(STEP_TIMEOUT, reading).await {
                    Ok(Ok(tallies)) => subscription.prove(tallies),
                    Ok(Err(_)) | Err(_) => self.retry_at = Some(Instant::now() + STORE_RETRY),
                }
                if subscription.proof.is_none() || !subscription.has_caught_up(bound) {
                    continue;
                }
            }
            freed |= subscription.proof.is_some();
            self.out.push(subscription.caught_up());
        }
        freed
    }

    async fn round_of_reading(&mut self, ended: &mut EndedOnes) -> bool {
        let began = Instant::now();
        let mut behind = false;
        let reading = self.subscriptions.all.iter().enumerate();
        let reading = reading.filter(|(_, it)| it.phase != Phase::Live);
        let parties = live::together(reading.map(|(index, it)| (index, it.company())));
        for number in from(place_of(&parties, self.turns.reading), parties.len()) {
            let Some(party) = parties.get(number) else { break };
            if self.out.is_full() || began.elapsed() > READING_TIMEOUT {
                self.turns.reading = leader(party);
                return true;
            }
            // One rests, or the store is away for it: then only what is live goes on.
            if self.retry_at.is_some() {
                self.turns.reading = leader(party);
                return behind;
            }
            match self.read_on(party).await {
                Read::On => behind = true,
                Read::Waits => {}
                Read::Late(again) => self.retry_at = Some(Instant::now() + again),
                Read::Failed(error) => {
                    ended.extend(party.iter().map(|index| (*index, error.clone())));
                }
            }
        }
        behind
    }

    /// Lets those who read the same go one page further.
    async fn read_on(&mut self, party: &[usize]) -> Read {
        let app = Arc::clone(&self.app);
        let open = party.iter().filter_map(|index| self.subscriptions.all.get(*index));
        let names = open.map(|it| it.id.clone()).collect();
        let proofs = self.subscriptions.proofs();
        let first = self.subscriptions.all.get_mut(leader(party));
        let Some(first) = first else { return Read::Waits };
        let bound = lower(self.mutates.bound(first.view.space), &proofs, first.view.space);
        // Cancel: what waits for the store has changed nothing yet, and the read that it
        // waits for goes on.
        let began = Instant::now();
        match timeout(STEP_TIMEOUT, first.read_on(&app, bound, names)).await {
            Ok(Ok(Some(frames))) => {
                let took = began.elapsed();
                let there = (first.phase.clone(), first.place, first.looked_to);
                for index in party.iter().skip(1) {
                    if let Some(other) = self.subscriptions.all.get_mut(*index) {
                        other.go_with(there.clone());
                    }
                }
                frames.into_iter().for_each(|frame| self.out.push(frame));
                if app.is_busy() { Read::Late((took * RESTS).min(REST_MAX)) } else { Read::On }
            }
            Ok(Ok(None)) => Read::Waits,
            Ok(Err(error)) if !error.is_retryable() => Read::Failed(error),
            // The store comes back, and the cursor is still good.
            Ok(Err(_)) => Read::Late(STORE_RETRY),
            Err(_late) => Read::Late(STEP_RETRY),
        }
    }
}

/// The lower one of two bounds: that of what is not answered yet, and where digests hold.
fn lower(
    bound: Option<Revision>,
    proofs: &[(SpaceId, Revision)],
    space: SpaceId,
) -> Option<Revision> {
    let here = proofs.iter().filter(|(of, _)| *of == space).map(|(_, revision)| *revision);
    here.chain(bound).min()
}

/// What a page of the store came to.
enum Read {
    On,
    /// It must not go on now.
    Waits,
    /// To be tried again then.
    Late(Duration),
    Failed(Error),
}
