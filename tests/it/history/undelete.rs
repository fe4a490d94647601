//! Deleted records come back, once for each id.

use syncline::rpc::proto::{
    ChangeAction, MutationOutcome, MutationResult, Policy, RejectionReason, UndeleteRecordRequest,
};
use tonic::Code;

use super::{House, based, delete, logged, task_at, undelete};
use crate::support::compaction::Compaction;
use crate::support::{Client, TestServer, describe, error_reason, first, key, put, show};

/// Task 1 with two documents, deleted at 3.
async fn deleted() -> House {
    let house = House::new().await;
    let alice = &house.alice;
    alice.mutate_from("desk", put("m1", "1", r#"{"n":1}"#)).await.unwrap();
    alice.mutate_from("desk", put("m2", "1", r#"{"n":2}"#)).await.unwrap();
    alice.mutate_from("desk", delete("m3", "1")).await.unwrap();
    house
}

async fn from(client: &Client, device: &str, mutation: &str) -> MutationResult {
    let request = UndeleteRecordRequest {
        device: device.into(),
        mutation_id: mutation.into(),
        key: Some(key("1")),
        ..Default::default()
    };
    client.spaces.clone().undelete_record(request).await.unwrap().into_inner().result.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_record_comes_back_as_it_was() {
    let house = deleted().await;
    let alice = &house.alice;
    let result = from(alice, "phone", "u1").await;
    assert_eq!(show(&result), "applied 4");
    assert_eq!(result.mutation_id, "u1");
    assert_eq!(alice.task("1").await.unwrap(), r#"{"n":2}"#);
    let change = logged(alice, "1").await.remove(0);
    assert_eq!((change.action(), change.previous_revision), (ChangeAction::Created, 3));
    assert_eq!((change.device.as_str(), change.mutation_id.as_str()), ("phone", "u1"));
    assert_eq!(change.author, "alice");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_back_as_it_was_at_a_revision() {
    let house = deleted().await;
    let alice = &house.alice;
    alice.mutate(put("o", "2", "{}")).await.unwrap();
    assert_eq!(show(&undelete(alice, "u1", "1", 1).await.unwrap()), "applied 5");
    assert_eq!(alice.task("1").await.unwrap(), r#"{"n":1}"#);
    alice.mutate(delete("d", "1")).await.unwrap();
    // Any revision of the space at which it lived.
    assert_eq!(show(&undelete(alice, "u2", "1", 2).await.unwrap()), "applied 7");
    assert_eq!(alice.task("1").await.unwrap(), r#"{"n":2}"#);
    alice.mutate(delete("d2", "1")).await.unwrap();
    for (revision, expected) in [
        (3, "NotFound RECORD_NOT_FOUND revision=3"),
        (8, "NotFound RECORD_NOT_FOUND revision=8"),
        (-1, "InvalidArgument VALIDATION_ERROR revision"),
    ] {
        let status = undelete(alice, "u3", "1", revision).await.unwrap_err();
        assert_eq!(describe(&status), expected);
    }
    let status = undelete(alice, "u3", "1", 9).await.unwrap_err();
    assert_eq!(error_reason(&status), "CURSOR_AHEAD");
    // An error is not kept as an answer.
    assert_eq!(show(&undelete(alice, "u3", "1", 1).await.unwrap()), "applied 9");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_twice_comes_back_as_it_was_before_the_first_time() {
    let house = House::new().await;
    let alice = &house.alice;
    let policy = Policy {
        collection: "task".into(),
        strategy: syncline::rpc::proto::Strategy::LastWriteWins.into(),
        ..Policy::default()
    };
    alice.set_policy(policy).await.unwrap();
    alice.mutate_from("desk", based(put("m1", "1", r#"{"n":1}"#), 0)).await.unwrap();
    for device in ["desk", "phone", "tablet"] {
        let gone = based(delete(&format!("{device}-gone"), "1"), 1);
        let result = alice.mutate_from(device, gone).await.unwrap();
        assert_eq!(result.outcome(), MutationOutcome::Applied, "{device}");
    }
    assert_eq!(alice.head().await, 4, "each deletion is a change");
    assert_eq!(show(&undelete(alice, "u", "1", 0).await.unwrap()), "applied 5");
    assert_eq!(alice.task("1").await.unwrap(), r#"{"n":1}"#);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sent_again_it_gets_its_first_answer_whatever_has_become_of_the_record() {
    let house = deleted().await;
    let alice = &house.alice;
    let applied = undelete(alice, "u", "1", 0).await.unwrap();
    assert_eq!(show(&applied), "applied 4");
    let other = TestServer::start(&house.database).await;
    let elsewhere = other.client("alice").await;
    let again = async |head: i64| {
        for client in [alice, &elsewhere] {
            let answer = undelete(client, "u", "1", 0).await.unwrap();
            assert_eq!(first(answer), applied);
            assert_eq!(client.head().await, head);
        }
    };
    again(4).await;
    // It was written, and was deleted again.
    alice.mutate(put("m4", "1", r#"{"n":4}"#)).await.unwrap();
    again(5).await;
    alice.mutate(delete("m5", "1")).await.unwrap();
    again(6).await;
    assert_eq!(alice.task("1").await.unwrap_err().code(), Code::NotFound);
    other.stop().await;
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_first_answer_needs_nothing_that_is_no_longer_kept() {
    let house = deleted().await;
    let alice = &house.alice;
    let applied = undelete(alice, "u1", "1", 1).await.unwrap();
    assert_eq!(show(&applied), "applied 4");
    let refused = undelete(alice, "u2", "1", 0).await.unwrap();
    assert_eq!(show(&refused), "rejected ALREADY_EXISTS");
    alice.mutate(delete("m5", "1")).await.unwrap();
    let mut compaction = Compaction::prepare(&house.database).await;
    compaction.raise(1).await;
    assert_eq!(compaction.floor, 4);
    let status = undelete(alice, "u3", "1", 1).await.unwrap_err();
    assert_eq!(error_reason(&status), "CURSOR_EXPIRED");
    assert_eq!(first(undelete(alice, "u1", "1", 1).await.unwrap()), applied);
    compaction.raise(0).await;
    let status = undelete(alice, "u3", "1", 0).await.unwrap_err();
    assert_eq!(error_reason(&status), "DOCUMENT_NOT_KEPT");
    assert_eq!(first(undelete(alice, "u2", "1", 0).await.unwrap()), refused);
    assert_eq!(alice.head().await, 5);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_means_one_undeletion() {
    let house = deleted().await;
    let alice = &house.alice;
    let reused =
        |id: &str| format!("FailedPrecondition MUTATION_ID_REUSED index=0 mutation_id={id}");
    let status = undelete(alice, "m1", "1", 0).await.unwrap_err();
    assert_eq!(describe(&status), reused("m1"), "the id of a write");
    assert_eq!(show(&undelete(alice, "u", "1", 0).await.unwrap()), "applied 4");
    for (what, task, revision) in [("a revision", "1", 2), ("another record", "2", 0)] {
        let status = undelete(alice, "u", task, revision).await.unwrap_err();
        assert_eq!(describe(&status), reused("u"), "{what}");
    }
    let request = UndeleteRecordRequest {
        device: "desk".into(),
        mutation_id: "u".into(),
        key: Some(key("1")),
        ..Default::default()
    };
    let status = alice.spaces.clone().undelete_record(request).await.unwrap_err();
    assert_eq!(describe(&status), reused("u"), "another device");
    let status = alice.mutate(put("u", "1", r#"{"n":2}"#)).await.unwrap_err();
    assert_eq!(error_reason(&status), "MUTATION_ID_REUSED", "a write");
    assert_eq!(alice.head().await, 4);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lives_is_not_brought_back_and_that_is_an_answer() {
    let house = House::new().await;
    let alice = &house.alice;
    alice.mutate(put("m1", "1", r#"{"n":1}"#)).await.unwrap();
    let refused = undelete(alice, "u", "1", 0).await.unwrap();
    assert_eq!(show(&refused), "rejected ALREADY_EXISTS");
    // Whatever revision it names.
    for (id, revision) in [("u1", 1), ("u9", 9)] {
        let answer = undelete(alice, id, "1", revision).await.unwrap();
        assert_eq!(show(&answer), "rejected ALREADY_EXISTS");
    }
    alice.mutate(delete("m2", "1")).await.unwrap();
    assert_eq!(first(undelete(alice, "u", "1", 0).await.unwrap()), refused);
    assert_eq!(alice.task("1").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(show(&undelete(alice, "new", "1", 0).await.unwrap()), "applied 3");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_holds_for_what_comes_back() {
    let house = deleted().await;
    let alice = &house.alice;
    let schema = r#"{"properties":{"n":{"maximum":1}}}"#.to_owned();
    let policy = Policy { collection: "task".into(), json_schema: schema, ..Policy::default() };
    alice.set_policy(policy).await.unwrap();
    let refused = undelete(alice, "u", "1", 0).await.unwrap();
    let rejection = refused.rejection.as_ref().unwrap();
    assert_eq!(rejection.reason(), RejectionReason::Schema);
    assert_eq!(rejection.violations[0].field, "document/n");
    assert_eq!(first(undelete(alice, "u", "1", 0).await.unwrap()), refused);
    assert_eq!(alice.head().await, 3);
    assert_eq!(show(&undelete(alice, "u1", "1", 1).await.unwrap()), "applied 4");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_no_longer_kept_is_told() {
    let house = deleted().await;
    let alice = &house.alice;
    alice.mutate(put("o", "2", "{}")).await.unwrap();
    let mut compaction = Compaction::prepare(&house.database).await;
    // As long as the deletion lies above the floor, it is kept.
    compaction.raise(2).await;
    assert_eq!((compaction.floor, compaction.taken_out), (2, 1));
    assert_eq!(show(&undelete(alice, "u", "1", 0).await.unwrap()), "applied 5");
    alice.mutate(delete("m6", "1")).await.unwrap();
    compaction.raise(0).await;
    let status = undelete(alice, "u2", "1", 0).await.unwrap_err();
    let expected = "FailedPrecondition DOCUMENT_NOT_KEPT deleted_at=6 floor=6";
    assert_eq!(describe(&status), expected);
    assert!(status.message().contains("create the record anew"), "{}", status.message());
    let status = undelete(alice, "u2", "1", 5).await.unwrap_err();
    assert_eq!(error_reason(&status), "CURSOR_EXPIRED");
    // As it says.
    let anew = put("anew", "1", r#"{"n":9}"#);
    assert_eq!(show(&alice.mutate(anew).await.unwrap()), "applied 7");
    assert_eq!(task_at(alice, "1", 6).await.unwrap_err().code(), Code::NotFound);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_was_cannot_come_back() {
    let house = House::new().await;
    let alice = &house.alice;
    let missing = "NotFound RECORD_NOT_FOUND";
    // In a space that nobody has written to, and in one where others are.
    assert_eq!(describe(&undelete(alice, "u", "1", 0).await.unwrap_err()), missing);
    alice.mutate(put("m1", "2", "{}")).await.unwrap();
    for revision in [0, 1, 9] {
        let status = undelete(alice, "u", "1", revision).await.unwrap_err();
        assert_eq!(describe(&status), missing);
    }
    // The id is free still.
    assert_eq!(show(&alice.mutate(put("u", "1", "{}")).await.unwrap()), "applied 2");
    house.server.stop().await;
}
