//! Two devices write the same record: what is shown meanwhile, and what the policy makes of it.

use std::sync::Arc;

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use syncline::client::{EntryState, Patch, Query, Resolution, Trigger};
use syncline::rpc::proto::{ListPoliciesRequest, Policy, Strategy};
use tokio::task::JoinSet;

use super::Device;
use super::device::{next, url};
use crate::support::proxy::{Proxy, Target};
use crate::support::{House, wait_for};

/// A policy for a collection, as its admin sets it.
async fn policy(house: &House, collection: &str, strategy: Strategy) {
    let collection = collection.to_owned();
    let policy = Policy { collection, strategy: strategy.into(), ..Policy::default() };
    house.alice.set_policy(policy).await.unwrap();
}

/// More policies than fit on one page come before those that count.
async fn many_policies(house: &House) {
    let json_schema = json!({"description": "x".repeat(60_000)}).to_string();
    for number in 0..20 {
        let (collection, json_schema) = (format!("before-{number}"), json_schema.clone());
        let policy = Policy { collection, json_schema, ..Policy::default() };
        house.alice.set_policy(policy).await.unwrap();
    }
    let all = ListPoliciesRequest { page_size: 1_000, ..ListPoliciesRequest::default() };
    let page = house.alice.policies.clone().list_policies(all).await.unwrap().into_inner();
    assert!(!page.next_page_token.is_empty(), "{} policies are one page", page.policies.len());
}

#[tokio::test]
async fn a_conflict_is_shown_rolled_back_and_decided() {
    let house = House::new().await;
    let (phone, laptop) =
        (Device::new("alice", &house.server).await, Device::new("alice", &house.server).await);
    phone.own.put("note", "1", json!({"text": "one", "by": "phone"})).await.unwrap();
    phone.synced().await;
    wait_for("the note", async || (laptop.see("note", "1").await != Value::Null).then_some(()))
        .await;

    laptop.goes_offline().await;
    let id = laptop.own.patch("note", "1", json!({"text": "two"})).await.unwrap();
    assert_eq!(laptop.see("note", "1").await["text"], "two");
    phone.own.patch("note", "1", json!({"text": "three"})).await.unwrap();
    phone.synced().await;
    laptop.client.sync(Trigger::Network);
    let outcome = laptop.settled(&id).await;
    assert_eq!(outcome.state, EntryState::Conflict);
    laptop.synced().await;
    assert_eq!(laptop.see("note", "1").await["text"], "three");

    let conflicts = wait_for("the conflict", async || {
        Some(phone.own.conflicts().await.unwrap()).filter(|it| !it.is_empty())
    })
    .await;
    let conflict = &conflicts[0];
    assert_eq!(
        (conflict.id.as_str(), conflict.paths.as_slice()),
        (id.as_str(), &["/text".to_owned()][..])
    );
    assert_eq!(conflict.base.as_ref().unwrap()["text"], "one");
    assert_eq!(conflict.server.document.as_ref().unwrap()["text"], "three");
    assert_eq!(conflict.client.document.as_ref().unwrap()["text"], "two");
    assert_eq!(laptop.client.status().await.unwrap().spaces[0].conflicts, 1);
    assert!(conflict.has_documents());
    // Nobody has looked at what is written after that was read.
    phone.own.patch("note", "1", json!({"by": "phone, later"})).await.unwrap();
    phone.synced().await;
    let refused = phone.own.resolve(conflict, Resolution::KeepClient).await.unwrap_err();
    assert!(refused.to_string().contains("RECORD_CHANGED"), "{refused}");
    let again = phone.own.conflicts().await.unwrap();
    assert!(again[0].revision > conflict.revision && conflict.revision > 0, "{again:?}");
    phone.own.resolve(&again[0], Resolution::Document(json!({"text": "both"}))).await.unwrap();
    for device in [&phone, &laptop] {
        wait_for("the decision", async || {
            let shown = device.see("note", "1").await == json!({"text": "both"});
            let open = !device.own.conflicts().await.unwrap().is_empty();
            (shown && !open).then_some(())
        })
        .await;
    }
    assert!(phone.own.resolve(conflict, Resolution::KeepServer).await.is_err());
}

/// What is sent is held back, and what the other has written comes: what is shown then is what
/// the server will say.
#[tokio::test]
async fn what_the_policy_decides_is_foretold() {
    let house = House::new().await;
    many_policies(&house).await;
    policy(&house, "form", Strategy::Merge).await;
    policy(&house, "master", Strategy::ServerWins).await;
    let proxy = Proxy::start(Target::Tcp(house.server.address())).await;
    let phone = Device::new("alice", &house.server).await;
    let laptop = Device::at("alice", &url(proxy.address())).await;
    for collection in ["form", "master"] {
        phone.own.put(collection, "1", json!({"a": 1, "b": 1})).await.unwrap();
    }
    phone.synced().await;
    let both = json!([{"a": 1, "b": 1}, {"a": 1, "b": 1}]);
    let shown = async |device: &Device| {
        json!([device.see("form", "1").await, device.see("master", "1").await])
    };
    wait_for("the records", async || (shown(&laptop).await == both).then_some(())).await;
    laptop.synced().await;
    proxy.hold();
    let merged = laptop.own.put("form", "1", json!({"a": 2, "b": 1})).await.unwrap();
    let lost = laptop.own.put("master", "1", json!({"a": 2, "b": 1})).await.unwrap();
    let edited = json!([{"a": 2, "b": 1}, {"a": 2, "b": 1}]);
    assert_eq!(shown(&laptop).await, edited);
    for collection in ["form", "master"] {
        phone.own.patch(collection, "1", json!({"b": 3})).await.unwrap();
    }
    phone.synced().await;
    let foretold = json!([{"a": 2, "b": 3}, {"a": 1, "b": 3}]);
    wait_for("it to be foretold", async || (shown(&laptop).await == foretold).then_some(())).await;
    assert_eq!(laptop.own.pending().await.unwrap().len(), 2);
    assert_eq!(house.alice.head().await, 4);
    proxy.heal();
    assert_eq!(laptop.settled(&merged).await.state, EntryState::Merged);
    assert_eq!(laptop.settled(&lost).await.state, EntryState::Superseded);
    laptop.synced().await;
    assert_eq!(shown(&laptop).await, foretold);
}

#[tokio::test]
async fn each_edit_is_shown_once() {
    let house = House::new().await;
    let device = Device::new("alice", &house.server).await;
    device.synced().await;
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (mut record, told) = (device.own.watch_record("counter", "1"), shown.clone());
    let mut watching = JoinSet::new();
    watching.spawn(async move {
        while let Some(next) = record.next().await {
            told.lock().push(next.unwrap().map(|record| record.value()));
        }
    });
    let seen = async |count: usize| {
        wait_for("what is shown to be told", async || (shown.lock().len() >= count).then_some(()))
            .await;
    };
    let mut expected = vec![None];
    seen(1).await;
    for step in 1..=20 {
        if step == 1 {
            device.own.put("counter", "1", json!({"n": 1})).await.unwrap();
        } else {
            let patch = Patch::new().increment("/n", 1).unwrap();
            device.own.patch("counter", "1", patch).await.unwrap();
        }
        expected.push(Some(json!({"n": step})));
        // Who watches may leave out what was shown for a moment only.
        seen(expected.len()).await;
        if step % 5 == 0 {
            device.synced().await;
        }
    }
    device.synced().await;
    device.own.delete("counter", "1").await.unwrap();
    expected.push(None);
    seen(expected.len()).await;
    device.synced().await;
    device.client.close().await;
    watching.join_next().await.unwrap().unwrap();
    assert_eq!(*shown.lock(), expected);
}

#[tokio::test]
async fn a_query_that_is_followed_tells_what_moves() {
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({"done": false})).await.unwrap();
    let mut open = device.own.watch(&Query::all("task").eq("/done", false));
    let first = next(&mut open).await;
    assert!(first.whole && first.changed.len() == 1);
    device.own.put("task", "2", json!({"done": true})).await.unwrap();
    device.own.put("task", "3", json!({"done": false})).await.unwrap();
    let told = next(&mut open).await;
    assert_eq!((told.whole, told.changed[0].id.as_str(), told.removed.len()), (false, "3", 0));
    device.own.patch("task", "1", json!({"done": true})).await.unwrap();
    let told = next(&mut open).await;
    assert_eq!((told.changed.len(), told.removed), (0, vec!["1".to_owned()]));
}
