//! Tokens that an app gives when it is asked: those that end while a client is online, and
//! those that a server does not take.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use syncline::client::{EntryState, Link, NewsKind};
use syncline::clock::Clock;

use super::device::url;
use super::{Device, Heard};
use crate::support::{House, mint, mint_for, put, wait_for};

/// The server tells every ten seconds how long a token lives: at the second time this one has
/// less than half of what it had at the first, and long enough for a slow machine.
const LIFE: Duration = Duration::from_secs(28);

/// For which reasons an app was asked: because the server would not have the last one, or not.
type Asked = Arc<Mutex<Vec<bool>>>;

/// A device whose app gives these tokens.
async fn asking(
    house: &House,
    give: impl Fn(bool) -> String + Send + Sync + 'static,
) -> (Device, Asked) {
    let asked = Asked::default();
    let (url, note) = (url(house.server.address()), Arc::clone(&asked));
    let device = Device::with("alice", |options| {
        options.server(&url).tokens(move |force| {
            note.lock().push(force);
            let token = give(force);
            async move { Ok(token) }
        })
    })
    .await;
    (device, asked)
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends_and_nothing_is_lost() {
    let house = House::new().await;
    let clock = Clock::system();
    let ends = clock.unix_seconds() + i64::try_from(LIFE.as_secs()).unwrap();
    let (device, asked) = asking(&house, |_force| mint_for("alice", LIFE)).await;
    let mut heard = Heard::new(&device.client);
    device.synced().await;
    assert_eq!(*asked.lock(), [false]);
    wait_for("the first token to end", async || {
        // Both ways, all the time.
        let id = device.own.put("task", "1", json!({"by": "device"})).await.unwrap();
        assert_eq!(device.settled(&id).await.state, EntryState::Applied);
        // It takes time by its nature: not as often as that could be looked at.
        tokio::time::sleep(Duration::from_millis(500)).await;
        (clock.unix_seconds() > ends).then_some(())
    })
    .await;
    assert!(asked.lock().len() >= 2, "{asked:?}");
    let id = device.own.put("task", "2", json!({"by": "device"})).await.unwrap();
    assert_eq!(device.settled(&id).await.state, EntryState::Applied);
    house.alice.mutate(put("3", "3", r#"{"by":"another"}"#)).await.unwrap();
    device.shows("3", json!({"by": "another"})).await;
    assert_eq!(device.synced().await.link, Link::Online);
    assert_eq!(heard.of(NewsKind::Link), [""; 0], "{asked:?}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_asked_for_once_more_by_force() {
    let house = House::new().await;
    let (device, asked) = asking(&house, |force| match force {
        true => mint("alice"),
        false => format!("{}x", mint("alice")),
    })
    .await;
    let id = device.own.put("task", "1", json!({})).await.unwrap();
    assert_eq!(device.settled(&id).await.state, EntryState::Applied);
    assert_eq!(*asked.lock(), [false, true]);
}

#[tokio::test]
async fn tokens_that_are_always_refused_are_told_with_an_advice() {
    let house = House::new().await;
    let (device, asked) = asking(&house, |_force| format!("{}x", mint("alice"))).await;
    device.own.put("task", "1", json!({})).await.unwrap();
    let problem = wait_for("it to be told", async || {
        let status = device.client.status().await.unwrap();
        status.problem.filter(|it| it.advice == "give a token that this server accepts")
    })
    .await;
    assert!(!problem.what.is_empty());
    let asked = asked.lock().clone();
    assert!(asked.len() >= 2 && !asked[0] && asked[1..].iter().all(|it| *it), "{asked:?}");
    assert_eq!(device.own.pending().await.unwrap().len(), 1);
}
