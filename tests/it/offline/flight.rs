//! What is in flight: batches that arrive and are not answered, spaces that are asked for
//! meanwhile, reads that nobody waits for.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use syncline::client::{EntryState, NewsKind, Patch, Phase, Query};
use syncline::rpc::proto::DeleteOperation;
use syncline::rpc::proto::mutation::Operation;
use tokio::time::timeout;

use super::device::{next, url};
use super::{Device, Heard};
use crate::support::proxy::{Fault, Proxy, Target};
use crate::support::{House, mint, wait_for};

/// Well below what an answer that does not come is waited for.
const QUICKLY: Duration = Duration::from_secs(15);

async fn behind(house: &House, user: &str, poll: bool) -> (Device, Proxy) {
    let proxy = Proxy::start(Target::Tcp(house.server.address())).await;
    let url = url(proxy.address());
    let device = Device::with(user, |options| {
        let options = options.server(&url).token(mint(user));
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
        let (device, proxy) = behind(&house, "alice", poll).await;
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
    let (device, proxy) = behind(&house, "alice", false).await;
    proxy.delay(Duration::from_millis(200));
    let id = wait_for("an edit to be on its way", async || {
        let id = device.own.put("task", "1", json!({})).await.unwrap();
        wait_for("it to be sent", async || {
            let outcome = device.own.outcome(&id).await.unwrap().unwrap();
            // Whoever looks too late takes another one.
            let looked = (outcome.state == EntryState::Syncing).then(|| id.clone());
            (outcome.state != EntryState::Pending).then_some(looked)
        })
        .await
    })
    .await;
    device.client.collections("", &["task"]).await.unwrap();
    let outcome = timeout(QUICKLY, device.own.settled(&id)).await.expect("the answer is taken");
    assert_eq!(outcome.unwrap().unwrap().state, EntryState::Applied);
}

#[tokio::test]
async fn streams_that_nobody_reads_hold_up_no_other_reader() {
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({"title": "Milk"})).await.unwrap();
    let mut streams: Vec<_> = (0..8).map(|_| device.own.watch(&Query::all("task"))).collect();
    for stream in &mut streams {
        // They have begun to read, and nobody waits for them.
        assert!(stream.next().now_or_never().is_none());
    }
    let seen = timeout(QUICKLY, device.see("task", "1")).await;
    assert_eq!(seen.expect("others read")["title"], "Milk");
    timeout(QUICKLY, device.client.close()).await.expect("the file is closed");
}

#[tokio::test]
async fn streams_end_with_their_client() {
    let device = Device::alone("alice").await;
    device.own.put("task", "1", json!({"title": "Milk"})).await.unwrap();
    let mut changes = device.own.watch(&Query::all("task"));
    let mut record = device.own.watch_record("task", "1");
    let mut status = device.client.watch_status();
    assert!(next(&mut changes).await.whole);
    assert!(next(&mut record).await.is_some());
    next(&mut status).await;
    let closing = async {
        device.client.close().await;
        timeout(QUICKLY, device.client.synced(2 * QUICKLY)).await.expect("it is known at once")
    };
    let (changes, record, closed) = tokio::join!(changes.next(), record.next(), closing);
    assert!(changes.is_none() && record.is_none(), "{changes:?} {record:?}");
    assert!(closed.is_err());
}

/// What is read back is as it was at the revision that is told: a later deletion comes later, and
/// the digest that comes between does not count it.
#[tokio::test]
async fn what_is_read_back_is_not_gone_before_its_deletion_comes() {
    let house = House::new().await;
    // It comes between in some of them.
    join_all((0..10).map(|moment| read_back(&house, moment))).await;
}

async fn read_back(house: &House, moment: u32) {
    let user = format!("user{moment}");
    let (device, proxy) = behind(house, &user, false).await;
    let mut heard = Heard::new(&device.client);
    // From the first on: else what comes after the cut may be over before it is looked at.
    proxy.delay(Duration::from_millis(200));
    proxy.arm(Fault::CutAfter("cut here".into()));
    // Nobody here knows the document: it has the server's time.
    let patch = Patch::new().set("/title", "cut here").unwrap().server_time("/at").unwrap();
    device.own.put("task", "1", json!({"title": "Milk"})).await.unwrap();
    device.own.patch("task", "1", patch).await.unwrap();
    let server = house.server.client(&user).await;
    let arrived = async || (server.head().await == 2).then_some(());
    wait_for("both edits to take effect", arrived).await;
    let catching_up = async || {
        let space = device.client.status().await.unwrap().spaces.remove(0);
        let catching_up = matches!(space.phase, Some(Phase::CatchingUp { .. }));
        (catching_up || space.up_to == 2).then_some(())
    };
    wait_for("it to subscribe", catching_up).await;
    // Its frame is on its way, and there and back again, and then what it reads back.
    tokio::time::sleep(Duration::from_millis(100) * moment).await;
    let gone = crate::support::mutation("gone", "1", Operation::Delete(DeleteOperation {}));
    server.mutate(gone).await.unwrap();
    let deleted = async || device.see("task", "1").await.is_null().then_some(());
    wait_for("the deletion to come", deleted).await;
    device.synced().await;
    assert_eq!(proxy.fired(), 1);
    assert_eq!(heard.of(NewsKind::Healing), [""; 0], "{moment}");
    assert!(!heard.of(NewsKind::Link).is_empty(), "{moment}: the cut is heard of: {heard:?}");
}
