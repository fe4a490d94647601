//! `base`: what a mutation had seen of its record, and what follows from it.

use syncline::rpc::proto::{DocumentForm, MutateRequest};

use super::{House, based, create, delete, line, patch, send, send_batch};
use crate::support::{key, put, show};

/// Record 1 was put by `phone` at 1 and 2; record 2 by `desk` at 3; record 3
/// was put by `phone` at 4 and deleted by `desk` at 5. Head is 5.
async fn house_with_history() -> House {
    let house = House::new().await;
    let alice = house.alice().await;
    for (device, mutation) in [
        ("phone", put("h1", "1", r#"{"n":1}"#)),
        ("phone", put("h2", "1", r#"{"n":2}"#)),
        ("desk", put("h3", "2", r#"{"n":3}"#)),
        ("phone", put("h4", "3", r#"{"n":4}"#)),
        ("desk", delete("h5", "3")),
    ] {
        send(&alice, device, mutation).await.unwrap();
    }
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_older_than_the_record_is_a_conflict_with_the_record_as_it_is() {
    let house = house_with_history().await;
    let alice = house.alice().await;
    let on = |task: &str, base| based(put(&format!("m{task}{base}"), task, "{}"), base);
    let conflict_1 = r#"conflict 2 {"n":2}"#;
    let conflict_2 = r#"conflict 3 {"n":3}"#;
    for (device, mutation, expected) in [
        ("desk", on("1", 0), conflict_1),
        ("desk", on("1", 1), conflict_1),
        ("", based(delete("d1", "1"), 1), conflict_1),
        ("desk", based(patch("p1", "1", "{}", &[]), 1), conflict_1),
        // A conflict comes before whatever else is wrong.
        ("desk", based(create("c1", "1", "{}"), 1), conflict_1),
        ("phone", on("2", 2), conflict_2),
        ("desk", on("3", 5), "applied 6"),
        ("phone", based(put("t4", "3", "{}"), 4), "conflict 6 {}"),
        // Whoever has seen the record alive does not know that it was deleted.
        ("phone", based(patch("t5", "3", "{}", &[]), 5), "conflict 6 {}"),
        ("desk", on("1", 7), "rejected INVALID mutation.base"),
        ("desk", on("1", i64::MAX), "rejected INVALID mutation.base"),
        ("desk", on("9", 0), "applied 7"),
        ("desk", based(create("c9", "8", "{}"), 7), "applied 8"),
        ("desk", based(create("c2", "2", "{}"), 8), "rejected ALREADY_EXISTS"),
    ] {
        let name = format!("{} of {device}", mutation.id);
        assert_eq!(line(&send(&alice, device, mutation).await), expected, "{name}");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_conflicts_as_well() {
    let house = house_with_history().await;
    let alice = house.alice().await;
    let stale = based(put("m", "3", "{}"), 4);
    let result = send(&alice, "phone", stale).await.unwrap();
    assert_eq!(show(&result), "conflict 5 deleted");
    assert!(result.record.unwrap().deleted);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_revision_from_the_record_s_own_on_serves_as_a_base() {
    let house = house_with_history().await;
    let alice = house.alice().await;
    for (case, base) in [2, 3, 5, 6].into_iter().enumerate() {
        // All by `phone`: from the second case on, its own write lies between.
        let mutation = based(put(&format!("m{case}"), "1", "{}"), base);
        let expected = format!("applied {}", 6 + case);
        assert_eq!(line(&send(&alice, "phone", mutation).await), expected, "base {base}");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_does_not_conflict_with_its_own_queue_but_with_others_in_it() {
    let house = house_with_history().await;
    let alice = house.alice().await;
    // All were made offline, by one who had seen revision 5.
    let edit = |n: i64| based(put(&format!("q{n}"), "1", &format!("{{\"n\":{n}}}")), 5);
    let queue = send_batch(&alice, "tablet", false, (1..=3).map(edit).collect()).await.unwrap();
    let shown: Vec<_> = queue.iter().map(show).collect();
    assert_eq!(shown, ["applied 6", "applied 7", "applied 8"]);
    assert_eq!(line(&send(&alice, "tablet", edit(4)).await), "applied 9");
    // The same queue of no device conflicts with itself.
    let nobody = |n: i64| based(put(&format!("n{n}"), "2", "{}"), 5);
    let queue = send_batch(&alice, "", false, vec![nobody(1), nobody(2)]).await.unwrap();
    let shown: Vec<_> = queue.iter().map(show).collect();
    assert_eq!(shown, ["applied 10", "conflict 10 {}"]);
    // Another device writes in between: now the rest of the queue conflicts.
    send(&alice, "desk", put("between", "1", r#"{"by":"desk"}"#)).await.unwrap();
    let expected = r#"conflict 11 {"by":"desk"}"#;
    assert_eq!(line(&send(&alice, "tablet", edit(5)).await), expected);
    // And also after the device has written unconditionally on top of it.
    send(&alice, "tablet", put("over", "1", "{}")).await.unwrap();
    assert_eq!(line(&send(&alice, "tablet", edit(6)).await), "conflict 12 {}");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_shows_the_record_in_the_form_asked_for() {
    let house = house_with_history().await;
    let alice = house.alice().await;
    for (form, expected) in [
        (DocumentForm::Unspecified, "struct of 1"),
        (DocumentForm::Struct, "struct of 1"),
        (DocumentForm::Json, r#"{"n":2}"#),
    ] {
        let mutation = based(put(&format!("{form:?}"), "1", "{}"), 0);
        let request = MutateRequest {
            mutation: Some(mutation),
            document_form: form.into(),
            ..Default::default()
        };
        let answer = alice.stub.clone().mutate(request).await.unwrap().into_inner();
        let record = answer.result.unwrap().record.unwrap();
        assert_eq!(record.key, Some(key("1")));
        assert_eq!(crate::support::text(&record.document.unwrap()), expected, "{form:?}");
    }
    house.end().await;
}
