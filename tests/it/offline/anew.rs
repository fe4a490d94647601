//! When the state has to begin anew: cursors that expire, a history that is replaced, digests
//! that differ, spaces that may no longer be seen. The queue stays.

use serde_json::{Value, json};
use syncline::client::{EntryState, NewsKind, Patch, Phase, Query, Trigger};
use syncline::rpc::proto::{EraseSpaceRequest, Role};

use super::device::{SOON, settled, sql, url};
use super::{Device, Heard};
use crate::access::Team;
use crate::support::compaction::Compaction;
use crate::support::proxy::{Proxy, Target};
use crate::support::{House, mint, put, wait_for};

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
    laptop.shows("9", json!({"n": 0})).await;
    laptop.goes_offline().await;
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
    let mut heard = Heard::new(&laptop.client);
    laptop.client.sync(Trigger::Network);
    laptop.synced().await;
    assert_eq!(heard.of(NewsKind::Reset).len(), 1, "{heard:?}");
    for device in [&phone, &laptop] {
        device.shows("0", json!({"n": 3})).await;
        device.shows("1", json!({"n": 8})).await;
        device.shows("new", json!({"n": 1})).await;
        device.shows("9", Value::Null).await;
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
    device.goes_offline().await;
    let new = device.own.put("task", "new", json!({"n": 2})).await.unwrap();
    let gone = device.own.patch("task", "gone", json!({"n": 2})).await.unwrap();
    let edited = device.own.put("task", "edited", json!({"n": 2})).await.unwrap();
    let erase = EraseSpaceRequest { space: String::new(), confirm: "users/alice".into() };
    house.alice.spaces.clone().erase_space(erase).await.unwrap();
    for (id, text) in [("kept", r#"{"n":7}"#), ("edited", r#"{"n":8}"#)] {
        house.alice.mutate(put(id, id, text)).await.unwrap();
    }
    let mut heard = Heard::new(&device.client);
    device.client.sync(Trigger::Network);
    let state = async |id: &str| {
        let outcome = device.settled(id).await;
        (outcome.state, outcome.trouble.map(|it| it.reason))
    };
    assert_eq!(state(&new).await, (EntryState::Applied, None));
    assert_eq!(state(&gone).await, (EntryState::Failed, Some("RECORD_GONE".to_owned())));
    // Nobody had seen what is there now.
    assert_eq!(state(&edited).await, (EntryState::Conflict, None));
    device.synced().await;
    assert_eq!(heard.of(NewsKind::Reset).len(), 1, "{heard:?}");
    assert_eq!(device.own.query(&Query::all("task")).await.unwrap().len(), 3);
    device.shows("kept", json!({"n": 7})).await;
    device.shows("edited", json!({"n": 8})).await;
    device.shows("new", json!({"n": 2})).await;
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
    sql(
        &file,
        "CREATE TABLE old_record AS SELECT * FROM records WHERE collection = 'task' AND id = '1';
         CREATE TABLE old_tally AS SELECT * FROM tallies WHERE collection = 'task';",
    )
    .await;
    device.own.patch("task", "1", json!({"n": 99})).await.unwrap();
    device.synced().await;
    let device = device.restarted(|options| options).await;
    // As by a bug: a change was lost, of which only the bytes of the digest tell; and a record,
    // and the sums with it.
    sql(
        &file,
        "UPDATE records SET (shown, revision, about, checksum) =
             (SELECT shown, revision, about, checksum FROM old_record)
             WHERE collection = 'task' AND id = '1';
         UPDATE tallies SET digest = (SELECT digest FROM old_tally) WHERE collection = 'task';
         DELETE FROM records WHERE collection = 'note' AND id = '3';
         UPDATE tallies SET digest = zeroblob(32), records = 7 WHERE collection = 'note';
         DROP TABLE old_record;
         DROP TABLE old_tally;",
    )
    .await;
    assert_eq!(device.see("task", "1").await, json!({"n": 1}));
    // Only once there is somebody who listens.
    let proxy = Proxy::start(Target::Tcp(house.server.address())).await;
    proxy.refuse();
    let (url, token) = (url(proxy.address()), mint("alice"));
    let device = device.restarted(|options| options.server(&url).token(token)).await;
    let mut heard = Heard::new(&device.client);
    proxy.heal();
    device.client.sync(Trigger::Network);
    heard.until(NewsKind::Healed, 1).await;
    device.synced().await;
    for id in [0, 99, 2, 3, 4].into_iter().enumerate() {
        device.shows(&id.0.to_string(), json!({"n": id.1})).await;
    }
    let record = device.own.get("note", "3").await.unwrap();
    assert_eq!(record.map(|it| it.value()), Some(json!({"n": 3})));
    assert_eq!(heard.of(NewsKind::Healing), ["differs from the server: note, task"]);
    assert_eq!(heard.of(NewsKind::Healed), ["is as on the server: note, task"]);
    assert_eq!(heard.of(NewsKind::Reset), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_that_may_no_longer_be_seen_is_forgotten_and_comes_back() {
    let team = Team::new().await;
    team.set("bob", Role::Writer, &[]).await;
    let bob = Device::new("bob", &team.server).await;
    let shared = bob.client.space(&team.space).await.unwrap();
    let id = shared.put("task", "1", json!({"by": "bob"})).await.unwrap();
    assert_eq!(settled(&shared, &id).await.state, EntryState::Applied);
    bob.synced().await;
    let mut heard = Heard::new(&bob.client);
    team.remove("bob").await;
    wait_for("it to be forgotten", async || {
        shared.get("task", "1").await.unwrap().is_none().then_some(())
    })
    .await;
    // What is written nevertheless is set aside, and other spaces go on.
    let refused = shared.put("task", "2", json!({"by": "bob"})).await.unwrap();
    let own = bob.own.put("task", "1", json!({})).await.unwrap();
    assert_eq!(bob.settled(&own).await.state, EntryState::Applied);
    bob.client.sync(Trigger::Demand);
    let outcome = settled(&shared, &refused).await;
    assert_eq!(outcome.state, EntryState::Failed);
    let space = wait_for("it to be looked at", async || {
        let status = bob.client.status().await.unwrap();
        let space = status.spaces.into_iter().find(|it| it.name == team.space).unwrap();
        matches!(space.phase, Some(Phase::NoAccess { .. })).then_some(space)
    })
    .await;
    assert!(space.problem.is_some());
    assert_eq!(heard.of(NewsKind::AccessLost).len(), 1, "{heard:?}");

    team.set("bob", Role::Writer, &[]).await;
    bob.client.sync(Trigger::Demand);
    wait_for("it to come back", async || shared.get("task", "1").await.unwrap().map(|_| ())).await;
    let again = shared.retry(&refused, None).await.unwrap();
    assert_eq!(settled(&shared, &again).await.state, EntryState::Applied);
    bob.client.synced(SOON).await.unwrap();
    bob.client.close().await;
    team.end().await;
}

#[tokio::test]
async fn without_a_stream_it_syncs_as_well() {
    let house = House::new().await;
    let (url, token) = (url(house.server.address()), mint("alice"));
    let every = std::time::Duration::from_millis(200);
    let options =
        |options: syncline::client::Options| options.server(&url).token(token.clone()).poll(every);
    let phone = Device::with("alice", options).await;
    let laptop = Device::with("alice", options).await;
    for id in 0..250 {
        phone.own.put("task", &id.to_string(), json!({"n": 0})).await.unwrap();
    }
    phone.synced().await;
    laptop.shows("249", json!({"n": 0})).await;
    for device in [&phone, &laptop] {
        for _ in 0..5 {
            let patch = Patch::new().increment("/n", 1).unwrap();
            device.own.patch("task", "1", patch).await.unwrap();
            device.own.put("task", "2", json!({"n": 1})).await.unwrap();
        }
    }
    for device in [&phone, &laptop] {
        device.shows("1", json!({"n": 10})).await;
        device.synced().await;
    }
}
