//! What lets a client that polls seldom look at once.

use std::time::Duration;

use serde_json::json;
use syncline::client::Trigger;

use super::Device;
use super::device::url;
use crate::support::{House, mint, put};

/// Longer than any test.
const SELDOM: Duration = Duration::from_hours(1);
/// Many times what a poll takes.
const A_WHILE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn each_trigger_lets_a_client_look_that_polls_seldom() {
    let house = House::new().await;
    let (url, token) = (url(house.server.address()), mint("alice"));
    let device =
        Device::with("alice", |options| options.server(&url).token(token).poll(SELDOM)).await;
    device.synced().await;
    let triggers =
        [Trigger::Network, Trigger::Foreground, Trigger::Periodic, Trigger::Demand].map(Some);
    for (number, trigger) in triggers.into_iter().chain([None]).enumerate() {
        let id = number.to_string();
        house.alice.mutate(put(&id, &id, r#"{"by":"another"}"#)).await.unwrap();
        if number == 0 {
            // Nothing is to happen, and that cannot be waited for.
            tokio::time::sleep(A_WHILE).await;
        }
        assert!(device.see("task", &id).await.is_null(), "before {trigger:?}");
        match trigger {
            Some(trigger) => device.client.sync(trigger),
            None => device.own.hint(),
        }
        device.shows(&id, json!({"by": "another"})).await;
    }
}
