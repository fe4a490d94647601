//! Device sequences: dense, used once, also by what is rejected, and reported.

use prost::Message;
use syncline::rpc::proto::{GetStatusRequest, Mutation};

use super::{House, based, create, line, lines, send, send_batch, sequenced};
use crate::support::{Client, TestServer, first, put};

async fn watermark(client: &Client, device: &str) -> i64 {
    let request = GetStatusRequest { device: device.into(), ..Default::default() };
    client.stub.clone().get_status(request).await.unwrap().into_inner().device_sequence
}

async fn check(client: &Client, mutation: Mutation, expected: &str, watermark_after: i64) {
    let name = mutation.id.clone();
    assert_eq!(line(&send(client, "phone", mutation).await), expected, "{name}");
    assert_eq!(watermark(client, "phone").await, watermark_after, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences_are_dense_and_each_serves_once() {
    let house = House::new().await;
    let alice = house.alice().await;
    let put = |id: &str, sequence| sequenced(put(id, "1", "{}"), sequence);
    let gap = |expected: i64, got: i64| {
        format!("FailedPrecondition SEQUENCE_GAP expected={expected} got={got}")
    };
    assert_eq!(watermark(&alice, "phone").await, 0);
    check(&alice, put("a", 2), &gap(1, 2), 0).await;
    check(&alice, put("a", 1), "applied 1", 1).await;
    check(&alice, put("a", 1), "applied 1 replayed", 1).await;
    check(&alice, put("used", 1), "rejected SEQUENCE_USED", 1).await;
    check(&alice, put("used", 1), "rejected SEQUENCE_USED replayed", 1).await;
    // That was an answer, so its id is taken.
    let reused = "FailedPrecondition MUTATION_ID_REUSED index=0 mutation_id=used";
    check(&alice, put("used", 2), reused, 1).await;
    check(&alice, put("b", 3), &gap(2, 3), 1).await;
    check(&alice, put("b", i64::MAX), &gap(2, i64::MAX), 1).await;
    // A refused request leaves no trace: the same id may come in its turn.
    check(&alice, put("b", 2), "applied 2", 2).await;
    // What is rejected or in conflict uses its sequence up.
    check(&alice, sequenced(create("c", "1", "{}"), 3), "rejected ALREADY_EXISTS", 3).await;
    check(&alice, sequenced(based(put("d", 4), 99), 4), "rejected INVALID mutation.base", 4).await;
    send(&alice, "desk", crate::support::put("theirs", "1", r#"{"by":"desk"}"#)).await.unwrap();
    check(&alice, based(put("e", 5), 2), r#"conflict 3 {"by":"desk"}"#, 5).await;
    check(&alice, put("f", 3), "rejected SEQUENCE_USED", 5).await;
    check(&alice, put("g", 6), "applied 4", 6).await;
    // Devices and spaces have sequences of their own.
    assert_eq!(watermark(&alice, "desk").await, 0);
    assert_eq!(line(&send(&alice, "desk", put("h", 1)).await), "applied 5");
    let bob = house.server.client("bob").await;
    assert_eq!(watermark(&bob, "phone").await, 0);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_needs_a_device_and_is_at_least_1() {
    let house = House::new().await;
    let alice = house.alice().await;
    for (device, sequence) in [("", 1), ("phone", 0), ("phone", -1), ("phone", i64::MIN)] {
        let answer = send(&alice, device, sequenced(put("m", "1", "{}"), sequence)).await;
        let expected = "InvalidArgument VALIDATION_ERROR mutation.device_sequence";
        assert_eq!(line(&answer), expected, "{device} {sequence}");
    }
    assert_eq!(alice.head().await, 0);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_goes_through_in_batches_that_overlap() {
    let house = House::new().await;
    let alice = house.alice().await;
    let queue = |from: i64, to: i64| -> Vec<Mutation> {
        (from..=to).map(|n| sequenced(put(&format!("q{n}"), "1", "{}"), n)).collect()
    };
    let answer = send_batch(&alice, "phone", false, queue(1, 3)).await;
    assert_eq!(lines(&answer), ["applied 1", "applied 2", "applied 3"]);
    // The answer was lost; the client sends what it has queued since as well.
    let answer = send_batch(&alice, "phone", false, queue(2, 5)).await;
    let expected = ["applied 2 replayed", "applied 3 replayed", "applied 4", "applied 5"];
    assert_eq!(lines(&answer), expected);
    let answer = send_batch(&alice, "phone", false, queue(7, 8)).await;
    assert_eq!(lines(&answer), ["FailedPrecondition SEQUENCE_GAP expected=6 got=7"]);
    for (name, sequences, field) in [
        ("gap inside", [Some(6), Some(8)], "mutations[1].device_sequence"),
        ("twice", [Some(6), Some(6)], "mutations[1].device_sequence"),
        ("falls", [Some(7), Some(6)], "mutations[1].device_sequence"),
        ("only the first", [Some(6), None], "mutations[1].device_sequence"),
        ("only the last", [None, Some(6)], "mutations[1].device_sequence"),
    ] {
        let batch = sequences.iter().enumerate().map(|(n, sequence)| Mutation {
            device_sequence: *sequence,
            ..put(&format!("x{n}"), "1", "{}")
        });
        let answer = send_batch(&alice, "phone", false, batch.collect()).await;
        assert_eq!(lines(&answer), [format!("InvalidArgument VALIDATION_ERROR {field}")], "{name}");
    }
    assert_eq!(watermark(&alice, "phone").await, 5);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_content_in_a_batch_uses_its_sequence_up() {
    let house = House::new().await;
    let alice = house.alice().await;
    let batch = vec![
        sequenced(put("q1", "1", "{}"), 1),
        sequenced(put("q2", "1", "[]"), 2),
        sequenced(put("q3", "1", "{}"), 3),
    ];
    let answer = send_batch(&alice, "phone", false, batch).await;
    let expected = ["applied 1", "rejected INVALID mutation.put.document", "applied 2"];
    assert_eq!(lines(&answer), expected);
    assert_eq!(watermark(&alice, "phone").await, 3);
    house.end().await;
}

/// The answer names the device's last sequence; it was once made anew each time, with another last
/// one in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_used_sequence_is_answered_alike_each_time() {
    let house = House::new().await;
    let alice = house.alice().await;
    let put = |id: &str, sequence| sequenced(put(id, "1", "{}"), sequence);
    send(&alice, "phone", put("a", 1)).await.unwrap();
    let answer = send(&alice, "phone", put("late", 1)).await;
    assert_eq!(line(&answer), "rejected SEQUENCE_USED");
    let answer = answer.unwrap();
    send(&alice, "phone", put("b", 2)).await.unwrap();
    let elsewhere = TestServer::start(&house.database).await;
    for client in [&alice, &elsewhere.client("alice").await] {
        let again = first(send(client, "phone", put("late", 1)).await.unwrap());
        assert_eq!(again.encode_to_vec(), answer.encode_to_vec(), "{again:?}\n{answer:?}");
    }
    assert_eq!(watermark(&alice, "phone").await, 2);
    elsewhere.stop().await;
    house.end().await;
}

/// Such a batch once set its device back to its own sequences, so that used ones served again, and
/// was itself refused when it was sent again.
#[tokio::test(flavor = "multi_thread")]
async fn an_atomic_batch_with_used_sequences_leaves_its_device_where_it_was() {
    let house = House::new().await;
    let alice = house.alice().await;
    let put = |id: &str, sequence| sequenced(put(id, "1", "{}"), sequence);
    let ids = ["a", "b", "c", "d", "e"];
    let queue = ids.iter().zip(1..).map(|(id, at)| put(id, at)).collect();
    send_batch(&alice, "phone", false, queue).await.unwrap();
    let late = || vec![put("x", 2), put("y", 3)];
    let answer = send_batch(&alice, "phone", true, late()).await;
    assert_eq!(lines(&answer), ["rejected SEQUENCE_USED", "rejected BATCH_ABORTED"]);
    assert_eq!(watermark(&alice, "phone").await, 5);
    let elsewhere = TestServer::start(&house.database).await;
    for client in [&alice, &elsewhere.client("alice").await] {
        let again = send_batch(client, "phone", true, late()).await.unwrap();
        let again: Vec<_> = again.into_iter().map(first).collect();
        assert_eq!(&again, answer.as_ref().unwrap());
        assert_eq!(watermark(client, "phone").await, 5);
    }
    check(&alice, put("z", 4), "rejected SEQUENCE_USED", 5).await;
    check(&alice, put("next", 6), "applied 6", 6).await;
    elsewhere.stop().await;
    house.end().await;
}
