//! Rows 51 to 54: other users' spaces.

use syncline::rpc::proto::resolve_conflict_request::Resolution;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    BatchMutateRequest, ChangesSinceRequest, Cursor, GetConflictRequest, GetRecordRequest,
    GetStatusRequest, KeepClient, ListConflictsRequest, ListRecordHistoryRequest,
    ListRecordsRequest, MutateRequest, Mutation, Policy, PreviewPolicyRequest,
    ResolveConflictRequest, SubscribeFrame, UndeleteRecordRequest,
};
use tonic::Status;

use super::House;
use crate::support::{Client, Stream, describe, key, put, show, subscribe_frame};

/// The status of each call for a space, as far as it is the same for all spaces.
async fn statuses(client: &Client, space: &str) -> Vec<(&'static str, Status)> {
    let mut stub = client.stub.clone();
    let space = space.to_owned();
    let mutation = put("m", "1", "{}");
    let get = GetRecordRequest { space: space.clone(), key: Some(key("1")), ..Default::default() };
    let mutate = MutateRequest {
        space: space.clone(),
        mutation: Some(mutation.clone()),
        ..Default::default()
    };
    let batch = BatchMutateRequest {
        space: space.clone(),
        mutations: vec![mutation],
        ..Default::default()
    };
    let list = ListRecordsRequest {
        space: space.clone(),
        collection: "task".into(),
        ..Default::default()
    };
    let since = ChangesSinceRequest { space: space.clone(), ..Default::default() };
    let status = GetStatusRequest { space: space.clone(), ..Default::default() };
    let conflicts = ListConflictsRequest { space: space.clone(), ..Default::default() };
    let conflict = GetConflictRequest {
        space: space.clone(),
        conflict_id: "late".into(),
        ..Default::default()
    };
    let resolve = ResolveConflictRequest {
        space: space.clone(),
        mutation_id: "r".into(),
        conflict_id: "late".into(),
        resolution: Some(Resolution::KeepClient(KeepClient {})),
        ..Default::default()
    };
    let policy = Some(Policy { collection: "task".into(), ..Default::default() });
    let preview = PreviewPolicyRequest { space: space.clone(), policy, ..Default::default() };
    let (mut log, mut policies) = (client.conflicts.clone(), client.policies.clone());
    let history = ListRecordHistoryRequest {
        space: space.clone(),
        key: Some(key("1")),
        ..Default::default()
    };
    let undelete = UndeleteRecordRequest {
        space,
        mutation_id: "u".into(),
        key: Some(key("1")),
        ..Default::default()
    };
    let mut spaces = client.spaces.clone();
    vec![
        ("ListConflicts", log.list_conflicts(conflicts).await.unwrap_err()),
        ("GetConflict", log.get_conflict(conflict).await.unwrap_err()),
        ("ResolveConflict", log.resolve_conflict(resolve).await.unwrap_err()),
        ("PreviewPolicy", policies.preview_policy(preview).await.unwrap_err()),
        ("ListRecordHistory", spaces.list_record_history(history).await.unwrap_err()),
        ("UndeleteRecord", spaces.undelete_record(undelete).await.unwrap_err()),
        ("GetRecord", stub.get_record(get).await.unwrap_err()),
        ("Mutate", stub.mutate(mutate).await.unwrap_err()),
        ("BatchMutate", stub.batch_mutate(batch).await.unwrap_err()),
        ("ListRecords", stub.list_records(list).await.unwrap_err()),
        ("ChangesSince", stub.changes_since(since).await.unwrap_err()),
        ("GetStatus", stub.get_status(status).await.unwrap_err()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_space_and_an_unknown_one_look_the_same() {
    let house = House::new().await;
    let bob = house.server.client("bob").await;
    bob.mutate(put("secret", "1", r#"{"secret":true}"#)).await.unwrap();
    let late = Mutation { base: Some(0), ..put("late", "1", r#"{"secret":false}"#) };
    bob.mutate(late).await.unwrap();
    // Who may set policies is no reader of other people's conflicts.
    let admin = house.server.admin("alice").await;
    let foreign = statuses(&admin, "users/bob").await;
    let unknown = statuses(&admin, "users/nobody").await;
    for ((name, foreign), (_, unknown)) in foreign.iter().zip(&unknown) {
        assert_eq!(foreign.message(), unknown.message(), "51 {name}");
        assert_eq!(foreign.details(), unknown.details(), "51 {name}");
        let row = format!("51 {name}");
        house.check(&row, &describe(foreign), "NotFound SPACE_NOT_FOUND").await;
    }
    let mut stream = Stream::open(&house.alice).await.unwrap();
    let mut closed = Vec::new();
    for space in ["users/bob", "users/nobody"] {
        let frame = SubscribeFrame { space: space.into(), ..subscribe_frame("s", None) };
        stream.subscribe(frame).await;
        closed.push(stream.frame().await);
    }
    assert_eq!(closed[0], closed[1], "51 Subscribe");
    let Frame::Closed(frame) = &closed[0] else { panic!("51 Subscribe: {closed:?}") };
    let seen = format!("{} {}", frame.code, frame.reason);
    house.check("51 Subscribe", &seen, "5 SPACE_NOT_FOUND").await;
    assert_eq!(bob.head().await, 1);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_one_space_are_free_in_every_other() {
    let house = House::new().await;
    let bob = house.server.client("bob").await;
    let result = bob.mutate(put("m", "1", r#"{"of":"bob"}"#)).await.unwrap();
    house.check("52 bob's id", &show(&result), "applied 1").await;
    let create =
        syncline::rpc::proto::mutation::Operation::Create(syncline::rpc::proto::CreateOperation {
            document: crate::support::json("{}"),
        });
    let same_record = crate::support::mutation("other", "1", create);
    let result = house.alice.mutate(same_record).await.unwrap();
    house.check("52 an id of another space", &show(&result), "applied 1").await;
    let result = house.alice.mutate(put("m", "1", r#"{"of":"alice"}"#)).await.unwrap();
    house.check("53 a mutation id of another space", &show(&result), "applied 2").await;
    assert_eq!(bob.task("1").await.unwrap(), r#"{"of":"bob"}"#);

    let epoch = |client: &Client| {
        let mut stub = client.stub.clone();
        async move { stub.get_status(GetStatusRequest::default()).await.unwrap().into_inner().epoch }
    };
    let cursor = Some(Cursor { epoch: epoch(&bob).await, revision: 1 });
    let since = ChangesSinceRequest { cursor, ..Default::default() };
    let status = house.alice.stub.clone().changes_since(since).await.unwrap_err();
    let own = epoch(&house.alice).await;
    let expected = format!("FailedPrecondition EPOCH_CHANGED epoch={own} floor=0 head=2");
    house.check("54 a cursor of another space", &describe(&status), &expected).await;
    house.end().await;
}
