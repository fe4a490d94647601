//! The local file: what it refuses, keeps, and never holds.

use std::fs;

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use syncline::client::{Client, Edit, EntryState, Error, Options, Phase, StoreError};

use super::Device;
use crate::support::{House, mint, wait_for};

async fn run(file: &std::path::Path, sql: &'static str) {
    let mut db = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::raw_sql(sql).execute(&mut db).await.unwrap();
    db.close().await.unwrap();
}

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

    run(&file, "PRAGMA user_version = 9").await;
    let newer = refused(Client::open(Options::new(&file, "alice")).await);
    assert!(matches!(newer, StoreError::NewerFormat { found: 9, .. }), "{newer}");

    let foreign = file.with_file_name("foreign.db");
    fs::write(&foreign, "").unwrap();
    run(&foreign, "CREATE TABLE things (a)").await;
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
    let url = super::device::url(&house.server);
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
    client.synced(super::device::SOON).await.unwrap();
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
async fn sensitive_values_are_never_on_disk() {
    const SECRET_NUMBER: &str = "4929-0000-1111-2222";
    let house = House::new().await;
    let url = super::device::url(&house.server);
    let token = mint("alice");
    let options =
        |options: Options| options.sensitive("card", "/number").server(&url).token(token.clone());
    let device = Device::with("alice", options).await;
    device.own.put("card", "1", json!({"name": "mine", "number": SECRET_NUMBER})).await.unwrap();
    assert_eq!(device.see("card", "1").await["number"], SECRET_NUMBER);
    device.synced().await;
    device.own.put("card", "1", json!({"name": "ours", "number": SECRET_NUMBER})).await.unwrap();
    device.synced().await;
    let on_disk = |device: &Device| {
        let dir = device.file().parent().unwrap().to_owned();
        let files =
            fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        let secret = SECRET_NUMBER.as_bytes();
        files.into_iter().any(|bytes| bytes.windows(secret.len()).any(|it| it == secret))
    };
    assert!(!on_disk(&device));
    let record = house.alice.document("card", "1").await;
    assert_eq!(record["number"], SECRET_NUMBER);

    // After a restart they are not known, and not taken away by who does not know them.
    let device = device.restarted(options).await;
    assert_eq!(device.see("card", "1").await, json!({"name": "ours"}));
    device.own.put("card", "1", json!({"name": "new"})).await.unwrap();
    device.synced().await;
    let record = house.alice.document("card", "1").await;
    assert_eq!(record, json!({"name": "new", "number": SECRET_NUMBER}));
    // Its own change comes without its document, and is read back whole.
    wait_for("the whole record", async || {
        (device.see("card", "1").await["number"] == SECRET_NUMBER).then_some(())
    })
    .await;
    assert!(!on_disk(&device));

    // What waits in memory only is set aside once that is gone.
    let device = device.restarted(|options| options.sensitive("card", "/number")).await;
    let id = device.own.put("card", "2", json!({"number": SECRET_NUMBER})).await.unwrap();
    let device = device.restarted(options).await;
    let outcome = device.own.settled(&id).await.unwrap().unwrap();
    assert_eq!(outcome.state, EntryState::Failed);
    assert_eq!(outcome.trouble.unwrap().reason, "SENSITIVE_VALUES_LOST");
    device.own.discard(&id).await.unwrap();
    assert!(!on_disk(&device));
}

#[tokio::test]
async fn what_an_older_app_has_queued_is_brought_up_to_date() {
    let house = House::new().await;
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({"title": "old"})).await.unwrap();
    device.own.put("task", "2", json!({"broken": true})).await.unwrap();
    let (url, token) = (super::device::url(&house.server), mint("alice"));
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
    let count = async |collection: &str| {
        let query = syncline::client::Query::all(collection);
        tasks.query(&query).await.unwrap().len()
    };
    assert_eq!((count("task").await, count("note").await), (20, 0));
    // Wanted again, it comes again.
    let all = device.client.collections("", &["task", "note"]).await.unwrap();
    device.synced().await;
    assert_eq!((count("task").await, count("note").await), (20, 20));
    all.delete("note", "0").await.unwrap();
    device.synced().await;
    device.client.leave("").await.unwrap();
    assert_eq!((count("task").await, count("note").await), (0, 0));
}
