//! Random runs of several phones against two replicas and a PostgreSQL: edits that collide,
//! networks that break, programs and servers that end, cursors and histories that are gone,
//! access that is taken and given back. At rest all phones show what the server has, and a
//! ledger accounts for every edit.

mod calm;
mod ledger;
mod phone;
mod planned;
mod replica;
mod script;
mod state;
mod world;

use calm::Calm;
use phone::End;
use world::{Plan, World};

pub use phone::shown;
pub use state::ServerState;

use crate::support::{Random, scale, seed};

/// Runs of this kind, each from a seed of its own, which is printed.
async fn run(plan: Plan) {
    let first = seed();
    for number in 0..scale() {
        let seed = first.wrapping_add(number);
        println!("{plan:?} SYNCLINE_TEST_SEED={seed}");
        let mut world = World::new(plan, Random(seed)).await;
        for number in 0..plan.steps {
            if number == plan.steps / 2 {
                world.planned().await;
            }
            world.step().await;
            world.listen();
        }
        world.rest().await;
        world.check().await;
        for phone in &world.phones {
            phone.client.close().await;
        }
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_changes_once_by_each_edit_and_by_nothing_else() {
    let first = seed();
    for number in 0..scale() {
        let seed = first.wrapping_add(number);
        println!("SYNCLINE_TEST_SEED={seed}");
        let plan = Plan { phones: 1, ..Plan::default() };
        let mut world = World::new(plan, Random(seed)).await;
        let mut calm = Calm::begin(&world).await;
        for _ in 0..150 {
            world.listen();
            if world.below(2) == 0 {
                calm.same(&world, "what the network brought").await;
                world.edit(0).await;
                calm.edited(&world).await;
                continue;
            }
            match world.below(12) {
                0..5 => world.pause(0).await,
                5..7 => world.disturb(0),
                7..9 => world.mend(0),
                9 => world.tell(0),
                10 => {
                    world.restart_phone(0, End::Closed).await;
                    calm.listen(&world);
                }
                _ => {
                    let server = world.index(2);
                    world.lead(0, server);
                    world.phones[0].proxy.cut();
                }
            }
        }
        world.rest().await;
        world.check().await;
        calm.end(&world).await;
        world.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phones_become_what_the_server_is() {
    run(Plan { steps: 250, phones: 3, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phones_that_are_told_twice_and_late_become_what_the_server_is() {
    run(Plan { steps: 200, phones: 3, stutters: true, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phones_whose_cursors_expire_begin_anew() {
    run(Plan { steps: 150, phones: 3, compacts: true, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phones_keep_their_queues_when_a_history_is_replaced() {
    run(Plan { steps: 150, phones: 3, replaces: true, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phones_begin_anew_when_all_was_erased() {
    run(Plan { steps: 150, phones: 3, erases: true, ..Plan::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn phones_lose_a_shared_space_and_get_it_back() {
    run(Plan { steps: 200, phones: 4, shared: true, ..Plan::default() }).await;
}
