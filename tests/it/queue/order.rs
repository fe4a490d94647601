//! The order of a device, whatever stands in its way, and on several replicas.

use std::time::Duration;

use syncline::clock::Clock;
use syncline::rpc::proto::{Mutation, QueueState};
use time::OffsetDateTime;
use tokio::task::JoinSet;

use super::{drained, enqueue, list, states};
use crate::support::history::Log;
use crate::support::{Database, Random, TestServer, put, scale, seed, wait_for};

fn sequenced(id: &str, task: &str, sequence: i64) -> Mutation {
    Mutation { device_sequence: Some(sequence), ..put(id, task, "{}") }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tried_again_holds_up_its_own_device_only() {
    use QueueState::{Applied, Failed, Pending};
    let database = Database::create().await;
    let clock = Clock::manual(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
    let server = TestServer::start_with(&database, clock.clone(), |_config| {}).await;
    let token = crate::support::mint_granted("alice", &[], Duration::from_secs(3_600), &clock);
    let alice = crate::support::Client::connect(server.address(), &token).await;
    // The first one lacks two before it.
    for one in [sequenced("gap", "1", 3), put("behind", "1", "{\"n\":1}")] {
        enqueue(&alice, "phone", vec![one]).await.unwrap();
    }
    enqueue(&alice, "desk", vec![put("elsewhere", "2", "{}")]).await.unwrap();
    let attempts = async |count: i32| {
        wait_for(&format!("attempt {count}"), async || {
            let entries = list(&alice, QueueState::Unspecified).await;
            let found = entries.iter().any(|it| it.mutation_id == "gap" && it.attempts == count);
            found.then_some(entries)
        })
        .await
    };
    for (count, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        let entries = attempts(count).await;
        assert_eq!(states(&entries)[..2], [("gap", Pending), ("behind", Pending)]);
        assert_eq!(entries[0].fault.as_ref().unwrap().reason, "SEQUENCE_GAP");
        // Not a moment before.
        clock.advance(Duration::from_secs(seconds) - Duration::from_millis(1));
        let other = format!("other{count}");
        enqueue(&alice, "desk", vec![put(&other, "2", "{}")]).await.unwrap();
        wait_for("another lane", async || {
            let pending = list(&alice, Pending).await;
            pending.iter().all(|it| it.mutation_id != other).then_some(())
        })
        .await;
        assert_eq!(list(&alice, Pending).await[0].attempts, count);
        clock.advance(Duration::from_millis(1));
    }
    drained(&alice).await;
    let entries = attempts(5).await;
    assert_eq!(states(&entries)[..2], [("gap", Failed), ("behind", Applied)]);
    // What never got an answer may be tried again as it is.
    for (id, sequence) in [("s1", 1), ("s2", 2)] {
        let request = syncline::rpc::proto::MutateRequest {
            device: "phone".into(),
            mutation: Some(sequenced(id, "3", sequence)),
            ..Default::default()
        };
        alice.stub.clone().mutate(request).await.unwrap();
    }
    super::retry(&alice, "gap", None).await.unwrap();
    drained(&alice).await;
    let entries = list(&alice, Applied).await;
    assert_eq!(entries.last().unwrap().mutation_id, "gap");
}

/// What waits can be taken out of the way, and what is taken out is not applied.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_or_marked_makes_way() {
    let database = Database::create().await;
    let clock = Clock::manual(OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap());
    let server = TestServer::start_with(&database, clock.clone(), |_config| {}).await;
    let token = crate::support::mint_granted("alice", &[], Duration::from_secs(3_600), &clock);
    let alice = crate::support::Client::connect(server.address(), &token).await;
    let gaps = [sequenced("gap1", "1", 7), sequenced("gap2", "1", 9)];
    for one in gaps.into_iter().chain(["a", "b", "c"].map(|id| put(id, id, "{}"))) {
        enqueue(&alice, "phone", vec![one]).await.unwrap();
    }
    let waits = async |id: &str| {
        wait_for(id, async || {
            let entries = list(&alice, QueueState::Pending).await;
            let head = entries.first().filter(|it| it.mutation_id == id && it.attempts == 1)?;
            Some(head.next_attempt_time.unwrap().seconds)
        })
        .await
    };
    assert_eq!(waits("gap1").await, 1_800_000_001);
    let request = super::MarkSyncedRequest {
        mutation_ids: vec!["gap1".into(), "b".into()],
        ..Default::default()
    };
    alice.queue.clone().mark_synced(request).await.unwrap();
    waits("gap2").await;
    let request = super::DiscardQueuedRequest { mutation_id: "gap2".into(), ..Default::default() };
    alice.queue.clone().discard_queued(request).await.unwrap();
    drained(&alice).await;
    let entries = list(&alice, QueueState::Unspecified).await;
    use QueueState::{Applied, Synced};
    assert_eq!(states(&entries), [("gap1", Synced), ("a", Applied), ("b", Synced), ("c", Applied)]);
    assert_eq!(alice.head().await, 2);
}

/// An attempt that took effect, and whose answer was lost, is not followed by another.
#[tokio::test(flavor = "multi_thread")]
async fn what_took_effect_is_not_edited() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    let mutation = put("m", "1", "{}");
    enqueue(&alice, "phone", vec![mutation]).await.unwrap();
    drained(&alice).await;
    let lost = "update queue set state = 4, attempts = 5, outcome = null, revision = null";
    sqlx::query(lost).execute(&mut database.connect().await).await.unwrap();
    let refused = super::retry(&alice, "m", Some(put("n", "1", "{\"n\":1}"))).await.unwrap_err();
    assert_eq!(crate::support::error_reason(&refused), "QUEUED_STATE");
    super::retry(&alice, "m", None).await.unwrap();
    drained(&alice).await;
    assert_eq!(states(&list(&alice, QueueState::Unspecified).await), [("m", QueueState::Applied)]);
    assert_eq!(alice.head().await, 1);
}

/// Many devices of several users, several replicas: every id takes effect once, and each
/// device's in its order.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_work_and_double_nothing() {
    let database = Database::create().await;
    let servers = [TestServer::start(&database).await, TestServer::start(&database).await];
    let mut random = Random(seed());
    let mut clients = JoinSet::new();
    let each = 60 * scale();
    for device in 0..6_u64 {
        let user = if device % 2 == 0 { "alice" } else { "bob" };
        let client = servers[usize::try_from(device % 2).unwrap()].client(user).await;
        let mut random = Random(random.next());
        clients.spawn(async move {
            let name = format!("d{device}");
            let mut number = 0;
            while number < each {
                let count = (1 + random.below(7)).min(each - number);
                let write = |at: u64| {
                    let task = random.below(9).to_string();
                    put(&format!("{name}-{at:05}"), &task, &format!("{{\"n\":{at}}}"))
                };
                let mutations = (number..number + count).map(write).collect();
                enqueue(&client, &name, mutations).await.unwrap();
                number += count;
            }
            client
        });
    }
    for client in clients.join_all().await {
        drained(&client).await;
    }
    for user in ["alice", "bob"] {
        let log = Log::checked(&database, user, &[]).await;
        assert_eq!(log.lines.len() as u64, 3 * each);
        for device in 0..6 {
            let name = format!("d{device}");
            let ids = log.lines.iter().filter(|it| it.device.as_deref() == Some(&name));
            let ids: Vec<_> = ids.map(|it| it.mutation.as_str()).collect();
            assert!(ids.is_sorted(), "{name}: {ids:?}");
        }
    }
}
