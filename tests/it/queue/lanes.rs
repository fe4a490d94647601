//! Lanes as workers hold them: what happens to their entries meanwhile is seen.

use syncline::clock::Clock;
use syncline::domain::{DeviceId, Fingerprint, MutationId, QueuedBy, Space, UserId};
use syncline::store::{Held, Lane, NewQueued, Store};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::support::Database;

struct House {
    _database: Database,
    store: Store,
    space: Space,
    user: UserId,
    device: DeviceId,
    now: OffsetDateTime,
}

impl House {
    async fn new() -> Self {
        let database = Database::create().await;
        let user = UserId::parse("alice").unwrap();
        let house = Self {
            store: database.store().await,
            _database: database,
            space: Space::private(&user),
            user,
            device: DeviceId::parse("phone").unwrap(),
            now: Clock::system().now_to_store(),
        };
        house.store.create_spaces(&[&house.space]).await.unwrap();
        house
    }

    async fn enqueue(&self, ids: &[&str]) {
        let new = |id: &&str| NewQueued {
            mutation_id: MutationId::parse(id).unwrap(),
            fingerprint: Fingerprint([7; 32]),
            payload: id.as_bytes().to_vec(),
        };
        let new: Vec<_> = ids.iter().map(new).collect();
        let by = QueuedBy { author: self.user.clone(), actor: None, by_grant: true };
        let who = (&by, &self.device);
        self.store.enqueue(self.space.id, who, &new, self.now).await.unwrap();
    }

    async fn take(&self, worker: Uuid) -> Vec<Lane> {
        self.take_at(worker, self.now).await
    }

    async fn take_at(&self, worker: Uuid, now: OffsetDateTime) -> Vec<Lane> {
        let until = now + Duration::seconds(30);
        self.store.take_lanes(worker, now, until, 8).await.unwrap()
    }

    async fn give_back(&self, lane: &Lane, worker: Uuid, due_at: Option<OffsetDateTime>) {
        self.store.give_back(lane, worker, due_at, self.now).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_is_one_workers_until_its_time_has_passed() {
    let house = House::new().await;
    house.enqueue(&["a"]).await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let lanes = house.take(first).await;
    assert_eq!((lanes.len(), house.take(second).await.len()), (1, 0));
    let late = house.now + Duration::seconds(31);
    let taken = house.take_at(second, late).await;
    assert_eq!(taken.len(), 1);
    // The first one is told, and what it gives back is not its own.
    let entry = &house.store.pending(&lanes[0], 10, 1 << 20).await.unwrap()[0];
    let held = house.store.hold_lane(&lanes[0], first, late, entry).await.unwrap();
    assert_eq!(held, Held::Lost);
    house.give_back(&lanes[0], first, None).await;
    let held = house.store.hold_lane(&taken[0], second, late, entry).await.unwrap();
    assert_eq!(held, Held::Waits);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_touched_while_a_lane_is_held_is_seen() {
    let house = House::new().await;
    let later = house.now + Duration::hours(1);
    house.enqueue(&["a", "b", "c"]).await;
    let id = |id: &str| MutationId::parse(id).unwrap();
    let space = house.space.id;
    for touch in ["enqueue", "discard", "mark", "nothing"] {
        let worker = Uuid::new_v4();
        let lane = house.take(worker).await.pop().expect(touch);
        let entries = house.store.pending(&lane, 10, 1 << 20).await.unwrap();
        match touch {
            "enqueue" => house.enqueue(&["d"]).await,
            "discard" => {
                assert!(house.store.discard_queued(space, &id("a"), house.now).await.unwrap());
            }
            "mark" => {
                let marked = house.store.mark_synced(space, &[id("b")], house.now).await.unwrap();
                assert_eq!(marked, 1);
            }
            _ => {}
        }
        for entry in &entries {
            let gone =
                matches!((touch, entry.mutation_id.as_str()), ("discard", "a") | ("mark", "b"));
            let held = house.store.hold_lane(&lane, worker, later, entry).await.unwrap();
            assert_eq!(held == Held::Gone, gone, "{touch} {}", entry.mutation_id);
        }
        // However it is given back, somebody looks again at once, if there is a reason.
        for due_at in [None, Some(later)] {
            house.give_back(&lane, worker, due_at).await;
            let again = house.take(worker).await;
            assert_eq!(again.len(), usize::from(touch != "nothing"), "{touch} {due_at:?}");
        }
        if touch != "nothing" {
            let lane = house.take_at(worker, later).await.pop();
            let lane = lane.expect("it is free by then");
            house.give_back(&lane, worker, Some(house.now)).await;
        }
    }
}
