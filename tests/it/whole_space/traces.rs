//! What is still on its way when a user is erased, and what an export must not tell.

use std::time::Duration;

use prost::Message;
use serde_json::Value;
use sqlx::Connection;
use syncline::clock::Clock;
use syncline::rpc::proto::{EraseUserRequest, GetSpaceRequest};
use tokio::task::JoinSet;

use super::{CANARY, House, exported_user, found};
use crate::support::generic::Generic;
use crate::support::{Client, Database, TestServer, describe, mint_granted, wait_for};

async fn refused(client: &Client, space: &str) {
    let get = GetSpaceRequest { space: space.into() };
    let status = client.spaces.clone().get_space(get).await.unwrap_err();
    assert_eq!(describe(&status), "NotFound SPACE_NOT_FOUND");
}

/// Waits until so many refusals of a user are in the audit log.
async fn noted(database: &Database, actor: &str, count: i64) {
    let mut connection = database.connect().await;
    wait_for("the refusals to be noted", async || {
        let sql = "select count(*) from audit where action = 'access_refused' and actor = $1";
        let query = sqlx::query_scalar::<_, i64>(sql).bind(actor);
        (query.fetch_one(&mut connection).await.unwrap() == count).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_do_not_tell_whether_there_is_such_a_space() {
    let house = House::new().await;
    let mallory = house.server.client("mallory").await;
    for space in [house.space.as_str(), "spaces/none", "users/bob", "users/nobody"] {
        refused(&mallory, space).await;
    }
    noted(&house.database, "mallory", 4).await;
    let lines = exported_user(&mallory).await.into_iter();
    let mentions: Vec<_> = lines.filter(|line| line["type"] == "mention").collect();
    assert_eq!(mentions.len(), 4);
    for mention in mentions {
        assert_eq!(mention["action"], "access_refused");
        assert_eq!((&mention["space"], &mention["number"]), (&Value::Null, &Value::Null));
    }
    house.server.stop().await;
}

/// Replicas look at what was told in the last seconds only, however long an erasure took.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_is_told_at_the_end_of_the_erasure() {
    let house = House::new().await;
    let get = GetSpaceRequest { space: house.space.clone() };
    house.canary.spaces.clone().get_space(get).await.unwrap();
    let mut holder = house.database.connect().await;
    let mut held = holder.begin().await.unwrap();
    sqlx::query("lock table audit_ends in exclusive mode").execute(&mut *held).await.unwrap();
    let mut erasing = JoinSet::new();
    let mut stub = house.canary.spaces.clone();
    let erase = EraseUserRequest { user: String::new(), confirm: CANARY.into() };
    erasing.spawn(async move { stub.erase_user(erase).await });
    let mut connection = house.database.connect().await;
    wait_for("the erasure to wait for the audit log", async || {
        let sql = "select count(*) from pg_locks where not granted
            and relation = 'audit_ends'::regclass";
        let waits: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        (waits > 0).then_some(())
    })
    .await;
    let late: time::OffsetDateTime =
        sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut connection).await.unwrap();
    held.commit().await.unwrap();
    erasing.join_next().await.unwrap().unwrap().unwrap();
    let sql = "select count(*) from access_changes where changed_at > $1";
    let told: i64 = sqlx::query_scalar(sql).bind(late).fetch_one(&mut connection).await.unwrap();
    assert_eq!(told, 1);
    refused(&house.canary, &house.space).await;
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_be_noted_goes_with_the_user() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let canary = server.client(CANARY).await;
    refused(&canary, "spaces/none").await;
    let bob = server.client("bob").await;
    refused(&bob, &format!("users/{CANARY}")).await;
    let call = Generic::connect(server.address()).await;
    let grants = [format!("act_for:{CANARY}")];
    let bearer = |grants: &[&str]| {
        let token = mint_granted("robot", grants, Duration::from_hours(1), &Clock::system());
        format!("Bearer {token}")
    };
    let (may, may_not) = (bearer(&[grants[0].as_str()]), bearer(&[]));
    let erase = EraseUserRequest { user: String::new(), confirm: CANARY.into() };
    let erase = vec![erase.encode_to_vec()];
    let path = "/syncline.v1.SpaceService/EraseUser";
    let metadata = |token| [("authorization", token), ("syncline-act-for", CANARY)];
    let denied = call.call(path, &metadata(&may_not), erase.clone()).await.unwrap_err();
    assert!(describe(&denied).starts_with("PermissionDenied"), "{denied:?}");
    call.call(path, &metadata(&may), erase).await.unwrap();
    // What comes later is noted later.
    refused(&bob, "spaces/later").await;
    let mut connection = database.connect().await;
    wait_for("what came later to be noted", async || {
        let sql = "select count(*) from audit where details like '%spaces/later%'";
        let later: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        (later > 0).then_some(())
    })
    .await;
    let left = found(&mut connection, CANARY).await;
    assert_eq!(left.keys().collect::<Vec<_>>(), Vec::<&String>::new());
    server.stop().await;
}
