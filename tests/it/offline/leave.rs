//! Spaces that are left, and calls that have nothing to do with each other.

use serde_json::{Value, json};
use syncline::client::{Error, Outcome, Patch, Query, StoreError};

use super::Device;
use crate::support::{House, wait_for};

#[tokio::test]
async fn a_space_that_was_left_has_nothing_to_do_with_the_next() {
    let house = House::new().await;
    let device = Device::new("alice", &house.server).await;
    device.own.put("item", "milk", json!({"title": "Milk"})).await.unwrap();
    device.synced().await;
    let old = device.own.clone();
    device.client.leave(old.name()).await.unwrap();
    device.client.collect().await.unwrap();

    let again = device.client.own().await.unwrap();
    let id = again.put("item", "eggs", json!({"title": "Eggs"})).await.unwrap();
    device.synced().await;
    assert_eq!(house.alice.document("item", "milk").await, json!({"title": "Milk"}));
    assert_eq!(house.alice.document("item", "eggs").await, json!({"title": "Eggs"}));
    let outcome = again.outcome(&id).await.unwrap();
    assert_eq!(outcome.as_ref().map(|it: &Outcome| it.record.as_str()), Some("eggs"));
    // What was handed out before is of a space that is gone.
    let refused = old.put("item", "bread", json!({})).await;
    assert_eq!(refused, Err(Error::Store(StoreError::NoSpace)));
    assert_eq!(old.get("item", "milk").await.unwrap(), None);
}

#[tokio::test]
async fn who_asks_for_what_is_gone_spoils_nobody_elses_write() {
    let device = Device::alone("alice").await;
    let gone = device.client.space("spaces/gone").await.unwrap();
    device.client.leave("spaces/gone").await.unwrap();
    device.client.collect().await.unwrap();
    let writes = (0..50).map(|number| {
        let (own, gone) = (device.own.clone(), gone.clone());
        async move {
            let id = number.to_string();
            let (kept, refused) =
                tokio::join!(own.put("item", &id, json!({})), gone.put("item", &id, json!({})));
            kept.unwrap();
            assert_eq!(refused, Err(Error::Store(StoreError::NoSpace)));
        }
    });
    futures_util::future::join_all(writes).await;
    assert_eq!(device.own.pending().await.unwrap().len(), 50);
}

#[tokio::test]
async fn collections_that_are_no_longer_wanted_are_not_kept() {
    let house = House::new().await;
    let phone = Device::new("alice", &house.server).await;
    for collection in ["task", "note"] {
        phone.own.put(collection, "1", json!({})).await.unwrap();
    }
    phone.synced().await;
    let device = Device::new("alice", &house.server).await;
    device.synced().await;
    // Of what is not wanted not even the server's side of an edit is kept.
    let narrow = device.client.collections("", &["task"]).await.unwrap();
    narrow.put("note", "1", json!({"a": 1})).await.unwrap();
    device.synced().await;
    let of = async |space: &syncline::client::Space| space.collections().await.unwrap();
    assert_eq!(of(&narrow).await, [("task".to_owned(), 1)]);
    let wide = device.client.own().await.unwrap();
    device.synced().await;
    assert_eq!(of(&wide).await, [("note".to_owned(), 1), ("task".to_owned(), 1)]);
}

#[tokio::test]
async fn a_hundred_and_more_relative_changes_are_what_the_server_takes() {
    let house = House::new().await;
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({"n": 0, "list": []})).await.unwrap();
    for number in 0..120 {
        let patch = Patch::new().increment("/n", number).unwrap();
        device.own.patch("task", "1", patch).await.unwrap();
    }
    for number in 0..120 {
        let patch = Patch::new().append("/list", [number]).unwrap();
        device.own.patch("task", "1", patch).await.unwrap();
    }
    let many = (0..101).fold(Patch::new(), |it, n| it.increment(&format!("/n{n}"), 1).unwrap());
    let refused = device.own.patch("task", "1", many).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    let (url, token) = (super::device::url(house.server.address()), crate::support::mint("alice"));
    let device = device.restarted(|options| options.server(&url).token(token)).await;
    device.synced().await;
    let record = house.alice.document("task", "1").await;
    assert_eq!(record["n"], (0..120).sum::<i64>());
    assert_eq!(record["list"].as_array().map(Vec::len), Some(120));
    assert_eq!(device.own.parked().await.unwrap(), []);
}

#[tokio::test]
async fn questions_find_lists_and_objects_by_what_they_are() {
    let device = Device::alone("alice").await;
    for (id, fields) in [
        ("1", json!({"tags": ["home", "work"], "at": {"z": 1, "ä": 1.0}})),
        ("2", json!({"tags": "home", "at": {"ä": 1, "z": 1}})),
        ("3", json!({"tags": {"a": "home"}, "at": [1.0, 1e30]})),
    ] {
        device.own.put("task", id, fields).await.unwrap();
    }
    let find = async |query: Query| -> Vec<String> {
        let found = device.own.query(&query).await.unwrap();
        found.into_iter().map(|record| record.id).collect()
    };
    let all = || Query::all("task");
    assert_eq!(find(all().contains("/tags", "home")).await, ["1"]);
    assert_eq!(find(all().eq("/at", json!({"ä": 1, "z": 1}))).await, ["1", "2"]);
    assert_eq!(find(all().eq("/at", json!([1, 1e30]))).await, ["3"]);
    assert_eq!(find(all().ne("/at", json!([1, 1e30]))).await, ["1", "2"]);
    assert_eq!(find(all().eq("/at", Value::Null)).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_choice_that_is_taken_back_at_once_leaves_nothing_out() {
    let house = House::new().await;
    let device = Device::new("alice", &house.server).await;
    for collection in ["task", "note"] {
        device.own.put(collection, "1", json!({"n": 1})).await.unwrap();
    }
    device.synced().await;
    for _ in 0..3 {
        // The session may see the end of this only: as before.
        device.client.collections("", &["task"]).await.unwrap();
        device.client.own().await.unwrap();
        wait_for("the note to be back", async || {
            (device.see("note", "1").await == json!({"n": 1})).then_some(())
        })
        .await;
    }
    device.synced().await;
}
