//! Documents that break the schema of their collection, merged ones among them.

use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::resolve_conflict_request::Resolution;
use syncline::rpc::proto::{
    ConflictState, KeepClient, ListConflictsRequest, Mutation, MutationOutcome, MutationResult,
    PatchOperation, Policy, RejectionReason, Strategy,
};

use super::{House, based, get, list, meet, resolve, tasks};
use crate::support::{json, mutation, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_document_is_held_against_the_schema_as_well() {
    let schema = r#"{"properties":{"a":{"type":"integer"},"b":{"type":"integer"}},
        "maxProperties":2,"required":["a"]}"#;
    let policy =
        Policy { json_schema: schema.into(), ..tasks(Strategy::Merge, Strategy::LastWriteWins) };
    let house = House::with(policy).await;
    let alice = &house.alice;
    let rejected = |result: MutationResult| {
        let rejection = result.rejection.expect("a rejection");
        assert_eq!(rejection.reason(), RejectionReason::Schema);
        let fields = rejection.violations.into_iter().map(|it| it.field);
        fields.collect::<Vec<_>>().join(" ")
    };
    let both = alice.mutate(put("m1", "1", r#"{"a":"x","b":"y"}"#)).await.unwrap();
    assert_eq!(rejected(both), "document/a document/b");
    alice.mutate_from("seed", put("m2", "1", r#"{"a":1}"#)).await.unwrap();
    // A patched document is one, too.
    let unset = PatchOperation { unset: vec!["/a".into()], ..Default::default() };
    let unset = Operation::Patch(unset);
    assert_eq!(rejected(alice.mutate(mutation("m3", "1", unset)).await.unwrap()), "document");
    // Each side is fine, both together are not.
    alice.mutate_from("laptop", based(put("m4", "1", r#"{"a":1,"b":1}"#), 1)).await.unwrap();
    let merged = alice.mutate_from("phone", based(put("m5", "1", r#"{"a":1,"c":1}"#), 1)).await;
    assert_eq!(rejected(merged.unwrap()), "document");
    assert_eq!(alice.task("1").await.unwrap(), r#"{"a":1,"b":1}"#);
    assert!(get(alice, "m5").await.is_err(), "a rejected write is no conflict");
    let state = ConflictState::Open.into();
    let all = ListConflictsRequest { state, ..Default::default() };
    assert_eq!(list(alice, all).await.0, []);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_document_uses_its_sequence_up_and_is_answered_alike_again() {
    let policy = Policy {
        json_schema: r#"{"properties":{"n":{"minimum":0}}}"#.into(),
        ..tasks(Strategy::Merge, Strategy::Manual)
    };
    let house = House::with(policy).await;
    let queued = |id: &str, text: &str, sequence| Mutation {
        device_sequence: Some(sequence),
        ..put(id, "1", text)
    };
    let bad = || queued("m1", r#"{"n":-1}"#, 1);
    let first = house.alice.mutate_from("phone", bad()).await.unwrap();
    let again = house.alice.mutate_from("phone", bad()).await.unwrap();
    assert_eq!(again, MutationResult { replayed: true, ..first });
    let next = house.alice.mutate_from("phone", queued("m2", r#"{"n":1}"#, 2)).await.unwrap();
    assert_eq!(next.outcome(), MutationOutcome::Applied);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolution_is_held_against_the_schema_of_now() {
    let house = House::new().await;
    let alice = &house.alice;
    meet(alice, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":-3}"#).await;
    let strict = Policy {
        json_schema: r#"{"properties":{"n":{"minimum":0}}}"#.into(),
        ..tasks(Strategy::Merge, Strategy::Manual)
    };
    alice.set_policy(strict).await.unwrap();
    let keep = Resolution::KeepClient(KeepClient {});
    let answer = resolve(alice, "r1", "phone-1", 2, keep).await.unwrap();
    let rejection = answer.result.unwrap().rejection.unwrap();
    assert_eq!(rejection.reason(), RejectionReason::Schema);
    assert_eq!(rejection.violations[0].field, "document/n");
    assert_eq!(answer.conflict.unwrap().state(), ConflictState::Open);
    let merged = Resolution::Document(json(r#"{"n":3}"#).unwrap());
    let answer = resolve(alice, "r2", "phone-1", 2, merged).await.unwrap();
    assert_eq!(answer.result.unwrap().outcome(), MutationOutcome::Applied);
    assert_eq!(answer.conflict.unwrap().state(), ConflictState::Resolved);
    house.server.stop().await;
}
