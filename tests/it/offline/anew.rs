//! When the state has to begin anew: cursors that expire, a history that is replaced, digests
//! that differ, spaces that may no longer be seen. The queue stays.

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use syncline::client::{EntryState, Link, Patch, Phase, Query, Trigger};
use syncline::rpc::proto::{EraseSpaceRequest, Role};

use super::Device;
use super::device::{SOON, url};
use crate::access::Team;
use crate::support::compaction::Compaction;
use crate::support::{House, mint, put, wait_for};

async fn offline(device: &Device) {
    device.client.sync(Trigger::Offline);
    wait_for("to be offline", async || {
        (device.client.status().await.unwrap().link == Link::Offline).then_some(())
    })
    .await;
}

async fn see(device: &Device, id: &str, expected: Value) {
    wait_for(&format!("{id} to be {expected}"), async || {
        (device.see("task", id).await == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_was_away_for_too_long_loads_anew_and_keeps_the_queue() {
    let house = House::new().await;
    let (phone, laptop) =
        (Device::new("alice", &house.server).await, Device::new("alice", &house.server).await);
    for id in 0..10 {
        phone.own.put("task", &id.to_string(), json!({"n": 0})).await.unwrap();
    }
    phone.synced().await;
    laptop.synced().await;
    see(&laptop, "9", json!({"n": 0})).await;
    offline(&laptop).await;
    laptop.own.patch("task", "1", Patch::new().increment("/n", 5).unwrap()).await.unwrap();
    laptop.own.put("task", "new", json!({"n": 1})).await.unwrap();
    for _ in 0..3 {
        for id in 0..5 {
            let patch = Patch::new().increment("/n", 1).unwrap();
            phone.own.patch("task", &id.to_string(), patch).await.unwrap();
            phone.synced().await;
        }
    }
    phone.own.delete("task", "9").await.unwrap();
    phone.synced().await;
    let mut compaction = Compaction::prepare(&house.database).await;
    compaction.raise(0).await;
    laptop.client.sync(Trigger::Network);
    laptop.synced().await;
    for device in [&phone, &laptop] {
        see(device, "0", json!({"n": 3})).await;
        see(device, "1", json!({"n": 8})).await;
        see(device, "new", json!({"n": 1})).await;
        see(device, "9", Value::Null).await;
    }
}

#[tokio::test]
async fn a_history_that_was_replaced_takes_the_old_state_and_leaves_the_queue() {
    let house = House::new().await;
    let device = Device::new("alice", &house.server).await;
    for id in ["kept", "edited", "gone"] {
        device.own.put("task", id, json!({"n": 1})).await.unwrap();
    }
    device.synced().await;
    offline(&device).await;
    let new = device.own.put("task", "new", json!({"n": 2})).await.unwrap();
    let gone = device.own.patch("task", "gone", json!({"n": 2})).await.unwrap();
    let edited = device.own.put("task", "edited", json!({"n": 2})).await.unwrap();
    let erase = EraseSpaceRequest { space: String::new(), confirm: "users/alice".into() };
    house.alice.spaces.clone().erase_space(erase).await.unwrap();
    for (id, text) in [("kept", r#"{"n":7}"#), ("edited", r#"{"n":8}"#)] {
        house.alice.mutate(put(id, id, text)).await.unwrap();
    }
    device.client.sync(Trigger::Network);
    let state = async |id: &str| {
        let outcome = device.own.settled(id).await.unwrap().unwrap();
        (outcome.state, outcome.trouble.map(|it| it.reason))
    };
    assert_eq!(state(&new).await, (EntryState::Applied, None));
    assert_eq!(state(&gone).await, (EntryState::Failed, Some("RECORD_GONE".to_owned())));
    // Nobody had seen what is there now.
    assert_eq!(state(&edited).await, (EntryState::Conflict, None));
    device.synced().await;
    assert_eq!(device.own.query(&Query::all("task")).await.unwrap().len(), 3);
    see(&device, "kept", json!({"n": 7})).await;
    see(&device, "edited", json!({"n": 8})).await;
    see(&device, "new", json!({"n": 2})).await;
}

#[tokio::test]
async fn a_file_that_differs_heals_itself() {
    let house = House::new().await;
    let device = Device::new("alice", &house.server).await;
    for id in 0..5 {
        device.own.put("task", &id.to_string(), json!({"n": id})).await.unwrap();
        device.own.put("note", &id.to_string(), json!({"n": id})).await.unwrap();
    }
    device.synced().await;
    let file = device.file();
    let device = device.restarted(|options| options).await;
    // As by a bug: the rows are not what the server has, and the sums tell.
    let mut db = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    sqlx::raw_sql(
        "UPDATE records SET shown = '{\"n\":99}' WHERE collection = 'task' AND id = '1';
         DELETE FROM records WHERE collection = 'task' AND id = '2';
         UPDATE tallies SET records = 3 WHERE collection = 'task';",
    )
    .execute(&mut db)
    .await
    .unwrap();
    db.close().await.unwrap();
    assert_eq!(device.see("task", "1").await, json!({"n": 99}));
    let (url, token) = (url(&house.server), mint("alice"));
    let device = device.restarted(|options| options.server(&url).token(token)).await;
    for id in 0..5 {
        see(&device, &id.to_string(), json!({"n": id})).await;
    }
    device.synced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_may_no_longer_be_seen_is_forgotten_and_comes_back() {
    let team = Team::new().await;
    team.set("bob", Role::Writer, &[]).await;
    let bob = Device::new("bob", &team.server).await;
    let shared = bob.client.space(&team.space).await.unwrap();
    let id = shared.put("task", "1", json!({"by": "bob"})).await.unwrap();
    assert_eq!(shared.settled(&id).await.unwrap().unwrap().state, EntryState::Applied);
    bob.synced().await;
    team.remove("bob").await;
    wait_for("it to be forgotten", async || {
        shared.get("task", "1").await.unwrap().is_none().then_some(())
    })
    .await;
    // What is written nevertheless is set aside, and other spaces go on.
    let refused = shared.put("task", "2", json!({"by": "bob"})).await.unwrap();
    let own = bob.own.put("task", "1", json!({})).await.unwrap();
    assert_eq!(bob.own.settled(&own).await.unwrap().unwrap().state, EntryState::Applied);
    bob.client.sync(Trigger::Demand);
    let outcome = shared.settled(&refused).await.unwrap().unwrap();
    assert_eq!(outcome.state, EntryState::Failed);
    let space = wait_for("it to be looked at", async || {
        let status = bob.client.status().await.unwrap();
        let space = status.spaces.into_iter().find(|it| it.name == team.space).unwrap();
        matches!(space.phase, Some(Phase::NoAccess { .. })).then_some(space)
    })
    .await;
    assert!(space.problem.is_some());

    team.set("bob", Role::Writer, &[]).await;
    bob.client.sync(Trigger::Demand);
    wait_for("it to come back", async || shared.get("task", "1").await.unwrap().map(|_| ())).await;
    let again = shared.retry(&refused, None).await.unwrap();
    assert_eq!(shared.settled(&again).await.unwrap().unwrap().state, EntryState::Applied);
    bob.client.synced(SOON).await.unwrap();
    bob.client.close().await;
    team.end().await;
}

#[tokio::test]
async fn without_a_stream_it_syncs_as_well() {
    let house = House::new().await;
    let (url, token) = (url(&house.server), mint("alice"));
    let every = std::time::Duration::from_millis(200);
    let options =
        |options: syncline::client::Options| options.server(&url).token(token.clone()).poll(every);
    let phone = Device::with("alice", options).await;
    let laptop = Device::with("alice", options).await;
    for id in 0..250 {
        phone.own.put("task", &id.to_string(), json!({"n": 0})).await.unwrap();
    }
    phone.synced().await;
    see(&laptop, "249", json!({"n": 0})).await;
    for device in [&phone, &laptop] {
        for _ in 0..5 {
            let patch = Patch::new().increment("/n", 1).unwrap();
            device.own.patch("task", "1", patch).await.unwrap();
            device.own.put("task", "2", json!({"n": 1})).await.unwrap();
        }
    }
    for device in [&phone, &laptop] {
        see(device, "1", json!({"n": 10})).await;
        device.synced().await;
    }
}
