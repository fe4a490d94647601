//! Deaths while edits are set aside, sent again or given up, and when the space may not be seen any
//! more.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use syncline::clock::Clock;
use syncline::rpc::proto::{BatchMutateRequest, Role};

use super::check::log;
use super::program::{Line, Program, Run};
use super::script::Script;
use super::{at_moments, moments};
use crate::access;
use crate::support::{Database, House, TestServer, put, text};

/// Edits that each make a record of their own.
fn puts(numbers: std::ops::Range<usize>) -> Vec<Line> {
    let line = |number: usize| {
        let (id, document) = (format!("own{number}"), Script::document(number));
        let line = json!({"op": "put", "collection": "task", "id": id, "document": document});
        (number, line.to_string())
    };
    numbers.map(line).collect()
}

/// A program on a space of alice's, in which its user may write.
async fn guest(house: &House, user: &str) -> Program {
    let mut program = Program::new(house, user).await;
    program.space = access::create(&house.alice, user).await.unwrap().space;
    admit(house, &program, Some(Role::Writer)).await;
    program
}

/// What the user may do in the space from now on; nothing.
async fn admit(house: &House, program: &Program, role: Option<Role>) {
    let (space, user) = (&program.space, program.user.as_str());
    match role {
        Some(role) => access::set(&house.alice, space, (user, role, &[])).await.unwrap(),
        None => access::remove(&house.alice, space, user).await.unwrap(),
    }
}

/// The edits that were set aside, in their order, each for this reason.
async fn parked(program: &Program, reason: &str) -> Vec<String> {
    let all = program.values(&["parked"]).await;
    assert!(all.iter().all(|it| it["rejection"]["reason"] == reason), "{reason}: {all:?}");
    all.iter().map(|it| it["edit"].as_str().unwrap().to_owned()).collect()
}

fn ids(run: &Run) -> Vec<String> {
    run.told().into_iter().map(|(_, id)| id).collect()
}

async fn pending(program: &Program) -> Value {
    program.values(&["status", "--offline"]).await.remove(0)["spaces"][0]["pending"].clone()
}

/// Each of these edits took effect once, nothing else did, and the file shows that.
async fn took_effect(program: &Program, numbers: impl Iterator<Item = usize>) {
    let written: Vec<Value> = log(program)
        .await
        .iter()
        .map(|it| serde_json::from_str(&text(it.document.as_ref().unwrap())).unwrap())
        .collect();
    let expected: Vec<_> = numbers.map(Script::document).collect();
    let distinct: BTreeSet<_> = written.iter().map(Value::to_string).collect();
    assert_eq!(distinct.len(), written.len(), "took effect twice: {written:?}");
    assert_eq!(distinct, expected.iter().map(Value::to_string).collect());
    assert_eq!(pending(program).await, 0);
    Script::check_file(program).await;
}

/// Does this to edits that were set aside, dies, and does it to those that still are.
async fn again(program: &Program, what: &[&str], edits: &[String], place: &str) {
    let with = |edits: &[String]| -> Vec<String> {
        what.iter().map(|it| (*it).to_owned()).chain(edits.iter().cloned()).collect()
    };
    let all = with(edits);
    program.dies(&all.iter().map(String::as_str).collect::<Vec<_>>(), place).await;
    let left = program.values(&["parked"]).await;
    let left: Vec<_> = left.iter().filter_map(|it| it["edit"].as_str()).collect();
    let left: Vec<_> = edits.iter().filter(|it| left.contains(&it.as_str())).cloned().collect();
    assert!(edits.len() <= left.len() + 1, "one at a time: {left:?} of {edits:?}");
    if !left.is_empty() {
        let rest = with(&left);
        let rest: Vec<_> = rest.iter().map(String::as_str).collect();
        let run = program.run(&rest, &[], None).await;
        assert!(run.status.success(), "{run:?}");
    }
}

/// Four edits are set aside there because their user may only read, or not even that: their ids.
async fn shut_out(
    house: &House,
    program: &Program,
    place: &str,
    sent: bool,
    reads: bool,
) -> Vec<String> {
    program.sync(&puts(0..1), None).await.ended_well();
    let run = program.run(&["sync", "--offline"], &puts(1..5), None).await;
    let queued = ids(&run);
    assert_eq!(queued.len(), 4, "{run:?}");
    if sent {
        program.dies(&["sync"], "client.before_settle").await;
    }
    admit(house, program, reads.then_some(Role::Reader)).await;
    program.dies(&["sync"], place).await;
    let run = program.sync(&[], None).await;
    assert_eq!(run.status.code(), Some(9), "{run:?}");
    let reason = if reads { "PERMISSION_DENIED" } else { "SPACE_NOT_FOUND" };
    assert_eq!(parked(program, reason).await, queued);
    assert_eq!(pending(program).await, 0);
    queued
}

/// What was set aside is later sent or given up, whether it had gone out before or not.
async fn let_in_again(house: &House, number: usize, then: usize, sent: bool) {
    let program = guest(house, &format!("guest{number}")).await;
    let at = |place: &str| moments(place).swap_remove(then);
    let reads = (then % 2 == 1) != sent;
    let queued = shut_out(house, &program, &at("before_park"), sent, reads).await;
    admit(house, &program, Some(Role::Writer)).await;
    if sent {
        // They took effect: the server knows them, under numbers that they have no longer.
        let all = ["retry", "--offline"].into_iter().chain(queued.iter().map(String::as_str));
        let run = program.run(&all.collect::<Vec<_>>(), &[], None).await;
        assert!(run.status.success(), "{run:?}");
        program.dies(&["sync"], &at("before_recalled")).await;
    } else {
        let (last, others) = queued.split_last().unwrap();
        again(&program, &["discard"], std::slice::from_ref(last), &at("before_discard")).await;
        again(&program, &["retry", "--offline"], others, &at("before_retry")).await;
    }
    let run = program.sync(&[], None).await;
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    assert_eq!(parked(&program, "").await, [""; 0]);
    took_effect(&program, 0..if sent { 5 } else { 4 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_aside_is_there_once_and_is_sent_once() {
    let house = House::new().await;
    let cases = (0..4).flat_map(|then| [false, true].map(|sent| (then, sent))).enumerate();
    join_all(cases.map(|(number, (then, sent))| let_in_again(&house, number, then, sent))).await;
}

/// A space is shown, and may not be seen any more.
async fn shown_out(house: &House, number: usize, place: &str) {
    let program = guest(house, &format!("guest{number}")).await;
    program.sync(&puts(0..3), None).await.ended_well();
    let watching = program.start(&["watch"], &[], Some(place));
    // What is heard is heard from a subscription.
    let other = put("other", "own5", &Script::document(5).to_string());
    let (space, mutations) = (program.space.clone(), vec![other]);
    let request = BatchMutateRequest { space, mutations, ..Default::default() };
    program.client.stub.clone().batch_mutate(request).await.unwrap();
    watching.has_said("mark-5-of-many").await;
    admit(house, &program, None).await;
    let run = watching.end().await;
    assert!(run.died(), "{place}: {run:?}");
    let queued = ids(&program.run(&["sync", "--offline"], &puts(3..5), None).await);
    let run = program.sync(&[], None).await;
    assert_eq!(run.status.code(), Some(9), "{run:?}");
    assert_eq!(parked(&program, "SPACE_NOT_FOUND").await, queued);

    admit(house, &program, Some(Role::Writer)).await;
    let run = program.run(&["retry", &queued[0], &queued[1]], &[], None).await;
    assert!(run.status.success(), "{run:?}");
    program.sync(&[], None).await.ended_well();
    took_effect(&program, 0..6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_is_forgotten_halfway_comes_back_whole() {
    let house = House::new().await;
    at_moments("before_forget", async |n, place| shown_out(&house, n, place).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted_and_the_front_is_set_aside_once() {
    let database = Database::create().await;
    let server = TestServer::start_with(&database, Clock::system(), |config| {
        config.quotas.space_records = 1;
    })
    .await;
    let alice = server.admin("alice").await;
    let house = House { database, server, alice };
    let program = Program::new(&house, "full").await;
    program.sync(&puts(0..1), None).await.ended_well();
    let own = json!({"op": "put", "collection": "task", "id": "own0",
        "document": Script::document(2)});
    let lines = [puts(1..2), vec![(2, own.to_string())]].concat();
    let run = program.run(&["sync", "--offline"], &lines, None).await;
    let front = ids(&run).swap_remove(0);
    // Only the last of these counts. Five do, and each that is started tries at once.
    let attempts = moments("before_attempts");
    for place in attempts.iter().chain([&attempts[3]; 3]).chain(&moments("before_park")) {
        program.dies(&["sync"], place).await;
    }
    let run = program.sync(&[], None).await;
    assert_eq!(run.status.code(), Some(9), "{run:?}");
    assert_eq!(parked(&program, "QUOTA_EXCEEDED").await, [front]);
    assert_eq!(pending(&program).await, 0);
    let written: Vec<_> = log(&program).await.iter().map(|it| it.revision).collect();
    assert_eq!(written, [1, 2]);
    assert_eq!(program.client.document("task", "own0").await, Script::document(2));
    let shown = program.values(&["ls", "task"]).await;
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0]["document"], Script::document(2));
}
