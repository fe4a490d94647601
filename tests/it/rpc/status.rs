//! GetStatus: where a space is, and the limits that the server then keeps.

use syncline::rpc::proto::{GetStatusRequest, GetStatusResponse, Limits};

use super::{House, lines, send_batch};
use crate::support::{Client, describe, put};

async fn status(client: &Client, space: &str) -> GetStatusResponse {
    let request = GetStatusRequest { space: space.into(), ..Default::default() };
    client.stub.clone().get_status(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_tells_where_it_is_from_its_first_look_on() {
    let house = House::new().await;
    let alice = house.alice().await;
    let before = status(&alice, "").await;
    assert_eq!((before.space.as_str(), before.head, before.floor), ("users/alice", 0, 0));
    assert!(uuid::Uuid::try_parse(&before.epoch).is_ok());
    alice.mutate(put("m", "1", "{}")).await.unwrap();
    let after = status(&alice, "users/alice").await;
    assert_eq!((after.head, &after.epoch), (1, &before.epoch));
    let bob = house.server.client("bob").await;
    let other = status(&bob, "").await;
    assert_eq!((other.space.as_str(), other.head), ("users/bob", 0));
    assert_ne!(other.epoch, before.epoch);
    house.end().await;
}

fn expected_limits() -> Limits {
    Limits {
        queue_entries: 10_000,
        message_bytes: 3 << 20,
        document_bytes: 256 << 10,
        document_depth: 32,
        document_values: 10_000,
        batch_mutations: 1_000,
        page_entries: 1_000,
        stream_subscriptions: 1_000,
        stream_mutates: 32,
        event_bytes: 4 << 10,
        filter_keys: 1_000,
        stream_filter_keys: 10_000,
        filter_collections: 100,
        reads_per_second: 0,
        writes_per_second: 0,
        opens_per_second: 0,
        user_streams: 0,
        space_records: 0,
        space_bytes: 0,
        space_subscriptions: 0,
        wait: Some(prost_types::Duration { seconds: 15, nanos: 0 }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_are_told_and_kept() {
    let house = House::new().await;
    let alice = house.alice().await;
    let limits = status(&alice, "").await.limits.unwrap();
    assert_eq!(limits, expected_limits());
    let size = |limit: i32| usize::try_from(limit).unwrap();
    let (bytes, depth) = (size(limits.document_bytes), size(limits.document_depth));
    let deep = |levels| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let long = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    // The object and the list count as well.
    let many = |n: usize| format!("{{\"a\":[{}]}}", vec!["1"; n - 2].join(","));
    let values = size(limits.document_values);
    let documents = [
        deep(depth),
        deep(depth + 1),
        long(bytes),
        long(bytes + 1),
        many(values),
        many(values + 1),
    ];
    let batch = documents.iter().enumerate();
    let batch = batch.map(|(n, text)| put(&format!("m{n}"), "1", text)).collect();
    let invalid = "rejected INVALID mutation.put.document";
    let expected = ["applied 1", invalid, "applied 2", invalid, "applied 3", invalid];
    assert_eq!(lines(&send_batch(&alice, "", false, batch).await), expected);
    let batch = |n: i32| (0..n).map(|n| put(&format!("b{n}"), "1", "{}")).collect();
    let most = send_batch(&alice, "", false, batch(limits.batch_mutations)).await.unwrap();
    assert_eq!(most.len(), 1_000);
    let more = send_batch(&alice, "", false, batch(limits.batch_mutations + 1)).await;
    assert_eq!(lines(&more), ["InvalidArgument VALIDATION_ERROR mutations"]);
    let sized = |bytes: usize| {
        let texts = (0..13).map(|n| put(&format!("{bytes}-{n}"), "1", &long(200 << 10)));
        let mut batch: Vec<_> = texts.collect();
        let request = syncline::rpc::proto::BatchMutateRequest {
            mutations: batch.clone(),
            document_form: 2,
            ..Default::default()
        };
        let missing = bytes - prost::Message::encoded_len(&request);
        batch[0] = put(&format!("{bytes}-0"), "1", &long((200 << 10) + missing));
        batch
    };
    let most = send_batch(&alice, "", false, sized(size(limits.message_bytes))).await;
    assert_eq!(lines(&most).len(), 13);
    let more = send_batch(&alice, "", false, sized(size(limits.message_bytes) + 1)).await;
    assert_eq!(lines(&more), ["ResourceExhausted REQUEST_TOO_LARGE"]);
    for space in ["users/bob", "users/", "alice", "users/alice/", "USERS/alice"] {
        let request = GetStatusRequest { space: space.into(), ..Default::default() };
        let foreign = alice.stub.clone().get_status(request).await.unwrap_err();
        assert_eq!(describe(&foreign), "NotFound SPACE_NOT_FOUND", "{space}");
    }
    house.end().await;
}
