//! Requests that make no sense, name nothing, or are not the caller's to make.

use std::time::Duration;

use sqlx::Executor;
use syncline::clock::Clock;
use syncline::rpc::proto::{ListRecordHistoryRequest, RecordKey, UndeleteRecordRequest};

use super::{House, delete, of, page, undelete};
use crate::support::{Client, describe, error_reason, key, mint_granted, put, show};

async fn history_line(client: &Client, request: ListRecordHistoryRequest) -> String {
    match page(client, request).await {
        Ok(page) => format!("{} steps", page.steps.len()),
        Err(status) => describe(&status),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_history_keep_their_rules() {
    let house = House::new().await;
    let alice = &house.alice;
    assert_eq!(history_line(alice, of("1")).await, "NotFound RECORD_NOT_FOUND");
    for (id, task) in [("m1", "1"), ("m2", "1"), ("m3", "2")] {
        alice.mutate(put(id, task, "{}")).await.unwrap();
    }
    alice.mutate(delete("m4", "2")).await.unwrap();
    let token = page(alice, ListRecordHistoryRequest { page_size: 1, ..of("1") }).await.unwrap();
    let page_token = token.next_page_token;
    let named = |collection: &str, id: &str| {
        Some(RecordKey { collection: collection.into(), id: id.into() })
    };
    let invalid = |field: &str| format!("InvalidArgument VALIDATION_ERROR {field}");
    for (what, request, expected) in [
        ("no key", ListRecordHistoryRequest { key: None, ..of("1") }, invalid("key")),
        (
            "a key of nothing",
            ListRecordHistoryRequest { key: named("", "a\0"), ..of("1") },
            invalid("key.collection key.id"),
        ),
        (
            "a negative page",
            ListRecordHistoryRequest { page_size: -1, ..of("1") },
            invalid("page_size"),
        ),
        (
            "an unknown form",
            ListRecordHistoryRequest { document_form: 9, ..of("1") },
            invalid("document_form"),
        ),
        (
            "a forged token",
            ListRecordHistoryRequest { page_token: "?".into(), ..of("1") },
            invalid("page_token"),
        ),
        (
            "a token of another record",
            ListRecordHistoryRequest { page_token: page_token.clone(), ..of("2") },
            invalid("page_token"),
        ),
        ("its own token", ListRecordHistoryRequest { page_token, ..of("1") }, "1 steps".into()),
        ("a deleted record", of("2"), "2 steps".into()),
        ("between two records", of("15"), "NotFound RECORD_NOT_FOUND".into()),
        ("behind all records", of("9"), "NotFound RECORD_NOT_FOUND".into()),
    ] {
        assert_eq!(history_line(alice, request).await, expected, "{what}");
    }
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_replaced_history_is_refused() {
    let house = House::new().await;
    let alice = &house.alice;
    for id in ["m1", "m2"] {
        alice.mutate(put(id, "1", "{}")).await.unwrap();
    }
    let first = page(alice, ListRecordHistoryRequest { page_size: 1, ..of("1") }).await.unwrap();
    let mut connection = house.database.connect().await;
    connection.execute("update spaces set epoch = gen_random_uuid()").await.unwrap();
    let page_token = first.next_page_token;
    let next = ListRecordHistoryRequest { page_token, ..of("1") };
    assert_eq!(error_reason(&page(alice, next).await.unwrap_err()), "EPOCH_CHANGED");
    assert_eq!(page(alice, of("1")).await.unwrap().steps.len(), 2);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undeletions_keep_their_rules() {
    let house = House::new().await;
    let alice = &house.alice;
    alice.mutate(put("m1", "1", "{}")).await.unwrap();
    alice.mutate(delete("m2", "1")).await.unwrap();
    let good = UndeleteRecordRequest {
        mutation_id: "u".into(),
        key: Some(key("1")),
        ..Default::default()
    };
    let invalid = |field: &str| format!("InvalidArgument VALIDATION_ERROR {field}");
    for (request, expected) in [
        (UndeleteRecordRequest { mutation_id: String::new(), ..good.clone() }, "mutation_id"),
        (UndeleteRecordRequest { key: None, ..good.clone() }, "key"),
        (UndeleteRecordRequest { revision: i64::MIN, ..good.clone() }, "revision"),
        (UndeleteRecordRequest { device: "a b".into(), ..good.clone() }, "device"),
        (UndeleteRecordRequest { document_form: 9, ..good.clone() }, "document_form"),
        (UndeleteRecordRequest { revision: -1, ..Default::default() }, "mutation_id key revision"),
    ] {
        let status = alice.spaces.clone().undelete_record(request).await.unwrap_err();
        assert_eq!(describe(&status), invalid(expected));
    }
    assert_eq!(alice.head().await, 2);
    assert_eq!(show(&undelete(alice, "u", "1", 0).await.unwrap()), "applied 3");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_a_space_sees_its_history_and_brings_nothing_back() {
    let house = House::new().await;
    let alice = &house.alice;
    alice.mutate(put("m1", "1", "{}")).await.unwrap();
    alice.mutate(delete("m2", "1")).await.unwrap();
    let granted = async |grant: &str| {
        let hour = Duration::from_secs(3_600);
        let token = mint_granted("bob", &[grant], hour, &Clock::system());
        Client::connect(house.server.address(), &token).await
    };
    let space = || "users/alice".to_owned();
    let back = UndeleteRecordRequest {
        space: space(),
        mutation_id: "u".into(),
        key: Some(key("1")),
        ..Default::default()
    };
    let history = || ListRecordHistoryRequest { space: space(), ..of("1") };
    let reader = granted("read:users/alice").await;
    assert_eq!(history_line(&reader, history()).await, "2 steps");
    let status = reader.spaces.clone().undelete_record(back.clone()).await.unwrap_err();
    assert_eq!(describe(&status), "PermissionDenied PERMISSION_DENIED right=write");
    let writer = granted("write:users/alice").await;
    let answer = writer.spaces.clone().undelete_record(back).await.unwrap().into_inner();
    assert_eq!(show(&answer.result.unwrap()), "applied 3");
    let steps = page(&writer, history()).await.unwrap().steps;
    let change = steps[0].change.as_ref().unwrap();
    assert_eq!((change.author.as_str(), change.revision), ("bob", 3));
    house.server.stop().await;
}
