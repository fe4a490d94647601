//! One space while a group of requests is decided: what was loaded of it at one
//! head, what was decided since, and what is to be written.

mod conflicts;
mod request;
mod usage;
mod writes;

use std::collections::HashMap;
use std::sync::Arc;

use time::OffsetDateTime;

use super::decide::{Asking, Decision, Knowing, NewState, decide};
use super::{
    Change, Closing, Conflict, Content, Fingerprint, Mutation, MutationId, OpenConflict, Operation,
    Outcome, OwnDevice, PastLog, PolicySet, Record, RecordKey, Rejection, Request, Revision,
    Sequence, Violation, Way,
};

pub use request::Refusal;
pub use usage::Usage;
pub use writes::Writes;

/// The answer that a mutation got, and what it had asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub fingerprint: Fingerprint,
    pub outcome: Outcome,
}

/// What holds for all spaces.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub policies: Arc<PolicySet>,
    /// How far a client's clock may be ahead of ours.
    pub skew_micros: i64,
    /// Digests are not kept: to tell what they cost.
    pub without_digests: bool,
    /// What a space may hold; 0 = as much as it likes.
    pub quota: Usage,
}

/// What the requests to come need of a space: every record that they name and
/// that was ever written, every answer that one of their ids got before, the
/// last sequence of each of their devices. What only some need is asked for
/// when it is missing: see [`Lack`].
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub head: Revision,
    pub floor: Revision,
    /// The number of the last conflict that was opened or closed.
    pub conflicts: i64,
    /// What the space holds.
    pub usage: Usage,
    pub records: Vec<Arc<Record>>,
    pub answers: HashMap<MutationId, Answer>,
    pub sequences: HashMap<OwnDevice, Sequence>,
    pub pasts: HashMap<RecordKey, PastLog>,
    /// Of records that have some; the latest, if they are many.
    pub open: HashMap<RecordKey, Vec<OpenConflict>>,
    /// None where there is no such conflict.
    pub named: HashMap<MutationId, Option<Arc<Conflict>>>,
}

/// Something that was not known, and without which a request is not decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lack {
    /// The record's changes up to a revision that is its last, and what a device
    /// had made of it meanwhile.
    Past { key: RecordKey, at: Revision, way: Way },
    /// The record's open conflicts.
    Open(RecordKey),
    /// A conflict.
    Conflict(MutationId),
}

/// What a group knows of one space while it decides.
#[derive(Debug)]
pub struct SpaceState {
    rules: Rules,
    head: Revision,
    floor: Revision,
    conflict_number: i64,
    usage: Usage,
    records: HashMap<RecordKey, Slot>,
    answers: HashMap<MutationId, Answer>,
    sequences: HashMap<OwnDevice, Sequence>,
    pasts: HashMap<RecordKey, PastLog>,
    named: HashMap<MutationId, Option<Arc<Conflict>>>,
    changes: Vec<(Arc<Change>, Fingerprint)>,
    before: Vec<Option<Arc<Change>>>,
    conflicts: Vec<LoggedConflict>,
    closed: Vec<ClosedConflict>,
    new_answers: Vec<(MutationId, Answer)>,
    new_sequences: HashMap<OwnDevice, Sequence>,
    lacks: Vec<Lack>,
    /// The last revision of the atomic batch that is being decided.
    batch_end: Revision,
}

/// One record: as it was loaded, and as it is after what was decided so far.
#[derive(Clone, Debug, Default)]
struct Slot {
    stored: Option<Arc<Record>>,
    current: Option<Arc<Record>>,
    /// None if they are not known, while there are some.
    open: Option<Vec<OpenConflict>>,
}

/// A conflict for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedConflict {
    /// Rises with each conflict of the space that is opened or closed.
    pub number: i64,
    /// The number that it got when it was found.
    pub found: i64,
    pub conflict: Arc<Conflict>,
    /// When it may be forgotten, once it is closed.
    pub expires_at: Option<OffsetDateTime>,
}

/// The end of a conflict that is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedConflict {
    pub id: MutationId,
    pub number: i64,
    pub closing: Closing,
    pub expires_at: Option<OffsetDateTime>,
}

impl SpaceState {
    /// A space of which this is known.
    pub fn new(known: Known, rules: Rules) -> Self {
        let slot = |record: Arc<Record>| {
            let none = (record.open_conflicts == 0).then(Vec::new);
            let open = known.open.get(&record.key).cloned().or(none);
            let (stored, current) = (Some(Arc::clone(&record)), Some(Arc::clone(&record)));
            (record.key.clone(), Slot { stored, current, open })
        };
        Self {
            records: known.records.into_iter().map(slot).collect(),
            rules,
            head: known.head,
            floor: known.floor,
            conflict_number: known.conflicts,
            usage: known.usage,
            answers: known.answers,
            sequences: known.sequences,
            pasts: known.pasts,
            named: known.named,
            changes: Vec::new(),
            before: Vec::new(),
            conflicts: Vec::new(),
            closed: Vec::new(),
            new_answers: Vec::new(),
            new_sequences: HashMap::new(),
            lacks: Vec::new(),
            batch_end: Revision::ZERO,
        }
    }

    /// The last revision, with everything decided so far.
    pub fn head(&self) -> Revision {
        self.head
    }

    /// The number of the last conflict that was opened or closed.
    pub fn conflict_number(&self) -> i64 {
        self.conflict_number
    }

    /// Makes whatever is decided from here on part of an atomic batch that ends there.
    pub fn join_batch(&mut self, batch_end: Revision) {
        self.batch_end = batch_end;
    }

    /// What was missing: then nothing that was decided counts.
    pub fn lacks(&self) -> &[Lack] {
        &self.lacks
    }

    /// Every record as it is after what was decided.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values().filter_map(|slot| slot.current.as_ref())
    }

    /// The last sequence of every device that was asked for, after what was
    /// decided.
    pub fn sequences(&self) -> impl Iterator<Item = (&OwnDevice, Sequence)> {
        self.sequences.iter().map(|(device, last)| (device, *last))
    }

    /// Decides one mutation and takes its effect into the state, but does not
    /// keep its answer yet.
    fn attempt(&mut self, request: &Request, mutation: &Mutation, now: OffsetDateTime) -> Outcome {
        let content = match self.admitted(request, mutation) {
            Ok(content) => content,
            Err(rejection) => return Outcome::Rejected(rejection),
        };
        let slot = self.records.get(&content.key).cloned().unwrap_or_default();
        let current = slot.current.as_deref();
        // Only who had seen something can have known the sides of a conflict.
        let waits = current.is_some_and(|record| record.open_conflicts > 0);
        if slot.open.is_none() && waits && content.base.is_some() {
            return self.lack(Lack::Open(content.key.clone()));
        }
        let policies = Arc::clone(&self.rules.policies);
        let asking = Asking {
            author: &request.author,
            actor: request.actor.as_ref(),
            device: request.device.as_ref(),
            mutation,
            policy: policies.of(&content.key.collection).map(AsRef::as_ref),
            now,
            skew_micros: self.rules.skew_micros,
        };
        let past = self.past(content, &slot);
        let named = self.named_by(&content.operation);
        let conflict = named.as_ref().map(|it| it.as_deref());
        let knowing = Knowing { current, past: &past, conflict, floor: self.floor };
        match (decide(content, &asking, &knowing), slot.current) {
            (Decision::Change(state), _) => self.change(&asking, content, *state),
            (Decision::Stay(conflict), Some(record)) => self.stay(&asking, record, *conflict),
            // Only what is there can stay.
            (Decision::Stay(_), None) => Outcome::Rejected(Rejection::invalid(Vec::new())),
            (Decision::Reject(rejection), _) => Outcome::Rejected(rejection),
            (Decision::NeedsPast(way), _) => {
                let at = slot.stored.map(|it| it.revision).unwrap_or_default();
                self.lack(Lack::Past { key: content.key.clone(), at, way })
            }
            (Decision::NeedsConflict, _) => match &content.operation {
                Operation::Resolve(resolve) => self.lack(Lack::Conflict(resolve.conflict.clone())),
                _ => Outcome::Rejected(Rejection::invalid(Vec::new())),
            },
        }
    }

    /// The content of a mutation, unless it is refused before its record counts.
    fn admitted<'m>(
        &self,
        request: &Request,
        mutation: &'m Mutation,
    ) -> Result<&'m Content, Rejection> {
        let last = self.last_sequence(request);
        if let Some(sequence) = mutation.device_sequence.filter(|sequence| *sequence <= last) {
            return Err(Rejection::new(
                super::RejectionReason::SequenceUsed,
                format!("device sequence {sequence} was used before; the last one is {last}"),
            ));
        }
        let content = mutation.content.as_ref().map_err(Clone::clone)?;
        let collection = &content.key.collection;
        if request.collections.as_ref().is_some_and(|some| !some.contains(collection)) {
            let message = format!("the membership does not extend to collection {collection}");
            return Err(Rejection::new(super::RejectionReason::NotGranted, message));
        }
        let base = content.base.as_ref().map(super::Seen::revision);
        if let Some(base) = base.filter(|base| *base > self.head) {
            let rule = format!("is {base}, ahead of the space's head {}", self.head);
            return Err(Rejection::invalid(vec![Violation::new("mutation.base", rule)]));
        }
        Ok(content)
    }

    fn lack(&mut self, lack: Lack) -> Outcome {
        if !self.lacks.contains(&lack) {
            self.lacks.push(lack);
        }
        // Nobody is told: the request is decided again.
        Outcome::Rejected(Rejection::invalid(Vec::new()))
    }

    /// The record changes.
    fn change(&mut self, asking: &Asking<'_>, content: &Content, state: NewState) -> Outcome {
        let revision = self.head.next();
        let before = self.records.get(&content.key).and_then(|slot| slot.current.clone());
        let merged = state.settlement.as_ref().is_some_and(|settlement| settlement.merged);
        let others = before.as_ref().map(|it| it.others.after(it.entry(), asking.device));
        let change = Arc::new(Change {
            revision,
            key: content.key.clone(),
            action: state.action,
            document: state.document,
            previous_revision: before.as_ref().map_or(Revision::ZERO, |it| it.revision),
            author: asking.author.clone(),
            actor: asking.actor.cloned(),
            device: asking.device.cloned(),
            sequence: asking.mutation.sequence(),
            mutation_id: asking.mutation.id.clone(),
            committed_at: asking.now,
            micros: state.micros,
            parents: state.parents,
            others: others.unwrap_or_default(),
            settlement: state.settlement.map(Arc::new),
            batch_end: self.batch_end,
        });
        self.head = revision;
        self.changes.push((Arc::clone(&change), asking.mutation.fingerprint));
        self.before.push(before.as_ref().map(|it| Arc::clone(&it.change)));
        let closed = self.close(asking, content, revision);
        let held = before.as_ref().map(|it| Usage::of(it)).unwrap_or_default();
        let open_before = before.as_ref().map_or(0, |it| it.open_conflicts);
        let open_conflicts = open_before.saturating_sub(closed);
        let record = Arc::new(Record { change, open_conflicts });
        self.usage += Usage::of(&record) - held;
        let slot = self.records.entry(content.key.clone()).or_default();
        if before.is_none() {
            slot.open = Some(Vec::new());
        }
        slot.current = Some(Arc::clone(&record));
        let conflict = state.conflict.map(|conflict| {
            self.log(asking, Conflict { result_revision: revision, revision, ..conflict })
        });
        if merged {
            Outcome::Merged(record, conflict)
        } else {
            Outcome::Applied(revision, conflict)
        }
    }
}

#[cfg(test)]
mod tests;
