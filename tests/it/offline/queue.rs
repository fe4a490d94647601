//! The queue: what joins, what is refused and set aside, and that it holds up nobody.

use std::time::Duration;

use serde_json::{Value, json};
use syncline::client::{Edit, EntryState, Error, Options, Patch, Trigger};
use syncline::clock::Clock;
use syncline::rpc::proto::Policy;
use tokio::time::Instant;

use super::Device;
use super::device::{SOON, url};
use crate::support::{Database, House, TestServer, mint, wait_for};

#[tokio::test]
async fn successive_edits_of_a_record_go_out_as_one() {
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({})).await.unwrap();
    let first = device.own.patch("task", "1", json!({"title": "M"})).await.unwrap();
    for title in ["Mi", "Mil", "Milk"] {
        let id = device.own.patch("task", "1", json!({"title": title})).await.unwrap();
        assert_eq!(id, first);
    }
    let other = device.own.put("task", "2", json!({})).await.unwrap();
    assert_ne!(other, first);
    // Another record came between: order would change.
    let third = device.own.put("task", "1", json!({"title": "Tea"})).await.unwrap();
    assert_ne!(third, first);
    let deleted = device.own.delete("task", "1").await.unwrap();
    assert_ne!(deleted, third);
    let pending = device.own.pending().await.unwrap();
    assert_eq!(pending.len(), 5);
    let milk = Edit::Patch(Patch::merge(json!({"title": "Milk"})).unwrap());
    assert_eq!(pending[1].edit, Some(milk));
    assert_eq!(device.see("task", "1").await, Value::Null);
}

#[tokio::test]
async fn what_can_never_take_effect_is_refused_at_once() {
    let house = House::new().await;
    let schema = r#"{"required": ["title"]}"#;
    let policy =
        Policy { collection: "task".into(), json_schema: schema.into(), ..Policy::default() };
    house.alice.set_policy(policy).await.unwrap();
    let device = Device::new("alice", &house.server).await;
    device.synced().await;
    let reason = |refused: Result<String, Error>| match refused {
        Err(Error::Hopeless(trouble)) => trouble.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(device.own.delete("task", "1").await), "NOT_FOUND");
    assert_eq!(reason(device.own.patch("task", "1", json!({"a": 1})).await), "NOT_FOUND");
    device.own.create("task", "1", json!({"title": "a"})).await.unwrap();
    assert_eq!(
        reason(device.own.create("task", "1", json!({"title": "a"})).await),
        "ALREADY_EXISTS"
    );
    let text = device.own.put("task", "1", json!({"title": "a", "n": "text"})).await;
    text.unwrap();
    let patch = Patch::new().increment("/n", 1).unwrap();
    assert_eq!(reason(device.own.patch("task", "1", patch).await), "INVALID");
    for (collection, id) in [("", "1"), ("task", ""), ("task", "a\u{0}b")] {
        let refused = device.own.put(collection, id, json!({})).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    }
    assert!(matches!(device.own.put("task", "1", json!([])).await, Err(Error::Invalid(_))));
}

#[tokio::test]
async fn a_refused_edit_is_set_aside_and_holds_up_nobody() {
    let house = House::new().await;
    let (phone, laptop) =
        (Device::new("alice", &house.server).await, Device::new("alice", &house.server).await);
    phone.own.put("task", "1", json!({"n": 1})).await.unwrap();
    phone.synced().await;
    wait_for("it", async || (laptop.see("task", "1").await != Value::Null).then_some(())).await;
    laptop.goes_offline().await;
    let refused = laptop.own.create("task", "2", json!({"of": "laptop"})).await.unwrap();
    let after = laptop.own.put("task", "3", json!({})).await.unwrap();
    phone.own.create("task", "2", json!({"of": "phone"})).await.unwrap();
    phone.synced().await;
    laptop.client.sync(Trigger::Network);
    let outcome = laptop.settled(&after).await;
    assert_eq!(outcome.state, EntryState::Applied);
    let outcome = laptop.settled(&refused).await;
    // Both have made it: by default somebody has to decide, and what is shown is the server's.
    assert_eq!(outcome.state, EntryState::Conflict, "{outcome:?}");
    laptop.synced().await;
    assert_eq!(laptop.see("task", "2").await, json!({"of": "phone"}));
}

#[tokio::test]
async fn a_full_space_sets_aside_what_does_not_fit_and_takes_the_rest() {
    let database = Database::create().await;
    let server = TestServer::start_with(&database, Clock::system(), |config| {
        config.quotas.space_records = 3;
    })
    .await;
    let device = Device::alone("alice").await;
    for id in 1..=5 {
        device.own.put("task", &id.to_string(), json!({"n": id})).await.unwrap();
    }
    device.own.patch("task", "1", json!({"n": 100})).await.unwrap();
    let (url, token) = (url(server.address()), mint("alice"));
    let device = device.restarted(|options: Options| options.server(&url).token(token)).await;
    let mut next = Instant::now();
    let status = wait_for("two to be set aside", async || {
        let status = device.client.status().await.unwrap();
        // Each waits 1, 2, 4 and 8 s; a demand now and then cuts that short.
        if Instant::now() >= next {
            device.client.sync(Trigger::Demand);
            next = Instant::now() + Duration::from_millis(200);
        }
        (status.spaces[0].parked == 2 && status.spaces[0].pending == 0).then_some(status)
    })
    .await;
    assert_eq!(status.spaces[0].conflicts, 0);
    let parked = device.own.parked().await.unwrap();
    assert_eq!(parked.iter().map(|it| it.record.as_str()).collect::<Vec<_>>(), ["4", "5"]);
    assert_eq!(parked[0].trouble.as_ref().unwrap().reason, "QUOTA_EXCEEDED");
    assert_eq!(device.see("task", "1").await, json!({"n": 100}));
    assert_eq!(device.see("task", "4").await, Value::Null);

    // There is room again: one is tried again as it is, one in another form.
    device.own.delete("task", "2").await.unwrap();
    device.own.delete("task", "3").await.unwrap();
    device.client.synced(SOON).await.unwrap();
    let same = device.own.retry(&parked[0].id, None).await.unwrap();
    let document = syncline::domain::Document::from_json(br#"{"n":50}"#).unwrap();
    let edited = device.own.retry(&parked[1].id, Some(Edit::Put(document))).await.unwrap();
    for id in [&same, &edited] {
        assert_eq!(device.settled(id).await.state, EntryState::Applied);
    }
    assert_eq!(device.see("task", "4").await, json!({"n": 4}));
    assert_eq!(device.see("task", "5").await, json!({"n": 50}));
    assert!(matches!(device.own.retry(&same, None).await, Err(Error::NotParked)));
    assert!(matches!(device.own.discard(&same).await, Err(Error::NotParked)));
}

#[tokio::test]
async fn what_waits_can_be_taken_back() {
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({"n": 1})).await.unwrap();
    device.own.put("task", "2", json!({"n": 1})).await.unwrap();
    let id = device.own.put("task", "1", json!({"n": 2})).await.unwrap();
    device.own.discard(&id).await.unwrap();
    assert_eq!(device.see("task", "1").await, json!({"n": 1}));
    assert!(device.own.outcome(&id).await.unwrap().is_none());
    assert!(matches!(device.own.discard(&id).await, Err(Error::NotParked)));
}
