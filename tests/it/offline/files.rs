//! The local file: what it refuses, keeps, and never holds.

use std::fs;

use futures_util::StreamExt;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use syncline::client::{Changes, Client, Edit, Error, Options, Phase, StoreError};

use super::Device;
use super::device::{SOON, next, sql, url};
use crate::support::{House, mint, wait_for};

fn refused(opened: Result<Client, Error>) -> StoreError {
    match opened {
        Err(Error::Store(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused() {
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({"a": 1})).await.unwrap();
    let (file, name) = (device.file(), device.client.device());
    device.client.close().await;

    let other_user = refused(Client::open(Options::new(&file, "bob")).await);
    let StoreError::OtherUser { owner, user, .. } = &other_user else { panic!("{other_user}") };
    assert_eq!((owner.as_str(), user.as_str()), ("alice", "bob"));
    let other_device = refused(Client::open(Options::new(&file, "alice").device("tablet")).await);
    assert!(matches!(other_device, StoreError::OtherDevice { .. }), "{other_device}");
    let same = Client::open(Options::new(&file, "alice").device(&name)).await.unwrap();
    same.close().await;

    sql(&file, "PRAGMA user_version = 9").await;
    let newer = refused(Client::open(Options::new(&file, "alice")).await);
    assert!(matches!(newer, StoreError::NewerFormat { found: 9, .. }), "{newer}");

    let foreign = file.with_file_name("foreign.db");
    fs::write(&foreign, "").unwrap();
    sql(&foreign, "CREATE TABLE things (a)").await;
    let before = fs::read(&foreign).unwrap();
    let not_ours = refused(Client::open(Options::new(&foreign, "alice")).await);
    assert!(matches!(not_ours, StoreError::NotOurs { .. }), "{not_ours}");
    // Nothing of it was changed, be it only how it is written.
    assert_eq!(fs::read(&foreign).unwrap(), before);

    let text = file.with_file_name("text.db");
    fs::write(&text, "this is no database, and long enough not to be taken for an empty one")
        .unwrap();
    let text = refused(Client::open(Options::new(&text, "alice")).await);
    assert!(matches!(text, StoreError::NotOurs { .. }), "{text}");
}

#[tokio::test]
async fn an_older_copy_of_a_file_is_found_out() {
    let house = House::new().await;
    let device = Device::new("alice", &house.server).await;
    device.own.put("task", "1", json!({"n": 1})).await.unwrap();
    device.synced().await;
    let token = mint("alice");
    let url = url(house.server.address());
    let file = device.file();
    let device = device.restarted(|options| options).await;
    let copy = file.with_file_name("copy.db");
    device.client.close().await;
    fs::copy(&file, &copy).unwrap();
    let open = async |file: &std::path::Path| {
        let options = Options::new(file, "alice").server(&url).token(token.clone());
        let client = Client::open(options).await.unwrap();
        let own = client.own().await.unwrap();
        (client, own)
    };
    let (client, own) = open(&file).await;
    own.put("task", "2", json!({"n": 2})).await.unwrap();
    client.synced(SOON).await.unwrap();
    client.close().await;
    let (client, own) = open(&copy).await;
    own.put("task", "3", json!({"n": 3})).await.unwrap();
    let status = wait_for("the copy to be found out", async || {
        let status = client.status().await.unwrap();
        let halted = matches!(status.spaces[0].phase, Some(Phase::Halted(_)));
        halted.then_some(status)
    })
    .await;
    let problem = status.spaces[0].problem.clone().unwrap();
    assert!(problem.what.contains("older copy"), "{problem:?}");
    assert_eq!(house.alice.head().await, 2);
    assert_eq!(own.pending().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_an_older_app_has_queued_is_brought_up_to_date() {
    let house = House::new().await;
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({"title": "old"})).await.unwrap();
    device.own.put("task", "2", json!({"broken": true})).await.unwrap();
    let (url, token) = (url(house.server.address()), mint("alice"));
    let device = device
        .restarted(|options| {
            options.server(&url).token(token).schema_version(2, |_collection, from, edit| {
                assert_eq!(from, 0);
                let Edit::Put(document) = edit else { panic!("{edit:?}") };
                let mut fields = document.fields();
                let title = fields.remove("title").ok_or("there is no title")?;
                fields.insert("name".into(), title);
                let document = syncline::domain::Document::from_fields(fields);
                Ok(Edit::Put(document.map_err(|fault| fault.to_string())?))
            })
        })
        .await;
    device.synced().await;
    assert_eq!(house.alice.document("task", "1").await, json!({"name": "old"}));
    let parked = device.own.parked().await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].trouble.as_ref().unwrap().message, "there is no title");
    assert_eq!(device.see("task", "2").await, Value::Null);
}

/// What the file has, whoever may see it.
async fn count(device: &Device, of: &'static str) -> i64 {
    let url = format!("sqlite://{}", device.file().display());
    let mut db = SqliteConnection::connect(&url).await.unwrap();
    let count = sqlx::query_scalar(of).fetch_one(&mut db).await.unwrap();
    db.close().await.unwrap();
    count
}

const TASKS: &str = "SELECT count(*) FROM records WHERE collection = 'task'";
const RECORDS: &str = "SELECT count(*) FROM records";
/// Those of which the file still says more than that they are gone.
const KEPT_NOTES: &str = "SELECT count(*) FROM records WHERE collection = 'note' \
     AND coalesce(shown, about, server, staged, checksum) IS NOT NULL";
const DONE: &str = "SELECT count(*) FROM entries WHERE done = 1";

#[tokio::test]
async fn what_nobody_wants_is_taken_away() {
    let house = House::new().await;
    let device = Device::new("alice", &house.server).await;
    for id in 0..20 {
        device.own.put("task", &id.to_string(), json!({"n": id})).await.unwrap();
        device.own.put("note", &id.to_string(), json!({"n": id})).await.unwrap();
    }
    device.synced().await;
    let tasks = device.client.collections("", &["task"]).await.unwrap();
    device.synced().await;
    let shown = async |collection: &str| {
        let query = syncline::client::Query::all(collection);
        tasks.query(&query).await.unwrap().len()
    };
    assert_eq!((shown("task").await, shown("note").await), (20, 0));
    assert_eq!(count(&device, KEPT_NOTES).await, 0);
    // Wanted again, it comes again.
    let all = device.client.collections("", &["task", "note"]).await.unwrap();
    device.synced().await;
    assert_eq!((shown("task").await, shown("note").await), (20, 20));
    all.delete("note", "0").await.unwrap();
    device.synced().await;
    let mut watch = all.watch(&syncline::client::Query::all("task"));
    assert_eq!(next(&mut watch).await.changed.len(), 20);
    device.client.leave("").await.unwrap();
    assert_eq!((shown("task").await, shown("note").await), (0, 0));
    assert_eq!(count(&device, RECORDS).await, 0);
    // Who watches is told so, and that there is nothing more to tell.
    let gone = next(&mut watch).await;
    assert!(gone.whole || gone.removed.len() == 20, "{gone:?}");
    while let Some(told) = watch.next().await {
        assert_eq!(told.unwrap(), Changes { whole: true, ..Changes::default() });
    }
}

#[tokio::test]
async fn what_is_long_gone_is_taken_away_and_who_watched_since_begins_anew() {
    let house = House::new().await;
    let device = Device::new("alice", &house.server).await;
    for id in 0..20 {
        device.own.put("task", &id.to_string(), json!({"n": id})).await.unwrap();
    }
    device.synced().await;
    let watch = || device.own.watch(&syncline::client::Query::all("task"));
    let (mut late, mut read) = (watch(), watch());
    for stream in [&mut late, &mut read] {
        let first = next(stream).await;
        assert_eq!((first.whole, first.changed.len()), (true, 20));
    }
    for id in 0..10 {
        device.own.delete("task", &id.to_string()).await.unwrap();
    }
    device.synced().await;
    let mut removed = 0;
    while removed < 10 {
        let told = next(&mut read).await;
        assert!(!told.whole);
        removed += told.removed.len();
    }
    let done = count(&device, DONE).await;
    assert!(done > 10, "{done}");
    // Whoever looks within the last ten thousand transactions is told what is gone.
    device.client.collect().await.unwrap();
    assert_eq!((count(&device, TASKS).await, count(&device, DONE).await), (20, done));
    // So many more have come, and so many edits.
    sql(&device.file(), "UPDATE spaces SET moved = moved + 20000, last_entry = last_entry + 1000;")
        .await;
    device.client.collect().await.unwrap();
    assert_eq!((count(&device, TASKS).await, count(&device, DONE).await), (10, 0));
    let told = next(&mut late).await;
    assert_eq!((told.whole, told.changed.len(), told.removed.len()), (true, 10, 0));
    // It goes on as ever.
    device.own.put("task", "new", json!({})).await.unwrap();
    let told = next(&mut late).await;
    assert_eq!((told.whole, told.changed[0].id.as_str()), (false, "new"));
    device.synced().await;
}
