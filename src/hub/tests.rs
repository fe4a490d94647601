//! What watchers see of a space while its changes come in, late, twice or with gaps.

use futures_util::FutureExt;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::domain::UserId;

const SPACE: SpaceId = SpaceId(Uuid::from_u128(1));
const EPOCH: Epoch = Epoch(Uuid::from_u128(9));

fn revision(number: i64) -> Revision {
    Revision::new(number).unwrap()
}

fn at(head: i64, conflicts: i64) -> Hint {
    Hint { head: revision(head), conflicts }
}

fn changes(numbers: std::ops::RangeInclusive<i64>) -> Vec<Arrival> {
    numbers
        .map(|number| {
            let change = Arc::new(Change {
                previous_revision: revision(number - 1),
                micros: number,
                ..Change::sample(number)
            });
            Arrival { change, before: None }
        })
        .collect()
}

fn begun(head: i64) -> (Arc<Hub>, Watch) {
    let hub = Arc::new(Hub::new(1 << 20));
    let watch = hub.watch(SPACE, Waker::default());
    watch.begin(EPOCH, at(head, 0));
    (hub, watch)
}

/// The revisions that a reader takes, or None for "read the store".
fn ahead(watch: &Watch, cursor: i64) -> Option<Vec<i64>> {
    match watch.ahead(EPOCH, revision(cursor), None, usize::MAX) {
        Ahead::Nothing => Some(Vec::new()),
        Ahead::Entries(entries, end) => {
            assert_eq!(end, entries.last().unwrap().change.revision);
            Some(entries.iter().map(|entry| entry.change.revision.get()).collect())
        }
        Ahead::InStore => None,
        Ahead::Replaced(..) => panic!("the epoch is the same"),
    }
}

#[test]
fn commits_of_this_replica_are_live_at_once() {
    let (hub, watch) = begun(5);
    assert_eq!(ahead(&watch, 5), Some(vec![]));
    hub.publish((SPACE, EPOCH), revision(5), &changes(6..=8), 0);
    assert_eq!(ahead(&watch, 5), Some(vec![6, 7, 8]));
    assert_eq!(ahead(&watch, 7), Some(vec![8]));
    assert_eq!(ahead(&watch, 4), None, "before the ring: read the store");
    assert_eq!(hub.lacking(), vec![]);
}

#[test]
fn a_commit_of_another_replica_is_read_from_the_log() {
    let (hub, watch) = begun(5);
    hub.publish((SPACE, EPOCH), revision(7), &changes(8..=8), 0);
    assert_eq!(ahead(&watch, 5), Some(vec![]), "6 and 7 are not known yet");
    assert_eq!(hub.lacking(), vec![(SPACE, revision(5))]);
    let read = Some((revision(5), changes(6..=8)));
    hub.refresh(SPACE, Refresh { epoch: EPOCH, at: at(8, 0), changes: read });
    assert_eq!(ahead(&watch, 5), Some(vec![6, 7, 8]));
    hub.publish((SPACE, EPOCH), revision(6), &changes(7..=9), 0);
    assert_eq!(ahead(&watch, 5), Some(vec![6, 7, 8, 9]), "what overlaps comes once");
    assert_eq!(hub.lacking(), vec![]);
}

#[test]
fn what_is_committed_before_the_feed_begins_is_not_lost() {
    let hub = Arc::new(Hub::new(1 << 20));
    let watch = hub.watch(SPACE, Waker::default());
    // The head 5 was read, then 6 was committed, then the feed began.
    hub.publish((SPACE, EPOCH), revision(5), &changes(6..=6), 0);
    watch.begin(EPOCH, at(5, 0));
    assert_eq!(hub.lacking(), vec![(SPACE, revision(5))]);
}

#[test]
fn too_many_changes_send_readers_to_the_store() {
    let (hub, watch) = begun(5);
    hub.hint(SPACE, at(100_000, 0));
    hub.refresh(SPACE, Refresh { epoch: EPOCH, at: at(100_000, 0), changes: None });
    assert_eq!(ahead(&watch, 5), None);
    assert_eq!(ahead(&watch, 100_000), Some(vec![]));
}

#[test]
fn rings_are_bounded_by_bytes() {
    let hub = Arc::new(Hub::new(10_000));
    let watch = hub.watch(SPACE, Waker::default());
    watch.begin(EPOCH, at(0, 0));
    for number in 1..=1_000 {
        hub.publish((SPACE, EPOCH), revision(number - 1), &changes(number..=number), 0);
    }
    assert_eq!(ahead(&watch, 0), None);
    let kept = ahead(&watch, 995).unwrap();
    assert_eq!(kept, [996, 997, 998, 999, 1_000]);
    assert_eq!(ahead(&watch, 900), None, "not a thousand changes");
}

#[test]
fn another_epoch_starts_the_ring_anew() {
    let (hub, watch) = begun(5);
    let epoch = Epoch(Uuid::from_u128(10));
    hub.refresh(SPACE, Refresh { epoch, at: at(2, 0), changes: None });
    let ahead = watch.ahead(EPOCH, revision(5), None, usize::MAX);
    assert!(matches!(ahead, Ahead::Replaced(now, head) if now == epoch && head == revision(2)));
    assert!(matches!(watch.ahead(epoch, revision(2), None, usize::MAX), Ahead::Nothing));
}

#[test]
fn a_space_that_nobody_watches_is_forgotten() {
    let (hub, watch) = begun(5);
    let second = hub.watch(SPACE, Waker::default());
    drop(watch);
    assert_eq!(hub.watched(), vec![SPACE]);
    drop(second);
    assert_eq!(hub.watched(), vec![]);
}

#[tokio::test]
async fn watchers_are_woken_once_for_many_commits() {
    let hub = Arc::new(Hub::new(1 << 20));
    let waker = Waker::default();
    let watch = hub.watch(SPACE, waker.clone());
    watch.begin(EPOCH, at(0, 0));
    hub.wake_watchers().await;
    waker.bell.heard().await;
    for number in 1..=100 {
        hub.publish((SPACE, EPOCH), revision(number - 1), &changes(number..=number), 0);
    }
    assert_eq!(hub.moved.lock().len(), 1);
    hub.wake_watchers().await;
    waker.bell.heard().await;
    hub.publish((SPACE, EPOCH), revision(100), &changes(101..=101), 0);
    hub.wake_watchers().await;
    waker.bell.heard().await;
}

#[tokio::test]
async fn events_alone_wake_only_those_who_want_them() {
    let hub = Arc::new(Hub::new(1 << 20));
    let waker = |events| Waker { events, ..Waker::default() };
    let (hears, does_not) = (waker(true), waker(false));
    let first = hub.watch(SPACE, hears.clone());
    let _second = hub.watch(SPACE, does_not.clone());
    first.begin(EPOCH, at(0, 0));
    hub.wake_watchers().await;
    hears.bell.heard().await;
    does_not.bell.heard().await;
    let event = Arc::new(Event {
        topic: "t".into(),
        document: None,
        author: UserId::parse("alice").unwrap(),
        device: None,
        published_at: OffsetDateTime::UNIX_EPOCH,
    });
    hub.tell(SPACE, event, None);
    hub.wake_watchers().await;
    hears.bell.heard().await;
    let woken = does_not.bell.heard().now_or_never();
    assert_eq!(woken, None);
    assert_eq!(first.events(0).events.len(), 1);
}

#[test]
fn conflicts_send_those_who_ask_to_the_store() {
    let (hub, watch) = begun(5);
    let look = |cursor, seen| watch.ahead(EPOCH, revision(cursor), seen, usize::MAX);
    hub.publish((SPACE, EPOCH), revision(5), &changes(6..=6), 3);
    assert!(matches!(look(5, Some(2)), Ahead::InStore));
    assert!(matches!(look(5, Some(3)), Ahead::Entries(..)));
    assert!(matches!(look(5, None), Ahead::Entries(..)));
    // Opened without a change, on another replica; an older hint says nothing.
    hub.hint(SPACE, at(6, 4));
    hub.hint(SPACE, at(6, 3));
    assert!(matches!(look(6, Some(3)), Ahead::InStore));
    assert_eq!(hub.lacking(), vec![]);
}

/// A new watcher may see another epoch before the poll does.
#[test]
fn nothing_of_an_epoch_counts_in_another() {
    let (hub, watch) = begun(90);
    hub.publish((SPACE, EPOCH), revision(90), &changes(91..=100), 0);
    let other = Epoch(Uuid::from_u128(10));
    let second = hub.watch(SPACE, Waker::default());
    second.begin(other, at(50, 0));
    assert_eq!(second.reach().head, revision(50));
    let look = |cursor| second.ahead(other, revision(cursor), None, usize::MAX);
    assert!(matches!(look(50), Ahead::Nothing));
    assert!(matches!(watch.ahead(EPOCH, revision(95), None, usize::MAX), Ahead::Replaced(..)));
    // A commit that was on its way.
    hub.publish((SPACE, EPOCH), revision(50), &changes(51..=51), 0);
    assert!(matches!(look(50), Ahead::Nothing));
    hub.publish((SPACE, other), revision(50), &changes(51..=51), 0);
    assert!(matches!(look(50), Ahead::Entries(..)));
}

#[tokio::test]
async fn a_new_epoch_that_looks_the_same_wakes_all() {
    let (hub, watch) = begun(5);
    let waker = Waker::default();
    let _second = hub.watch(SPACE, waker.clone());
    hub.wake_watchers().await;
    waker.bell.heard().await;
    watch.begin(Epoch(Uuid::from_u128(10)), at(5, 0));
    hub.wake_watchers().await;
    waker.bell.heard().await;
}
