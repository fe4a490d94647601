//! The conflicts that steps settled.

use syncline::rpc::proto::resolve_conflict_request::Resolution;
use syncline::rpc::proto::{KeepClient, MutationOutcome, Policy, ResolveConflictRequest, Strategy};

use super::{House, based, delete, of, pages};
use crate::support::{Client, put};

/// Revision and conflicts of each step of a task's history.
async fn settled(client: &Client, task: &str) -> Vec<(i64, String)> {
    let (steps, ..) = pages(client, of(task)).await;
    let line = |step: &syncline::rpc::proto::RecordStep| {
        (step.change.as_ref().unwrap().revision, step.conflict_ids.join(" "))
    };
    steps.iter().map(line).collect()
}

async fn outcome(
    client: &Client,
    device: &str,
    mutation: syncline::rpc::proto::Mutation,
) -> MutationOutcome {
    client.mutate_from(device, mutation).await.unwrap().outcome()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_names_the_conflicts_that_it_settled_and_no_others() {
    let house = House::new().await;
    let alice = &house.alice;
    let policy = Policy {
        collection: "task".into(),
        strategy: Strategy::Merge.into(),
        fallback: Strategy::Manual.into(),
        ..Policy::default()
    };
    alice.set_policy(policy).await.unwrap();
    let write = |id: &str, task: &str, text: &str, base| based(put(id, task, text), base);
    // 1 and 2: seen by all. 3: merged, and at the same revision another record's write is
    // waiting, and one of this record.
    outcome(alice, "desk", write("first", "1", r#"{"a":1,"b":1}"#, 0)).await;
    outcome(alice, "desk", write("other", "2", r#"{"a":1}"#, 0)).await;
    outcome(alice, "desk", write("second", "1", r#"{"a":2,"b":1}"#, 2)).await;
    let merged = write("merged", "1", r#"{"a":1,"b":2}"#, 1);
    assert_eq!(outcome(alice, "phone", merged).await, MutationOutcome::Merged);
    for (id, task, base) in [("open-1", "1", 1), ("open-2", "1", 1), ("open-3", "2", 0)] {
        let stale = write(id, task, r#"{"a":9,"b":9}"#, base);
        assert_eq!(outcome(alice, id, stale).await, MutationOutcome::Conflict);
    }
    let before = [(4, "merged".into()), (3, String::new()), (1, String::new())];
    assert_eq!(settled(alice, "1").await, before);
    // 5: one is resolved. 6: another one's author has looked, and writes again.
    let resolve = ResolveConflictRequest {
        device: "desk".into(),
        mutation_id: "resolution".into(),
        conflict_id: "open-1".into(),
        seen_revision: 4,
        resolution: Some(Resolution::KeepClient(KeepClient {})),
        ..Default::default()
    };
    alice.conflicts.clone().resolve_conflict(resolve).await.unwrap();
    let looked = write("looked", "1", r#"{"a":7,"b":9}"#, 5);
    assert_eq!(outcome(alice, "open-2", looked).await, MutationOutcome::Applied);
    // 7: nobody's conflict.
    alice.mutate(delete("gone", "1")).await.unwrap();
    let mut expected = vec![(7, String::new()), (6, "open-2".into()), (5, "open-1".into())];
    expected.extend(before);
    assert_eq!(settled(alice, "1").await, expected);
    assert_eq!(settled(alice, "2").await, [(2, String::new())]);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_settles_many_names_all() {
    let house = House::new().await;
    let alice = &house.alice;
    outcome(alice, "desk", based(put("first", "1", r#"{"n":0}"#), 0)).await;
    // Nobody else's: the phone's own queue, which lost as a whole.
    for number in 1..=5 {
        let stale = based(put(&format!("p{number}"), "1", &format!(r#"{{"n":{number}}}"#)), 0);
        assert_eq!(outcome(alice, "phone", stale).await, MutationOutcome::Conflict);
    }
    assert_eq!(settled(alice, "1").await, [(1, String::new())]);
    let looked = based(put("looked", "1", r#"{"n":9}"#), 1);
    assert_eq!(outcome(alice, "phone", looked).await, MutationOutcome::Applied);
    let expected = [(2, "p1 p2 p3 p4 p5".into()), (1, String::new())];
    assert_eq!(settled(alice, "1").await, expected);
    // However many writes meet it afterwards, at the same revision.
    let stale = |number| based(put(&format!("late-{number}"), "1", r#"{"n":7}"#), 1);
    let met = alice.batch((0..250).map(stale).collect(), false).await.unwrap();
    assert!(met.iter().all(|it| it.outcome() == MutationOutcome::Conflict));
    assert_eq!(settled(alice, "1").await, expected);
    house.server.stop().await;
}
