//! What a policy would have done.

use syncline::rpc::proto::{
    ConflictDecision, Mutation, MutationOutcome, Policy, PolicyMode, PreviewPolicyRequest,
    PreviewPolicyResponse, Strategy,
};
use tonic::Status;

use super::{get, meet, policy, set};
use crate::support::{Client, Database, TestServer, error_reason, put};

async fn try_out(
    client: &Client,
    policy: Policy,
    limit: i32,
) -> Result<PreviewPolicyResponse, Status> {
    let request =
        PreviewPolicyRequest { policy: Some(policy), limit, ..PreviewPolicyRequest::default() };
    Ok(client.policies.clone().preview_policy(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_tells_what_a_policy_would_have_done() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.admin("alice").await;
    let mut advisory = policy("task", Strategy::ServerWins);
    advisory.set_mode(PolicyMode::Advisory);
    set(&alice, advisory, None).await.unwrap();
    for record in ["1", "2", "3"] {
        assert_eq!(meet(&alice, record).await, MutationOutcome::Applied);
    }
    set(&alice, policy("task", Strategy::Merge), None).await.unwrap();
    assert_eq!(meet(&alice, "4").await, MutationOutcome::Merged);
    alice.mutate(put("other", "9", r#"{"n":-1}"#)).await.unwrap();

    let preview = async |policy: Policy, limit| try_out(&alice, policy, limit).await;
    let count = |it: &PreviewPolicyResponse| {
        [it.conflicts, it.applied, it.merged, it.superseded, it.opened, it.rejected]
    };
    let server_wins = preview(policy("task", Strategy::ServerWins), 0).await.unwrap();
    assert_eq!(count(&server_wins), [4, 0, 0, 4, 0, 0]);
    let changed: Vec<_> = server_wins.changed.iter().map(|it| it.conflict_id.as_str()).collect();
    assert_eq!(changed, ["phone-4", "phone-3", "phone-2", "phone-1"]);
    let first = server_wins.changed.first().unwrap();
    assert_eq!(
        (first.decision(), first.preview()),
        (ConflictDecision::Merged, ConflictDecision::Server)
    );
    let merge = preview(policy("task", Strategy::Merge), 2).await.unwrap();
    assert_eq!(count(&merge), [2, 0, 2, 0, 0, 0]);
    assert_eq!(merge.changed.len(), 1, "those that were only told were taken as they came");
    let mut strict = policy("task", Strategy::Merge);
    strict.json_schema =
        r#"{"not":{"required":["desk","phone"]},"properties":{"n":{"minimum":0}}}"#.into();
    let strict = preview(strict, 0).await.unwrap();
    assert_eq!(count(&strict), [4, 0, 0, 0, 0, 4]);
    assert_eq!(strict.changed[0].preview(), ConflictDecision::Rejected);
    assert_eq!((strict.writes, strict.invalid_writes), (9, 2));
    let invalid: Vec<_> = strict.invalid.iter().map(|it| it.violations[0].field.as_str()).collect();
    assert_eq!(invalid, ["document/n", "document"]);
    // Nothing of it is set.
    assert_eq!(get(&alice, "task", 0).await.unwrap().version, 2);
    let all = preview(policy("*", Strategy::Merge), 0).await.unwrap_err();
    assert_eq!(error_reason(&all), "VALIDATION_ERROR");
    let merge = || policy("task", Strategy::Merge);
    let nothing = try_out(&server.admin("bob").await, merge(), 0).await.unwrap();
    assert_eq!((nothing.conflicts, nothing.writes), (0, 0), "of one's own space only");
    let refused = try_out(&server.client("alice").await, merge(), 0).await.unwrap_err();
    assert_eq!(error_reason(&refused), "PERMISSION_DENIED");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_tells_of_what_would_be_merged_with_another_result() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.admin("alice").await;
    let merging = |fallback: Strategy| Policy {
        fallback: fallback.into(),
        ..policy("task", Strategy::Merge)
    };
    set(&alice, merging(Strategy::ClientWins), None).await.unwrap();
    for (device, text) in [("desk", r#"{"n":1,"a":1}"#), ("phone", r#"{"n":2,"b":1}"#)] {
        let write = put(&format!("{device}-5"), "5", text);
        let write = Mutation { base: Some(0), ..write };
        alice.mutate_from(device, write).await.unwrap();
    }
    let other = try_out(&alice, merging(Strategy::ServerWins), 1).await.unwrap();
    let [changed] = other.changed.as_slice() else { panic!("{other:?}") };
    assert_eq!(
        (changed.decision(), changed.preview()),
        (ConflictDecision::Merged, ConflictDecision::Merged)
    );
    assert_eq!(
        (changed.conflict_id.as_str(), changed.lost_paths.as_slice()),
        ("phone-5", &["/n".to_owned()][..])
    );
    assert_eq!(try_out(&alice, merging(Strategy::ClientWins), 1).await.unwrap().changed, []);
    server.stop().await;
}
