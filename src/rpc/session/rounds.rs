//! How the subscriptions of a stream take their turns: what each sends next, from the
//! store, from the hub, or in words.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Session;
use crate::app::Error;
use crate::domain::{CursorFault, Revision};
use crate::rpc::live::{self, Step};
use crate::rpc::subscription::Phase;

/// Between attempts to read a store that is away.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// A step that takes longer is looked at again later, so that a slow store does not
/// keep the stream from what else it has to do: what was begun goes on meanwhile.
const STEP_TIMEOUT: Duration = Duration::from_millis(250);
/// So is a round, after each step.
const ROUND_TIMEOUT: Duration = Duration::from_millis(250);
/// Until a step that takes long is looked at again.
const STEP_RETRY: Duration = Duration::from_millis(20);

/// Subscriptions that a round ended, by their indices, and why.
type EndedOnes = Vec<(usize, Error)>;

impl Session {
    /// Lets every subscription go one step, as long as there is room for what they
    /// send. True if some may go on at once.
    pub(super) async fn round(&mut self) -> bool {
        let mut ended = Vec::new();
        self.retry_at = self.retry_at.filter(|at| Instant::now() < *at);
        let reads = self.subscriptions.iter().any(|it| it.phase != Phase::Live);
        // In turns: a page of the store may fill the queue alone.
        self.reads_first = !self.reads_first;
        let reads_first = self.reads_first;
        let went_live = (!reads || !reads_first) && self.round_of_live(&mut ended);
        let read_on = reads && Box::pin(self.round_of_reading(&mut ended)).await;
        let went_live = went_live || (reads && reads_first && self.round_of_live(&mut ended));
        ended.sort_by_key(|(index, _)| *index);
        ended.dedup_by_key(|(index, _)| *index);
        for (index, error) in ended.into_iter().rev() {
            let id = self.subscriptions.swap_remove(index).id;
            self.end_subscription(id, error.into());
        }
        // Every second round, so that both orders come to everybody.
        self.turn = self.turn.wrapping_add(usize::from(self.reads_first));
        self.round_of_words() || read_on || went_live
    }

    /// Says what is not a change. True if there is more.
    fn round_of_words(&mut self) -> bool {
        let count = self.subscriptions.len();
        for index in (0..count).map(|index| (index + self.turn) % count) {
            let Some(subscription) = self.subscriptions.get_mut(index) else { break };
            let bound = self.mutates.bound(subscription.view.space);
            subscription.caught_up(bound).into_iter().for_each(|frame| self.out.push(frame));
            // Events wait where they are: they are few, and missed ones are counted.
            if self.out.is_full() {
                return true;
            }
            subscription.news().into_iter().for_each(|frame| self.out.push(frame));
        }
        false
    }

    async fn round_of_reading(&mut self, ended: &mut EndedOnes) -> bool {
        let app = Arc::clone(&self.app);
        let count = self.subscriptions.len();
        let mut behind = false;
        let began = Instant::now();
        for index in (0..count).map(|index| (index + self.turn) % count) {
            // The store is away for one: then only what is live goes on.
            if self.retry_at.is_some() || self.out.is_full() {
                return behind || self.out.is_full();
            }
            if began.elapsed() > ROUND_TIMEOUT {
                self.turn = index;
                return true;
            }
            let Some(subscription) = self.subscriptions.get_mut(index) else { break };
            if subscription.phase == Phase::Live {
                continue;
            }
            let bound = self.mutates.bound(subscription.view.space);
            // Cancel: what waits for the store has changed nothing yet, and the read that
            // it waits for goes on.
            match timeout(STEP_TIMEOUT, subscription.read_on(&app, bound)).await {
                Ok(Ok(Some(frames))) => {
                    behind = true;
                    frames.into_iter().for_each(|frame| self.out.push(frame));
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) if !error.is_retryable() => ended.push((index, error)),
                Err(_late) => self.retry_at = Some(Instant::now() + STEP_RETRY),
                // The store comes back, and the cursor is still good.
                Ok(Err(_)) => self.retry_at = Some(Instant::now() + STORE_RETRY),
            }
        }
        behind
    }

    fn round_of_live(&mut self, ended: &mut EndedOnes) -> bool {
        let mut behind = false;
        let parties = live::parties(&self.subscriptions);
        let count = parties.len();
        for number in (0..count).map(|number| (number + self.turn) % count) {
            let Some(party) = parties.get(number) else { break };
            if self.out.is_full() {
                return true;
            }
            let space = party.first().and_then(|index| self.subscriptions.get(*index));
            let bound = space.and_then(|it| self.mutates.bound(it.view.space));
            match live::step(&mut self.subscriptions, party, bound) {
                Step::Stay => {}
                Step::Go(frame) => {
                    behind = true;
                    frame.into_iter().for_each(|frame| self.out.push(frame));
                }
                Step::Replaced(epoch, head) => ended.extend(party.iter().map(|index| {
                    let (fault, floor) = (CursorFault::EpochChanged, Revision::ZERO);
                    (*index, Error::Cursor { fault, epoch, head, floor })
                })),
            }
        }
        behind
    }
}
