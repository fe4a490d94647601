//! The log, and what closes what is open in it.

use prost_types::Duration;
use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::resolve_conflict_request::Resolution;
use syncline::rpc::proto::{
    ConflictClosingKind, ConflictDecision, ConflictRelation, ConflictState, DeleteOperation,
    GetStatusRequest, KeepClient, KeepServer, ListConflictsRequest, MutationOutcome,
    MutationResult, Policy, RejectionReason, Strategy,
};
use tonic::Code;

use super::{House, based, get, list, meet, open, resolve, tasks};
use crate::support::{TestServer, error_reason, json, mutation, put, text, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_keeps_both_sides_and_waits_until_it_is_resolved() {
    let house = House::new().await;
    let alice = &house.alice;
    let result = meet(alice, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#).await;
    assert_eq!(result.outcome(), MutationOutcome::Conflict);
    assert_eq!(
        (result.revision, text(result.record.as_ref().unwrap().document.as_ref().unwrap())),
        (2, r#"{"n":2}"#.into())
    );
    let told = result.conflict.clone().unwrap();

    let logged = open(alice).await.pop().unwrap();
    assert_eq!(logged, told, "what is told is logged");
    assert_eq!((logged.id.as_str(), logged.revision, logged.result_revision), ("phone-1", 2, 0));
    assert_eq!(logged.state(), ConflictState::Open);
    assert_eq!(logged.relation(), ConflictRelation::Overlapping);
    assert_eq!(logged.strategy(), Strategy::Manual);
    assert_eq!(logged.decision(), ConflictDecision::Open);
    assert_eq!((logged.paths.clone(), logged.lost_paths.len()), (vec!["/n".to_owned()], 0));
    assert_eq!((logged.base.clone(), logged.base_known), (json(r#"{"n":1}"#), true));
    let (server, client) = (logged.server.unwrap(), logged.client.unwrap());
    assert_eq!((server.document, server.revision), (json(r#"{"n":2}"#), 2));
    assert_eq!((server.device.as_str(), server.author.as_str()), ("laptop", "alice"));
    assert_eq!((client.document, client.revision), (json(r#"{"n":3}"#), 0));
    assert_eq!((client.device.as_str(), client.author.as_str()), ("phone", "alice"));

    let found = get(alice, "phone-1").await.unwrap();
    assert_eq!(found.conflict.as_ref(), Some(&told));
    let record = found.record.unwrap();
    assert_eq!((record.revision, record.open_conflicts), (2, 1));
    let status = alice.stub.clone().get_status(GetStatusRequest::default()).await.unwrap();
    assert_eq!(status.into_inner().open_conflicts, 1);

    // Guarded by what the resolver saw.
    let keep = || Resolution::KeepClient(KeepClient {});
    let stale = resolve(alice, "r1", "phone-1", 1, keep()).await.unwrap().result.unwrap();
    let rejection = stale.rejection.unwrap();
    assert_eq!(rejection.reason(), RejectionReason::RecordChanged);
    let resolved = resolve(alice, "r2", "phone-1", 2, keep()).await.unwrap();
    let result = resolved.result.clone().unwrap();
    assert_eq!((result.outcome(), result.revision), (MutationOutcome::Applied, 3));
    let conflict = resolved.conflict.unwrap();
    assert_eq!((conflict.state(), conflict.result_revision), (ConflictState::Resolved, 3));
    let closing = conflict.closing.unwrap();
    assert_eq!(closing.kind(), ConflictClosingKind::Client);
    assert_eq!((closing.device.as_str(), closing.mutation_id.as_str()), ("desk", "r2"));

    // Sent again, also to another replica, it has no second effect.
    let other = TestServer::start(&house.database).await;
    let elsewhere = other.client("alice").await;
    let again = resolve(&elsewhere, "r2", "phone-1", 2, keep()).await.unwrap().result.unwrap();
    assert_eq!((again.replayed, again.revision), (true, 3));
    let late = resolve(alice, "r3", "phone-1", 3, keep()).await.unwrap().result.unwrap();
    assert_eq!(late.rejection.unwrap().reason(), RejectionReason::ConflictClosed);
    assert_eq!(alice.task("1").await.unwrap(), r#"{"n":3}"#);
    let record = get(alice, "phone-1").await.unwrap().record.unwrap();
    assert_eq!((record.revision, record.open_conflicts), (3, 0));
    assert_eq!(record.parents, [server.version, client.version], "both sides");
    assert_eq!(open(alice).await, []);
    other.stop().await;
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_resolution_makes_of_the_record_what_it_says() {
    let sides = (r#"{"a":1,"b":1}"#, r#"{"a":2,"b":1}"#, r#"{"a":1,"b":3}"#);
    let by = |strategy: Strategy| Resolution::Strategy(strategy.into());
    let overlapping = r#"{"a":3,"b":3}"#;
    for (third, resolution, expected) in [
        (sides.2, Resolution::KeepClient(KeepClient {}), r#"{"a":1,"b":3}"#),
        (sides.2, Resolution::KeepServer(KeepServer {}), r#"{"a":2,"b":1}"#),
        (sides.2, Resolution::Document(json(r#"{"c":9}"#).unwrap()), r#"{"c":9}"#),
        (sides.2, by(Strategy::Merge), r#"{"a":2,"b":3}"#),
        (overlapping, by(Strategy::ServerWins), r#"{"a":2,"b":1}"#),
        (overlapping, by(Strategy::Auto), r#"{"a":3,"b":3}"#),
        (overlapping, by(Strategy::Merge), "rejected"),
    ] {
        let house = House::new().await;
        let alice = &house.alice;
        meet(alice, sides.0, sides.1, third).await;
        let answer = resolve(alice, "r", "phone-1", 2, resolution.clone()).await.unwrap();
        if expected == "rejected" {
            let rejection = answer.result.unwrap().rejection.unwrap();
            assert_eq!(rejection.reason(), RejectionReason::Invalid, "{resolution:?}");
            assert_eq!(answer.conflict.unwrap().state(), ConflictState::Open);
        } else {
            assert_eq!(answer.result.unwrap().outcome(), MutationOutcome::Applied);
            assert_eq!(alice.task("1").await.unwrap(), expected, "{resolution:?}");
            assert_eq!(answer.conflict.unwrap().state(), ConflictState::Resolved);
        }
        house.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_write_that_knew_both_sides_closes_what_is_open() {
    let house = House::new().await;
    let alice = &house.alice;
    meet(alice, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#).await;
    // Another device knows the server's side only.
    alice.mutate_from("desk", based(put("d", "1", r#"{"n":4}"#), 2)).await.unwrap();
    assert_eq!(open(alice).await.len(), 1);
    // The phone has looked, and writes again.
    let result = alice.mutate_from("phone", based(put("p", "1", r#"{"n":5}"#), 3)).await.unwrap();
    assert_eq!(result.outcome(), MutationOutcome::Applied);
    let closed = get(alice, "phone-1").await.unwrap().conflict.unwrap();
    assert_eq!((closed.state(), closed.result_revision), (ConflictState::Superseded, 4));
    let closing = closed.closing.unwrap();
    assert_eq!(closing.kind(), ConflictClosingKind::Write);
    assert_eq!((closing.device.as_str(), closing.mutation_id.as_str()), ("phone", "p"));
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_are_paged_and_filtered() {
    let house = House::new().await;
    let alice = &house.alice;
    for number in 1..=7 {
        let record = number.to_string();
        let device = if number % 2 == 0 { "even" } else { "odd" };
        alice.mutate_from("seed", put(&format!("s{number}"), &record, "{}")).await.unwrap();
        let late = based(put(&format!("c{number}"), &record, r#"{"n":1}"#), 0);
        alice.mutate_from(device, late).await.unwrap();
    }
    let keep = Resolution::KeepServer(KeepServer {});
    let revision = get(alice, "c3").await.unwrap().record.unwrap().revision;
    resolve(alice, "r", "c3", revision, keep).await.unwrap();
    let ids = |request: ListConflictsRequest| async move {
        let (conflicts, token) = list(alice, request).await;
        assert_eq!(token, "");
        conflicts.into_iter().map(|it| it.id).collect::<Vec<_>>().join(" ")
    };
    let all = ListConflictsRequest::default;
    let state = |state: ConflictState| ListConflictsRequest { state: state.into(), ..all() };
    assert_eq!(ids(all()).await, "c7 c6 c5 c4 c3 c2 c1", "the latest first");
    assert_eq!(ids(state(ConflictState::Open)).await, "c7 c6 c5 c4 c2 c1");
    assert_eq!(ids(state(ConflictState::Resolved)).await, "c3");
    assert_eq!(ids(ListConflictsRequest { device: "even".into(), ..all() }).await, "c6 c4 c2");
    let task = ListConflictsRequest { collection: "task".into(), ..all() };
    assert_eq!(ids(ListConflictsRequest { record_id: "5".into(), ..task.clone() }).await, "c5");
    assert_eq!(ids(ListConflictsRequest { collection: "note".into(), ..all() }).await, "");
    let (mut paged, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListConflictsRequest { page_size: 2, page_token, ..task.clone() };
        let (conflicts, next) = list(alice, request).await;
        assert!((1..=2).contains(&conflicts.len()));
        paged.extend(conflicts.into_iter().map(|it| it.id));
        if next.is_empty() {
            break;
        }
        page_token = next;
        if paged.len() == 2 {
            // Closed between two pages, and yet in its place.
            let revision = get(alice, "c2").await.unwrap().record.unwrap().revision;
            let keep = Resolution::KeepServer(KeepServer {});
            resolve(alice, "r2", "c2", revision, keep).await.unwrap();
        }
    }
    assert_eq!(paged.join(" "), "c7 c6 c5 c4 c3 c2 c1");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_of_another_s_conflicts() {
    let house = House::new().await;
    meet(&house.alice, "{}", r#"{"n":2}"#, r#"{"n":3}"#).await;
    let bob = house.server.client("bob").await;
    assert_eq!(open(&bob).await, []);
    let foreign = get(&bob, "phone-1").await.unwrap_err();
    let unknown = get(&bob, "nothing").await.unwrap_err();
    assert_eq!(
        (foreign.code(), error_reason(&foreign)),
        (Code::NotFound, "CONFLICT_NOT_FOUND".into())
    );
    assert_eq!(foreign.message(), unknown.message());
    let keep = Resolution::KeepClient(KeepClient {});
    let refused = resolve(&bob, "r", "phone-1", 2, keep).await.unwrap_err();
    assert_eq!(error_reason(&refused), "CONFLICT_NOT_FOUND");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_names_the_policy_that_decided() {
    let house = House::new().await;
    let alice = &house.alice;
    let decided = async |record: &str| {
        for device in ["desk", "phone"] {
            let write = put(&format!("{device}-{record}"), record, "{}");
            alice.mutate_from(device, based(write, 0)).await.unwrap();
        }
        let conflict = get(alice, &format!("phone-{record}")).await.unwrap().conflict.unwrap();
        (conflict.policy_collection, conflict.policy_version)
    };
    assert_eq!(decided("1").await, (String::new(), 0));
    let others = Policy { collection: "*".into(), ..tasks(Strategy::Merge, Strategy::Manual) };
    alice.set_policy(others).await.unwrap();
    assert_eq!(decided("2").await, ("*".into(), 1));
    for _ in 0..2 {
        alice.set_policy(tasks(Strategy::Merge, Strategy::Manual)).await.unwrap();
    }
    assert_eq!(decided("3").await, ("task".into(), 2));
    house.server.stop().await;
}

/// A document whose values have long paths.
fn sprawling(value: i64) -> String {
    let values: Vec<_> = (0..500).map(|number| format!("\"{number:03}\":{value}")).collect();
    let long = "k".repeat(4_000);
    format!(
        "{{\"{long}\":{{{}}},\"{long}~\":{{\"{long}\":{{\"{long}\":{value}}}}}}}",
        values.join(",")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paths_that_a_conflict_names_are_few_and_short_enough() {
    let house = House::with(tasks(Strategy::Merge, Strategy::ServerWins)).await;
    let alice = &house.alice;
    let result = meet(alice, &sprawling(1), &sprawling(2), &sprawling(3)).await;
    assert_eq!(result.outcome(), MutationOutcome::Superseded);
    let logged = get(alice, "phone-1").await.unwrap().conflict.unwrap();
    for paths in [&logged.paths, &logged.lost_paths] {
        assert!((1..=100).contains(&paths.len()), "{}", paths.len());
        assert!(paths.iter().map(String::len).sum::<usize>() <= 32 << 10);
        assert!(paths.iter().all(|path| path.starts_with("/kkk")));
    }
    assert_eq!(list(alice, ListConflictsRequest::default()).await.0.len(), 1);
    // Short ones come first, and of a long one what is around it.
    let around = format!("/{}~0/{0}", "k".repeat(4_000));
    let deep =
        |value: i64| format!("{{\"{0}~\":{{\"{0}\":{{\"{0}\":{value}}}}}}}", "k".repeat(4_000));
    let write = |device: &'static str, value, base| {
        alice.mutate_from(device, based(put(&format!("{device}-2"), "2", &deep(value)), base))
    };
    write("seed", 1, 0).await.unwrap();
    let base = alice.head().await;
    write("laptop", 2, base).await.unwrap();
    write("phone", 3, base).await.unwrap();
    let logged = get(alice, "phone-2").await.unwrap().conflict.unwrap();
    assert_eq!(logged.paths, [around.as_str()]);
    house.server.stop().await;
}

/// A deletion is small, and what is kept of the sides is not.
#[tokio::test(flavor = "multi_thread")]
async fn more_conflicts_than_one_transaction_can_log_are_refused_at_once() {
    let house = House::new().await;
    let alice = &house.alice;
    let text = |letter: &str| format!(r#"{{"text":"{}"}}"#, letter.repeat(250_000));
    alice.mutate_from("seed", put("s", "1", &text("a"))).await.unwrap();
    alice.mutate_from("laptop", put("l", "1", &text("b"))).await.unwrap();
    let delete = |number| {
        let delete = Operation::Delete(DeleteOperation {});
        based(mutation(&format!("d{number}"), "1", delete), 1)
    };
    let batch = async |count| alice.batch((0..count).map(delete).collect(), false).await;
    let status = batch(200).await.unwrap_err();
    assert_eq!(
        (status.code(), error_reason(&status)),
        (Code::ResourceExhausted, "REQUEST_TOO_LARGE".into())
    );
    assert_eq!(list(alice, ListConflictsRequest::default()).await.0.len(), 0);
    let results = batch(20).await.unwrap();
    assert!(results.iter().all(|it| it.outcome() == MutationOutcome::Conflict));
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_forgotten_when_their_retention_has_ended() {
    let retention = Some(Duration { seconds: 0, nanos: 0 });
    let policy =
        Policy { conflict_retention: retention, ..tasks(Strategy::Merge, Strategy::Manual) };
    let house = House::with(policy).await;
    let alice = &house.alice;
    // Open ones stay, however long it takes.
    let result = meet(alice, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#).await;
    assert_eq!(result.outcome(), MutationOutcome::Conflict);
    let merged = alice.mutate_from("tablet", based(put("t", "1", r#"{"n":1,"x":1}"#), 1)).await;
    assert_eq!(merged.unwrap().outcome(), MutationOutcome::Merged);
    let gone = async || get(alice, "t").await.is_err().then_some(());
    wait_for("the closed conflict to be forgotten", gone).await;
    assert_eq!(open(alice).await.len(), 1);
    // What it was the answer to is answered all the same.
    let again = alice.mutate_from("tablet", based(put("t", "1", r#"{"n":1,"x":1}"#), 1)).await;
    let again = again.unwrap();
    assert_eq!((again.outcome(), again.replayed), (MutationOutcome::Merged, true));
    assert_eq!(again.conflict, None);

    let keep = || Resolution::KeepClient(KeepClient {});
    let resolution = async || resolve(alice, "r", "phone-1", 3, keep()).await;
    let first = resolution().await.unwrap().result.unwrap();
    assert_eq!((first.outcome(), first.revision), (MutationOutcome::Applied, 4));
    let gone = async || get(alice, "phone-1").await.is_err().then_some(());
    wait_for("the resolved conflict to be forgotten", gone).await;
    let again = resolution().await.unwrap();
    assert_eq!(again.conflict, None);
    assert_eq!(again.result.unwrap(), MutationResult { replayed: true, ..first });
    let other = Resolution::KeepServer(KeepServer {});
    let status = resolve(alice, "r", "phone-1", 3, other).await.unwrap_err();
    assert_eq!(error_reason(&status), "MUTATION_ID_REUSED");
    let status = resolve(alice, "new", "phone-1", 3, keep()).await.unwrap_err();
    assert_eq!(error_reason(&status), "CONFLICT_NOT_FOUND");
    house.server.stop().await;
}
