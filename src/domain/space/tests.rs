//! Random histories against a model of what is stored: decided at once, in
//! groups with a reload between them, or request by request.

mod convergence;
mod histories;
mod queues;
mod stored;

use proptest::prelude::*;

use super::*;
use crate::domain::laws::laws;
use crate::domain::{
    ChangeAction, CollectionName, ConflictState, DeviceId, Document, History, MutationResult,
    OTHERS, Parents, Policy, RecordId, RejectionReason, Seen, SetPolicy, UserId,
};
use histories::{groups, policy, requests, step};
use stored::Stored;

type Verdict = Result<Vec<MutationResult>, Refusal>;

fn key(id: &str) -> RecordKey {
    let collection = CollectionName::parse("task").unwrap();
    RecordKey { collection, id: RecordId::parse(id).unwrap() }
}

fn document(text: &str) -> Document {
    Document::from_json(text.as_bytes()).unwrap()
}

fn device(name: &str) -> Option<DeviceId> {
    (!name.is_empty()).then(|| DeviceId::parse(name).unwrap())
}

fn mutation(
    id: &str,
    from: Option<&DeviceId>,
    sequence: Option<i64>,
    content: Result<Content, Rejection>,
) -> Mutation {
    let device_sequence = sequence.and_then(Sequence::new);
    let fingerprint = match &content {
        Ok(content) => Fingerprint::of(content, from, device_sequence),
        Err(rejection) => Fingerprint::of_invalid(rejection.message.as_bytes()),
    };
    Mutation { id: MutationId::parse(id).unwrap(), device_sequence, fingerprint, content }
}

fn content(id: &str, operation: Operation, base: Option<i64>) -> Result<Content, Rejection> {
    let base = base.and_then(Revision::new).map(Seen::Revision);
    Ok(Content { key: key(id), operation, base, client_micros: None })
}

fn request(from: &str, atomic: bool, mutations: Vec<Mutation>) -> Request {
    let author = UserId::parse("alice").unwrap();
    Request { author, actor: None, device: device(from), atomic, mutations, collections: None }
}

/// The state that a log leads to.
fn fold(changes: &[(Arc<Change>, Fingerprint)]) -> HashMap<RecordKey, Arc<Record>> {
    let mut records = HashMap::<RecordKey, Arc<Record>>::new();
    for (change, _) in changes {
        let before = records.get(&change.key);
        assert_eq!(change.previous_revision, before.map_or(Revision::ZERO, |it| it.revision));
        let lived = before.is_some_and(|record| record.lives());
        let action = match (&change.document, lived) {
            (None, _) => ChangeAction::Deleted,
            (Some(_), false) => ChangeAction::Created,
            (Some(_), true) => ChangeAction::Updated,
        };
        assert_eq!(change.action, action);
        let writers = |change: &Change| {
            let mut entries: Vec<_> = change.history().collect();
            entries.retain(|it| it.device.is_some());
            entries.sort_by(|a, b| a.device.cmp(&b.device));
            History::new(entries)
        };
        if let Some(before) = before {
            assert!(change.version() > before.version(), "a version that did not rise");
            assert!(change.parents.iter().any(|it| it == before.version().to_string()));
            let mut known: Vec<_> = writers(before).entries().to_vec();
            known.retain(|it| it.device != change.device);
            known.extend(change.device.is_some().then(|| change.entry()));
            assert_eq!(writers(change), History::new(known), "a history that forgot");
        } else {
            assert_eq!(change.parents, Parents::default());
        }
        let record = Record { change: Arc::clone(change), open_conflicts: 0 };
        records.insert(change.key.clone(), Arc::new(record));
    }
    records
}

proptest! {
    #![proptest_config(laws())]

    #[test]
    fn answers_do_not_depend_on_where_groups_end(
        policy in policy(),
        steps in prop::collection::vec(step(), 1..24),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let requests = requests(steps);
        let (mut whole, mut split) = (Stored::with_policy(policy.clone()), Stored::with_policy(policy));
        let at_once = whole.commit(&requests);
        let in_groups: Vec<_> =
            groups(&requests, &cuts).into_iter().flat_map(|group| split.commit(group)).collect();
        prop_assert_eq!(at_once, in_groups);
        prop_assert_eq!(whole.essence(), split.essence());
        prop_assert_eq!(whole.answers, split.answers);
        prop_assert_eq!(whole.sequences, split.sequences);
    }

    #[test]
    fn deciding_is_deterministic(
        policy in policy(),
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let requests = requests(steps);
        let (mut one, mut two) = (Stored::with_policy(policy.clone()), Stored::with_policy(policy));
        prop_assert_eq!(one.commit(&requests), two.commit(&requests));
        prop_assert_eq!(one.essence(), two.essence());
    }

    #[test]
    fn the_log_leads_to_the_records(
        policy in policy(),
        steps in prop::collection::vec(step(), 1..24),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let requests = requests(steps);
        let mut stored = Stored::with_policy(policy);
        for group in groups(&requests, &cuts) {
            stored.commit(group);
        }
        let change = |it: &Arc<Record>| Arc::clone(&it.change);
        let folded = fold(&stored.changes);
        prop_assert_eq!(folded.len(), stored.records.len());
        for (key, record) in &stored.records {
            prop_assert_eq!(change(&folded[key]), change(record));
        }
        let log = stored.changes.iter().zip(1..);
        log.for_each(|((change, _), revision)| assert_eq!(change.revision.get(), revision));
    }

    #[test]
    fn each_request_keeps_its_promises(
        policy in policy(),
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let mut stored = Stored::with_policy(policy);
        for request in requests(steps) {
            let before = stored.clone();
            let verdict = stored.commit(std::slice::from_ref(&request)).pop().unwrap();
            check(&request, &verdict, &before, &stored);
        }
    }
}

/// What holds between a state, a request alone, and the state after it.
fn check(request: &Request, verdict: &Verdict, before: &Stored, after: &Stored) {
    let Ok(results) = verdict else {
        assert_eq!(before.essence(), after.essence(), "a refusal leaves no trace");
        assert_eq!(before.answers, after.answers);
        assert_eq!(before.sequences, after.sequences);
        return;
    };
    assert_eq!(results.len(), request.mutations.len());
    let mut head = before.head;
    for (mutation, result) in request.mutations.iter().zip(results) {
        assert_eq!(mutation.id, result.mutation_id);
        let first = before.answer(&mutation.id);
        assert_eq!(result.replayed, first.is_some());
        match (first, &result.outcome) {
            (Some(first), outcome) => assert_eq!(*outcome, first.outcome, "the first answer"),
            (None, Outcome::Merged(record, conflict)) => {
                head = head.next();
                assert_eq!((record.revision, conflict.is_some()), (head, true));
            }
            (None, Outcome::Applied(revision, _)) => {
                head = head.next();
                assert_eq!(*revision, head);
                let stale = mutation.device_sequence.zip(request.own_device());
                let last = stale.as_ref().and_then(|(_, device)| before.sequences.get(device));
                assert!(
                    stale.as_ref().is_none_or(|(at, _)| Some(at) > last),
                    "a sequence served twice"
                );
            }
            (None, Outcome::Conflict(record, _) | Outcome::Superseded(record, _)) => {
                let base = mutation.content.as_ref().unwrap().base.as_ref();
                assert!(record.revision > base.unwrap().revision());
                assert!(record.revision <= head, "a record that never was");
            }
            (None, Outcome::Rejected(_)) => {}
        }
    }
    assert_eq!(after.head, head);
    let fresh = results.iter().filter(|result| !result.replayed);
    let applied = fresh.clone().filter(|it| it.outcome.took_effect()).count();
    if request.atomic && applied < fresh.clone().count() {
        assert_eq!(applied, 0, "all or none");
        assert_eq!(before.essence(), after.essence(), "an aborted batch leaves no trace");
    }
    for result in fresh {
        let logged = after.conflicts.get(&result.mutation_id).map(|it| it.conflict.as_found());
        let told = result.outcome.conflict().map(|it| it.as_ref().clone());
        assert_eq!(logged, told, "what is told is logged");
    }
    for (device, last) in &before.sequences {
        assert!(after.sequences.get(device) >= Some(last), "a device went back");
    }
}

/// An atomic batch in which the device's first sequence was used before.
fn used_in_an_atomic_batch() -> (Stored, Request) {
    let put = || content("1", Operation::Put(document("{}")), None);
    let phone = device("phone");
    let queue = |ids: [&str; 5]| {
        let mutations = ids.iter().zip(1..);
        mutations.map(|(id, at)| mutation(id, phone.as_ref(), Some(at), put())).collect()
    };
    let mut stored = Stored::default();
    stored.commit(&[request("phone", false, queue(["a", "b", "c", "d", "e"]))]);
    let late = ["x", "y"].iter().zip(2..);
    let late = late.map(|(id, at)| mutation(id, phone.as_ref(), Some(at), put())).collect();
    (stored, request("phone", true, late))
}

/// The last sequence was once set to that of the batch, which was lower.
#[test]
fn an_atomic_batch_with_a_used_sequence_leaves_its_device_where_it_was() {
    let (mut stored, late) = used_in_an_atomic_batch();
    let phone = late.own_device().unwrap();
    assert_eq!(stored.sequences[&phone], Sequence::new(5).unwrap());
    stored.commit(&[late]);
    assert_eq!(stored.sequences[&phone], Sequence::new(5).unwrap());
}

/// The answer that told of the used sequence was once not kept, so that the rest of the batch,
/// which was, stood in the way of its own repetition.
#[test]
fn an_atomic_batch_with_a_used_sequence_is_answered_alike_when_sent_again() {
    let (mut stored, late) = used_in_an_atomic_batch();
    let first = stored.commit(std::slice::from_ref(&late)).pop().unwrap().unwrap();
    let again = stored.commit(&[late]).pop().unwrap().unwrap();
    let reasons = first.iter().map(|result| match &result.outcome {
        Outcome::Rejected(rejection) => rejection.reason,
        other => panic!("not rejected: {other:?}"),
    });
    let expected = [RejectionReason::SequenceUsed, RejectionReason::BatchAborted];
    assert_eq!(reasons.collect::<Vec<_>>(), expected);
    let replayed = |result| MutationResult { replayed: true, ..result };
    assert_eq!(again, first.into_iter().map(replayed).collect::<Vec<_>>());
}

#[test]
fn spaces_keep_what_was_loaded_apart_from_what_changed() {
    let mut stored = Stored::default();
    let put = |id| content(id, Operation::Put(document("{}")), None);
    stored.commit(&[request("", false, vec![mutation("a", None, None, put("1"))])]);
    let both = vec![mutation("b", None, None, put("1")), mutation("c", None, None, put("2"))];
    let group = [request("", true, both)];
    let mut state = stored.load(&group, &[]);
    assert!(state.writes().changes.is_empty());
    assert_eq!(state.records().count(), 1);
    state.decide(&group[0], OffsetDateTime::UNIX_EPOCH).unwrap();
    let writes = state.writes();
    let revisions = |records: &[Arc<Record>]| {
        records.iter().map(|record| record.revision.get()).collect::<Vec<_>>()
    };
    assert_eq!((revisions(&writes.updates), revisions(&writes.inserts)), (vec![2], vec![3]));
    assert_eq!(state.records().count(), 2);
}

/// What is cached of a record once came in for each mutation that names it, and all but the first
/// of them without its open conflicts, which were then asked for again and again.
#[test]
fn a_record_that_comes_twice_keeps_its_open_conflicts() {
    let mut stored = Stored::default();
    let put = |base| content("1", Operation::Put(document("{}")), Some(base));
    for (id, base) in [("a", 0), ("b", 0)] {
        stored.commit(&[request("", false, vec![mutation(id, None, None, put(base))])]);
    }
    let record = Arc::clone(&stored.records[&key("1")]);
    assert_eq!(record.open_conflicts, 1);
    let open = stored.open(&record.key).map(|logged| logged.conflict.as_open()).collect();
    let known = Known {
        head: stored.head,
        records: vec![Arc::clone(&record), Arc::clone(&record)],
        open: [(record.key.clone(), open)].into_iter().collect(),
        ..Known::default()
    };
    let mut state = SpaceState::new(known, Rules::default());
    let knew = request("", false, vec![mutation("c", None, None, put(1))]);
    state.decide(&knew, OffsetDateTime::UNIX_EPOCH).unwrap();
    assert_eq!(state.lacks(), []);
    assert_eq!(state.writes().closed.len(), 1);
}
