//! What an app does first: edits, reads, other devices.

use serde_json::{Value, json};
use syncline::client::{EntryState, Patch, Query};

use super::Device;
use crate::support::{House, wait_for};

#[tokio::test]
async fn what_one_device_writes_the_other_has() {
    let house = House::new().await;
    let phone = Device::new("alice", &house.server).await;
    let id = phone.own.put("task", "1", json!({"title": "Milk", "n": 1})).await.unwrap();
    assert_eq!(phone.see("task", "1").await, json!({"title": "Milk", "n": 1}));
    let outcome = phone.settled(&id).await;
    assert_eq!((outcome.state, outcome.revision), (EntryState::Applied, 1));
    phone.synced().await;

    let laptop = Device::new("alice", &house.server).await;
    laptop.synced().await;
    assert_eq!(laptop.see("task", "1").await, json!({"title": "Milk", "n": 1}));
    let patch = Patch::new().set("/done", true).unwrap().increment("/n", 2).unwrap();
    laptop.own.patch("task", "1", patch).await.unwrap();
    laptop.own.put("task", "2", json!({})).await.unwrap();
    laptop.own.delete("task", "2").await.unwrap();
    laptop.synced().await;
    phone.synced().await;
    wait_for("the changes to come", async || {
        let one = phone.see("task", "1").await == json!({"title": "Milk", "n": 3, "done": true});
        (one && phone.see("task", "2").await == Value::Null).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_server_everything_is_there() {
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({"title": "a", "n": 1, "tags": ["x"]})).await.unwrap();
    device.own.put("task", "2", json!({"title": "b", "n": 2.5, "done": true})).await.unwrap();
    device.own.put("task", "3", json!({"title": "c", "done": null})).await.unwrap();
    device.own.put("note", "1", json!({"title": "a"})).await.unwrap();
    let ids = async |query: Query| {
        let found = device.own.query(&query).await.unwrap();
        found.iter().map(|it| it.id.clone()).collect::<Vec<_>>().join(" ")
    };
    let all = || Query::all("task");
    assert_eq!(ids(all()).await, "1 2 3");
    assert_eq!(ids(all().eq("/title", "b")).await, "2");
    assert_eq!(ids(all().ne("/title", "b")).await, "1 3");
    assert_eq!(ids(all().gt("/n", 1)).await, "2");
    assert_eq!(ids(all().le("/n", 2.5)).await, "1 2");
    assert_eq!(ids(all().eq("/done", true)).await, "2");
    assert_eq!(ids(all().eq("/done", Value::Null)).await, "3");
    assert_eq!(ids(all().eq("/done", 1)).await, "");
    assert_eq!(ids(all().exists("/done")).await, "2 3");
    assert_eq!(ids(all().contains("/tags", "x")).await, "1");
    assert_eq!(ids(all().order_by_desc("/title").limit(2)).await, "3 2");
    assert_eq!(ids(all().order_by("/n").limit(2).offset(1)).await, "1 2");
    assert!(device.own.query(&all().eq("no pointer", 1)).await.is_err());

    let device = device.restarted(|options| options).await;
    assert_eq!(device.see("task", "2").await["n"], 2.5);
    let pending = device.own.pending().await.unwrap();
    assert_eq!(pending.len(), 4);
    assert!(pending.iter().all(|it| it.state == EntryState::Pending));
}
