//! The audit log: what is in it, how it is asked, and that nobody changes it unseen.

use std::process::Command;
use std::time::Duration;

use sqlx::Executor;
use syncline::clock::Clock;
use syncline::rpc::proto::{
    AuditEntry, BatchMutateRequest, CreateSpaceRequest, DeletePolicyRequest, GetStatusRequest,
    ListAuditEntriesRequest, Policy, RemoveMemberRequest, RenameSpaceRequest, Role,
    SetMemberRequest,
};
use tonic::Status;

use crate::support::{Client, Database, TestServer, describe, mint_granted, put, wait_for};

struct House {
    database: Database,
    server: TestServer,
    alice: Client,
    space: String,
}

impl House {
    /// Alice has a shared space, of which bob is a member, and has set a policy.
    async fn new() -> Self {
        let database = Database::create().await;
        let server = TestServer::start(&database).await;
        let token = mint_granted(
            "alice",
            &["policies", "audit"],
            Duration::from_hours(1),
            &Clock::system(),
        );
        let alice = Client::connect(server.address(), &token).await;
        let mut stub = alice.spaces.clone();
        let create = CreateSpaceRequest {
            request_id: "r".into(),
            title: "First".into(),
            ..Default::default()
        };
        let space = stub.create_space(create).await.unwrap().into_inner().space.unwrap().space;
        let rename = RenameSpaceRequest { space: space.clone(), title: "Second".into() };
        stub.rename_space(rename).await.unwrap();
        let house = Self { database, server, alice, space };
        house.set("bob", Role::Writer).await;
        house.set("bob", Role::Writer).await;
        house.set("carol", Role::Reader).await;
        let remove = RemoveMemberRequest { space: house.space.clone(), user: "carol".into() };
        stub.remove_member(remove).await.unwrap();
        let policy = Policy { collection: "task".into(), ..Default::default() };
        house.alice.set_policy(policy).await.unwrap();
        let delete = DeletePolicyRequest { collection: "task".into(), ..Default::default() };
        house.alice.policies.clone().delete_policy(delete).await.unwrap();
        house
    }

    async fn set(&self, user: &str, role: Role) {
        let (space, user, collections) = (self.space.clone(), user.to_owned(), Vec::new());
        let request = SetMemberRequest { space, user, role: role.into(), collections };
        self.alice.spaces.clone().set_member(request).await.unwrap();
    }

    fn of_space(&self) -> ListAuditEntriesRequest {
        ListAuditEntriesRequest { space: self.space.clone(), ..Default::default() }
    }
}

async fn ask(
    client: &Client,
    request: ListAuditEntriesRequest,
) -> Result<(Vec<AuditEntry>, String), Status> {
    let page = client.spaces.clone().list_audit_entries(request).await?.into_inner();
    Ok((page.entries, page.next_page_token))
}

async fn verify(database: &Database) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    command.arg("verify").env("DATABASE_URL", &database.url).env("SYNCLINE_LOG", "off");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

fn line(entry: &AuditEntry) -> String {
    let AuditEntry { number, action, actor, subject, details_json, .. } = entry;
    format!("{number} {action} {actor} {subject} {details_json}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_kept_in_order_and_found_by_who_and_what() {
    let house = House::new().await;
    let (entries, _) = ask(&house.alice, house.of_space()).await.unwrap();
    let lines: Vec<_> = entries.iter().rev().map(line).collect();
    let created =
        format!(r#"1 space_created alice  {{"space":"{}","title":"First"}}"#, house.space);
    let expected = [
        created.as_str(),
        r#"2 space_renamed alice  {"title":"Second"}"#,
        r#"3 member_set alice bob {"role":"writer"}"#,
        r#"4 member_set alice carol {"role":"reader"}"#,
        "5 member_removed alice carol {}",
    ];
    assert_eq!(lines, expected);
    assert!(entries.iter().all(|it| it.link.len() == 64 && it.time.is_some()));

    let about = |user: &str, action: &str| ListAuditEntriesRequest {
        user: user.into(),
        action: action.into(),
        ..house.of_space()
    };
    for (user, action, numbers) in [
        ("carol", "", &[5, 4][..]),
        ("bob", "", &[3]),
        ("alice", "", &[5, 4, 3, 2, 1]),
        ("", "member_set", &[4, 3]),
        ("carol", "member_set", &[4]),
        ("nobody", "", &[]),
    ] {
        let (found, _) = ask(&house.alice, about(user, action)).await.unwrap();
        let found: Vec<_> = found.iter().map(|it| it.number).collect();
        assert_eq!(found, numbers, "{user} {action}");
    }
    let third = entries.iter().find(|it| it.number == 3).unwrap().time;
    let since = ListAuditEntriesRequest { since: third, ..house.of_space() };
    let until = ListAuditEntriesRequest { until: third, ..house.of_space() };
    assert_eq!(ask(&house.alice, since).await.unwrap().0.len(), 3);
    assert_eq!(ask(&house.alice, until).await.unwrap().0.len(), 2);
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListAuditEntriesRequest { page_size: 2, page_token, ..about("alice", "") };
        let (entries, next) = ask(&house.alice, request).await.unwrap();
        pages.push(entries.iter().map(|it| it.number).collect::<Vec<_>>());
        page_token = next;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [vec![5, 4], vec![3, 2], vec![1]]);
    let bad = ListAuditEntriesRequest { action: "anything".into(), ..house.of_space() };
    let status = ask(&house.alice, bad).await.unwrap_err();
    assert_eq!(describe(&status), "InvalidArgument VALIDATION_ERROR action");

    // The server's own.
    let server = ListAuditEntriesRequest { server: true, ..Default::default() };
    let (entries, _) = ask(&house.alice, server.clone()).await.unwrap();
    let lines: Vec<_> = entries.iter().rev().map(line).collect();
    let expected = [
        r#"1 policy_set alice  {"collection":"task","version":1}"#,
        r#"2 policy_deleted alice  {"collection":"task","version":2}"#,
    ];
    assert_eq!(lines, expected);
    let bob = house.server.client("bob").await;
    let denied = ask(&bob, server).await.unwrap_err();
    assert_eq!(describe(&denied), "PermissionDenied PERMISSION_DENIED grant=audit");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_noted_once_a_minute_however_many() {
    let house = House::new().await;
    let mallory = house.server.client("mallory").await;
    let request = |space: &str| GetStatusRequest { space: space.into(), ..Default::default() };
    for _ in 0..50 {
        for space in [house.space.as_str(), "spaces/unknown", "users/alice"] {
            mallory.stub.clone().get_status(request(space)).await.unwrap_err();
        }
    }
    let bob = house.server.client("bob").await;
    let set = SetMemberRequest {
        space: house.space.clone(),
        user: "bob".into(),
        role: Role::Admin.into(),
        collections: Vec::new(),
    };
    bob.spaces.clone().set_member(set).await.unwrap_err();
    let refused =
        || ListAuditEntriesRequest { action: "access_refused".into(), ..house.of_space() };
    let of_space = wait_for("the refusals of the space", async || {
        let (entries, _) = ask(&house.alice, refused()).await.unwrap();
        (entries.len() >= 2).then_some(entries)
    })
    .await;
    let actors: Vec<_> = of_space.iter().map(|it| it.actor.as_str()).collect();
    assert!(actors.contains(&"mallory") && actors.contains(&"bob"), "{actors:?}");
    assert!(of_space.len() <= 3, "{of_space:?}");
    let wanted = of_space.iter().find(|it| it.actor == "bob").unwrap();
    let expected = format!(r#"{{"space":"{}","times":1,"wanted":"admin"}}"#, house.space);
    assert_eq!(wanted.details_json, expected);
    // Of spaces that are not there the server's log tells.
    let server = ListAuditEntriesRequest {
        server: true,
        action: "access_refused".into(),
        user: "mallory".into(),
        ..Default::default()
    };
    wait_for("the refusals of the server", async || {
        let (entries, _) = ask(&house.alice, server.clone()).await.unwrap();
        entries.iter().any(|it| it.details_json.contains("spaces/unknown")).then_some(())
    })
    .await;
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_whatever_was_changed_put_in_or_taken_out() {
    let house = House::new().await;
    // With records, so that what a space holds is compared as well.
    let mutations = vec![put("m1", "1", "{\"n\":1}"), put("m2", "2", "{}"), put("m3", "1", "{}")];
    let request =
        BatchMutateRequest { space: house.space.clone(), mutations, ..Default::default() };
    house.alice.stub.clone().batch_mutate(request).await.unwrap();
    house.server.stop().await;
    let (said, code) = verify(&house.database).await;
    assert!(
        said.starts_with("no difference in 1 space, 2 records, 3 changes and 7 audit"),
        "{said}"
    );
    assert_eq!(code, 0);
    let mut connection = house.database.connect().await;
    let of_space = "space_id = (select id from spaces)";
    for (sql, expected) in [
        ("update audit set at = at + interval '1 second' where $s and number = 2", "link"),
        ("update audit set action = 'member_set' where $s and number = 2", "link"),
        ("update audit set actor = 'mallory' where $s and number = 2", "actor"),
        ("update audit set subject = null where $s and number = 3", "subject"),
        ("update audit set details = '{}' where $s and number = 3", "details"),
        ("update audit set details = null where $s and number = 3", "no erasure took them"),
        ("delete from audit where $s and number = 3", "entry 3 of the audit log is missing"),
        ("delete from audit where $s and number = 5", "should end at entry 5, not 4"),
        ("delete from audit_ends where $s", "should end at entry 0, not 5"),
        ("update spaces set records = records + 1", "holds 3 records"),
        ("update spaces set bytes = 0", "holds 2 records with 0 bytes"),
        (
            "update audit set details = null, actor = null, erased_in = 1
             where space_id = '00000000-0000-0000-0000-000000000000' and number = 2",
            "the server: entry 2",
        ),
    ] {
        let sql = sql.replace("$s", of_space);
        connection.execute("create table kept as select * from audit").await.unwrap();
        connection.execute("create table kept_ends as select * from audit_ends").await.unwrap();
        connection.execute("create table kept_spaces as select * from spaces").await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(sql.clone())).await.unwrap();
        let (said, code) = verify(&house.database).await;
        assert!(said.contains(expected) && code == 1, "{sql}: {said}");
        for (table, kept) in
            [("audit", "kept"), ("audit_ends", "kept_ends"), ("spaces", "kept_spaces")]
        {
            let restore = format!(
                "delete from {table}; insert into {table} select * from {kept}; drop table {kept}"
            );
            connection.execute(sqlx::AssertSqlSafe(restore)).await.unwrap();
        }
    }
    assert_eq!(verify(&house.database).await.1, 0);
}
