//! Acting for others, and what shows of it.

use syncline::rpc::proto::{ListRecordHistoryRequest, ListRecordHistoryResponse, MutateRequest};

use super::Team;
use crate::support::generic::Generic;
use crate::support::{describe, key, mint, put, wait_for};
use prost::Message;
use std::time::Duration;
use syncline::clock::Clock;

fn mutate(id: &str) -> Vec<Vec<u8>> {
    let mutation = Some(put(id, "1", "{}"));
    vec![MutateRequest { mutation, ..Default::default() }.encode_to_vec()]
}

const MUTATE: &str = "/syncline.v1.SyncService/Mutate";

#[tokio::test(flavor = "multi_thread")]
async fn who_may_act_for_others_is_them_and_it_shows() {
    let team = Team::new().await;
    let call = Generic::connect(team.server.address()).await;
    let token = |grants: &[&str]| {
        let grants = crate::support::mint_granted(
            "robot",
            grants,
            Duration::from_hours(1),
            &Clock::system(),
        );
        format!("Bearer {grants}")
    };
    let for_bob = token(&["act_for:bob"]);
    let as_user = async |bearer: &str, user: &str, messages| {
        let metadata = [("authorization", bearer), ("syncline-act-for", user)];
        call.call(MUTATE, &metadata, messages).await
    };
    as_user(&for_bob, "bob", mutate("m1")).await.unwrap();
    let denied = as_user(&for_bob, "carol", mutate("m2")).await.unwrap_err();
    assert_eq!(describe(&denied), "PermissionDenied PERMISSION_DENIED grant=act_for:carol");
    let plain = format!("Bearer {}", mint("robot"));
    let denied = as_user(&plain, "bob", mutate("m3")).await.unwrap_err();
    assert_eq!(describe(&denied), "PermissionDenied PERMISSION_DENIED grant=act_for:bob");
    for name in ["", "%ff", "a%0ab"] {
        let broken = as_user(&token(&["act_for:*"]), name, mutate("m4")).await.unwrap_err();
        let expected = "InvalidArgument VALIDATION_ERROR syncline-act-for";
        assert_eq!(describe(&broken), expected, "{name:?}");
    }
    // Whoever acts has what the user has, and nothing of their own.
    as_user(&token(&["act_for:*", "admin:*", "policies"]), "caf%C3%A9", mutate("m5"))
        .await
        .unwrap();
    let both = token(&["act_for:*", "admin:*", "policies"]);
    let metadata = [("authorization", both.as_str()), ("syncline-act-for", "bob")];
    let foreign = MutateRequest {
        space: team.space.clone(),
        mutation: Some(put("m6", "1", "{}")),
        ..Default::default()
    };
    let denied = call.call(MUTATE, &metadata, vec![foreign.encode_to_vec()]).await.unwrap_err();
    assert_eq!(describe(&denied), "NotFound SPACE_NOT_FOUND");

    // The change is bob's, and says who made it.
    let bob = team.server.client("bob").await;
    let history = ListRecordHistoryRequest { key: Some(key("1")), ..Default::default() };
    let history = bob.spaces.clone().list_record_history(history).await.unwrap().into_inner();
    let ListRecordHistoryResponse { steps, .. } = history;
    let change = steps[0].change.clone().unwrap();
    assert_eq!((change.author.as_str(), change.actor.as_str()), ("bob", "robot"));
    let mut connection = team.database.connect().await;
    wait_for("the audit log to say so", async || {
        let sql = "select count(*) from audit where actor = 'robot' and acted_for = 'bob'
            and action = 'acted_for'";
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        (count > 0).then_some(())
    })
    .await;
    team.end().await;
}
