//! What the server said of entries.

use std::collections::HashMap;

use super::{Held, Local, Replica, Touch};
use crate::client::entry::{Entry, EntryState, Kept, Trouble};
use crate::domain::{Document, MutationId, RecordKey, Revision, Tally};

/// What the server said of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) struct Answer {
    pub(in crate::client) id: MutationId,
    pub(in crate::client) kind: AnswerKind,
}

/// In which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) enum AnswerKind {
    /// It took effect.
    Applied(Revision),
    /// The record became this; None if that is still to come.
    Merged(Revision, Option<Held>),
    /// The record stayed this.
    Superseded(Option<Held>),
    /// The same, until somebody decides.
    Conflict(Option<Held>),
    Rejected(Trouble),
}

/// How many entries went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::client) struct Settled {
    pub(in crate::client) applied: usize,
    pub(in crate::client) merged: usize,
    pub(in crate::client) superseded: usize,
    pub(in crate::client) conflicts: usize,
    pub(in crate::client) failed: usize,
}

impl Replica {
    /// Takes answers in. Those of entries that do not wait for any are old news.
    pub(in crate::client) fn settle(&mut self, answers: &[Answer]) -> Settled {
        let mut settled = Settled::default();
        let waiting = self.entries.values().filter(|it| it.state == EntryState::Syncing);
        let waiting: HashMap<_, _> =
            waiting.map(|it| (it.id.clone(), (it.number, it.key.clone()))).collect();
        for answer in answers {
            if let Some((number, key)) = waiting.get(&answer.id) {
                self.settle_one(*number, key, &answer.kind, &mut settled);
            }
        }
        settled
    }

    fn settle_one(
        &mut self,
        number: i64,
        key: &RecordKey,
        kind: &AnswerKind,
        settled: &mut Settled,
    ) {
        let (state, revision, held, count) = match kind {
            AnswerKind::Applied(at) => (EntryState::Applied, *at, None, &mut settled.applied),
            AnswerKind::Merged(at, held) => {
                (EntryState::Merged, *at, held.as_ref(), &mut settled.merged)
            }
            AnswerKind::Superseded(held) => (
                EntryState::Superseded,
                held.as_ref().map_or(Revision::ZERO, Held::revision),
                held.as_ref(),
                &mut settled.superseded,
            ),
            AnswerKind::Conflict(held) => (
                EntryState::Conflict,
                held.as_ref().map_or(Revision::ZERO, Held::revision),
                held.as_ref(),
                &mut settled.conflicts,
            ),
            AnswerKind::Rejected(trouble) => {
                settled.failed += 1;
                self.with_entry(number, Touch::Moved, |entry| entry.sent = None);
                self.fail(
                    number,
                    if trouble.reason == "SEQUENCE_USED" { forgotten() } else { trouble.clone() },
                );
                return;
            }
        };
        *count += 1;
        self.with_entry(number, Touch::Moved, |entry| {
            entry.state = state;
            entry.revision = revision;
            entry.sent = None;
        });
        let goes_on = is_answered(state) && self.place.is_to_come(key, revision);
        if !goes_on {
            self.finish(number);
        }
        // Of what is not wanted nothing is kept.
        if let Some(held) = held.filter(|_| self.place.scope.has(key)) {
            self.hold(key, held.clone());
        }
        if !(goes_on && state == EntryState::Applied) {
            self.show(key);
        }
    }

    /// Takes a server's record in at once, if it is newer than what is here.
    pub(super) fn hold(&mut self, key: &RecordKey, held: Held) {
        let local = self.records.get(key).cloned().unwrap_or_default();
        let revision = held.revision();
        if local.server.as_ref().is_some_and(|it| it.revision() >= revision) {
            self.cover(key, revision);
            return;
        }
        self.replace(key, local, Some(held));
        self.cover(key, revision);
    }

    /// Makes a state the server's, and keeps the one before for edits that are based on it.
    pub(super) fn replace(&mut self, key: &RecordKey, local: Local, held: Option<Held>) {
        let before = local.server.as_ref();
        let kept = Kept {
            revision: before.map_or(Revision::ZERO, Held::revision),
            document: before.and_then(|it| it.record.document.clone()),
        };
        let own = |held: &Held| held.record.device.as_ref() == Some(&self.identity.device);
        // What this device wrote itself is not news to what it wrote next.
        let is_news = !held.as_ref().is_some_and(own) || self.is_merged(key, held.as_ref());
        if is_news {
            for number in self.numbers_of(key, |it| it.is_shown() && it.kept.is_none()) {
                let kept = Some(kept.clone());
                self.with_entry(number, Touch::Moved, |entry| entry.kept = kept);
            }
        }
        let newest = held.as_ref().map_or(Revision::ZERO, Held::revision);
        self.place.newest = self.place.newest.max(newest);
        let moved = self.touched.tallies.entry(key.collection.clone()).or_default();
        *moved += held.as_ref().map_or_else(Tally::default, Held::tally);
        *moved -= before.map_or_else(Tally::default, Held::tally);
        let staged = local
            .staged
            .clone()
            .filter(|staged| held.as_ref().is_none_or(|held| staged.revision() > held.revision()));
        self.records.insert(key.clone(), Local { server: held, staged, ..local });
        self.touched.records.insert(key.clone());
    }

    /// Whether a change of this device became something of both sides.
    fn is_merged(&self, key: &RecordKey, held: Option<&Held>) -> bool {
        let revision = held.map_or(Revision::ZERO, Held::revision);
        self.entries_of(key).any(|it| it.state == EntryState::Merged && it.revision == revision)
    }

    /// Entries whose changes a state of the record includes are done.
    pub(super) fn cover(&mut self, key: &RecordKey, revision: Revision) {
        let is_covered = |it: &Entry| is_answered(it.state) && !it.done && it.revision <= revision;
        for number in self.numbers_of(key, is_covered) {
            self.finish(number);
        }
    }

    /// The document that the server's state becomes by this device's own changes up to a
    /// revision; None if that cannot be told.
    pub(super) fn foreseen(
        &self,
        key: &RecordKey,
        from: Option<&Held>,
        revision: Revision,
    ) -> Option<Document> {
        let mut stack = super::shown::Stack::new(from.map(|held| held.record.clone()));
        let after = from.map_or(Revision::ZERO, Held::revision);
        let mut own: Vec<_> = self
            .entries_of(key)
            .filter(|it| it.state == EntryState::Applied)
            .filter(|it| it.revision > after && it.revision <= revision)
            .collect();
        own.sort_by_key(|it| it.revision);
        for entry in own {
            self.lay(&mut stack, entry).ok()?;
        }
        stack.current.and_then(|record| record.document.clone())
    }
}

/// The reason of an edit that was decided, nobody knows how.
pub(super) const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";

/// Why an entry is put aside whose sequence the server has, but no answer to it.
fn forgotten() -> Trouble {
    Trouble::new(
        OUTCOME_UNKNOWN,
        "the server decided it long ago and no longer keeps the answer: it may have taken effect; \
         look at the record, then discard it, or edit it",
    )
}

pub(super) fn is_answered(state: EntryState) -> bool {
    matches!(state, EntryState::Applied | EntryState::Merged)
}
