//! A mutation sent again gets its first answer, byte for byte, from any
//! replica, whatever happened since; its id never serves another content.

use prost::Message;
use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::{Document, Mutation, PutOperation, document};

use super::{House, based, create, delete, line, patch, send, send_batch, sequenced};
use crate::support::{TestServer, describe, first, json, key, mutation, put};

/// One mutation of each outcome, in this order.
fn mutations() -> Vec<(&'static str, Mutation)> {
    vec![
        ("applied 1", sequenced(put("put", "1", r#"{"n":1}"#), 1)),
        ("applied 2", sequenced(patch("patch", "1", r#"{"m":2}"#, &["/n"]), 2)),
        ("rejected ALREADY_EXISTS", sequenced(create("create", "1", "{}"), 3)),
        ("applied 3", sequenced(delete("delete", "1"), 4)),
        ("rejected NOT_FOUND", sequenced(patch("missing", "1", "{}", &["/a"]), 5)),
        ("rejected NOT_FOUND", delete("never", "2")),
        ("applied 4", put("other", "3", r#"{"big":9007199254740993}"#)),
        ("rejected INVALID mutation.base", based(put("ahead", "3", "{}"), 99)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_is_repeated_byte_for_byte_after_other_writes_and_elsewhere() {
    let house = House::new().await;
    let (alice, elsewhere) = (house.alice().await, TestServer::start(&house.database).await);
    let mut answers = Vec::new();
    for (expected, mutation) in mutations() {
        let answer = send(&alice, "phone", mutation).await;
        assert_eq!(line(&answer), expected);
        answers.push(answer.unwrap());
    }
    for round in 0..3 {
        // What would now be decided otherwise.
        for task in ["1", "2", "3"] {
            alice.mutate(put(&format!("later{round}{task}"), task, "{}")).await.unwrap();
        }
        let head = alice.head().await;
        for client in [&alice, &elsewhere.client("alice").await] {
            for ((_, mutation), answer) in mutations().into_iter().zip(&answers) {
                let again = first(send(client, "phone", mutation).await.unwrap());
                assert_eq!(again.encode_to_vec(), answer.encode_to_vec(), "{again:?}\n{answer:?}");
            }
        }
        assert_eq!(alice.head().await, head, "a replay took effect");
    }
    elsewhere.stop().await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_repeated_with_the_record_as_it_was_then() {
    let house = House::new().await;
    let (alice, elsewhere) = (house.alice().await, TestServer::start(&house.database).await);
    send(&alice, "desk", put("theirs", "1", r#"{"n":1}"#)).await.unwrap();
    let mine = || based(put("mine", "1", r#"{"n":2}"#), 0);
    let answer = send(&alice, "phone", mine()).await.unwrap();
    let gone = || based(put("late", "1", "{}"), 1);
    send(&alice, "desk", delete("deleted", "1")).await.unwrap();
    let tombstone = send(&alice, "phone", gone()).await.unwrap();
    send(&alice, "desk", put("again", "1", r#"{"n":3}"#)).await.unwrap();
    for client in [&alice, &elsewhere.client("alice").await] {
        let again = send(client, "phone", mine()).await;
        assert_eq!(line(&again), r#"conflict 1 {"n":1} replayed"#);
        assert_eq!(first(again.unwrap()).encode_to_vec(), answer.encode_to_vec());
        let again = send(client, "phone", gone()).await;
        assert_eq!(line(&again), "conflict 2 deleted replayed");
        assert_eq!(first(again.unwrap()).encode_to_vec(), tombstone.encode_to_vec());
    }
    elsewhere.stop().await;
    house.end().await;
}

/// The first answer comes from memory, the second from the database, which keeps microseconds: once
/// the clock had more of them, and nineteen of twenty times differed.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_s_time_is_the_same_from_memory_and_from_the_store() {
    let house = House::new().await;
    let alice = house.alice().await;
    for round in 0..20 {
        let task = round.to_string();
        let (theirs, mine) = (format!("theirs{round}"), format!("mine{round}"));
        send(&alice, "desk", put(&theirs, &task, "{}")).await.unwrap();
        let mine = || based(put(&mine, &task, "{}"), 0);
        let answer = send(&alice, "phone", mine()).await.unwrap();
        assert!(answer.record.as_ref().unwrap().update_time.is_some());
        let again = first(send(&alice, "phone", mine()).await.unwrap());
        assert_eq!(again.encode_to_vec(), answer.encode_to_vec(), "{again:?}\n{answer:?}");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_in_the_other_form_is_the_same_content() {
    let house = House::new().await;
    let alice = house.alice().await;
    let number = prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(1.0)) };
    let fields = prost_types::Struct { fields: [("n".to_owned(), number)].into() };
    let form = Some(document::Form::Fields(fields));
    let as_struct = PutOperation { document: Some(Document { form }) };
    let as_struct = mutation("m", "1", Operation::Put(as_struct));
    assert_eq!(line(&send(&alice, "", as_struct).await), "applied 1");
    let spaced = put("m", "1", " { \"n\" : 1.0 } ");
    assert_eq!(line(&send(&alice, "", spaced).await), "applied 1 replayed");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_refused_for_any_other_content() {
    let house = House::new().await;
    let alice = house.alice().await;
    let original = || sequenced(based(put("m", "1", r#"{"n":1}"#), 0), 1);
    send(&alice, "phone", original()).await.unwrap();
    let elsewhere = {
        let mut elsewhere = original();
        elsewhere.key =
            Some(syncline::rpc::proto::RecordKey { collection: "note".into(), ..key("1") });
        elsewhere
    };
    let create = super::CreateOperation { document: json(r#"{"n":1}"#) };
    let mut as_create = original();
    as_create.operation = Some(Operation::Create(create));
    for (what, device, changed) in [
        ("document", "phone", sequenced(based(put("m", "1", r#"{"n":2}"#), 0), 1)),
        ("base", "phone", sequenced(based(put("m", "1", r#"{"n":1}"#), 1), 1)),
        ("no base", "phone", sequenced(put("m", "1", r#"{"n":1}"#), 1)),
        ("sequence", "phone", sequenced(original(), 2)),
        ("no sequence", "phone", based(put("m", "1", r#"{"n":1}"#), 0)),
        ("record", "phone", sequenced(based(put("m", "2", r#"{"n":1}"#), 0), 1)),
        ("collection", "phone", elsewhere),
        ("operation", "phone", as_create),
        ("device", "desk", original()),
    ] {
        let status = send(&alice, device, changed).await.unwrap_err();
        let expected = "FailedPrecondition MUTATION_ID_REUSED index=0 mutation_id=m";
        assert_eq!(describe(&status), expected, "{what}");
    }
    assert_eq!(alice.head().await, 1);
    // In a batch nothing at all is decided.
    let batch = vec![put("fresh", "7", "{}"), put("m", "1", r#"{"n":2}"#)];
    for atomic in [false, true] {
        let status = send_batch(&alice, "phone", atomic, batch.clone()).await.unwrap_err();
        let expected = "FailedPrecondition MUTATION_ID_REUSED index=1 mutation_id=m";
        assert_eq!(describe(&status), expected);
    }
    assert_eq!(alice.head().await, 1);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_mutation_sent_at_once_to_all_replicas_takes_effect_once() {
    let house = House::new().await;
    let two = TestServer::start(&house.database).await;
    let clients = [house.alice().await, two.client("alice").await];
    for round in 0..20_i64 {
        let calls = (0..8).map(|n| {
            let (client, id) = (clients[n % 2].clone(), format!("m{round}"));
            async move { client.mutate(put(&id, "1", "{}")).await.unwrap() }
        });
        let results = futures_util::future::join_all(calls).await;
        assert!(results.iter().all(|result| result.revision == round + 1), "{results:?}");
        let firsts = results.iter().filter(|result| !result.replayed).count();
        assert_eq!(firsts, 1, "exactly one call decides");
    }
    assert_eq!(clients[0].head().await, 20);
    two.stop().await;
    house.end().await;
}
