//! A write of a record that is not there, by somebody who had seen it, or may have: it
//! may have been deleted so long ago that nothing tells of it. It must not come back to
//! life because the deletion was forgotten.

use super::{Asking, Decision, follow, micros};
use crate::domain::resolve::{Resolved, resolve_two};
use crate::domain::{
    Base, Content, Operation, Policy, PolicyMode, Rejection, RejectionReason, Revision, Seen, Side,
    Version,
};

/// Whether the record that a write is based on may have been deleted and forgotten.
pub(super) fn may_be(content: &Content, seen: &Seen, floor: Revision) -> bool {
    let puts = matches!(content.operation, Operation::Put(_));
    puts && !seen.is_nothing() && seen.revision() < floor
}

/// Decides it as if it met a deletion: the oldest there is.
pub(super) fn decide(content: &Content, asking: &Asking<'_>) -> Decision {
    let fallback = Policy::default();
    let policy = asking.policy.map_or(&fallback, |set| &set.policy);
    let document = match &content.operation {
        Operation::Put(document) => Some(document.clone()),
        _ => None,
    };
    let oldest = Version { micros: 0, device: None, sequence: 0 };
    let client = Side {
        document,
        version: Version {
            micros: content.client_micros.unwrap_or_else(|| micros(asking.now)),
            device: asking.device.cloned(),
            sequence: asking.mutation.sequence(),
        },
        revision: Revision::ZERO,
        author: asking.author.clone(),
        device: asking.device.cloned(),
    };
    let told = resolve_two(policy, &Base::Lost, (None, &oldest), &client, asking.now);
    match told.result {
        Resolved::Client { .. } | Resolved::Merged { .. } => follow(content, None, asking),
        _ if policy.mode == PolicyMode::Advisory => follow(content, None, asking),
        Resolved::Server | Resolved::Open | Resolved::Invalid(_) => {
            Decision::Reject(Rejection::new(
                RejectionReason::RecordGone,
                "the record does not exist, and may have been deleted since the base; to make \
                 it anew, create it, or put it without a base",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::domain::decide::{Knowing, decide};
    use crate::domain::{
        CollectionName, DeleteRule, Document, Fingerprint, Mutation, MutationId, PastLog, RecordId,
        RecordKey, SetPolicy, Strategy, UserId,
    };

    /// What becomes of a put with this base, below a floor of 10, of a record that is
    /// not there.
    fn outcome(policy: Option<Policy>, base: Option<i64>) -> &'static str {
        let collection = CollectionName::parse("task").unwrap();
        let set =
            policy.map(|policy| SetPolicy { collection: collection.clone(), policy, version: 1 });
        let content = Content {
            key: RecordKey { collection, id: RecordId::parse("1").unwrap() },
            operation: Operation::Put(Document::from_json(b"{}").unwrap()),
            base: base.map(|base| Seen::Revision(Revision::new(base).unwrap())),
            client_micros: None,
        };
        let mutation = Mutation {
            id: MutationId::parse("m").unwrap(),
            device_sequence: None,
            fingerprint: Fingerprint::of(&content, None, None),
            content: Ok(content.clone()),
        };
        let asking = Asking {
            author: &UserId::parse("alice").unwrap(),
            actor: None,
            device: None,
            mutation: &mutation,
            policy: set.as_ref(),
            now: OffsetDateTime::UNIX_EPOCH + time::Duration::days(1),
            skew_micros: 0,
        };
        let floor = Revision::new(10).unwrap();
        let past = PastLog::default();
        let knowing = Knowing { current: None, past: &past, conflict: None, floor };
        match decide(&content, &asking, &knowing) {
            Decision::Change(_) => "created",
            Decision::Reject(it) if it.reason == RejectionReason::RecordGone => "gone",
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_forgotten_deletion_is_met_by_the_policy() {
        let policy = |strategy, deletes| Some(Policy { strategy, deletes, ..Policy::default() });
        let by = DeleteRule::ByStrategy;
        for (policy, expected) in [
            (None, "gone"),
            (policy(Strategy::Manual, by), "gone"),
            (policy(Strategy::ServerWins, by), "gone"),
            (policy(Strategy::FirstWriteWins, by), "gone"),
            (policy(Strategy::Auto, by), "gone"),
            (policy(Strategy::ClientWins, by), "created"),
            (policy(Strategy::LastWriteWins, by), "created"),
            (policy(Strategy::Merge, DeleteRule::UpdateWins), "created"),
            (policy(Strategy::ClientWins, DeleteRule::DeleteWins), "gone"),
            (Some(Policy { mode: PolicyMode::Advisory, ..Policy::default() }), "created"),
        ] {
            assert_eq!(outcome(policy.clone(), Some(5)), expected, "{policy:?}");
        }
    }

    #[test]
    fn who_had_seen_nothing_or_all_that_is_forgotten_makes_it_anew() {
        for base in [None, Some(0), Some(10), Some(11)] {
            assert_eq!(outcome(None, base), "created", "{base:?}");
        }
        assert_eq!(outcome(None, Some(9)), "gone");
    }
}
