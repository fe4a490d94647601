//! The decision about one mutation: pure and total. The server takes it for
//! a space at one head; an offline client may take it alone.

mod gone;

use time::OffsetDateTime;

use super::past::Past;
use super::resolve::{Concurrency, Resolution, Resolved, accept, resolve, resolve_two};
use super::{
    ChangeAction, Choice, Conflict, Content, DeviceId, Document, Mutation, Operation, Parents,
    PastLog, Patch, Policy, PolicyMode, Record, Rejection, RejectionReason, Resolve, Revision,
    Seen, SetPolicy, Settlement, Side, UserId, Verdict, Version, Violation, Way,
};

/// Who asks, when, and under which policy.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    pub author: &'a UserId,
    pub actor: Option<&'a UserId>,
    pub device: Option<&'a DeviceId>,
    pub mutation: &'a Mutation,
    pub policy: Option<&'a SetPolicy>,
    pub now: OffsetDateTime,
    /// How far a client's clock may be ahead of ours.
    pub skew_micros: i64,
}

/// What is known of the record.
#[derive(Clone, Copy, Debug)]
pub struct Knowing<'a> {
    /// None if it never was.
    pub current: Option<&'a Record>,
    pub past: &'a PastLog,
    /// With a resolution: the conflict that it names, as long as it is open;
    /// None if that was not looked for.
    pub conflict: Option<Option<&'a Conflict>>,
    /// Deletions at or below it may be forgotten.
    pub floor: Revision,
}

/// What is to happen to the record.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It changes.
    Change(Box<NewState>),
    /// It stays; the conflict says why.
    Stay(Box<Conflict>),
    /// It stays, now and ever.
    Reject(Rejection),
    /// This part of the record's past is needed.
    NeedsPast(Way),
    /// The conflict that a resolution names is needed.
    NeedsConflict,
}

/// What the record becomes.
#[derive(Clone, Debug)]
pub struct NewState {
    pub action: ChangeAction,
    /// A document unless it deletes.
    pub document: Option<Document>,
    /// The time of its version.
    pub micros: i64,
    pub parents: Parents,
    pub settlement: Option<Settlement>,
    /// Its revision and result are still to be filled in.
    pub conflict: Option<Conflict>,
}

/// Decides one mutation of one record.
pub fn decide(content: &Content, asking: &Asking<'_>, knowing: &Knowing<'_>) -> Decision {
    let decided = match (&content.base, knowing.current) {
        _ if let Operation::Resolve(choice) = &content.operation => settle(choice, asking, knowing),
        (Some(seen), Some(record)) if record.is_unseen(seen, asking.device) => {
            match &content.operation {
                Operation::Patch(patch) if patch.is_relative() && record.lives() => {
                    pass(follow(content, knowing.current, asking), patch)
                }
                _ => meet(content, seen, record, asking, knowing),
            }
        }
        (Some(seen), None) if gone::may_be(content, seen, knowing.floor) => {
            gone::decide(content, asking)
        }
        (_, current) => follow(content, current, asking),
    };
    match (decided, asking.policy.and_then(|set| set.policy.schema.as_ref())) {
        (Decision::Change(state), Some(schema)) => {
            let violations = state.document.as_ref().map(|it| schema.check(it));
            match violations.filter(|found| !found.is_empty()) {
                Some(found) => Decision::Reject(Rejection::schema(found)),
                None => Decision::Change(state),
            }
        }
        (decided, _) => decided,
    }
}

/// What is relative to whatever is there follows any write of a living record. It is
/// kept for what the same device writes next, which has it on what it had seen.
fn pass(decided: Decision, patch: &Patch) -> Decision {
    match decided {
        Decision::Change(state) => {
            let (merged, claims, passed) = (false, None, patch.transforms.clone());
            let settlement = Settlement { merged, claimed_micros: state.micros, claims, passed };
            Decision::Change(Box::new(NewState { settlement: Some(settlement), ..*state }))
        }
        other => other,
    }
}

/// Decides a write that knew all before it.
fn follow(content: &Content, current: Option<&Record>, asking: &Asking<'_>) -> Decision {
    let living = current.and_then(|record| record.document.as_ref());
    let document = match (&content.operation, living) {
        (Operation::Create(_), Some(_)) => {
            return Decision::Reject(Rejection::new(
                RejectionReason::AlreadyExists,
                "the record already exists; use put or patch to change it",
            ));
        }
        (Operation::Create(document) | Operation::Put(document), _) => Some(document.clone()),
        (Operation::Patch(patch), Some(document)) => match patch.apply(document, asking.now) {
            Ok(patched) => Some(patched),
            Err(violation) => return Decision::Reject(Rejection::invalid(vec![violation])),
        },
        (Operation::Delete, Some(_)) => None,
        (Operation::Patch(_) | Operation::Delete | Operation::Resolve(_), None) => {
            return Decision::Reject(missing(current));
        }
        (Operation::Resolve(_), Some(_)) => return Decision::NeedsConflict,
    };
    let before = current.map(|record| record.version());
    let floor = before.as_ref().map_or(i64::MIN, |version| version.micros.saturating_add(1));
    Decision::Change(Box::new(NewState {
        action: action(current, document.as_ref()),
        document,
        micros: claimed_micros(content, asking).max(floor),
        parents: Parents::of(&before),
        settlement: None,
        conflict: None,
    }))
}

/// Decides a write that did not know another, by the collection's policy.
fn meet(
    content: &Content,
    seen: &Seen,
    record: &Record,
    asking: &Asking<'_>,
    knowing: &Knowing<'_>,
) -> Decision {
    let fallback = Policy::default();
    let policy = asking.policy.map_or(&fallback, |set| &set.policy);
    let past = match knowing.past.since(&record.change, seen, asking.device, policy) {
        Ok(past) => past,
        Err(way) => return Decision::NeedsPast(way),
    };
    // A history that has forgotten devices may say so where the log knows better.
    if past.steps.is_empty() {
        return follow(content, Some(record), asking);
    }
    let claimed = Version {
        // Whoever had seen a write writes after it, whatever their clock says.
        micros: claimed_micros(content, asking).max(past.known_micros.saturating_add(1)),
        device: asking.device.cloned(),
        sequence: asking.mutation.sequence(),
    };
    let sides = Concurrency {
        base: &past.base,
        view: &past.view,
        steps: &past.steps,
        operation: &content.operation,
        claimed: &claimed,
        claims: &past.claims,
        now: asking.now,
    };
    let told = resolve(policy, &sides);
    let done = match policy.mode {
        PolicyMode::Enforced => told.clone(),
        PolicyMode::Advisory => accept(&sides),
    };
    let meeting = Meeting { content, record, asking, past: &past, claimed };
    let conflict = Conflict { lost: done.lost, ..meeting.conflict(policy, &told) };
    meeting.decision(done.result, conflict)
}

/// A write and the one that it meets.
struct Meeting<'a> {
    content: &'a Content,
    record: &'a Record,
    asking: &'a Asking<'a>,
    past: &'a Past,
    claimed: Version,
}

impl Meeting<'_> {
    /// What is logged.
    fn conflict(&self, policy: &Policy, resolution: &Resolution) -> Conflict {
        let (record, asking) = (self.record, self.asking);
        Conflict {
            id: asking.mutation.id.clone(),
            key: self.content.key.clone(),
            relation: resolution.relation,
            strategy: policy.strategy,
            decision: match &resolution.result {
                Resolved::Client { .. } => Verdict::Client,
                Resolved::Merged { .. } => Verdict::Merged,
                Resolved::Server => Verdict::Server,
                Resolved::Open | Resolved::Invalid(_) => Verdict::Open,
            },
            paths: resolution.paths.clone(),
            lost: resolution.lost.clone(),
            base: self.past.base.clone(),
            server: Side {
                document: record.document.clone(),
                version: record.version(),
                revision: record.revision,
                author: record.author.clone(),
                device: record.device.clone(),
            },
            server_claimed_micros: self.past.unseen_micros(),
            client: Side {
                document: resolution.client.clone(),
                version: self.claimed.clone(),
                revision: Revision::ZERO,
                author: asking.author.clone(),
                device: asking.device.cloned(),
            },
            policy_version: asking.policy.map_or(0, |set| set.version),
            policy_collection: asking.policy.map(|set| set.collection.clone()),
            advisory: policy.mode == PolicyMode::Advisory,
            result_revision: Revision::ZERO,
            found_at: asking.now,
            closing: None,
            revision: Revision::ZERO,
        }
    }

    fn decision(&self, result: Resolved, conflict: Conflict) -> Decision {
        let server = self.record.version();
        let (document, merged, claims) = match result {
            Resolved::Client { document, claims } => (document, false, claims),
            Resolved::Merged { document, claims } => (Some(document), true, claims),
            Resolved::Server | Resolved::Open => return Decision::Stay(Box::new(conflict)),
            Resolved::Invalid(violations) => {
                return Decision::Reject(Rejection::invalid(violations));
            }
        };
        // What became of both sides is after both, and has a name of its own.
        let floor = if merged { server.micros.max(self.claimed.micros) } else { server.micros };
        let parents =
            if merged { Parents::of([&server, &self.claimed]) } else { Parents::of([&server]) };
        let claimed_micros = self.claimed.micros;
        Decision::Change(Box::new(NewState {
            action: action(Some(self.record), document.as_ref()),
            document,
            micros: claimed_micros.max(floor.saturating_add(1)),
            parents,
            settlement: Some(Settlement { merged, claimed_micros, claims, passed: Vec::new() }),
            conflict: Some(conflict),
        }))
    }
}

/// Decides a resolution: an ordinary change that has both sides as parents.
fn settle(choice: &Resolve, asking: &Asking<'_>, knowing: &Knowing<'_>) -> Decision {
    let Some(record) = knowing.current else { return Decision::Reject(missing(None)) };
    let Some(conflict) = knowing.conflict else { return Decision::NeedsConflict };
    let Some(conflict) = conflict else {
        return Decision::Reject(Rejection::new(
            RejectionReason::ConflictClosed,
            "the conflict is closed already; see GetConflict for how",
        ));
    };
    if record.revision != choice.seen {
        let (now, seen) = (record.revision, choice.seen);
        return Decision::Reject(Rejection::new(
            RejectionReason::RecordChanged,
            format!("the record is at revision {now}, not {seen}; look at it again"),
        ));
    }
    let document = match &choice.choice {
        Choice::Client => conflict.client.document.clone(),
        Choice::Server => record.document.clone(),
        Choice::Document(document) => Some(document.clone()),
        Choice::Strategy(strategy) => match by_strategy(*strategy, record, conflict, asking) {
            Ok(document) => document,
            Err(rejection) => return Decision::Reject(rejection),
        },
    };
    let (server, client) = (record.version(), &conflict.client.version);
    let now = micros(asking.now);
    Decision::Change(Box::new(NewState {
        action: action(Some(record), document.as_ref()),
        document,
        micros: now.max(server.micros.max(client.micros).saturating_add(1)),
        parents: Parents::of([&server, client]),
        settlement: None,
        conflict: None,
    }))
}

/// What a strategy makes of the record as it is and the conflict's other side.
fn by_strategy(
    strategy: super::Strategy,
    record: &Record,
    conflict: &Conflict,
    asking: &Asking<'_>,
) -> Result<Option<Document>, Rejection> {
    let set = asking.policy.map(|set| set.policy.clone()).unwrap_or_default();
    let policy = Policy { strategy, ..set };
    let server = (record.document.as_ref(), &record.claimed());
    let resolution = resolve_two(&policy, &conflict.base, server, &conflict.client, asking.now);
    match resolution.result {
        Resolved::Client { document, .. } => Ok(document),
        Resolved::Merged { document, .. } => Ok(Some(document)),
        Resolved::Server => Ok(record.document.clone()),
        Resolved::Open => Err(Rejection::invalid(vec![Violation::new(
            "strategy",
            "leaves the conflict open: both sides changed the same values; send a document",
        )])),
        Resolved::Invalid(violations) => Err(Rejection::invalid(violations)),
    }
}

fn action(before: Option<&Record>, document: Option<&Document>) -> ChangeAction {
    match (before.is_some_and(Record::lives), document) {
        (_, None) => ChangeAction::Deleted,
        (true, Some(_)) => ChangeAction::Updated,
        (false, Some(_)) => ChangeAction::Created,
    }
}

/// The time that the client claims, but not one that is too far ahead.
fn claimed_micros(content: &Content, asking: &Asking<'_>) -> i64 {
    let now = micros(asking.now);
    content.client_micros.map_or(now, |it| it.min(now.saturating_add(asking.skew_micros)))
}

/// Microseconds since 1970.
fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

fn missing(current: Option<&Record>) -> Rejection {
    let message = match current {
        None => "the record does not exist; use create or put to make it",
        Some(_tombstone) => "the record was deleted; use create or put to make it anew",
    };
    Rejection::new(RejectionReason::NotFound, message)
}

#[cfg(test)]
mod tests;
