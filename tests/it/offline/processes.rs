//! Several clients on one file, as several processes have it: one syncs, all read and write.

use serde_json::json;
use syncline::client::{Client, EntryState, Link, Options, Query};
use tokio::task::JoinSet;

use super::Device;
use super::device::{SOON, next, settled, url};
use crate::support::proxy::{Fault, Proxy, Target};
use crate::support::{House, mint, wait_for};

#[tokio::test]
async fn one_syncs_and_all_see_the_same() {
    let house = House::new().await;
    let first = Device::new("alice", &house.server).await;
    first.synced().await;
    let options = Options::new(first.file(), "alice")
        .server(&url(house.server.address()))
        .token(mint("alice"));
    let second = Client::open(options.clone()).await.unwrap();
    let own = second.own().await.unwrap();
    assert_eq!(second.device(), first.client.device());
    assert_eq!(second.status().await.unwrap().link, Link::Elsewhere);

    let mut seen = first.own.watch(&Query::all("task"));
    assert!(next(&mut seen).await.whole);
    let id = own.put("task", "1", json!({"by": "second"})).await.unwrap();
    assert_eq!(next(&mut seen).await.changed[0].id, "1");
    assert_eq!(settled(&own, &id).await.revision, 1);
    assert_eq!(house.alice.document("task", "1").await, json!({"by": "second"}));

    // Whoever syncs goes; another one takes over.
    first.client.close().await;
    let id = own.put("task", "2", json!({"by": "second"})).await.unwrap();
    assert_eq!(settled(&own, &id).await.revision, 2);
    second.synced(SOON).await.unwrap();
    second.close().await;
}

/// A client that is dropped has nobody who waits for its end: what it was doing ends before
/// another one begins.
#[tokio::test]
async fn who_is_dropped_leaves_the_file_to_the_others() {
    let house = House::new().await;
    let proxy = Proxy::start(Target::Tcp(house.server.address())).await;
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(dir.path().join("app.db"), "alice").token(mint("alice"));
    let open = async |url: &str| Client::open(options.clone().server(url)).await.unwrap();
    let first = open(&url(proxy.address())).await;
    let own = first.own().await.unwrap();
    first.synced(SOON).await.unwrap();
    let second = open(&url(house.server.address())).await;
    assert_eq!(second.status().await.unwrap().link, Link::Elsewhere);
    // It is sent, and its answer comes to nobody.
    proxy.arm(Fault::SilenceAfter("cut here".into()));
    let id = own.put("task", "1", json!({"title": "cut here"})).await.unwrap();
    wait_for("it to be sent", async || (proxy.fired() > 0).then_some(())).await;
    drop((first, own));
    let own = second.own().await.unwrap();
    assert_eq!(settled(&own, &id).await.state, EntryState::Applied);
    second.synced(SOON).await.unwrap();
    assert_eq!(house.alice.head().await, 1);
    second.close().await;
}

#[tokio::test]
async fn writers_of_several_processes_do_not_lose_each_others_edits() {
    let house = House::new().await;
    let first = Device::new("alice", &house.server).await;
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let options = Options::new(first.file(), "alice")
            .server(&url(house.server.address()))
            .token(mint("alice"));
        writers.spawn(async move {
            let client = Client::open(options).await.unwrap();
            let own = client.own().await.unwrap();
            for number in 0..50 {
                let id = format!("{writer}-{number}");
                own.put("task", &id, json!({"writer": writer})).await.unwrap();
            }
            client.close().await;
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    first.synced().await;
    assert_eq!(first.own.query(&Query::all("task")).await.unwrap().len(), 200);
    wait_for("all on the server", async || (house.alice.head().await == 200).then_some(())).await;
}

#[tokio::test]
async fn who_has_no_server_leaves_the_file_to_who_has_one() {
    let house = House::new().await;
    let first = Device::alone("alice").await;
    first.own.put("task", "1", json!({"by": "first"})).await.unwrap();
    let options = Options::new(first.file(), "alice")
        .server(&url(house.server.address()))
        .token(mint("alice"));
    let second = Client::open(options).await.unwrap();
    second.own().await.unwrap();
    second.synced(SOON).await.unwrap();
    assert_eq!(house.alice.document("task", "1").await, json!({"by": "first"}));
    second.close().await;
}

#[tokio::test]
async fn a_watcher_is_told_that_nothing_waits_any_more() {
    let house = House::new().await;
    let device = Device::new("alice", &house.server).await;
    let mut seen = device.own.watch(&Query::all("task"));
    assert!(next(&mut seen).await.whole);
    device.own.put("task", "1", json!({"n": 1})).await.unwrap();
    let told = tokio::time::timeout(SOON, async {
        loop {
            let changes = next(&mut seen).await;
            if let Some(record) = changes.changed.into_iter().find(|it| !it.pending) {
                return record;
            }
        }
    });
    let record = told.await.expect("it is told that the edit is no longer pending");
    assert_eq!((record.id.as_str(), record.revision), ("1", 1));
}
