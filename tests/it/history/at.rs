//! Records as they were at a revision.

use std::collections::BTreeMap;

use tonic::{Code, Status};

use super::{House, based, delete, patch, task_at, undelete};
use crate::support::compaction::Compaction;
use crate::support::{Client, Random, describe, error_reason, put, scale, seed, text};

const TASKS: u64 = 4;

/// Each task's last revision and document; none where it does not live.
type State = BTreeMap<String, (i64, String)>;

/// What happens to a space step by step, and what it looked like after each.
struct Model {
    random: Random,
    client: Client,
    /// After each revision, from 0 on.
    states: Vec<State>,
    deleted: Vec<String>,
}

impl Model {
    async fn step(&mut self) {
        let task = self.random.below(TASKS).to_string();
        let mut state = self.states.last().unwrap().clone();
        let id = format!("m{}", self.states.len());
        let number = self.random.below(100);
        let lives = state.contains_key(&task);
        let result = match self.random.below(8) {
            0 | 1 if lives => {
                state.remove(&task);
                self.client.mutate(delete(&id, &task)).await
            }
            2 if lives => {
                let set = format!(r#"{{"n":{number}}}"#);
                self.client.mutate(patch(&id, &task, &set, &[])).await
            }
            3 if self.deleted.contains(&task) && !lives => {
                undelete(&self.client, &id, &task, 0).await
            }
            _ => {
                let document = format!(r#"{{"n":{number},"of":"{id}"}}"#);
                self.client.mutate(put(&id, &task, &document)).await
            }
        };
        let revision = result.unwrap().revision;
        assert_eq!(revision, i64::try_from(self.states.len()).unwrap());
        match self.client.task(&task).await {
            Ok(document) => {
                state.insert(task, (revision, document));
            }
            Err(_) => self.deleted.push(task),
        }
        self.states.push(state);
    }

    /// Every task at a revision is what it was.
    async fn check(&self, revision: usize) {
        let at = i64::try_from(revision).unwrap();
        for task in (0..TASKS).map(|task| task.to_string()) {
            let seen = match task_at(&self.client, &task, at).await {
                Ok(record) => {
                    assert!(!record.deleted);
                    Some((record.revision, text(&record.document.unwrap())))
                }
                Err(status) => {
                    let expected = format!("NotFound RECORD_NOT_FOUND revision={at}");
                    assert_eq!(describe(&status), expected);
                    None
                }
            };
            assert_eq!(seen.as_ref(), self.states[revision].get(&task), "{task} at {at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_revision_of_a_random_history_is_what_it_was() {
    let house = House::new().await;
    let mut model = Model {
        random: Random(seed()),
        client: house.alice.clone(),
        states: vec![State::new()],
        deleted: Vec::new(),
    };
    let head = 80 * usize::try_from(scale()).unwrap();
    while model.states.len() <= head {
        model.step().await;
    }
    for revision in 1..=head {
        model.check(revision).await;
    }
    // Also from the floor on, where most of what was before is gone.
    let mut compaction = Compaction::prepare(&house.database).await;
    let floor = head / 2;
    compaction.raise(i64::try_from(head - floor).unwrap()).await;
    assert!(compaction.taken_out > 0);
    for revision in floor..=head {
        model.check(revision).await;
    }
    for task in (0..TASKS).map(|task| task.to_string()) {
        for revision in 1..floor {
            let at = i64::try_from(revision).unwrap();
            let status = task_at(&model.client, &task, at).await.unwrap_err();
            assert_eq!(error_reason(&status), "CURSOR_EXPIRED", "{task} at {at}");
        }
    }
    house.server.stop().await;
}

/// Without the epoch, which differs from run to run.
fn told(status: &Status) -> String {
    let words = describe(status);
    words.split(' ').filter(|word| !word.starts_with("epoch=")).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_below_the_floor_or_above_the_head_is_told() {
    let house = House::new().await;
    let alice = &house.alice;
    let at = async |revision| match task_at(alice, "1", revision).await {
        Ok(record) => format!("{} {}", record.revision, text(&record.document.unwrap())),
        Err(status) => told(&status),
    };
    let ahead = |head| format!("FailedPrecondition CURSOR_AHEAD floor=0 head={head}");
    assert_eq!(at(1).await, ahead(0), "a space that nobody has written to");
    for number in 1..=6 {
        let document = format!(r#"{{"n":{number}}}"#);
        alice.mutate(put(&format!("m{number}"), "1", &document)).await.unwrap();
    }
    assert_eq!(at(0).await, r#"6 {"n":6}"#);
    assert_eq!(at(1).await, r#"1 {"n":1}"#);
    assert_eq!(at(6).await, r#"6 {"n":6}"#);
    assert_eq!(at(7).await, ahead(6));
    assert_eq!(at(i64::MAX).await, ahead(6));
    assert_eq!(at(-1).await, "InvalidArgument VALIDATION_ERROR revision");
    let mut compaction = Compaction::prepare(&house.database).await;
    compaction.raise(3).await;
    assert_eq!(at(2).await, "FailedPrecondition CURSOR_EXPIRED floor=3 head=6");
    assert_eq!(at(3).await, r#"3 {"n":3}"#);
    assert_eq!(at(0).await, r#"6 {"n":6}"#);
    let status = task_at(alice, "1", 2).await.unwrap_err();
    assert!(status.message().contains("the space's floor is 3"), "{}", status.message());
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_conflicts_are_those_of_now() {
    let house = House::new().await;
    let alice = &house.alice;
    alice.mutate_from("desk", based(put("m1", "1", r#"{"n":1}"#), 0)).await.unwrap();
    alice.mutate_from("desk", based(put("m2", "1", r#"{"n":2}"#), 1)).await.unwrap();
    alice.mutate_from("phone", based(put("late", "1", r#"{"n":3}"#), 1)).await.unwrap();
    for revision in [1, 2, 0] {
        let record = task_at(alice, "1", revision).await.unwrap();
        assert_eq!(record.open_conflicts, 1);
        let expected = if revision == 1 { (1, r#"{"n":1}"#) } else { (2, r#"{"n":2}"#) };
        assert_eq!((record.revision, text(&record.document.unwrap()).as_str()), expected);
    }
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_written_too_often_since_is_out_of_reach() {
    let house = House::new().await;
    let alice = &house.alice;
    // As many lines as a test cannot write one by one; all of one record.
    alice.mutate(put("first", "1", r#"{"n":1}"#)).await.unwrap();
    alice.mutate(put("other", "2", r#"{"n":2}"#)).await.unwrap();
    for batch in 0..21 {
        let write = |number| put(&format!("{batch}-{number}"), "1", "{}");
        alice.batch((0..1_000).map(write).collect(), false).await.unwrap();
    }
    let status = task_at(alice, "1", 2).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(told(&status), "FailedPrecondition CURSOR_EXPIRED floor=0 head=21002");
    assert_eq!(task_at(alice, "1", 1_100).await.unwrap().revision, 1_100);
    assert_eq!(task_at(alice, "2", 2).await.unwrap().revision, 2);
    house.server.stop().await;
}
