//! What is in flight: batches that arrive and are not answered, spaces that are asked for
//! meanwhile, reads that nobody waits for.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use syncline::client::{EntryState, Query};
use tokio::time::timeout;

use super::Device;
use crate::support::proxy::{Fault, Proxy, Target};
use crate::support::{House, mint, wait_for};

/// Well below what an answer that does not come is waited for.
const QUICKLY: Duration = Duration::from_secs(15);

async fn behind(house: &House, poll: bool) -> (Device, Proxy) {
    let proxy = Proxy::start(Target::Tcp(house.server.address())).await;
    let url = format!("http://{}", proxy.address());
    let device = Device::with("alice", |options| {
        let options = options.server(&url).token(mint("alice"));
        if poll { options.poll(Duration::from_millis(200)) } else { options }
    })
    .await;
    device.synced().await;
    (device, proxy)
}

#[tokio::test]
async fn without_a_stream_a_batch_that_was_not_answered_goes_out_again() {
    let house = House::new().await;
    for poll in [true, false] {
        let (device, proxy) = behind(&house, poll).await;
        proxy.arm(Fault::CutAfter("cut here".into()));
        let id = device.own.put("task", "1", json!({"title": "cut here"})).await.unwrap();
        let outcome = timeout(QUICKLY, device.own.settled(&id)).await;
        let outcome = outcome.expect("it is sent again").unwrap().unwrap();
        assert_eq!((outcome.state, proxy.fired()), (EntryState::Applied, 1), "poll: {poll}");
    }
    assert_eq!(house.alice.head().await, 2);
}

#[tokio::test]
async fn who_wants_another_part_of_a_space_loses_no_answer() {
    let house = House::new().await;
    let (device, proxy) = behind(&house, false).await;
    proxy.delay(Duration::from_millis(200));
    let id = device.own.put("task", "1", json!({})).await.unwrap();
    let sent = async || {
        let outcome = device.own.outcome(&id).await.unwrap().unwrap();
        (outcome.state == EntryState::Syncing).then_some(())
    };
    wait_for("the edit to be on its way", sent).await;
    device.client.collections("", &["task"]).await.unwrap();
    let outcome = timeout(QUICKLY, device.own.settled(&id)).await.expect("the answer is taken");
    assert_eq!(outcome.unwrap().unwrap().state, EntryState::Applied);
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_no_other_reader() {
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({"title": "Milk"})).await.unwrap();
    let mut streams: Vec<_> =
        (0..8).map(|_| Box::pin(device.own.watch(&Query::all("task")))).collect();
    for stream in &mut streams {
        // They have begun to read, and nobody waits for them.
        assert!(stream.next().now_or_never().is_none());
    }
    let seen = timeout(QUICKLY, device.see("task", "1")).await;
    assert_eq!(seen.expect("others read")["title"], "Milk");
    timeout(QUICKLY, device.client.close()).await.expect("the file is closed");
}
