//! Events: they reach the others on all replicas, are not stored, and who is too slow
//! hears how many were missed.

use std::time::Duration;

use sqlx::Row;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{DocumentForm, EventFrame, PublishFrame, Start, SubscribeFrame};

use crate::support::{Client, Database, Stream, TestServer, json, mint, text, wait_for};

async fn hearing(client: &Client, id: &str) -> Stream {
    let mut stream = Stream::open(client).await.unwrap();
    let frame = SubscribeFrame {
        subscription_id: id.into(),
        start: Start::Now.into(),
        events: true,
        document_form: DocumentForm::Json.into(),
        ..SubscribeFrame::default()
    };
    stream.subscribe(frame).await;
    assert!(matches!(stream.frame().await, Frame::Subscribed(_)));
    assert!(matches!(stream.frame().await, Frame::CaughtUp(_)));
    stream
}

fn publish(id: &str, topic: &str, document: &str) -> Out {
    Out::Publish(PublishFrame {
        subscription_id: id.into(),
        topic: topic.into(),
        document: json(document),
    })
}

async fn event(stream: &mut Stream) -> EventFrame {
    match stream.frame().await {
        Frame::Event(event) => event,
        other => panic!("not an event: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_other_replicas_and_leave_no_trace() {
    let database = Database::create().await;
    let servers = [TestServer::start(&database).await, TestServer::start(&database).await];
    let alice = [servers[0].client("alice").await, servers[1].client("alice").await];
    let mut here = hearing(&alice[0], "here").await;
    let mut there = hearing(&alice[1], "there").await;
    let mut bob = hearing(&servers[1].client("bob").await, "bob").await;
    // The other replica may not listen yet.
    let mut number = 0;
    let first = wait_for("an event on the other replica", async || {
        number += 1;
        here.send(publish("here", "try", &format!(r#"{{"n":{number}}}"#))).await;
        let came = tokio::time::timeout(Duration::from_millis(500), event(&mut there)).await;
        came.ok()
    });
    let first = first.await;
    assert_eq!((first.topic.as_str(), first.author.as_str()), ("try", "alice"));
    for at in ["a", "b", "b", "c"] {
        here.send(publish("here", "canary-topic", &format!(r#"{{"canary":"{at}"}}"#))).await;
    }
    for at in ["a", "b", "b", "c"] {
        let mut event = event(&mut there).await;
        while event.topic == "try" {
            event = self::event(&mut there).await;
        }
        assert_eq!(text(&event.document.unwrap()), format!(r#"{{"canary":"{at}"}}"#));
        assert_eq!(event.missed, 0);
    }
    there.send(publish("there", "back", "{}")).await;
    assert_eq!(event(&mut here).await.topic, "back", "its own ones did not come");
    bob.send(publish("bob", "alone", "{}")).await;
    bob.unsubscribe("bob").await;
    assert!(matches!(bob.frame().await, Frame::Closed(_)), "alice's came to bob");

    let mut connection = database.connect().await;
    let tables = sqlx::query(
        "select table_name::text from information_schema.tables where table_schema = 'public'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(tables.len() > 5);
    for table in tables {
        let name: String = table.get(0);
        let sql = format!("select count(*) from {name} t where t::text like '%canary%'");
        let found: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
        assert_eq!(found, 0, "{name} has it");
    }
    for server in servers {
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_slow_is_told_how_many_were_missed() {
    const EVENTS: i64 = 2_000;
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let mut slow = hearing(&Client::narrow(server.address(), &mint("alice")), "slow").await;
    let mut quick = hearing(&server.client("alice").await, "quick").await;
    let writer = hearing(&server.client("alice").await, "writer").await;
    let pad = "x".repeat(2_000);
    let mut heard = 0;
    for number in 1..=EVENTS {
        writer.send(publish("writer", "n", &format!(r#"{{"n":{number},"pad":"{pad}"}}"#))).await;
        // Somebody reads on, so that they are not all published at once.
        if number % 50 == 0 {
            while heard < number {
                let event = event(&mut quick).await;
                heard += 1 + event.missed;
            }
        }
    }
    assert_eq!(heard, EVENTS);
    let (mut came, mut missed) = (0, 0);
    while came + missed < EVENTS {
        let event = event(&mut slow).await;
        came += 1;
        missed += event.missed;
    }
    println!("{came} came, {missed} were missed");
    assert_eq!(came + missed, EVENTS);
    assert!(missed > 0, "the slow reader kept up");
    server.stop().await;
}
