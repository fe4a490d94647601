//! ChangesSince: the state or every step, filtered or not, cut by count and by
//! bytes, and always complete.

use prost::Message;
use syncline::rpc::proto::{
    Change, ChangeAction, ChangesSinceRequest, ChangesSinceResponse, Cursor, DocumentForm,
    RecordKey,
};
use tonic::Status;

use super::{House, delete, patch, send, send_batch};
use crate::support::{Client, describe, put, text};

fn request(cursor: Option<Cursor>) -> ChangesSinceRequest {
    ChangesSinceRequest { cursor, document_form: DocumentForm::Json.into(), ..Default::default() }
}

async fn read(
    client: &Client,
    request: ChangesSinceRequest,
) -> Result<ChangesSinceResponse, Status> {
    Ok(client.stub.clone().changes_since(request).await?.into_inner())
}

/// All pages of such requests; the ranges of revisions that they cover.
async fn read_all(client: &Client, form: &ChangesSinceRequest) -> (Vec<Change>, Vec<i64>) {
    let (mut changes, mut ends, mut cursor) = (Vec::new(), Vec::new(), form.cursor.clone());
    loop {
        let page = read(client, ChangesSinceRequest { cursor, ..form.clone() }).await.unwrap();
        assert!(page.encoded_len() <= 3 << 20, "{} bytes", page.encoded_len());
        let reached = page.cursor.clone().unwrap().revision;
        assert!(page.changes.iter().all(|change| change.revision <= reached));
        assert!(reached > ends.last().copied().unwrap_or(0), "a page without progress");
        assert_eq!(page.has_more, reached < page.head);
        changes.extend(page.changes);
        ends.push(reached);
        cursor = page.cursor;
        if !page.has_more {
            return (changes, ends);
        }
    }
}

fn of(
    collection: &str,
    mut mutation: syncline::rpc::proto::Mutation,
) -> syncline::rpc::proto::Mutation {
    mutation.key.as_mut().unwrap().collection = collection.into();
    mutation
}

/// Five revisions: 1 created and updated, 2 created and deleted, a note.
async fn house_with_history() -> House {
    let house = House::new().await;
    let alice = house.alice().await;
    for (device, mutation) in [
        ("phone", put("m1", "1", r#"{"n":1}"#)),
        ("", put("m2", "2", r#"{"n":2}"#)),
        ("desk", patch("m3", "1", r#"{"m":3}"#, &[])),
        ("", of("note", put("m4", "1", r#"{"n":4}"#))),
        ("", delete("m5", "2")),
    ] {
        send(&alice, device, mutation).await.unwrap();
    }
    house
}

/// A change as a line.
fn line(change: &Change) -> String {
    let action = match change.action() {
        ChangeAction::Unspecified => panic!("never sent"),
        ChangeAction::Created => "+",
        ChangeAction::Updated => "*",
        ChangeAction::Deleted => "-",
    };
    let RecordKey { collection, id } = change.key.as_ref().unwrap();
    let document = change.document.as_ref().map_or_else(|| "-".into(), text);
    assert_eq!(change.author, "alice");
    assert!(change.commit_time.is_some());
    format!(
        "{}{action}{collection}/{id} {document} after {} by {}:{}",
        change.revision, change.previous_revision, change.device, change.mutation_id
    )
}

const STEPS: [&str; 5] = [
    r#"1+task/1 {"n":1} after 0 by phone:m1"#,
    r#"2+task/2 {"n":2} after 0 by :m2"#,
    r#"3*task/1 {"m":3,"n":1} after 1 by desk:m3"#,
    r#"4+note/1 {"n":4} after 0 by :m4"#,
    "5-task/2 - after 2 by :m5",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_last_changes_or_every_step_of_the_collections_it_names() {
    let house = house_with_history().await;
    let alice = house.alice().await;
    let epoch = read(&alice, request(None)).await.unwrap().cursor.unwrap().epoch;
    let from = |revision| Some(Cursor { epoch: epoch.clone(), revision });
    for (name, every_step, collections, after, steps) in [
        ("all", true, &[][..], 0, &[0, 1, 2, 3, 4][..]),
        ("the state", false, &[], 0, &[2, 3, 4]),
        ("tasks", true, &["task"], 0, &[0, 1, 2, 4]),
        ("tasks' state", false, &["task"], 0, &[2, 4]),
        ("notes' state", false, &["note"], 0, &[3]),
        ("both by name", false, &["note", "task"], 0, &[2, 3, 4]),
        ("none such", true, &["nothing"], 0, &[]),
        ("after 2", true, &[], 2, &[2, 3, 4]),
        ("notes after 4", false, &["note"], 4, &[]),
        ("nothing after the head", true, &[], 5, &[]),
    ] {
        let collections = collections.iter().map(|name| (*name).to_owned()).collect();
        let request = ChangesSinceRequest { every_step, collections, ..request(from(after)) };
        let page = read(&alice, request).await.unwrap();
        let lines: Vec<_> = page.changes.iter().map(line).collect();
        let expected: Vec<_> = steps.iter().map(|step| STEPS[*step]).collect();
        assert_eq!(lines, expected, "{name}");
        // Also where nothing passed the filter.
        assert_eq!(page.cursor, from(5), "{name}");
        assert_eq!((page.has_more, page.head, page.floor), (false, 5, 0), "{name}");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_size_give_all_changes_once() {
    let house = House::new().await;
    let alice = house.alice().await;
    for half in 0..2 {
        let batch = (0..600).map(|n| {
            let mutation = put(&format!("{half}-{n}"), &format!("{}", n % 550), "{}");
            of(if n % 100 == 0 { "note" } else { "task" }, mutation)
        });
        send_batch(&alice, "", false, batch.collect()).await.unwrap();
    }
    for (size, first) in [(0, 100), (7, 7), (1_000, 1_000), (1_000_000_000, 1_000)] {
        let steps = ChangesSinceRequest { page_size: size, every_step: true, ..request(None) };
        assert_eq!(read(&alice, steps.clone()).await.unwrap().changes.len(), first, "{size}");
        let (changes, _ends) = read_all(&alice, &steps).await;
        let revisions: Vec<_> = changes.iter().map(|change| change.revision).collect();
        assert_eq!(revisions, (1..=1_200).collect::<Vec<_>>(), "{size}");
        let state = ChangesSinceRequest { page_size: size, ..request(None) };
        let (state, _ends) = read_all(&alice, &state).await;
        let mut last = std::collections::BTreeMap::new();
        for change in &changes {
            last.insert(change.key.clone().unwrap().encode_to_vec(), change.clone());
        }
        let mut expected: Vec<_> = last.into_values().collect();
        expected.sort_by_key(|change| change.revision);
        assert_eq!(state, expected, "{size}");
        let collections = vec!["note".to_owned()];
        let notes = ChangesSinceRequest { page_size: size, collections, ..request(None) };
        let (notes, _ends) = read_all(&alice, &notes).await;
        expected.retain(|change| change.key.as_ref().unwrap().collection == "note");
        assert_eq!(notes, expected, "{size}");
    }
    let one = ChangesSinceRequest { page_size: 1, ..request(None) };
    assert_eq!(read(&alice, one).await.unwrap().changes.len(), 1);
    let negative = ChangesSinceRequest { page_size: -1, ..request(None) };
    let status = read(&alice, negative).await.unwrap_err();
    assert_eq!(describe(&status), "InvalidArgument VALIDATION_ERROR page_size");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_cut_by_bytes_in_either_form() {
    let house = House::new().await;
    let alice = house.alice().await;
    // Few bytes as JSON text, many as a Struct.
    let dense = format!("{{\"a\":[{}]}}", vec!["1"; 9_990].join(","));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(250 << 10));
    for batch in 0..10 {
        let text = |n: i64| if n % 10 < 2 { &dense } else { &large };
        let batch =
            (batch * 10..batch * 10 + 10).map(|n| put(&format!("m{n}"), &format!("{n}"), text(n)));
        send_batch(&alice, "", false, batch.collect()).await.unwrap();
    }
    for (every_step, form) in [(false, DocumentForm::Json), (true, DocumentForm::Struct)] {
        let request = ChangesSinceRequest {
            page_size: 1_000,
            every_step,
            document_form: form.into(),
            ..Default::default()
        };
        let (changes, ends) = read_all(&alice, &request).await;
        let revisions: Vec<_> = changes.iter().map(|change| change.revision).collect();
        assert_eq!(revisions, (1..=100).collect::<Vec<_>>(), "{form:?} {every_step}");
        assert!(ends.len() > 5, "{form:?}: pages end at {ends:?}");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_structs_that_grow_on_the_way_stays_below_the_limit() {
    let house = House::new().await;
    let alice = house.alice().await;
    let dense = format!("{{\"a\":[{}]}}", vec!["1"; 9_990].join(","));
    let batch = (0..60).map(|n| put(&format!("m{n}"), &format!("{n}"), &dense));
    send_batch(&alice, "", false, batch.collect()).await.unwrap();
    let request = ChangesSinceRequest { page_size: 1_000, ..Default::default() };
    let (changes, ends) = read_all(&alice, &request).await;
    assert_eq!(changes.len(), 60);
    assert!(ends.len() > 1, "it did not grow: pages end at {ends:?}");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_cannot_be_resumed_is_told_with_where_the_space_is() {
    let house = house_with_history().await;
    let alice = house.alice().await;
    let epoch = read(&alice, request(None)).await.unwrap().cursor.unwrap().epoch;
    let mut connection = house.database.connect().await;
    sqlx::query("update spaces set floor = 3").execute(&mut connection).await.unwrap();
    let at = format!("epoch={epoch} floor=3 head=5");
    let other = uuid::Uuid::new_v4().to_string();
    for (epoch, revision, expected) in [
        (epoch.as_str(), 0, "3 changes".to_owned()),
        ("", 0, "3 changes".to_owned()),
        (&epoch, 3, "2 changes".to_owned()),
        (&epoch, 5, "0 changes".to_owned()),
        (&epoch, 2, format!("FailedPrecondition CURSOR_EXPIRED {at}")),
        (&epoch, 6, format!("FailedPrecondition CURSOR_AHEAD {at}")),
        (&epoch, i64::MAX, format!("FailedPrecondition CURSOR_AHEAD {at}")),
        (&other, 0, format!("FailedPrecondition EPOCH_CHANGED {at}")),
        (&other, 5, format!("FailedPrecondition EPOCH_CHANGED {at}")),
        ("", 5, "InvalidArgument VALIDATION_ERROR cursor.epoch".to_owned()),
        ("x", 5, "InvalidArgument VALIDATION_ERROR cursor.epoch".to_owned()),
        (&epoch, -1, "InvalidArgument VALIDATION_ERROR cursor.revision".to_owned()),
    ] {
        let cursor = Cursor { epoch: epoch.to_owned(), revision };
        let answer = read(&alice, request(Some(cursor))).await;
        let seen = match &answer {
            Ok(page) => format!("{} changes", page.changes.len()),
            Err(status) => describe(status),
        };
        assert_eq!(seen, expected, "{epoch} {revision}");
    }
    house.end().await;
}
