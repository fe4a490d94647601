//! Whoever syncs the file: what it does for other processes, and with spaces that come and go.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use syncline::client::{Client, Link, Options, Trigger};

use super::Device;
use super::device::{SOON, url};
use crate::support::{House, mint, put, wait_for};

/// Longer than any test.
const SELDOM: Duration = Duration::from_secs(3_600);

async fn sent(house: &House, id: &str) {
    let sent = async || house.alice.task(id).await.ok();
    wait_for("the edit to arrive", sent).await;
}

#[tokio::test]
async fn a_space_that_another_process_follows_is_synced() {
    let house = House::new().await;
    let dir = tempfile::tempdir().unwrap();
    let file = Options::new(dir.path().join("app.db"), "alice");
    let with = file.clone().server(&url(house.server.address())).token(mint("alice"));
    // It begins without any space.
    let first = Client::open(with).await.unwrap();
    let leads = async || (first.status().await.unwrap().link != Link::Elsewhere).then_some(());
    wait_for("it to sync", leads).await;
    let second = Client::open(file).await.unwrap();
    second.own().await.unwrap().put("task", "1", json!({"by": "second"})).await.unwrap();
    sent(&house, "1").await;
    second.close().await;
    first.close().await;
}

#[tokio::test]
async fn what_is_wished_elsewhere_is_done_by_who_syncs() {
    let house = House::new().await;
    let server = url(house.server.address());
    let first =
        Device::with("alice", |it| it.server(&server).token(mint("alice")).poll(SELDOM)).await;
    first.synced().await;
    let second = Client::open(Options::new(first.file(), "alice")).await.unwrap();
    let own = second.own().await.unwrap();
    for (number, trigger) in
        [Some(Trigger::Demand), None, Some(Trigger::Periodic)].iter().enumerate()
    {
        let id = number.to_string();
        house.alice.mutate(put(&id, &id, r#"{"by":"another"}"#)).await.unwrap();
        match trigger {
            Some(trigger) => second.sync(*trigger),
            None => own.hint(),
        }
        let seen = async || (first.see("task", &id).await != Value::Null).then_some(());
        wait_for("what another one wrote", seen).await;
    }
    second.close().await;
}

#[tokio::test]
async fn what_waits_in_a_space_that_was_left_is_sent() {
    let house = House::new().await;
    house.alice.mutate(put("m", "old", r#"{"n":1}"#)).await.unwrap();
    for (poll, ids) in [(false, ["1", "2"]), (true, ["3", "4"])] {
        let server = url(house.server.address());
        let device = Device::with("alice", |it| {
            let it = it.server(&server).token(mint("alice"));
            if poll { it.poll(Duration::from_millis(200)) } else { it }
        })
        .await;
        device.synced().await;
        device.client.sync(Trigger::Offline);
        device.own.put("task", ids[0], json!({"n": 1})).await.unwrap();
        device.client.leave("").await.unwrap();
        device.client.sync(Trigger::Network);
        sent(&house, ids[0]).await;
        // Also what is put into it later, by whoever still has it at hand.
        device.own.put("task", ids[1], json!({"n": 2})).await.unwrap();
        sent(&house, ids[1]).await;
        let over = async || device.client.status().await.unwrap().spaces.is_empty().then_some(());
        wait_for("nothing to be left of it", over).await;
        assert_eq!(device.see("task", "old").await, Value::Null, "nothing is loaded for that");
    }
}

#[tokio::test]
async fn an_app_that_panics_when_it_is_asked_for_a_token_is_asked_again() {
    let house = House::new().await;
    let (server, asked) = (url(house.server.address()), std::sync::Arc::new(AtomicU32::new(0)));
    let device = Device::with("alice", |it| {
        it.server(&server).tokens(move |_| {
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            assert!(!first, "of the app");
            async { Ok::<_, String>(mint("alice")) }
        })
    })
    .await;
    device.synced().await;
}

#[tokio::test]
async fn without_a_stream_a_server_that_is_not_there_shows() {
    let device = Device::with("alice", |it| {
        it.server("http://127.0.0.1:1").token(mint("alice")).poll(Duration::from_millis(200))
    })
    .await;
    let status = wait_for("the problem", async || {
        let status = device.client.status().await.unwrap();
        assert_ne!(status.link, Link::Online);
        (status.link == Link::Offline && status.problem.is_some()).then_some(status)
    })
    .await;
    assert!(status.problem.unwrap().advice.contains("address"));
}

/// Two devices edit a record, and neither knows of the other: the edit's id.
async fn conflict(house: &House, phone: &Device) -> String {
    let laptop = Device::new("alice", &house.server).await;
    phone.own.put("note", "1", json!({"text": "one"})).await.unwrap();
    phone.synced().await;
    wait_for("the note", async || (laptop.see("note", "1").await != Value::Null).then_some(()))
        .await;
    laptop.client.sync(Trigger::Offline);
    let offline = async || {
        let status = laptop.client.status().await.unwrap();
        (status.link == Link::Offline).then_some(())
    };
    wait_for("to be offline", offline).await;
    let id = laptop.own.patch("note", "1", json!({"text": "two"})).await.unwrap();
    phone.own.patch("note", "1", json!({"text": "three"})).await.unwrap();
    phone.synced().await;
    laptop.client.sync(Trigger::Network);
    laptop.client.synced(SOON).await.unwrap();
    id
}

#[tokio::test]
async fn conflicts_of_others_are_known_whenever_they_were_opened() {
    let house = House::new().await;
    let server = url(house.server.address());
    let phone = Device::new("alice", &house.server).await;
    let poll = |it: Options| it.server(&server).token(mint("alice")).poll(SELDOM);
    let polling = Device::with("alice", poll).await;
    polling.synced().await;
    let id = conflict(&house, &phone).await;
    // Its change comes by a call, and the conflict with that.
    polling.client.sync(Trigger::Demand);
    let late = Device::new("alice", &house.server).await;
    late.synced().await;
    let late_and_polling = Device::with("alice", poll).await;
    for device in [&phone, &polling, &late, &late_and_polling] {
        let found = wait_for("the conflict", async || {
            Some(device.own.conflicts().await.unwrap()).filter(|it| !it.is_empty())
        })
        .await;
        assert_eq!(found.iter().map(|it| &it.id).collect::<Vec<_>>(), [&id]);
    }
}
