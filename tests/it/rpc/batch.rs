//! BatchMutate: each for itself, or all or none.

use prost::Message;
use syncline::rpc::proto::{Mutation, MutationResult};

use super::{House, based, create, delete, lines, patch, send_batch};
use crate::support::{TestServer, describe, first, key, put, show};

#[tokio::test(flavor = "multi_thread")]
async fn without_atomic_each_mutation_stands_for_itself() {
    let house = House::new().await;
    let alice = house.alice().await;
    let no_key = Mutation { key: None, ..put("e", "1", "{}") };
    let no_operation = Mutation { operation: None, ..put("f", "1", "{}") };
    let batch = vec![
        put("a", "1", r#"{"n":1}"#),
        put("b", "1", "not json"),
        create("c", "1", "{}"),
        based(put("d", "1", "{}"), 0),
        no_key,
        no_operation,
        based(put("g", "1", "{}"), -1),
        patch("h", "1", r#"{"m":2}"#, &[]),
        delete("i", "2"),
        patch("j", "1", "", &["no pointer"]),
        delete("k", "1"),
    ];
    let answer = send_batch(&alice, "", false, batch.clone()).await;
    let expected = [
        "applied 1",
        "rejected INVALID mutation.put.document",
        "rejected ALREADY_EXISTS",
        r#"conflict 1 {"n":1}"#,
        "rejected INVALID mutation.key",
        "rejected INVALID mutation",
        "rejected INVALID mutation.base",
        "applied 2",
        "rejected NOT_FOUND",
        "rejected INVALID mutation.patch.unset[0]",
        "applied 3",
    ];
    assert_eq!(lines(&answer), expected);
    let ids: Vec<_> = batch.iter().map(|mutation| mutation.id.as_str()).collect();
    let answer = answer.unwrap();
    let answered: Vec<_> = answer.iter().map(|result| result.mutation_id.as_str()).collect();
    assert_eq!(answered, ids, "results are in order");
    let again = send_batch(&alice, "", false, batch).await;
    let replayed: Vec<_> = expected.iter().map(|line| format!("{line} replayed")).collect();
    assert_eq!(lines(&again), replayed);
    assert_eq!(alice.head().await, 3);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_atomic_batch_takes_effect_as_a_whole_and_in_order() {
    let house = House::new().await;
    let alice = house.alice().await;
    let batch = vec![
        create("a", "1", r#"{"n":1}"#),
        patch("b", "1", r#"{"m":2}"#, &["/n"]),
        put("c", "2", "{}"),
        delete("d", "2"),
    ];
    let answer = send_batch(&alice, "", true, batch.clone()).await;
    assert_eq!(lines(&answer), ["applied 1", "applied 2", "applied 3", "applied 4"]);
    assert_eq!(alice.task("1").await.unwrap(), r#"{"m":2}"#);
    let gone = alice.task("2").await.unwrap_err();
    assert_eq!(describe(&gone), "NotFound RECORD_NOT_FOUND deleted_at=4");
    let again = send_batch(&alice, "", true, batch).await.unwrap();
    let again: Vec<_> = again.into_iter().map(first).collect();
    assert_eq!(encoded(&again), encoded(&answer.unwrap()));
    house.end().await;
}

fn encoded(results: &[MutationResult]) -> Vec<Vec<u8>> {
    results.iter().map(Message::encode_to_vec).collect()
}

/// An atomic batch that does not take effect: what its mutations are answered.
async fn check(house: &House, case: usize, guilty: Mutation, cause: &str) {
    let elsewhere = TestServer::start(&house.database).await;
    let user = format!("user{case}");
    let (client, other) = (house.server.client(&user).await, elsewhere.client(&user).await);
    client.mutate(put("before", "1", r#"{"n":1}"#)).await.unwrap();
    let batch =
        vec![patch("a", "1", r#"{"n":2}"#, &[]), create("b", "2", "{}"), guilty, delete("d", "1")];
    let answer = send_batch(&client, "", true, batch.clone()).await.unwrap();
    let aborted = "rejected BATCH_ABORTED";
    let shown: Vec<_> = answer.iter().map(show).collect();
    assert_eq!(shown, [aborted, aborted, cause, aborted], "case {case}");
    assert_eq!(client.head().await, 1, "case {case} used a revision");
    assert_eq!(client.task("1").await.unwrap(), r#"{"n":1}"#);
    let missing = client.task("2").await.unwrap_err();
    assert_eq!(describe(&missing), "NotFound RECORD_NOT_FOUND", "case {case} left a trace");
    // The replay is the same, also where it would take effect by now.
    client.mutate(put("after", "3", "{}")).await.unwrap();
    client.mutate(delete("gone", "1")).await.unwrap();
    for client in [&client, &other] {
        let again = send_batch(client, "", true, batch.clone()).await.unwrap();
        let again: Vec<_> = again.into_iter().map(first).collect();
        let same = again.iter().map(show).zip(answer.iter().map(show));
        same.for_each(|(again, answer)| assert_eq!(again, answer, "case {case}"));
    }
    // A mutation of the batch alone is answered as it was; a part of the batch
    // together with others is refused.
    let alone = first(client.mutate(batch[0].clone()).await.unwrap());
    assert_eq!(show(&alone), aborted);
    let torn = vec![batch[0].clone(), put("new", "4", "{}")];
    let torn = send_batch(&client, "", true, torn).await.unwrap_err();
    assert_eq!(describe(&torn), "FailedPrecondition MUTATION_ID_REUSED index=0 mutation_id=a");
    assert_eq!(client.head().await, 3);
    elsewhere.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_batch_leaves_nothing_but_its_answers() {
    let house = House::new().await;
    for (case, (guilty, cause)) in [
        (create("c", "1", "{}"), "rejected ALREADY_EXISTS"),
        (delete("c", "9"), "rejected NOT_FOUND"),
        (based(put("c", "3", "{}"), 99), "rejected INVALID mutation.base"),
        // It conflicts with a write of this batch, which never happened.
        (based(put("c", "1", "{}"), 1), "rejected INVALID mutation.base"),
    ]
    .into_iter()
    .enumerate()
    {
        check(&house, case, guilty, cause).await;
    }
    house.end().await;
}

/// An attempt of the batch stands at a revision of its own until it is taken back; a message once
/// spoke of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_batch_does_not_speak_of_revisions_that_never_were() {
    let house = House::new().await;
    let alice = house.alice().await;
    alice.mutate(put("before", "1", "{}")).await.unwrap();
    let batch = vec![delete("a", "1"), patch("b", "1", "{}", &[])];
    let results = send_batch(&alice, "", true, batch).await.unwrap();
    let shown: Vec<_> = results.iter().map(show).collect();
    assert_eq!(shown, ["rejected BATCH_ABORTED", "rejected NOT_FOUND"]);
    assert_eq!(alice.head().await, 1);
    let message = &results[1].rejection.as_ref().unwrap().message;
    assert_eq!(message, "the record was deleted; use create or put to make it anew");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_aborts_an_atomic_batch_and_shows_the_record() {
    let house = House::new().await;
    let alice = house.alice().await;
    alice.mutate(put("one", "1", r#"{"n":1}"#)).await.unwrap();
    let batch = vec![put("a", "2", "{}"), based(put("b", "1", "{}"), 0)];
    let answer = send_batch(&alice, "", true, batch).await;
    assert_eq!(lines(&answer), ["rejected BATCH_ABORTED", r#"conflict 1 {"n":1}"#]);
    assert_eq!(alice.head().await, 1);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_content_refuses_an_atomic_batch_with_every_field() {
    let house = House::new().await;
    let alice = house.alice().await;
    let batch = vec![
        put("a", "1", "{}"),
        put("b", "1", "[]"),
        Mutation { key: Some(key("")), ..put("c", "1", "{}") },
    ];
    let status = send_batch(&alice, "", true, batch).await.unwrap_err();
    let expected = "InvalidArgument VALIDATION_ERROR mutations[1].put.document mutations[2].key.id";
    assert_eq!(describe(&status), expected);
    assert_eq!(alice.head().await, 0);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_mutations_fit_into_a_batch() {
    let house = House::new().await;
    let alice = house.alice().await;
    let batch: Vec<_> = (0..1_000).map(|n| put(&format!("m{n}"), &format!("r{n}"), "{}")).collect();
    let results = send_batch(&alice, "", true, batch).await.unwrap();
    let revisions: Vec<_> = results.iter().map(|result| result.revision).collect();
    assert_eq!(revisions, (1..=1_000).collect::<Vec<_>>());
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_patches_would_make_too_much_is_refused_whole() {
    let house = House::new().await;
    let alice = house.alice().await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(250 << 10));
    alice.mutate(put("large", "1", &large)).await.unwrap();
    let patches = |count: usize| -> Vec<_> {
        (0..count).map(|n| patch(&format!("{count}-{n}"), "1", r#"{"n":1}"#, &[])).collect()
    };
    let refused = alice.batch(patches(1_000), false).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("send fewer at once"), "{refused:?}");
    assert_eq!(alice.head().await, 1, "nothing of it was decided");
    let results = alice.batch(patches(50), false).await.unwrap();
    assert_eq!(results.last().unwrap().revision, 51);
    house.end().await;
}
