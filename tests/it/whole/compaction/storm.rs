//! Compaction in the middle of everything: while many write and read, and when the
//! server dies.

use std::time::Duration;

use syncline::clock::Clock;
use syncline::rpc::proto::ExchangeRequest;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{delete, verified};
use crate::support::{
    Client, Database, Random, ServerProcess, TestServer, error_reason, mint, put, scale, seed,
    wait_for,
};
use crate::whole::{Copy, Writers, exchange, proven, snapshot};

/// Fold equality: snapshots, exchanges and streams while many write and the log is
/// compacted every 100 ms to almost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn clients_notice_nothing_but_expired_cursors() {
    let database = Database::create().await;
    let start = || {
        TestServer::start_with(&database, Clock::system(), |config| {
            config.compaction_interval = Duration::from_millis(100);
            config.retention.log_retention = Duration::from_millis(300);
            config.retention.tombstone_retention = Duration::from_millis(300);
            config.retention.device_wait = Duration::ZERO;
        })
    };
    let servers = [start().await, start().await];
    let store = database.store().await;
    let mut random = Random(seed());
    let clients = [servers[0].client("alice").await, servers[1].client("alice").await];
    let writers = Writers::start(clients, &mut random);
    let (end, ended) = watch::channel(false);
    let mut readers = JoinSet::new();
    for server in servers.iter().cycle().take(4) {
        let (client, random) = (server.client("alice").await, Random(random.next()));
        let ended = ended.clone();
        readers.spawn(follow(client, random, ended));
    }
    let alice = servers[0].client("alice").await;
    let wanted = 500 * i64::try_from(scale()).unwrap();
    wait_for("a floor that rises", async || (proven(&alice).await.floor > wanted).then_some(()))
        .await;
    writers.stop().await;
    end.send(true).unwrap();
    let status = proven(&alice).await;
    for (copy, began) in readers.join_all().await {
        assert!(began > 0, "nobody began anew");
        copy.check(status.digest.as_ref().unwrap());
        copy.check_records(&alice).await;
    }
    verified(&store).await;
}

/// Follows by exchanges, beginning anew now and then, until the writers have ended; how
/// often it began anew.
async fn follow(client: Client, mut random: Random, ended: watch::Receiver<bool>) -> (Copy, i32) {
    let (mut copy, mut began) = (Copy::default(), 0);
    loop {
        let ending = *ended.borrow();
        let request = ExchangeRequest {
            cursor: copy.cursor.clone(),
            page_size: 1 + i32::try_from(random.below(40)).unwrap(),
            ..Default::default()
        };
        match exchange(&client, request).await {
            Ok(answer) => {
                let done = !answer.has_more;
                copy.apply(&answer.changes, answer.cursor);
                if ending && done {
                    return (copy, began);
                }
            }
            Err(status) => assert_eq!(error_reason(&status), "CURSOR_EXPIRED"),
        }
        // Now and then it begins anew, from whatever revision is the last.
        if random.below(20) == 0 {
            match snapshot(&client, &[]).await {
                Ok((fresh, _)) => (copy, began) = (fresh, began + 1),
                Err(status) => assert_eq!(error_reason(&status), "CURSOR_EXPIRED"),
            }
        }
    }
}

/// A server that dies in the middle of a compaction leaves nothing half done.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_at_any_point_leaves_all_whole() {
    let flags = ["--compaction-interval", "50ms", "--log-retention", "0s"];
    let more = ["--tombstone-retention", "0s", "--device-wait", "0s"];
    let flags: Vec<_> = flags.into_iter().chain(more).collect();
    for point in ["compaction.rise", "compaction.raised", "compaction.buried"] {
        for times in [1, 2] {
            let database = Database::create().await;
            let server = ServerProcess::start(&database.url);
            let alice = Client::connect(server.address, &mint("alice")).await;
            for number in 0..700 {
                // More than one step, with tombstones.
                let task = (number % 300).to_string();
                alice.mutate(put(&format!("m{number}"), &task, "{}")).await.unwrap();
            }
            let deletes = (0..20).map(|it| delete(&format!("d{it}"), &it.to_string()));
            alice.batch(deletes.collect(), false).await.unwrap();
            let before = snapshot(&alice, &[]).await.unwrap().0;
            server.kill();
            let dying = ServerProcess::start_in(
                &database.url,
                &flags,
                &[("SYNCLINE_FAILPOINT", &format!("{point}={times}"))],
            );
            let died = dying.died().await;
            // There is one step only in which tombstones go.
            assert!(died || (point == "compaction.buried" && times == 2), "{point}={times}");
            let store = database.store().await;
            verified(&store).await;
            let server = ServerProcess::start_with(&database.url, &flags);
            let alice = Client::connect(server.address, &mint("alice")).await;
            wait_for("the rest", async || {
                let status = proven(&alice).await;
                let left: i64 = sqlx::query_scalar("select count(*) from changes")
                    .fetch_one(&mut database.connect().await)
                    .await
                    .unwrap();
                (status.floor == status.head && left == 280).then_some(())
            })
            .await;
            assert_eq!(snapshot(&alice, &[]).await.unwrap().0, before);
            verified(&store).await;
        }
    }
}
