//! Sensitive values: whoever wrote them, and however they come, no file of a device has them.

use std::fs;
use std::time::Duration;

use serde_json::json;
use syncline::client::{EntryState, Error, Options, Resolution, Trigger};

use super::Device;
use super::device::url;
use crate::support::{House, mint, put, wait_for};

/// Beside each secret, and not one: it must be found by the same search.
const OPEN_NAME: &str = "open-name-of-a-card";

fn on_disk(device: &Device, text: &str) -> bool {
    let dir = device.file().parent().unwrap().to_owned();
    let files = fs::read_dir(dir).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let text = text.as_bytes();
    files.into_iter().any(|bytes| bytes.windows(text.len()).any(|it| it == text))
}

#[track_caller]
fn assert_hidden(device: &Device, secret: &str) {
    assert!(on_disk(device, OPEN_NAME), "this search finds nothing");
    assert!(!on_disk(device, secret), "{secret} is on disk");
}

#[tokio::test]
async fn own_values_are_never_on_disk() {
    const SECRET_NUMBER: &str = "4929-0000-1111-2222";
    let house = House::new().await;
    let url = url(house.server.address());
    let token = mint("alice");
    let options =
        |options: Options| options.sensitive("card", "/number").server(&url).token(token.clone());
    let device = Device::with("alice", options).await;
    device.own.put("card", "1", json!({"name": OPEN_NAME, "number": SECRET_NUMBER})).await.unwrap();
    assert_eq!(device.see("card", "1").await["number"], SECRET_NUMBER);
    device.synced().await;
    device
        .own
        .put("card", "1", json!({"name": OPEN_NAME, "by": "us", "number": SECRET_NUMBER}))
        .await
        .unwrap();
    device.synced().await;
    assert_hidden(&device, SECRET_NUMBER);
    let record = house.alice.document("card", "1").await;
    assert_eq!(record["number"], SECRET_NUMBER);

    // After a restart they are not known, and not taken away by who does not know them.
    let device = device.restarted(options).await;
    assert_eq!(device.see("card", "1").await, json!({"name": OPEN_NAME, "by": "us"}));
    device.own.put("card", "1", json!({"name": OPEN_NAME})).await.unwrap();
    device.synced().await;
    let record = house.alice.document("card", "1").await;
    assert_eq!(record, json!({"name": OPEN_NAME, "number": SECRET_NUMBER}));
    // Its own change comes without its document, and is read back whole.
    wait_for("the whole record", async || {
        (device.see("card", "1").await["number"] == SECRET_NUMBER).then_some(())
    })
    .await;
    assert_hidden(&device, SECRET_NUMBER);

    // What waits in memory only is set aside once that is gone.
    let device = device.restarted(|options| options.sensitive("card", "/number")).await;
    let id = device.own.put("card", "2", json!({"number": SECRET_NUMBER})).await.unwrap();
    assert_hidden(&device, SECRET_NUMBER);
    let device = device.restarted(options).await;
    let outcome = device.settled(&id).await;
    assert_eq!(outcome.state, EntryState::Failed);
    assert_eq!(outcome.trouble.unwrap().reason, "SENSITIVE_VALUES_LOST");
    assert_hidden(&device, SECRET_NUMBER);
    device.own.discard(&id).await.unwrap();
    assert_hidden(&device, SECRET_NUMBER);
}

/// The number of a card, once it is there.
async fn number(device: &Device, card: &str, expected: &str) {
    wait_for(&format!("{expected} to come"), async || {
        (device.see("card", card).await["number"] == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn values_of_other_devices_are_never_on_disk() {
    const FIRST: &str = "first-4929-0000-1111";
    const SECOND: &str = "second-4929-0000-1111";
    const OURS: &str = "ours-4929-0000-1111";
    const THEIRS: &str = "theirs-4929-0000-1111";
    let house = House::new().await;
    let url = url(house.server.address());
    let token = mint("alice");
    let options =
        |options: Options| options.sensitive("card", "/number").server(&url).token(token.clone());
    let card = |number: &str| json!({"name": OPEN_NAME, "number": number});
    let streaming = Device::with("alice", options).await;
    let every = Duration::from_millis(200);
    let polling = Device::with("alice", |it| options(it).poll(every)).await;
    streaming.synced().await;
    polling.synced().await;
    // Another one, without such fields, writes.
    for (id, secret) in [("1", FIRST), ("2", SECOND)] {
        let mut mutation = put(id, id, &card(secret).to_string());
        mutation.key.as_mut().unwrap().collection = "card".into();
        house.alice.mutate(mutation).await.unwrap();
    }
    let loading = Device::with("alice", options).await;
    for device in [&streaming, &polling, &loading] {
        number(device, "1", FIRST).await;
        number(device, "2", SECOND).await;
        device.synced().await;
        assert_hidden(device, FIRST);
        assert_hidden(device, SECOND);
    }
    // Both sides of a conflict are kept, for whoever decides it; without a stream only by who
    // has met it.
    for (id, device) in [("1", &streaming), ("2", &polling)] {
        device.goes_offline().await;
        device.own.patch("card", id, json!({"number": OURS})).await.unwrap();
        assert_hidden(device, OURS);
        loading.own.patch("card", id, json!({"number": THEIRS})).await.unwrap();
        loading.synced().await;
        device.client.sync(Trigger::Network);
    }
    let devices = [("streaming", &streaming), ("polling", &polling), ("loading", &loading)];
    for (name, device) in devices {
        wait_for(&format!("the conflict, {name}"), async || {
            (!device.own.conflicts().await.unwrap().is_empty()).then_some(())
        })
        .await;
        number(device, "1", THEIRS).await;
        number(device, "2", THEIRS).await;
        device.synced().await;
        for secret in [FIRST, SECOND, OURS, THEIRS] {
            assert_hidden(device, secret);
        }
        // What was in the log of the file is in it now.
        device.client.close().await;
        for secret in [FIRST, SECOND, OURS, THEIRS] {
            assert_hidden(device, secret);
        }
    }
}

#[tokio::test]
async fn a_decision_takes_no_hidden_value_away() {
    let house = House::new().await;
    let options = |options: Options| options.sensitive("card", "/number");
    let url = url(house.server.address());
    let online = |it: Options| options(it).server(&url).token(mint("alice"));
    let phone = Device::with("alice", online).await;
    phone.own.put("card", "1", json!({"number": "4929", "name": "a"})).await.unwrap();
    phone.synced().await;
    let laptop = Device::with("alice", online).await;
    laptop.synced().await;
    let phone = phone.restarted(options).await;
    phone.own.patch("card", "1", json!({"name": "b"})).await.unwrap();
    laptop.own.patch("card", "1", json!({"name": "c"})).await.unwrap();
    laptop.synced().await;
    let phone = phone.restarted(online).await;
    let decide = async |device: &Device| {
        let conflict = wait_for("the conflict", async || {
            device.own.conflicts().await.unwrap().into_iter().next()
        })
        .await;
        let both = Resolution::Document(json!({"name": "bc"}));
        device.own.resolve(&conflict, both).await
    };
    phone.synced().await;
    decide(&phone).await.unwrap();
    let whole = json!({"number": "4929", "name": "bc"});
    assert_eq!(house.alice.document("card", "1").await, whole);

    // Who has never heard of it since it began cannot say what it was.
    laptop.synced().await;
    let laptop = laptop.restarted(options).await;
    laptop.own.patch("card", "1", json!({"name": "d"})).await.unwrap();
    phone.own.patch("card", "1", json!({"name": "e"})).await.unwrap();
    phone.synced().await;
    let laptop = laptop.restarted(online).await;
    laptop.synced().await;
    drop(phone);
    let laptop = laptop.restarted(online).await;
    let refused = decide(&laptop).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
}
