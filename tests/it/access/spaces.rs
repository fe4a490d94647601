//! Shared spaces: created, listed, renamed; members come and go.

use syncline::rpc::proto::{
    ChangesSinceRequest, CreateSpaceRequest, EnqueueRequest, GetRecordRequest, GetSpaceRequest,
    GetStatusRequest, ListConflictsRequest, ListMembersRequest, ListRecordsRequest,
    ListSpacesRequest, Member, Mutation, RecordKey, RenameSpaceRequest, Role,
};

use super::{Team, create, put_in, remove, set, write};
use crate::support::{Client, describe, error_reason, show};

async fn spaces(client: &Client, all: bool) -> Vec<(String, Role)> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListSpacesRequest { page_size: 2, page_token, all };
        let page = client.spaces.clone().list_spaces(request).await.unwrap().into_inner();
        assert!(page.spaces.len() <= 2);
        found.extend(page.spaces.iter().map(|it| (it.title.clone(), it.role())));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            found.sort();
            return found;
        }
    }
}

async fn members(client: &Client, space: &str) -> Vec<Member> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListMembersRequest { space: space.into(), page_size: 2, page_token };
        let page = client.spaces.clone().list_members(request).await.unwrap().into_inner();
        found.extend(page.members);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_is_created_once_listed_and_renamed() {
    let team = Team::new().await;
    let again = create(&team.alice, "team").await.unwrap();
    assert_eq!((again.space.as_str(), again.role()), (team.space.as_str(), Role::Admin));
    let bob = team.server.client("bob").await;
    // The same request of somebody else is another space.
    let other = create(&bob, "team").await.unwrap();
    assert_ne!(other.space, team.space);
    for number in 0..4 {
        create(&team.alice, &format!("more{number}")).await.unwrap();
    }
    set(&bob, &other.space, ("alice", Role::Reader, &["task"])).await.unwrap();
    let seen = spaces(&team.alice, false).await;
    assert_eq!(seen.len(), 6, "{seen:?}");
    assert_eq!(seen.iter().filter(|(_, role)| *role == Role::Reader).count(), 1);
    assert_eq!(spaces(&bob, false).await, [("The team".to_owned(), Role::Admin)]);

    let rename =
        |title: &str| RenameSpaceRequest { space: team.space.clone(), title: title.into() };
    let mut stub = team.alice.spaces.clone();
    let renamed = stub.rename_space(rename("Ours")).await.unwrap().into_inner().space.unwrap();
    assert_eq!(renamed.title, "Ours");
    let get = GetSpaceRequest { space: team.space.clone() };
    let got = stub.get_space(get).await.unwrap().into_inner().space.unwrap();
    assert_eq!((got.title.as_str(), got.create_time.is_some()), ("Ours", true));
    for title in ["", "  ", "a\nb", &"x".repeat(257)] {
        let status = stub.rename_space(rename(title)).await.unwrap_err();
        assert_eq!(describe(&status), "InvalidArgument VALIDATION_ERROR title", "{title:?}");
    }
    // One's own space has neither members nor a title.
    let own = stub.get_space(GetSpaceRequest::default()).await.unwrap().into_inner();
    let own = own.space.unwrap();
    assert_eq!(
        (own.space.as_str(), own.role(), own.title.as_str()),
        ("users/alice", Role::Admin, "")
    );
    let denied = set(&team.alice, "users/alice", ("bob", Role::Reader, &[])).await.unwrap_err();
    assert_eq!(describe(&denied), "FailedPrecondition PRIVATE_SPACE");
    team.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_name_spaces_and_see_all_of_them() {
    let team = Team::new().await;
    let service = team.granted("billing", &["admin:*"]).await;
    let named = |id: &str| CreateSpaceRequest {
        space_id: id.into(),
        title: "Named".into(),
        ..Default::default()
    };
    let mut stub = service.spaces.clone();
    let made = stub.create_space(named("acme-7")).await.unwrap().into_inner().space.unwrap();
    assert_eq!(made.space, "spaces/acme-7");
    let taken = stub.create_space(named("acme-7")).await.unwrap_err();
    assert_eq!(describe(&taken), "AlreadyExists ALREADY_EXISTS");
    let bad = stub.create_space(named("Acme")).await.unwrap_err();
    assert_eq!(describe(&bad), "InvalidArgument VALIDATION_ERROR space_id");
    let denied = team.alice.spaces.clone().create_space(named("acme-8")).await.unwrap_err();
    assert_eq!(describe(&denied), "PermissionDenied PERMISSION_DENIED grant=admin:*");
    assert_eq!(spaces(&service, true).await.len(), 2);
    let request = ListSpacesRequest { all: true, ..Default::default() };
    let denied = team.alice.spaces.clone().list_spaces(request).await.unwrap_err();
    assert_eq!(describe(&denied), "PermissionDenied PERMISSION_DENIED grant=read:*");
    // A space that nobody has created is not born by being written to.
    let lost = write(&service, "spaces/nobody", vec![put_in("task", "m", "1", "{}")]).await;
    assert_eq!(describe(&lost.unwrap_err()), "NotFound SPACE_NOT_FOUND");
    let written = write(&service, &team.space, vec![put_in("task", "m", "1", "{}")]).await;
    assert_eq!(written.unwrap().iter().map(show).collect::<Vec<_>>(), ["applied 1"]);
    team.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_do_what_their_role_lets_them() {
    let team = Team::new().await;
    let (bob, carol) = (team.server.client("bob").await, team.server.client("carol").await);
    let task = |id: &str| vec![put_in("task", id, id, "{}")];
    let outcome = async |client: &Client, id: &str| match write(client, &team.space, task(id)).await
    {
        Ok(results) => results.iter().map(show).collect::<String>(),
        Err(status) => describe(&status),
    };
    assert_eq!(outcome(&bob, "b1").await, "NotFound SPACE_NOT_FOUND");
    team.set("bob", Role::Reader, &[]).await;
    assert_eq!(outcome(&bob, "b2").await, "PermissionDenied PERMISSION_DENIED right=write");
    team.set("bob", Role::Writer, &[]).await;
    assert_eq!(outcome(&bob, "b3").await, "applied 1");
    let denied = set(&bob, &team.space, ("carol", Role::Reader, &[])).await.unwrap_err();
    assert_eq!(describe(&denied), "PermissionDenied PERMISSION_DENIED right=admin");
    team.set("bob", Role::Admin, &[]).await;
    set(&bob, &team.space, ("carol", Role::Reader, &["note"])).await.unwrap();
    let seen = members(&bob, &team.space).await;
    let seen: Vec<_> = seen.iter().map(|it| (it.user.as_str(), it.role())).collect();
    let expected = [("alice", Role::Admin), ("bob", Role::Admin), ("carol", Role::Reader)];
    assert_eq!(seen, expected);
    // Who is in may go; the last admin may not, nor become less.
    remove(&carol, &team.space, "").await.unwrap();
    assert_eq!(outcome(&carol, "c").await, "NotFound SPACE_NOT_FOUND");
    remove(&bob, &team.space, "alice").await.unwrap();
    assert_eq!(outcome(&team.alice, "a").await, "NotFound SPACE_NOT_FOUND");
    for last in [
        remove(&bob, &team.space, "").await,
        set(&bob, &team.space, ("bob", Role::Writer, &[])).await,
    ] {
        assert_eq!(describe(&last.unwrap_err()), "FailedPrecondition LAST_ADMIN");
    }
    for (user, role, collections, field) in [
        ("", Role::Reader, &[][..], "user"),
        ("dave", Role::Unspecified, &[], "role"),
        ("dave", Role::Admin, &["task"], "collections"),
        ("dave", Role::Reader, &["a\nb"], "collections[0]"),
    ] {
        let status = set(&bob, &team.space, (user, role, collections)).await.unwrap_err();
        assert_eq!(describe(&status), format!("InvalidArgument VALIDATION_ERROR {field}"));
    }
    team.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_member_finds_only_their_collections() {
    let team = Team::new().await;
    let all = [put_in("task", "t", "1", "{\"n\":1}"), put_in("diary", "d", "1", "{\"secret\":1}")];
    write(&team.alice, &team.space, all.to_vec()).await.unwrap();
    let stale = Mutation { base: Some(0), ..put_in("diary", "stale", "1", "{\"secret\":2}") };
    write(&team.alice, &team.space, vec![stale]).await.unwrap();
    team.set("bob", Role::Writer, &["task"]).await;
    let bob = team.server.client("bob").await;
    let space = || team.space.clone();

    // What names nothing is narrowed; what names something else is refused.
    let since = ChangesSinceRequest { space: space(), ..Default::default() };
    let page = bob.stub.clone().changes_since(since).await.unwrap().into_inner();
    let seen: Vec<_> = page.changes.iter().map(|it| it.key.clone().unwrap().collection).collect();
    assert_eq!(seen, ["task"]);
    let status = GetStatusRequest { space: space(), digest: true, ..Default::default() };
    let status = bob.stub.clone().get_status(status).await.unwrap().into_inner();
    assert_eq!((status.head, status.open_conflicts), (2, 0));
    assert_eq!(status.digest.unwrap().records, 1);
    let conflicts = ListConflictsRequest { space: space(), ..Default::default() };
    let conflicts = bob.conflicts.clone().list_conflicts(conflicts).await.unwrap().into_inner();
    assert!(conflicts.conflicts.is_empty());
    let denied = "PermissionDenied PERMISSION_DENIED collection=diary";
    let key = Some(RecordKey { collection: "diary".into(), id: "1".into() });
    let get = GetRecordRequest { space: space(), key, ..Default::default() };
    assert_eq!(describe(&bob.stub.clone().get_record(get).await.unwrap_err()), denied);
    let list =
        ListRecordsRequest { space: space(), collection: "diary".into(), ..Default::default() };
    assert_eq!(describe(&bob.stub.clone().list_records(list).await.unwrap_err()), denied);
    let collections = vec!["diary".to_owned()];
    let since = ChangesSinceRequest { space: space(), collections, ..Default::default() };
    assert_eq!(describe(&bob.stub.clone().changes_since(since).await.unwrap_err()), denied);

    // A write is answered for itself, so that no queue stops there.
    let mixed = vec![put_in("task", "t2", "2", "{}"), put_in("diary", "d2", "2", "{}")];
    let results = write(&bob, &team.space, mixed).await.unwrap();
    let lines: Vec<_> = results.iter().map(show).collect();
    assert_eq!(lines, ["applied 3", "rejected NOT_GRANTED"]);
    let mutations = vec![put_in("task", "q", "3", "{}")];
    let enqueue = EnqueueRequest { space: space(), device: "phone".into(), mutations };
    let denied = bob.queue.clone().enqueue(enqueue).await.unwrap_err();
    assert_eq!(error_reason(&denied), "PERMISSION_DENIED");
    team.end().await;
}
