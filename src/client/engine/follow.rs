//! How a space follows the server: snapshots, subscriptions, polling, and what its digests
//! say.

use std::collections::BTreeMap;
use std::time::Duration;

use super::space::{CALL_MAX, Space, Step};
use super::turn::{Turn, Wait};
use super::{Action, Mode, Page, Queue, Report, RequestNo, Settled, SpaceNo};
use crate::domain::{CollectionName, Revision};

/// How long a snapshot, or a catch-up, may stand still.
const STILL_MAX: Duration = Duration::from_secs(60);
/// A digest is local work, or one call.
const COMPARE_MAX: Duration = Duration::from_secs(60);
/// The server writes acknowledgements every second.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// Without a stream digests cost calls.
const DIGEST_EVERY: Duration = Duration::from_secs(3_600);
/// The same after one that could not be told.
const DIGEST_AGAIN: Duration = Duration::from_secs(300);
/// How often a collection is loaded again within a link.
const HEALS_MAX: u32 = 3;

/// A subscription.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) request: RequestNo,
    pub(super) from: Revision,
    pub(super) caught_up: bool,
    /// Until it has caught up: when it has stood still for too long.
    until: Duration,
    acked: Revision,
    next_ack: Duration,
    digest: Option<Compare>,
    /// When it is compared once more, because it could not be told.
    again: Option<Duration>,
}

/// Calls instead of a subscription.
#[derive(Debug)]
pub(super) struct Polling {
    pub(super) from: Revision,
    pub(super) caught_up: bool,
    pub(super) next: Wait,
    digest: Option<Compare>,
}

/// A digest that is being compared.
#[derive(Clone, Copy, Debug)]
struct Compare {
    request: RequestNo,
    until: Duration,
}

/// What digests have said.
#[derive(Debug, Default)]
pub(super) struct Healing {
    /// To be loaded again.
    due: Vec<CollectionName>,
    /// How often each was found to differ in a row.
    streaks: BTreeMap<CollectionName, u32>,
    next_digest: Duration,
}

impl Healing {
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next link begins anew, but does not compare more often.
    pub(super) fn link_lost(&mut self) {
        self.due.clear();
        self.streaks.clear();
    }
}

impl Following {
    pub(super) fn begin(space: SpaceNo, from: Revision, turn: &mut Turn) -> Self {
        let request = turn.request();
        turn.act(Action::Subscribe { space, request });
        Self {
            request,
            from,
            caught_up: false,
            until: turn.now + CALL_MAX,
            acked: Revision::ZERO,
            next_ack: turn.now,
            digest: None,
            again: None,
        }
    }

    pub(super) fn wake(&self) -> Option<Duration> {
        let still = (!self.caught_up).then_some(self.until);
        [still, self.digest.map(|it| it.until), self.again].into_iter().flatten().min()
    }
}

impl Polling {
    pub(super) fn begin(from: Revision, now: Duration) -> Self {
        Self { from, caught_up: false, next: Wait::none(now), digest: None }
    }

    pub(super) fn wake(&self) -> Duration {
        self.digest.map_or(self.next.until, |it| it.until.min(self.next.until))
    }
}

/// Begins to compare.
fn compare(space: SpaceNo, turn: &mut Turn) -> Option<Compare> {
    let request = turn.request();
    turn.act(Action::CompareDigest { space, request });
    Some(Compare { request, until: turn.now + COMPARE_MAX })
}

impl Space {
    /// Loads all, or what differs.
    pub(super) fn begin_load(&mut self, turn: &mut Turn) {
        let Some(epoch) = self.epoch.filter(|_| turn.load_slots > 0) else { return };
        turn.load_slots -= 1;
        turn.served = Some(self.no);
        let (space, request, healing) = (self.no, turn.request(), self.loaded);
        let collections = healing.then(|| self.healing.due.clone());
        turn.act(Action::Load { space, request, epoch, collections });
        self.step = Step::Loading { request, until: turn.now + STILL_MAX, healing };
    }

    pub(super) fn loaded_part(&mut self, number: RequestNo, now: Duration) {
        if let Step::Loading { request, until, .. } = &mut self.step
            && *request == number
        {
            *until = now + STILL_MAX;
        }
    }

    pub(super) fn loaded(&mut self, number: RequestNo, revision: Revision, turn: &mut Turn) {
        let Step::Loading { request, healing, .. } = self.step else { return };
        if request != number {
            return;
        }
        let collections = std::mem::take(&mut self.healing.due);
        if healing {
            turn.report(Report::Healed { space: self.no, collections });
        } else {
            self.loaded = true;
            self.up_to = revision;
        }
        self.head = self.head.max(revision);
        self.step = Step::Settling;
    }

    /// Ends the subscription, if there is one.
    pub(super) fn unfollow(&mut self, turn: &mut Turn) {
        if let Step::Following(following) = &self.step {
            turn.act(Action::Unsubscribe { space: self.no, request: following.request });
            self.step = Step::Settling;
        }
    }

    pub(super) fn advance_following(&mut self, turn: &mut Turn) -> bool {
        self.advance_digest(turn);
        let Step::Following(following) = &mut self.step else { return false };
        if following.again.is_some_and(|again| again <= turn.now) && turn.open {
            following.again = None;
            following.digest = compare(self.no, turn);
        }
        if !following.caught_up && turn.now >= following.until {
            let wait = Wait::long(turn.now, self.backoff.failed(&mut turn.random));
            self.rest(wait, turn);
            return false;
        }
        if self.may_heal(turn) {
            self.unfollow(turn);
            return true;
        }
        self.advance_push(turn);
        false
    }

    pub(super) fn advance_polling(&mut self, turn: &mut Turn) -> bool {
        self.advance_digest(turn);
        if self.may_heal(turn) {
            self.step = Step::Settling;
            return true;
        }
        self.advance_push(turn);
        false
    }

    /// What differs is loaded as soon as what was sent is settled.
    fn may_heal(&self, turn: &Turn) -> bool {
        self.healing.is_due() && turn.open
    }

    /// The subscription, if it is this one.
    fn following(&mut self, number: RequestNo) -> Option<&mut Following> {
        match &mut self.step {
            Step::Following(following) if following.request == number => Some(following),
            _ => None,
        }
    }

    pub(super) fn subscribed(&mut self, number: RequestNo, head: Revision, now: Duration) {
        if let Some(following) = self.following(number) {
            following.until = now + STILL_MAX;
            self.head = self.head.max(head);
        }
    }

    pub(super) fn absorbed(
        &mut self,
        number: RequestNo,
        up_to: Revision,
        whole: bool,
        turn: &mut Turn,
    ) {
        let now = turn.now;
        let Some(following) = self.following(number) else { return };
        following.until = now + STILL_MAX;
        let may_ack = whole && following.caught_up && now >= following.next_ack;
        self.up_to = self.up_to.max(up_to);
        self.head = self.head.max(up_to);
        if may_ack {
            self.ack(turn);
        }
    }

    pub(super) fn caught_up(&mut self, number: RequestNo, up_to: Revision, turn: &mut Turn) {
        let Some(following) = self.following(number) else { return };
        following.caught_up = true;
        following.again = None;
        self.up_to = self.up_to.max(up_to);
        self.head = self.head.max(up_to);
        self.backoff.reset();
        self.well(turn);
        let digest = compare(self.no, turn);
        if let Some(following) = self.following(number) {
            following.digest = digest;
        }
        self.ack(turn);
    }

    /// The server's sign of life says where the subscription is.
    pub(super) fn placed(&mut self, up_to: Revision, head: Revision, turn: &mut Turn) {
        let Step::Following(following) = &self.step else { return };
        let caught_up = following.caught_up;
        self.up_to = self.up_to.max(up_to);
        self.head = self.head.max(head);
        if caught_up {
            self.ack(turn);
        }
    }

    fn ack(&mut self, turn: &mut Turn) {
        let (space, revision) = (self.no, self.up_to);
        if let Step::Following(following) = &mut self.step
            && revision > following.acked
        {
            following.acked = revision;
            following.next_ack = turn.now + ACK_EVERY;
            turn.act(Action::Ack { space, request: following.request, revision });
        }
    }

    /// A range does not follow on the one before: again from the cursor.
    pub(super) fn missed(&mut self, number: RequestNo, turn: &mut Turn) {
        if self.following(number).is_some() {
            let wait = Wait::long(turn.now, self.backoff.failed(&mut turn.random));
            self.rest(wait, turn);
        }
    }

    /// A call has brought results and changes.
    pub(super) fn exchanged(
        &mut self,
        number: RequestNo,
        settled: &Settled,
        queue: Queue,
        page: Page,
        turn: &mut Turn,
    ) {
        self.answered(number, settled, queue, turn);
        self.up_to = self.up_to.max(page.up_to);
        self.head = self.head.max(page.head);
        let Step::Polling(polling) = &mut self.step else { return };
        if page.more {
            polling.next = Wait::none(turn.now);
            return;
        }
        if let Mode::Poll { every } = turn.mode {
            polling.next = Wait::long(turn.now, every);
        }
        polling.caught_up = true;
        if polling.digest.is_none() && turn.now >= self.healing.next_digest {
            polling.digest = compare(self.no, turn);
            self.healing.next_digest = turn.now + DIGEST_EVERY;
        }
        self.backoff.reset();
        self.well(turn);
    }

    fn digest(&self) -> Option<Compare> {
        match &self.step {
            Step::Following(Following { digest, .. }) | Step::Polling(Polling { digest, .. }) => {
                *digest
            }
            _ => None,
        }
    }

    /// Whether a digest is being compared under this number.
    pub(super) fn compares(&self, number: RequestNo) -> bool {
        self.digest().is_some_and(|it| it.request == number)
    }

    /// Ends a comparison that is not answered.
    fn advance_digest(&mut self, turn: &mut Turn) {
        if let Some(digest) = self.digest().filter(|it| turn.now >= it.until) {
            self.compared(digest.request, None, turn);
        }
    }

    /// What differs from the server is loaded again, a few times.
    pub(super) fn compared(
        &mut self,
        number: RequestNo,
        differing: Option<Vec<CollectionName>>,
        turn: &mut Turn,
    ) {
        if !self.compares(number) {
            return;
        }
        let again = differing.is_none().then_some(turn.now + DIGEST_AGAIN);
        match &mut self.step {
            Step::Following(it) => (it.digest, it.again) = (None, again),
            Step::Polling(it) => it.digest = None,
            _ => {}
        }
        let Some(differing) = differing else {
            self.healing.next_digest = turn.now + DIGEST_AGAIN;
            return;
        };
        let Healing { streaks, .. } = &mut self.healing;
        streaks.retain(|collection, _| differing.contains(collection));
        let (mut due, mut vain) = (Vec::new(), Vec::new());
        for collection in differing {
            let streak = streaks.entry(collection.clone()).or_default();
            *streak = streak.saturating_add(1);
            match *streak {
                1..=HEALS_MAX => due.push(collection),
                // Told once.
                it if it == HEALS_MAX + 1 => vain.push(collection),
                _ => {}
            }
        }
        let space = self.no;
        if !vain.is_empty() {
            turn.report(Report::HealingInVain { space, collections: vain });
        }
        if !due.is_empty() {
            turn.report(Report::Healing { space, collections: due.clone() });
            self.healing.next_digest = turn.now;
        }
        self.healing.due = due;
    }
}
