//! The status as an app shows it, from being alone to being as the server is, and what it says
//! of what went wrong.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::json;
use syncline::client::{Link, Phase, SpaceStatus, Status, Trigger};
use syncline::rpc::proto::Policy;
use tokio::task::JoinSet;

use super::Device;
use super::device::url;
use crate::support::proxy::{Proxy, Target};
use crate::support::{House, put, wait_for};

/// What has come meanwhile, in batches of a thousand.
const CHANGES: i64 = 3_000;

/// What was told of a client, in its order.
struct Told {
    all: Arc<Mutex<Vec<Status>>>,
    _listening: JoinSet<()>,
}

impl Told {
    fn new(device: &Device) -> Self {
        let (all, mut stream) = (Arc::default(), device.client.watch_status());
        let kept: Arc<Mutex<Vec<Status>>> = Arc::clone(&all);
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            while let Some(status) = stream.next().await {
                kept.lock().push(status.unwrap());
            }
        });
        Self { all, _listening: listening }
    }

    /// Waits for the first that is so, after the one at `from`; tells where it is.
    async fn until(&self, from: usize, what: &str, is: impl Fn(&Status) -> bool) -> usize {
        wait_for(what, async || {
            self.all.lock().iter().skip(from).position(&is).map(|found| from + found)
        })
        .await
    }

    fn at(&self, index: usize) -> Status {
        self.all.lock()[index].clone()
    }
}

fn space(status: &Status) -> &SpaceStatus {
    &status.spaces[0]
}

fn is_live(status: &Status) -> bool {
    space(status).phase == Some(Phase::Live) && status.link == Link::Online
}

fn is_catching_up(status: &Status) -> bool {
    matches!(space(status).phase, Some(Phase::CatchingUp { .. }))
}

/// The device is away, others write much, and it has something to send.
async fn long_away(house: &House, device: &Device) {
    device.own.put("note", "1", json!({"text": "one"})).await.unwrap();
    device.synced().await;
    device.goes_offline().await;
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(200));
    for batch in 0..CHANGES / 1_000 {
        let all =
            (0..1_000).map(|it| put(&format!("{batch}-{it}"), &format!("{batch}-{it}"), &text));
        house.alice.batch(all.collect(), false).await.unwrap();
    }
    device.own.put("mine", "1", json!({})).await.unwrap();
    device.own.put("mine", "2", json!({})).await.unwrap();
}

#[tokio::test]
async fn the_status_tells_the_way_from_alone_to_live() {
    let house = House::new().await;
    let proxy = Proxy::start(Target::Tcp(house.server.address())).await;
    let device = Device::at("alice", &url(proxy.address())).await;
    long_away(&house, &device).await;
    let told = Told::new(&device);
    let offline = told.until(0, "offline", |it| it.link == Link::Offline).await;
    let first = told.at(offline);
    assert_eq!((first.problem.clone(), space(&first).pending), (None, 2));

    proxy.refuse();
    device.client.sync(Trigger::Network);
    let refused = told.until(offline, "the refusal", |it| it.problem.is_some()).await;
    let problem = told.at(refused).problem.unwrap();
    assert!(problem.advice.starts_with("check the network and the address"), "{problem:?}");
    assert_eq!(told.at(refused).link, Link::Offline);

    proxy.heal();
    proxy.delay(Duration::from_millis(20));
    device.client.sync(Trigger::Network);
    let connecting = told.until(refused, "to connect", |it| it.link == Link::Connecting).await;
    let catching_up = told.until(connecting, "to catch up", is_catching_up).await;
    let live = told.until(catching_up, "to be live", is_live).await;
    check_progress(&told.all.lock()[catching_up..live]);
    let settled = told.until(live, "all to be sent", |it| space(it).is_synced()).await;
    let (last, head) = (told.at(settled), house.alice.head().await);
    assert_eq!((space(&last).up_to, space(&last).head, space(&last).lag()), (head, head, 0));
    assert_eq!((last.problem.clone(), space(&last).pending), (None, 0));
    what_goes_wrong(&house, &device, &told, settled).await;
}

/// What is done rises to all of it, and is what the revisions say.
fn check_progress(told: &[Status]) {
    let mut before = 0.0;
    let mut between = 0;
    for space in told.iter().filter(|it| is_catching_up(it)).map(space) {
        let progress = space.progress.expect("it is told while it catches up");
        assert!(progress >= before && progress <= 1.0, "{before}, then {space:?}");
        // The file may be further than what was told of the link last.
        assert!(progress < 1.0 || space.lag() == 0, "{space:?}");
        between += usize::from(progress > before && progress < 1.0);
        before = progress;
    }
    let first = told.iter().map(space).find(|it| it.head > CHANGES).expect("the head is told");
    assert!(first.lag() > 0 && first.up_to < CHANGES, "{first:?}");
    assert!(between > 1 && before > 0.9, "{between} steps to {before}");
}

/// An edit that breaks a rule which is not known yet, and one that meets another.
async fn what_goes_wrong(house: &House, device: &Device, told: &Told, from: usize) {
    device.goes_offline().await;
    device.own.put("form", "1", json!({})).await.unwrap();
    device.own.patch("note", "1", json!({"text": "two"})).await.unwrap();
    let (collection, json_schema) = ("form".into(), r#"{"required": ["title"]}"#.into());
    let policy = Policy { collection, json_schema, ..Policy::default() };
    house.alice.set_policy(policy).await.unwrap();
    let mut other = put("other", "1", r#"{"text":"three"}"#);
    other.key.as_mut().unwrap().collection = "note".into();
    house.alice.mutate(other).await.unwrap();
    let away = told.until(from, "offline again", |it| it.link == Link::Offline).await;
    let away = told.until(away, "the queue", |it| space(it).pending == 2).await;
    device.client.sync(Trigger::Network);
    let parked = told.until(away, "it to be parked", |it| space(it).parked == 1).await;
    let conflict = told.until(parked, "the conflict", |it| space(it).conflicts == 1).await;
    let live = told.until(conflict, "to be live", |it| is_live(it) && space(it).is_synced()).await;
    let last = told.at(live);
    assert_eq!((space(&last).parked, space(&last).conflicts, space(&last).pending), (1, 1, 0));
}
