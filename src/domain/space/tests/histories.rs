//! Random histories: requests of three devices on three records, some sent
//! again, some under ids that were used, and some out of their sequence.

use proptest::prelude::*;

use super::{content, device, document, mutation, request};
use crate::domain::{
    Fingerprint, Operation, Patch, Pointer, Rejection, Request, Transform, TransformKind,
};

/// What a mutation in a random request is made of, without its id.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    record: usize,
    operation: Operation,
    base: Option<i64>,
    valid: bool,
}

/// A step of a random history.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A request of a device, in its queue or a few places off.
    New { device: usize, atomic: bool, off: Option<i64>, drafts: Vec<Draft> },
    /// An earlier request again.
    Again(prop::sample::Index),
    /// An earlier request's ids with other content.
    Reused(prop::sample::Index),
    /// A part of an earlier request.
    Part(prop::sample::Index),
}

fn draft() -> impl Strategy<Value = Draft> {
    let text = prop_oneof![Just("{}"), Just(r#"{"a":1}"#), Just(r#"{"a":{"b":2}}"#)];
    let patch = |text: &str| {
        Operation::Patch(Patch {
            set: document(text),
            unset: vec![Pointer::parse("/a/b").unwrap()],
            transforms: Vec::new(),
        })
    };
    // Passes what it had not seen, and must be under what follows it.
    let relative = |amount: i64| {
        let kind = TransformKind::Increment(amount.into());
        let transforms = vec![Transform { path: Pointer::parse("/n").unwrap(), kind }];
        Operation::Patch(Patch { set: document("{}"), unset: Vec::new(), transforms })
    };
    let operation = prop_oneof![
        2 => (1..4_i64).prop_map(relative),
        2 => text.clone().prop_map(|text| Operation::Create(document(text))),
        3 => text.clone().prop_map(|text| Operation::Put(document(text))),
        2 => text.prop_map(patch),
        2 => Just(Operation::Delete),
    ];
    let base = prop::option::of(0..12_i64);
    (0..3_usize, operation, base, prop::bool::weighted(0.9))
        .prop_map(|(record, operation, base, valid)| Draft { record, operation, base, valid })
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let off = prop_oneof![1 => Just(None), 6 => Just(Some(0)), 1 => (-3..2_i64).prop_map(Some)];
    let new = (0..3_usize, any::<bool>(), off, prop::collection::vec(draft(), 1..4));
    prop_oneof![
        6 => new.prop_map(|(device, atomic, off, drafts)| Step::New { device, atomic, off, drafts }),
        2 => any::<prop::sample::Index>().prop_map(Step::Again),
        1 => any::<prop::sample::Index>().prop_map(Step::Reused),
        1 => any::<prop::sample::Index>().prop_map(Step::Part),
    ]
}

/// The requests of a history. Their sequences are dense, unless they are off.
pub(super) fn requests(steps: Vec<Step>) -> Vec<Request> {
    let (mut requests, mut last, mut ids) = (Vec::<Request>::new(), [0_i64; 3], 0);
    for step in steps {
        let earlier = |index: prop::sample::Index| {
            (!requests.is_empty()).then(|| index.get(&requests).clone())
        };
        let next = match step {
            Step::New { device, atomic, off, drafts } => {
                let mutations = drafts.into_iter().map(|draft| {
                    ids += 1;
                    (format!("m{ids}"), draft)
                });
                Some(new_request(device, atomic, off, mutations.collect(), &mut last))
            }
            Step::Again(index) => earlier(index),
            Step::Reused(index) => earlier(index).map(|mut request| {
                let mutations = request.mutations.iter_mut();
                mutations.for_each(|it| it.fingerprint = Fingerprint::of_invalid(b"other"));
                request
            }),
            Step::Part(index) => earlier(index).map(|mut request| {
                request.mutations.truncate(1);
                request
            }),
        };
        requests.extend(next);
    }
    requests
}

fn new_request(
    number: usize,
    atomic: bool,
    off: Option<i64>,
    drafts: Vec<(String, Draft)>,
    last: &mut [i64; 3],
) -> Request {
    let name = ["", "phone", "desk"][number];
    let from = device(name);
    let off = off.filter(|_| from.is_some());
    let first = off.map(|off| (last[number] + 1 + off).max(1));
    let mutations = drafts.into_iter().enumerate().map(|(index, (id, draft))| {
        let sequence = first.map(|first| first + i64::try_from(index).unwrap());
        last[number] = sequence.unwrap_or(0).max(last[number]);
        let invalid = || Err(Rejection::invalid(Vec::new()));
        let record = ["1", "2", "3"][draft.record];
        // Invalid content refuses an atomic batch before it comes here.
        let content = match draft.valid || atomic {
            true => content(record, draft.operation, draft.base),
            false => invalid(),
        };
        mutation(&id, from.as_ref(), sequence, content)
    });
    let mutations = mutations.collect();
    request(name, atomic, mutations)
}

/// Splits a history into groups at these places.
pub(super) fn groups<'r>(
    requests: &'r [Request],
    cuts: &[prop::sample::Index],
) -> Vec<&'r [Request]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(requests.len() + 1)).collect();
    at.extend([0, requests.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &requests[pair[0]..pair[1]]).collect()
}

/// Policies of all strategies.
pub(super) fn policy() -> impl Strategy<Value = crate::domain::Policy> {
    use crate::domain::{DeleteRule, Fallback, Policy, PolicyMode, Strategy as Named};
    let strategy = prop::sample::select(vec![
        Named::LastWriteWins,
        Named::FirstWriteWins,
        Named::HighestVersionWins,
        Named::ServerWins,
        Named::ClientWins,
        Named::Merge,
        Named::Additive,
        Named::Manual,
        Named::Auto,
    ]);
    let fallback = prop::sample::select(vec![
        Fallback::LastWriteWins,
        Fallback::ServerWins,
        Fallback::ClientWins,
        Fallback::Manual,
    ]);
    let deletes = prop::sample::select(vec![
        DeleteRule::ByStrategy,
        DeleteRule::DeleteWins,
        DeleteRule::UpdateWins,
    ]);
    let mode = prop_oneof![4 => Just(PolicyMode::Enforced), 1 => Just(PolicyMode::Advisory)];
    (strategy, fallback, deletes, mode).prop_map(|(strategy, fallback, deletes, mode)| Policy {
        strategy,
        fallback,
        deletes,
        mode,
        ..Policy::default()
    })
}
