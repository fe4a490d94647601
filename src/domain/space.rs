//! Decides whole requests against one space, in order and in memory. Holds what
//! was loaded of the space at one head, and gathers what is to be written.

use std::collections::HashMap;
use std::sync::Arc;

use time::OffsetDateTime;

use super::{
    Change, Content, Decision, DeviceId, Fingerprint, Mutation, MutationId, MutationResult,
    Operation, Outcome, Record, RecordKey, Rejection, RejectionReason, Request, Revision, Sequence,
    Violation, decide, limits,
};

/// The answer that a mutation got, and what it had asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub fingerprint: Fingerprint,
    pub outcome: Outcome,
}

/// Why a whole request was refused. Nothing of it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An id that was used with other content, or outside this atomic batch.
    MutationIdReused { index: usize, id: MutationId },
    /// Mutations of the device are missing before this one.
    SequenceGap { expected: Sequence, got: Sequence },
    /// The documents that it would produce are too many to hold at once.
    TooLarge { bytes: usize },
}

/// What a group knows of one space while it decides.
#[derive(Debug)]
pub struct SpaceState {
    head: Revision,
    records: HashMap<RecordKey, Slot>,
    answers: HashMap<MutationId, Answer>,
    sequences: HashMap<DeviceId, Sequence>,
    changes: Vec<(Arc<Change>, Fingerprint)>,
    new_answers: Vec<(MutationId, Answer)>,
    new_sequences: HashMap<DeviceId, Sequence>,
}

/// One record: as it was loaded, and as it is after what was decided so far.
#[derive(Clone, Debug, Default)]
struct Slot {
    stored: bool,
    changed: bool,
    current: Option<Arc<Record>>,
}

/// What the decisions ask to be stored, all in one transaction.
#[derive(Debug, Default)]
pub struct Writes {
    /// In revision order, with the fingerprint of the mutation behind each.
    pub changes: Vec<(Arc<Change>, Fingerprint)>,
    /// Final states of records that had no row before.
    pub inserts: Vec<Arc<Record>>,
    /// Final states of records that had one.
    pub updates: Vec<Arc<Record>>,
    /// Answers that no change stands for.
    pub answers: Vec<(MutationId, Answer)>,
    /// The last sequence of each device that moved.
    pub sequences: Vec<(DeviceId, Sequence)>,
}

impl SpaceState {
    /// A space at `head`, with what the requests to come need of it: every
    /// record that they name and that has a row, every answer that one of
    /// their ids got before, the last sequence of each of their devices.
    pub fn new(
        head: Revision,
        records: impl IntoIterator<Item = Arc<Record>>,
        answers: HashMap<MutationId, Answer>,
        sequences: HashMap<DeviceId, Sequence>,
    ) -> Self {
        let slot = |record: Arc<Record>| {
            (record.key.clone(), Slot { stored: true, changed: false, current: Some(record) })
        };
        Self {
            head,
            records: records.into_iter().map(slot).collect(),
            answers,
            sequences,
            changes: Vec::new(),
            new_answers: Vec::new(),
            new_sequences: HashMap::new(),
        }
    }

    /// The last revision, with everything decided so far.
    pub fn head(&self) -> Revision {
        self.head
    }

    /// Every record as it is after what was decided.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.values().filter_map(|slot| slot.current.as_ref())
    }

    /// The last sequence of every device that was asked for, after what was
    /// decided.
    pub fn sequences(&self) -> impl Iterator<Item = (&DeviceId, Sequence)> {
        self.sequences.iter().map(|(device, last)| (device, *last))
    }

    /// What is to be stored.
    pub fn writes(&self) -> Writes {
        let changed = |stored| {
            let slots = self.records.values();
            slots
                .filter(move |slot| slot.changed && slot.stored == stored)
                .filter_map(|slot| slot.current.clone())
                .collect()
        };
        let sequences = self.new_sequences.iter().map(|(device, last)| (device.clone(), *last));
        Writes {
            changes: self.changes.clone(),
            inserts: changed(false),
            updates: changed(true),
            answers: self.new_answers.clone(),
            sequences: sequences.collect(),
        }
    }

    /// Decides a request: one result for each mutation, or nothing at all.
    pub fn decide(
        &mut self,
        request: &Request,
        now: OffsetDateTime,
    ) -> Result<Vec<MutationResult>, Refusal> {
        self.admit(request)?;
        let replays = self.replays(request);
        let outcomes = if request.atomic && replays == 0 {
            self.decide_all_or_none(request, now)
        } else {
            request.mutations.iter().map(|it| self.decide_each(request, it, now)).collect()
        };
        let result = |(mutation, (outcome, replayed)): (&Mutation, _)| MutationResult {
            mutation_id: mutation.id.clone(),
            outcome,
            replayed,
        };
        Ok(request.mutations.iter().zip(outcomes).map(result).collect())
    }

    fn replays(&self, request: &Request) -> usize {
        request.mutations.iter().filter(|it| self.answers.contains_key(&it.id)).count()
    }

    /// Refuses what must not be decided even in part.
    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        let torn = request.atomic && (1..request.mutations.len()).contains(&self.replays(request));
        for (index, mutation) in request.mutations.iter().enumerate() {
            if let Some(answer) = self.answers.get(&mutation.id)
                && (torn || answer.fingerprint != mutation.fingerprint)
            {
                return Err(Refusal::MutationIdReused { index, id: mutation.id.clone() });
            }
        }
        let bytes = self.documents_bytes(request);
        if bytes > limits::REQUEST_DOCUMENT_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes });
        }
        // A request's sequences rise by one, so only the first can leave a gap.
        let first = request.mutations.iter().find(|it| !self.answers.contains_key(&it.id));
        if let Some(got) = first.and_then(|it| it.device_sequence) {
            let expected = self.last_sequence(request).next();
            if got > expected {
                return Err(Refusal::SequenceGap { expected, got });
            }
        }
        Ok(())
    }

    /// At most what the documents that the request produces have together.
    fn documents_bytes(&self, request: &Request) -> usize {
        let mut sizes: HashMap<&RecordKey, usize> = HashMap::new();
        let mut total = 0;
        for content in request.mutations.iter().filter_map(|it| it.content.as_ref().ok()) {
            let size = sizes.entry(&content.key).or_insert_with(|| {
                let current = self.records.get(&content.key).and_then(|it| it.current.as_ref());
                current.map_or(0, |record| record.size_bytes())
            });
            *size = match &content.operation {
                Operation::Create(document) | Operation::Put(document) => document.as_str().len(),
                Operation::Patch(patch) => *size + patch.set.as_str().len(),
                Operation::Delete => 0,
            };
            *size = (*size).min(limits::DOCUMENT_BYTES_MAX);
            total += *size;
        }
        total
    }

    fn last_sequence(&self, request: &Request) -> Sequence {
        let last = request.device.as_ref().and_then(|device| self.sequences.get(device));
        last.copied().unwrap_or_default()
    }

    /// Decides a mutation for itself, or finds its first answer.
    fn decide_each(
        &mut self,
        request: &Request,
        mutation: &Mutation,
        now: OffsetDateTime,
    ) -> (Outcome, bool) {
        if let Some(answer) = self.answers.get(&mutation.id) {
            return (answer.outcome.clone(), true);
        }
        let outcome = self.attempt(request, mutation, now);
        self.keep(request, mutation, &outcome);
        (outcome, false)
    }

    /// Decides all mutations; unless every one takes effect, none does.
    fn decide_all_or_none(
        &mut self,
        request: &Request,
        now: OffsetDateTime,
    ) -> Vec<(Outcome, bool)> {
        let (head, changes) = (self.head, self.changes.len());
        let mut undo = Vec::new();
        let mut outcomes = Vec::new();
        for mutation in &request.mutations {
            if let Ok(content) = &mutation.content {
                let slot = self.records.get(&content.key).cloned().unwrap_or_default();
                undo.push((content.key.clone(), slot));
            }
            let outcome = self.attempt(request, mutation, now);
            let applied = matches!(outcome, Outcome::Applied(_));
            outcomes.push(outcome);
            if !applied {
                self.records.extend(undo.into_iter().rev());
                self.changes.truncate(changes);
                self.head = head;
                outcomes = abort(request, outcomes, head);
                break;
            }
        }
        for (mutation, outcome) in request.mutations.iter().zip(&outcomes) {
            self.keep(request, mutation, outcome);
        }
        outcomes.into_iter().map(|outcome| (outcome, false)).collect()
    }

    /// Decides one mutation and takes its effect into the state, but does not
    /// keep its answer yet.
    fn attempt(&mut self, request: &Request, mutation: &Mutation, now: OffsetDateTime) -> Outcome {
        let last = self.last_sequence(request);
        if let Some(sequence) = mutation.device_sequence.filter(|sequence| *sequence <= last) {
            return Outcome::Rejected(Rejection::new(
                RejectionReason::SequenceUsed,
                format!("device sequence {sequence} was used before; the last one is {last}"),
            ));
        }
        let content = match &mutation.content {
            Ok(content) => content,
            Err(rejection) => return Outcome::Rejected(rejection.clone()),
        };
        if let Some(base) = content.base.filter(|base| *base > self.head) {
            let rule = format!("is {base}, ahead of the space's head {}", self.head);
            let violations = vec![Violation::new("mutation.base", rule)];
            return Outcome::Rejected(Rejection::invalid(violations));
        }
        let slot = self.records.get(&content.key);
        let current = slot.and_then(|slot| slot.current.clone());
        match (decide(current.as_deref(), content, request.device.as_ref()), current) {
            (Decision::Apply(action, document), current) => {
                let change = Change {
                    revision: self.head.next(),
                    key: content.key.clone(),
                    action,
                    document,
                    previous_revision: current.as_ref().map_or(Revision::ZERO, |it| it.revision),
                    author: request.author.clone(),
                    device: request.device.clone(),
                    mutation_id: mutation.id.clone(),
                    committed_at: now,
                };
                Outcome::Applied(self.apply(change, mutation.fingerprint, content))
            }
            (Decision::Conflict, Some(record)) => Outcome::Conflict(record),
            // A conflict needs a record to be in conflict with.
            (Decision::Conflict, None) => Outcome::Rejected(Rejection::invalid(Vec::new())),
            (Decision::Reject(rejection), _) => Outcome::Rejected(rejection),
        }
    }

    fn apply(&mut self, change: Change, fingerprint: Fingerprint, content: &Content) -> Revision {
        let slot = self.records.entry(content.key.clone()).or_default();
        let before = slot.current.as_ref();
        slot.current = Some(Arc::new(Record {
            key: change.key.clone(),
            revision: change.revision,
            document: change.document.clone(),
            author: change.author.clone(),
            device: change.device.clone(),
            updated_at: change.committed_at,
            foreign_revision: before
                .map_or(Revision::ZERO, |record| record.revision_not_by(change.device.as_ref())),
        }));
        slot.changed = true;
        self.head = change.revision;
        self.changes.push((Arc::new(change), fingerprint));
        self.head
    }

    /// Keeps an answer: later requests of the group find it, and it is stored
    /// unless a change stands for it.
    fn keep(&mut self, request: &Request, mutation: &Mutation, outcome: &Outcome) {
        let answer = Answer { fingerprint: mutation.fingerprint, outcome: outcome.clone() };
        if !matches!(outcome, Outcome::Applied(_)) {
            self.new_answers.push((mutation.id.clone(), answer.clone()));
        }
        self.answers.insert(mutation.id.clone(), answer);
        if let (Some(device), Some(sequence)) = (&request.device, mutation.device_sequence)
            && sequence > self.last_sequence(request)
        {
            self.sequences.insert(device.clone(), sequence);
            self.new_sequences.insert(device.clone(), sequence);
        }
    }
}

/// The outcomes of an atomic batch whose last attempt did not take effect.
fn abort(request: &Request, mut attempts: Vec<Outcome>, head: Revision) -> Vec<Outcome> {
    let guilty = attempts.len().saturating_sub(1);
    let cause = match attempts.pop() {
        // It conflicts with a write of its own batch, which never happened.
        Some(Outcome::Conflict(record)) if record.revision > head => {
            let rule = "an earlier mutation of this batch writes the same record";
            Outcome::Rejected(Rejection::invalid(vec![Violation::new("mutation.base", rule)]))
        }
        Some(other) => other,
        None => return Vec::new(),
    };
    let id = request.mutations.get(guilty).map_or("", |mutation| mutation.id.as_str());
    let bystander = Outcome::Rejected(Rejection::new(
        RejectionReason::BatchAborted,
        format!("mutation {id} of the same atomic batch did not take effect"),
    ));
    let mut outcomes = vec![bystander; request.mutations.len()];
    if let Some(slot) = outcomes.get_mut(guilty) {
        *slot = cause;
    }
    outcomes
}

#[cfg(test)]
mod tests;
