//! Promises that are not kept yet. Each test fails once its promise is kept:
//! then it belongs, turned around, to the others.

use prost::Message;
use syncline::rpc::proto::{GetStatusRequest, MutationResult};

use super::{House, based, lines, send, send_batch, sequenced};
use crate::support::{first, put, show};

fn not_yet(kept: bool, promise: &str) {
    assert!(!kept, "kept now, so move it to the others: {promise}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_s_time_is_the_same_from_memory_and_from_the_store() {
    let house = House::new().await;
    let alice = house.alice().await;
    let mut same = 0;
    for round in 0..20 {
        let task = round.to_string();
        let (theirs, mine) = (format!("theirs{round}"), format!("mine{round}"));
        send(&alice, "desk", put(&theirs, &task, "{}")).await.unwrap();
        let mine = || based(put(&mine, &task, "{}"), 0);
        let answer = send(&alice, "phone", mine()).await.unwrap();
        let again = first(send(&alice, "phone", mine()).await.unwrap());
        same += usize::from(again.encode_to_vec() == answer.encode_to_vec());
    }
    not_yet(same == 20, "a conflict is repeated byte for byte, with its record's time");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_sequence_is_answered_alike_each_time() {
    let house = House::new().await;
    let alice = house.alice().await;
    let put = |id: &str, sequence| sequenced(put(id, "1", "{}"), sequence);
    send(&alice, "phone", put("a", 1)).await.unwrap();
    let answer = send(&alice, "phone", put("late", 1)).await.unwrap();
    send(&alice, "phone", put("b", 2)).await.unwrap();
    let again = send(&alice, "phone", put("late", 1)).await.unwrap();
    let text = |result: &MutationResult| result.rejection.clone().unwrap().encode_to_vec();
    assert_eq!(show(&answer), "rejected SEQUENCE_USED");
    not_yet(text(&again) == text(&answer), "its words do not change with the device's last one");
    not_yet(again.replayed, "it is marked as replayed");
    house.end().await;
}

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
    let request = GetStatusRequest { device: "phone".into(), ..Default::default() };
    let status = alice.stub.clone().get_status(request).await.unwrap().into_inner();
    not_yet(status.device_sequence == 5, "a device's last sequence never falls");
    let again = send_batch(&alice, "phone", true, late()).await;
    not_yet(again.is_ok(), "a batch that was aborted for it is answered again");
    // So a sequence that was used serves a second time.
    let twice = send(&alice, "phone", put("z", 4)).await.unwrap();
    not_yet(show(&twice) == "rejected SEQUENCE_USED", "a used sequence never serves again");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_batch_does_not_speak_of_revisions_that_never_were() {
    let house = House::new().await;
    let alice = house.alice().await;
    alice.mutate(put("before", "1", "{}")).await.unwrap();
    let batch = vec![super::delete("a", "1"), super::patch("b", "1", "{}", &[])];
    let results = send_batch(&alice, "", true, batch).await.unwrap();
    let message = results[1].rejection.clone().unwrap().message;
    assert_eq!(alice.head().await, 1);
    not_yet(!message.contains("revision 2"), "no message names a revision that was taken back");
    house.end().await;
}
