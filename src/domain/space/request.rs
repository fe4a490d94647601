//! Whole requests: what is refused before anything is decided, mutations one by
//! one, and batches of which all take effect or none.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::{Answer, SpaceState, Usage};
use crate::domain::{
    Choice, Mutation, MutationId, MutationResult, Operation, Outcome, RecordKey, Rejection,
    RejectionReason, Request, Resolve, Revision, Sequence, Violation, limits,
};

/// Why a whole request was refused. Nothing of it was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An id that was used with other content, or outside this atomic batch.
    MutationIdReused { index: usize, id: MutationId },
    /// Mutations of the device are missing before this one.
    SequenceGap { expected: Sequence, got: Sequence },
    /// The documents that it would produce are too many to hold at once.
    TooLarge { bytes: usize },
    /// The space would hold more than it may: this much, of this much.
    OverQuota { used: Usage, quota: Usage },
}

impl SpaceState {
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
        self.admit_growth(request)?;
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
                Operation::Resolve(Resolve { choice: Choice::Document(document), .. }) => {
                    document.as_str().len()
                }
                Operation::Resolve(_) => limits::DOCUMENT_BYTES_MAX,
            };
            *size = (*size).min(limits::DOCUMENT_BYTES_MAX);
            total += *size;
        }
        total
    }

    pub(super) fn last_sequence(&self, request: &Request) -> Sequence {
        let last = request.own_device().and_then(|device| self.sequences.get(&device));
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
        let before = self.mark();
        self.batch_end = batch_end(self.head, request.mutations.len());
        let mut undo = Vec::new();
        let mut outcomes = Vec::new();
        for mutation in &request.mutations {
            if let Ok(content) = &mutation.content {
                let slot = self.records.get(&content.key).cloned().unwrap_or_default();
                undo.push((content.key.clone(), slot));
            }
            let outcome = self.attempt(request, mutation, now);
            let took_effect = outcome.took_effect();
            outcomes.push(outcome);
            // What is only missing is all found before the request is decided again.
            if !took_effect && self.lacks.is_empty() {
                self.records.extend(undo.into_iter().rev());
                self.back_to(&before);
                outcomes = abort(request, outcomes, before.head);
                break;
            }
        }
        self.batch_end = Revision::ZERO;
        for (mutation, outcome) in request.mutations.iter().zip(&outcomes) {
            self.keep(request, mutation, outcome);
        }
        outcomes.into_iter().map(|outcome| (outcome, false)).collect()
    }

    fn mark(&self) -> Mark {
        Mark {
            head: self.head,
            usage: self.usage,
            conflict_number: self.conflict_number,
            changes: self.changes.len(),
            conflicts: self.conflicts.len(),
            closed: self.closed.len(),
        }
    }

    /// Takes back what was decided since; not what became of single records.
    fn back_to(&mut self, mark: &Mark) {
        self.head = mark.head;
        self.usage = mark.usage;
        self.conflict_number = mark.conflict_number;
        self.changes.truncate(mark.changes);
        self.before.truncate(mark.changes);
        self.conflicts.truncate(mark.conflicts);
        self.closed.truncate(mark.closed);
    }

    /// Keeps an answer: later requests of the group find it, and it is stored
    /// unless a change stands for it.
    fn keep(&mut self, request: &Request, mutation: &Mutation, outcome: &Outcome) {
        let answer = Answer { fingerprint: mutation.fingerprint, outcome: outcome.clone() };
        if !outcome.took_effect() {
            self.new_answers.push((mutation.id.clone(), answer.clone()));
        }
        self.answers.insert(mutation.id.clone(), answer);
        if let (Some(device), Some(sequence)) = (request.own_device(), mutation.device_sequence)
            && sequence > self.last_sequence(request)
        {
            self.sequences.insert(device.clone(), sequence);
            self.new_sequences.insert(device, sequence);
        }
    }
}

/// How much was decided at some moment.
struct Mark {
    head: Revision,
    usage: Usage,
    conflict_number: i64,
    changes: usize,
    conflicts: usize,
    closed: usize,
}

/// The last revision of an atomic batch: each of its mutations is one change, if it takes effect.
/// None of a batch of one is told.
fn batch_end(head: Revision, mutations: usize) -> Revision {
    let last = i64::try_from(mutations).ok().filter(|count| *count > 1);
    last.and_then(|count| Revision::new(head.get() + count)).unwrap_or_default()
}

/// The outcomes of an atomic batch whose last attempt did not take effect.
fn abort(request: &Request, mut attempts: Vec<Outcome>, head: Revision) -> Vec<Outcome> {
    let guilty = attempts.len().saturating_sub(1);
    let cause = match attempts.pop() {
        // It conflicts with a write of its own batch, which never happened.
        Some(Outcome::Conflict(record, _) | Outcome::Superseded(record, _))
            if record.revision > head =>
        {
            let rule = "an earlier mutation of this batch writes the same record";
            Outcome::Rejected(Rejection::invalid(vec![Violation::new("mutation.base", rule)]))
        }
        // Nothing of the batch is kept, so there is no conflict to resolve either.
        Some(Outcome::Conflict(record, _)) => Outcome::Conflict(record, None),
        Some(Outcome::Superseded(record, _)) => Outcome::Superseded(record, None),
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
