//! A server that dies at any point loses nothing of a queue and doubles nothing.

use syncline::rpc::proto::QueueState;

use super::{enqueue, list};
use crate::support::history::Log;
use crate::support::{Client, Database, Random, ServerProcess, mint, put, scale, seed, wait_for};

/// Until all are applied, and then what the log says.
async fn checked(database: &Database, server: &ServerProcess, ids: &[String]) {
    let alice = Client::connect(server.address, &mint("alice")).await;
    // What the dead one had taken is free after half a minute; a test need not wait.
    let sql = "update lanes set leased_until = null";
    wait_for("the rest of the queue", async || {
        sqlx::query(sql).execute(&mut database.connect().await).await.unwrap();
        let applied = list(&alice, QueueState::Applied).await;
        (applied.len() == ids.len()).then_some(())
    })
    .await;
    let log = Log::checked(database, "alice", &[]).await;
    let applied: Vec<_> = log.lines.iter().map(|it| it.mutation.clone()).collect();
    assert_eq!(applied, ids, "each once, in the order of the device");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_may_die_at_any_point() {
    let points = ["queue.enqueued", "queue.claimed", "queue.decided", "queue.settled"];
    for point in points {
        for times in [1, 2] {
            let database = Database::create().await;
            let point = format!("{point}={times}");
            let dying =
                ServerProcess::start_in(&database.url, &[], &[("SYNCLINE_FAILPOINT", &point)]);
            let alice = Client::lazy(dying.address, &mint("alice"));
            let ids: Vec<_> = (0..6).map(|number| format!("m{number}")).collect();
            let mutations: Vec<_> = ids.iter().map(|id| put(id, "1", "{}")).collect();
            let mut acknowledged = 0;
            for one in &mutations {
                match enqueue(&alice, "phone", vec![one.clone()]).await {
                    Ok(_) => acknowledged += 1,
                    Err(_) => break,
                }
            }
            assert!(dying.died().await, "{point}");
            let server = ServerProcess::start(&database.url);
            let alice = Client::connect(server.address, &mint("alice")).await;
            // Whoever was not told sends again, from what was not acknowledged on.
            for one in mutations.iter().skip(acknowledged) {
                enqueue(&alice, "phone", vec![one.clone()]).await.unwrap();
            }
            checked(&database, &server, &ids).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_may_die_at_random() {
    let database = Database::create().await;
    let mut random = Random(seed());
    let mut ids = Vec::new();
    for round in 0..4 * scale() {
        let server = ServerProcess::start(&database.url);
        let alice = Client::connect(server.address, &mint("alice")).await;
        let sql = "update lanes set leased_until = null";
        sqlx::query(sql).execute(&mut database.connect().await).await.unwrap();
        for at in 0..10 + random.below(60) {
            let id = format!("m{round:05}-{at:03}");
            enqueue(&alice, "phone", vec![put(&id, "1", "{}")]).await.unwrap();
            ids.push(id);
        }
        server.kill();
    }
    let server = ServerProcess::start(&database.url);
    checked(&database, &server, &ids).await;
}
