//! ListRecords: the first load, page by page, and what follows it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use syncline::rpc::proto::{
    ChangesSinceRequest, Cursor, DocumentForm, ListRecordsRequest, ListRecordsResponse, RecordKey,
};
use tokio::task::JoinSet;
use tonic::Status;

use super::{House, delete, send_batch};
use crate::support::{Client, describe, put, text};

async fn page(client: &Client, size: i32, token: &str) -> Result<ListRecordsResponse, Status> {
    let request = ListRecordsRequest {
        collection: "task".into(),
        page_size: size,
        page_token: token.into(),
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    };
    Ok(client.stub.clone().list_records(request).await?.into_inner())
}

/// All pages: the records' ids, the sizes of the pages, the cursor.
async fn pages(client: &Client, size: i32) -> (Vec<String>, Vec<usize>, Cursor) {
    let (mut ids, mut sizes, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = page(client, size, &token).await.unwrap();
        assert!(page.encoded_len() <= 3 << 20);
        sizes.push(page.records.len());
        ids.extend(page.records.into_iter().map(|record| record.key.unwrap().id));
        token = page.next_page_token;
        if token.is_empty() {
            return (ids, sizes, page.cursor.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn living_records_come_by_the_bytes_of_their_ids() {
    let house = House::new().await;
    let alice = house.alice().await;
    let (cursor, token) = {
        let empty = page(&alice, 0, "").await.unwrap();
        assert!(empty.records.is_empty());
        (empty.cursor.unwrap(), empty.next_page_token)
    };
    assert_eq!((cursor.revision, token.as_str()), (0, ""));
    let ids = ["b", "a", "Z", "é", "z", "10", "9", "𝄞", "\u{ff21}", "a b", "~", "%", "_", "ä"];
    for (n, id) in ids.iter().enumerate() {
        alice.mutate(put(&format!("m{n}"), id, "{}")).await.unwrap();
    }
    alice.mutate(delete("gone", "a")).await.unwrap();
    let mut elsewhere = put("note", "in another collection", "{}");
    elsewhere.key.as_mut().unwrap().collection = "note".into();
    alice.mutate(elsewhere).await.unwrap();
    let mut expected: Vec<_> = ids.into_iter().filter(|id| *id != "a").collect();
    expected.sort_by_key(|id| id.as_bytes());
    for size in [0, 1, 2, 5, 13, 14, 1_000, 1_000_000_000] {
        let (listed, sizes, cursor) = pages(&alice, size).await;
        assert_eq!(listed, expected, "pages of {size}");
        let max = usize::try_from(size).unwrap();
        assert!(size == 0 || sizes.iter().all(|page| *page <= max), "{sizes:?} of {size}");
        assert_eq!(cursor.revision, 16);
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_100_records_by_default_and_1000_at_most() {
    let house = House::new().await;
    let alice = house.alice().await;
    for half in 0..2 {
        let batch = (0..600).map(|n| put(&format!("{half}-{n}"), &format!("{half}-{n}"), "{}"));
        send_batch(&alice, "", true, batch.collect()).await.unwrap();
    }
    assert_eq!(page(&alice, 0, "").await.unwrap().records.len(), 100);
    for size in [1_000, 1_001, i32::MAX] {
        assert_eq!(page(&alice, size, "").await.unwrap().records.len(), 1_000);
    }
    assert_eq!(pages(&alice, 400).await.1, [400, 400, 400, 0]);
    let negative = page(&alice, -1, "").await.unwrap_err();
    assert_eq!(describe(&negative), "InvalidArgument VALIDATION_ERROR page_size");
    for token in ["x", "!", "AAAA", &"A".repeat(4_000)] {
        let forged = page(&alice, 0, token).await.unwrap_err();
        assert_eq!(describe(&forged), "InvalidArgument VALIDATION_ERROR page_token", "{token}");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_of_another_space_is_told() {
    let house = House::new().await;
    let (alice, bob) = (house.alice().await, house.server.client("bob").await);
    for client in [&alice, &bob] {
        for id in ["1", "2"] {
            client.mutate(put(id, id, "{}")).await.unwrap();
        }
    }
    let token = page(&alice, 1, "").await.unwrap().next_page_token;
    assert!(!token.is_empty());
    let status = page(&bob, 1, &token).await.unwrap_err();
    assert!(describe(&status).starts_with("FailedPrecondition EPOCH_CHANGED"), "{status:?}");
    house.end().await;
}

/// Writes to its own records until told to stop: changes, deletes, new ones.
async fn write(client: Client, writer: usize, stop: Arc<AtomicBool>) {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let task = format!("{}-{writer}", n * 7 % 40);
        let id = format!("w{writer}-{n}");
        let mutation = match n % 3 {
            0 => delete(&id, &task),
            _ => put(&id, &task, &format!("{{\"n\":{n}}}")),
        };
        client.mutate(mutation).await.unwrap();
        n += 1;
    }
}

type State = BTreeMap<Name, String>;
type Name = (String, String);

fn name(key: Option<RecordKey>) -> Name {
    let key = key.unwrap();
    (key.collection, key.id)
}

/// Everything after the cursor, applied to the state.
async fn follow(client: &Client, mut cursor: Cursor, state: &mut State) -> Cursor {
    loop {
        let request = ChangesSinceRequest {
            cursor: Some(cursor),
            page_size: 7,
            document_form: DocumentForm::Json.into(),
            ..Default::default()
        };
        let page = client.stub.clone().changes_since(request).await.unwrap().into_inner();
        for change in page.changes {
            match change.document {
                Some(document) => state.insert(name(change.key), text(&document)),
                None => state.remove(&name(change.key)),
            };
        }
        cursor = page.cursor.unwrap();
        if !page.has_more {
            return cursor;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_beside_writers_misses_nothing_with_the_changes_after_it() {
    let house = House::new().await;
    let alice = house.alice().await;
    let batch = (0..40).map(|n| put(&format!("m{n}"), &format!("{n}-0"), r#"{"n":"first"}"#));
    send_batch(&alice, "", false, batch.collect()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..2 {
        writers.spawn(write(house.alice().await, writer, Arc::clone(&stop)));
    }
    let mut states = Vec::new();
    for _round in 0..5 {
        let (mut state, mut token, mut first) = (State::new(), String::new(), None);
        loop {
            let page = page(&alice, 3, &token).await.unwrap();
            let cursor = page.cursor.unwrap();
            assert_eq!(*first.get_or_insert_with(|| cursor.clone()), cursor, "the first page's");
            for record in page.records {
                assert!(!record.deleted);
                state.insert(name(record.key), text(&record.document.unwrap()));
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        let cursor = follow(&alice, first.unwrap(), &mut state).await;
        states.push((state, cursor));
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let mut truth = State::new();
    let beginning = Cursor::default();
    let head = follow(&alice, beginning, &mut truth).await;
    for (mut state, cursor) in states {
        assert_eq!(follow(&alice, cursor, &mut state).await, head);
        assert_eq!(state, truth);
    }
    house.end().await;
}
