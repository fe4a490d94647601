//! What is concurrent and what is not; versions, parents, histories, checksums.

use std::time::Duration;

use prost_types::Timestamp;
use sha2::{Digest, Sha256};
use syncline::clock::Clock;
use syncline::rpc::proto::field_transform::Transform;
use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::number::Value;
use syncline::rpc::proto::{
    BatchMutateRequest, ChangesSinceRequest, DocumentForm, FieldTransform, GetRecordRequest,
    HistoryEntry, Mutation, MutationOutcome, Number, PatchOperation, Record, RejectionReason,
    Strategy,
};

use super::{House, based, tasks};
use crate::support::{Client, Database, TestServer, error_reason, key, mutation, put};

async fn record(client: &Client, id: &str) -> Record {
    let request = GetRecordRequest {
        key: Some(key(id)),
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    };
    client.stub.clone().get_record(request).await.unwrap().into_inner().record.unwrap()
}

fn entry(device: &str, sequence: i64, revision: i64) -> HistoryEntry {
    HistoryEntry { device: device.into(), sequence, revision }
}

fn queued(mutation: Mutation, sequence: i64) -> Mutation {
    Mutation { device_sequence: Some(sequence), ..mutation }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_changes_carry_version_parents_history_and_checksum() {
    let house = House::with(tasks(Strategy::Merge, Strategy::Manual)).await;
    let alice = &house.alice;
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let write = |id: &str, text: &str, sequence, base, seconds| Mutation {
        client_time: at(seconds),
        ..queued(based(put(id, "1", text), base), sequence)
    };
    alice.mutate_from("desk", write("d1", r#"{"a":1}"#, 1, 0, 1_000)).await.unwrap();
    alice.mutate_from("desk", write("d2", r#"{"a":2}"#, 2, 0, 2_000)).await.unwrap();
    alice.mutate_from("phone", write("p1", r#"{"a":1,"b":1}"#, 1, 1, 1_500)).await.unwrap();

    let merged = record(alice, "1").await;
    let history = vec![entry("desk", 2, 2), entry("phone", 1, 3)];
    assert_eq!(merged.version, "2000000001-phone-1", "after both sides");
    assert_eq!(merged.parents, ["2000000000-desk-2", "1500000000-phone-1"]);
    assert_eq!(merged.history, history);
    assert_eq!(merged.checksum, Sha256::digest(r#"{"a":2,"b":1}"#).as_slice());
    let request = ChangesSinceRequest { every_step: true, ..Default::default() };
    let changes = alice.stub.clone().changes_since(request).await.unwrap().into_inner().changes;
    let versions: Vec<_> = changes.iter().map(|it| it.version.as_str()).collect();
    assert_eq!(versions, ["1000000000-desk-1", "2000000000-desk-2", "2000000001-phone-1"]);
    let parents: Vec<_> = changes.iter().map(|it| it.parents.join(" ")).collect();
    assert_eq!(parents, ["", "1000000000-desk-1", "2000000000-desk-2 1500000000-phone-1"]);
    let last = changes.last().unwrap();
    assert_eq!((&last.history, &last.checksum), (&merged.history, &merged.checksum));
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_may_be_a_version_vector() {
    let house = House::new().await;
    let alice = &house.alice;
    alice.mutate_from("desk", queued(put("d1", "1", "{}"), 1)).await.unwrap();
    alice.mutate_from("phone", queued(put("p1", "1", r#"{"n":1}"#), 1)).await.unwrap();
    let seen = record(alice, "1").await.history;
    assert_eq!(seen, [entry("desk", 1, 1), entry("phone", 1, 2)]);
    let write = |id: &str, base_history: &[HistoryEntry]| {
        let base_history = base_history.to_vec();
        alice.mutate_from("tablet", Mutation { base_history, ..put(id, "1", r#"{"n":2}"#) })
    };
    for (id, base, expected) in [
        ("no", &[entry("desk", 1, 1)][..], MutationOutcome::Conflict),
        ("older", &[entry("desk", 1, 1), entry("phone", 0, 1)], MutationOutcome::Conflict),
        // By sequence, as another device may have told it.
        ("told", &[entry("desk", 1, 0), entry("phone", 1, 0)], MutationOutcome::Applied),
        // What the tablet wrote itself it need not name.
        ("all", &seen, MutationOutcome::Applied),
    ] {
        assert_eq!(write(id, base).await.unwrap().outcome(), expected, "{id}");
    }
    let twice = write("twice", &[entry("desk", 1, 1), entry("desk", 2, 2)]).await.unwrap_err();
    assert_eq!(error_reason(&twice), "VALIDATION_ERROR");
    let both = Mutation { base: Some(1), base_history: seen, ..put("both", "1", "{}") };
    assert_eq!(error_reason(&alice.mutate(both).await.unwrap_err()), "VALIDATION_ERROR");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_comes_late_does_not_conflict_with_itself() {
    let house = House::with(tasks(Strategy::Merge, Strategy::LastWriteWins)).await;
    let alice = &house.alice;
    alice.mutate_from("desk", put("d1", "1", r#"{"a":0,"b":0,"c":0}"#)).await.unwrap();
    let late = |id: &str, text: &str, sequence| queued(based(put(id, "1", text), 1), sequence);
    let all = [
        late("p1", r#"{"a":1,"b":0,"c":0}"#, 1),
        late("p2", r#"{"a":1,"b":1,"c":0}"#, 2),
        late("p3", r#"{"a":1,"b":2,"c":0}"#, 3),
    ];
    // Between the first and the second another device writes.
    let first = alice.mutate_from("phone", all[0].clone()).await.unwrap();
    assert_eq!((first.outcome(), first.conflict), (MutationOutcome::Applied, None));
    alice.mutate_from("desk", based(put("d2", "1", r#"{"a":9,"b":0,"c":9}"#), 2)).await.unwrap();
    for mutation in &all[1..] {
        let result = alice.mutate_from("phone", mutation.clone()).await.unwrap();
        assert_eq!(result.outcome(), MutationOutcome::Merged, "{mutation:?}");
        // The phone's own 1 of `a` is what desk has overwritten, knowing it.
        assert_eq!(result.conflict.unwrap().paths, Vec::<String>::new());
    }
    assert_eq!(alice.task("1").await.unwrap(), r#"{"a":9,"b":2,"c":9}"#);
    house.server.stop().await;
}

/// Its own writes once counted as the others' where there were too many to look at each.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_does_not_conflict_with_itself_either() {
    let house = House::with(tasks(Strategy::Merge, Strategy::Manual)).await;
    let alice = &house.alice;
    alice.mutate_from("desk", put("d1", "1", r#"{"a":0,"b":0}"#)).await.unwrap();
    alice.mutate_from("desk", based(put("d2", "1", r#"{"a":0,"b":9}"#), 1)).await.unwrap();
    let late = |number| {
        let text = format!(r#"{{"a":{number},"b":0}}"#);
        queued(based(put(&format!("p{number}"), "1", &text), 1), number)
    };
    for part in [1..=150, 151..=200] {
        let request = BatchMutateRequest {
            device: "phone".into(),
            mutations: part.map(late).collect(),
            ..BatchMutateRequest::default()
        };
        let answer = alice.stub.clone().batch_mutate(request).await.unwrap().into_inner();
        for result in answer.results {
            assert_eq!(result.outcome(), MutationOutcome::Merged, "{result:?}");
        }
    }
    assert_eq!(alice.task("1").await.unwrap(), r#"{"a":200,"b":9}"#);
    house.server.stop().await;
}

/// Each call reads the way back anew: what the device wrote itself is not to count,
/// however much that is, and a transform on the way is not to be forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_large_documents_does_not_conflict_with_itself_call_by_call() {
    let house = House::with(tasks(Strategy::Merge, Strategy::Manual)).await;
    let alice = &house.alice;
    let text = |n: i64, more: &str| {
        let body = "x".repeat(100_000);
        format!(r#"{{"body":"{body}","n":{n},"views":{}{more}}}"#, n.min(1))
    };
    alice.mutate_from("desk", put("d1", "1", &text(0, ""))).await.unwrap();
    let other = based(put("l1", "1", &text(0, r#","other":true"#)), 1);
    alice.mutate_from("laptop", other).await.unwrap();
    let seen = PatchOperation {
        transforms: vec![FieldTransform {
            path: "/views".into(),
            transform: Some(Transform::Increment(Number { value: Some(Value::Integer(1)) })),
        }],
        ..PatchOperation::default()
    };
    let seen = based(mutation("p0", "1", Operation::Patch(seen)), 1);
    let seen = alice.mutate_from("phone", queued(seen, 1)).await.unwrap();
    assert_eq!(seen.outcome(), MutationOutcome::Applied);
    for number in 1..=25 {
        let late = based(put(&format!("p{number}"), "1", &text(number, "")), 1);
        let result = alice.mutate_from("phone", queued(late, number + 1)).await.unwrap();
        assert_eq!(result.outcome(), MutationOutcome::Merged, "write {number}");
        assert_eq!(result.conflict.unwrap().paths.len(), 0);
    }
    let there = alice.task("1").await.unwrap();
    assert!(there.ends_with(r#","n":25,"other":true,"views":1}"#), "{}", &there[100_000..]);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lost_once_is_not_brought_back_by_the_rest_of_its_queue() {
    let house = House::with(tasks(Strategy::Merge, Strategy::ServerWins)).await;
    let alice = &house.alice;
    alice.mutate_from("desk", put("d1", "1", r#"{"a":0,"b":0}"#)).await.unwrap();
    alice.mutate_from("desk", based(put("d2", "1", r#"{"a":9,"b":0}"#), 1)).await.unwrap();
    let late = |id: &str, text: &str, sequence| queued(based(put(id, "1", text), 1), sequence);
    let lost = alice.mutate_from("phone", late("p1", r#"{"a":1,"b":0}"#, 1)).await.unwrap();
    assert_eq!(lost.outcome(), MutationOutcome::Superseded);
    // A whole document, in which `a` stands as the phone still has it.
    let rest = alice.mutate_from("phone", late("p2", r#"{"a":1,"b":1}"#, 2)).await.unwrap();
    assert_eq!(rest.outcome(), MutationOutcome::Merged);
    assert_eq!(rest.conflict.unwrap().paths, Vec::<String>::new());
    assert_eq!(alice.task("1").await.unwrap(), r#"{"a":9,"b":1}"#);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_that_comes_with_a_document_is_verified() {
    let house = House::new().await;
    let alice = &house.alice;
    let with = |id: &str, text: &str, canonical: &str| Mutation {
        checksum: Sha256::digest(canonical).to_vec().into(),
        ..put(id, "1", text)
    };
    // However it was spelt, and with all digits.
    let spelt = r#" { "b" : 1.0, "a" : 9007199254740993 } "#;
    let good = with("good", spelt, r#"{"a":9007199254740993,"b":1}"#);
    assert_eq!(alice.mutate(good).await.unwrap().outcome(), MutationOutcome::Applied);
    let bad = with("bad", r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#);
    let refused = alice.mutate(bad.clone()).await.unwrap_err();
    assert_eq!(error_reason(&refused), "VALIDATION_ERROR");
    let in_batch = alice.batch(vec![bad], false).await.unwrap().pop().unwrap();
    let rejection = in_batch.rejection.unwrap();
    assert_eq!(rejection.reason(), RejectionReason::Invalid);
    assert_eq!(rejection.violations[0].field, "mutation.checksum");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_runs_ahead_wins_no_more_than_the_skew() {
    let database = Database::create().await;
    let clock = Clock::manual(time::OffsetDateTime::from_unix_timestamp(2_000_000_000).unwrap());
    let server = TestServer::start_with(&database, clock.clone(), |config| {
        config.clock_skew = Duration::from_secs(60);
    })
    .await;
    // The token's times are the machine's, which a manual clock does not know.
    let token = mint_at(2_000_000_000);
    let alice = Client::connect(server.address(), &token).await;
    alice.set_policy(tasks(Strategy::LastWriteWins, Strategy::Unspecified)).await.unwrap();
    let far = Some(Timestamp { seconds: 3_000_000_000, nanos: 0 });
    alice.mutate_from("seed", put("s", "1", r#"{"n":0}"#)).await.unwrap();
    let ahead = Mutation { client_time: far, ..based(put("a", "1", r#"{"n":1}"#), 1) };
    alice.mutate_from("ahead", ahead).await.unwrap();
    assert_eq!(record(&alice, "1").await.version, "2000000060000000-ahead-0");
    // Two minutes later, by a good clock, another one wins.
    clock.advance(Duration::from_secs(120));
    let fair = alice.mutate_from("fair", based(put("f", "1", r#"{"n":2}"#), 1)).await.unwrap();
    assert_eq!(fair.outcome(), MutationOutcome::Applied);
    assert_eq!(alice.task("1").await.unwrap(), r#"{"n":2}"#);
    server.stop().await;
}

/// A token of alice's, who may set policies, good for an hour from then on.
fn mint_at(unix_seconds: i64) -> String {
    use syncline::auth::{Grant, KeyConfig, Minter};
    use syncline::domain::UserId;

    use crate::support::{AUDIENCE, ISSUER, SECRET};
    let minter = Minter::new(&KeyConfig::Secret(SECRET.into())).unwrap();
    let minter = minter.with_grants(vec![Grant::Policies]);
    let user = UserId::parse("alice").unwrap();
    minter.mint(&user, Duration::from_secs(3_600), unix_seconds, ISSUER, AUDIENCE).unwrap()
}
