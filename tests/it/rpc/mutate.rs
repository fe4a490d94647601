//! Mutate: each operation on a record that lives, is missing or was deleted.

use syncline::rpc::proto::Mutation;

use super::{House, create, delete, line, patch, send};
use crate::support::{describe, put};

/// How the record stands before the mutation.
#[derive(Clone, Copy, Debug)]
enum Before {
    Missing,
    Living,
    Deleted,
}

const LIVING: &str = r#"{"a":1,"b":{"c":2,"d":[1,2]}}"#;
const MISSING: &str = "NotFound RECORD_NOT_FOUND";
const DELETED: &str = "NotFound RECORD_NOT_FOUND deleted_at=2";

/// Each case has a space of its own.
async fn check(
    house: &House,
    case: usize,
    before: Before,
    mutation: Mutation,
    expected: [&str; 2],
) {
    let client = house.server.client(&format!("user{case}")).await;
    let name = format!("case {case}: {before:?} {:?}", mutation.operation);
    if matches!(before, Before::Living | Before::Deleted) {
        client.mutate(put("before", "1", LIVING)).await.unwrap();
    }
    if matches!(before, Before::Deleted) {
        client.mutate(delete("gone", "1")).await.unwrap();
    }
    let head = client.head().await;
    let answer = send(&client, "", mutation).await;
    let [outcome, after] = expected;
    assert_eq!(line(&answer), outcome, "{name}");
    let record = client.task("1").await;
    assert_eq!(record.unwrap_or_else(|status| describe(&status)), after, "{name}");
    let moved = i64::from(outcome.starts_with("applied"));
    assert_eq!(client.head().await, head + moved, "{name}");
    assert!(answer.is_ok_and(|result| result.mutation_id == "m"), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_meets_each_state_of_a_record() {
    use Before::{Deleted, Living, Missing};
    let house = House::new().await;
    let put = || put("m", "1", r#"{"z":null}"#);
    let create = || create("m", "1", "{}");
    let delete = || delete("m", "1");
    let patch = |set, unset: &[&str]| patch("m", "1", set, unset);
    let cases = [
        (Missing, create(), ["applied 1", "{}"]),
        (Living, create(), ["rejected ALREADY_EXISTS", LIVING]),
        (Deleted, create(), ["applied 3", "{}"]),
        (Missing, put(), ["applied 1", r#"{"z":null}"#]),
        (Living, put(), ["applied 2", r#"{"z":null}"#]),
        (Deleted, put(), ["applied 3", r#"{"z":null}"#]),
        (Missing, delete(), ["rejected NOT_FOUND", MISSING]),
        (Living, delete(), ["applied 2", DELETED]),
        (Deleted, delete(), ["rejected NOT_FOUND", DELETED]),
        (Missing, patch("{}", &[]), ["rejected NOT_FOUND", MISSING]),
        (Deleted, patch("{}", &["/a"]), ["rejected NOT_FOUND", DELETED]),
        (Living, patch("{}", &[]), ["applied 2", LIVING]),
        (Living, patch("", &["/b"]), ["applied 2", r#"{"a":1}"#]),
        (Living, patch("", &["/b/c", "/x/y"]), ["applied 2", r#"{"a":1,"b":{"d":[1,2]}}"#]),
        (Living, patch("", &["/b/d/0"]), ["applied 2", LIVING]),
        (
            Living,
            patch(r#"{"b":{"c":null,"e":{}}}"#, &[]),
            ["applied 2", r#"{"a":1,"b":{"c":null,"d":[1,2],"e":{}}}"#],
        ),
        (Living, patch(r#"{"b":{"d":[]}}"#, &[]), ["applied 2", r#"{"a":1,"b":{"c":2,"d":[]}}"#]),
        // First unset, then set: this replaces an object as a whole.
        (Living, patch(r#"{"b":{"e":1}}"#, &["/b"]), ["applied 2", r#"{"a":1,"b":{"e":1}}"#]),
    ];
    for (case, (before, mutation, expected)) in cases.into_iter().enumerate() {
        check(&house, case, before, mutation, expected).await;
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_would_outgrow_a_document_is_rejected_by_field() {
    let house = House::new().await;
    let alice = house.alice().await;
    let half = |key: &str| format!("{{\"{key}\":\"{}\"}}", "x".repeat(200 << 10));
    alice.mutate(put("one", "1", &half("a"))).await.unwrap();
    let answer = send(&alice, "", patch("two", "1", &half("b"), &[])).await;
    assert_eq!(line(&answer), "rejected INVALID mutation.patch");
    assert_eq!(alice.task("1").await.unwrap(), half("a"));
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_tells_who_wrote_it_last() {
    let house = House::new().await;
    let alice = house.alice().await;
    send(&alice, "phone", put("one", "1", "{}")).await.unwrap();
    let conflict = super::based(put("two", "1", "{}"), 0);
    let record = send(&alice, "desk", conflict).await.unwrap().record.unwrap();
    assert_eq!((record.author.as_str(), record.device.as_str()), ("alice", "phone"));
    assert_eq!(record.revision, 1);
    let seconds = record.update_time.unwrap().seconds;
    let now = syncline::clock::Clock::system().unix_seconds();
    assert!((now - 60..=now).contains(&seconds), "{seconds} is not now");
    house.end().await;
}
