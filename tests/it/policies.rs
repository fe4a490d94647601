//! Policies: who may set them, what they must be, and when they hold.

mod preview;

use prost_types::Duration;
use syncline::clock::Clock;
use syncline::config::Policies;
use syncline::domain;
use syncline::rpc::proto::{
    DeletePolicyRequest, FieldRule, FieldRuleKind, GetPolicyRequest, ListPoliciesRequest,
    MutationOutcome, Policy, PolicyMode, SetPolicyRequest, Strategy,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{Client, Database, TestServer, error_reason, put, wait_for};

fn policy(collection: &str, strategy: Strategy) -> Policy {
    Policy { collection: collection.into(), strategy: strategy.into(), ..Policy::default() }
}

async fn set(client: &Client, policy: Policy, expected: Option<i64>) -> Result<Policy, Status> {
    let request = SetPolicyRequest { policy: Some(policy), expected_version: expected };
    Ok(client.policies.clone().set_policy(request).await?.into_inner().policy.unwrap())
}

async fn get(client: &Client, collection: &str, version: i64) -> Result<Policy, Status> {
    let request = GetPolicyRequest { collection: collection.into(), version };
    Ok(client.policies.clone().get_policy(request).await?.into_inner().policy.unwrap())
}

async fn delete(client: &Client, collection: &str, expected: Option<i64>) -> Result<i64, Status> {
    let request = DeletePolicyRequest { collection: collection.into(), expected_version: expected };
    Ok(client.policies.clone().delete_policy(request).await?.into_inner().version)
}

async fn list(client: &Client, page_size: i32) -> Vec<String> {
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListPoliciesRequest { page_size, page_token };
        let page = client.policies.clone().list_policies(request).await.unwrap().into_inner();
        names.extend(
            page.policies.into_iter().map(|it| format!("{} {}", it.collection, it.version)),
        );
        if page.next_page_token.is_empty() {
            return names;
        }
        page_token = page.next_page_token;
    }
}

/// The code of a refusal, its reason, and the fields that it names.
fn told(status: &Status) -> (Code, String, String) {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|it| it.field_violations.clone());
    let fields = violations.unwrap_or_default().into_iter().map(|it| it.field);
    (status.code(), error_reason(status), fields.collect::<Vec<_>>().join(" "))
}

/// Two writes of the record that do not know each other: what became of the second.
async fn meet(client: &Client, record: &str) -> MutationOutcome {
    let write = |device: &'static str| {
        let mutation = put(&format!("{device}-{record}"), record, &format!("{{\"{device}\":1}}"));
        client.mutate_from(device, syncline::rpc::proto::Mutation { base: Some(0), ..mutation })
    };
    write("desk").await.unwrap();
    write("phone").await.unwrap().outcome()
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_kept_in_versions_and_hold_from_then_on() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.admin("alice").await;
    assert_eq!(meet(&alice, "1").await, MutationOutcome::Conflict, "manual, without a policy");

    let mut wanted = Policy {
        fallback: Strategy::ServerWins.into(),
        deletes: syncline::rpc::proto::DeleteRule::UpdateWins.into(),
        fields: vec![FieldRule {
            path: "/lines".into(),
            kind: FieldRuleKind::Union.into(),
            key_field: "sku".into(),
        }],
        json_schema: r#"{"type":"object"}"#.into(),
        conflict_retention: Some(Duration { seconds: 60, nanos: 0 }),
        ..policy("task", Strategy::Merge)
    };
    let stored = set(&alice, wanted.clone(), Some(0)).await.unwrap();
    assert!(stored.update_time.is_some());
    (wanted.version, wanted.author) = (1, "alice".into());
    wanted.set_mode(PolicyMode::Enforced);
    wanted.update_time = stored.update_time;
    assert_eq!(stored, wanted);
    assert_eq!(get(&alice, "task", 0).await.unwrap(), wanted);
    assert_eq!(meet(&alice, "2").await, MutationOutcome::Merged);

    // Others hold for those without their own.
    set(&alice, policy("*", Strategy::ServerWins), None).await.unwrap();
    assert_eq!(meet(&alice, "3").await, MutationOutcome::Merged);
    assert_eq!(delete(&alice, "task", Some(1)).await.unwrap(), 2);
    assert_eq!(meet(&alice, "4").await, MutationOutcome::Superseded);
    assert_eq!(error_reason(&get(&alice, "task", 0).await.unwrap_err()), "POLICY_NOT_FOUND");
    assert_eq!(get(&alice, "task", 1).await.unwrap(), wanted, "earlier versions stay");
    assert_eq!(set(&alice, policy("task", Strategy::Auto), Some(0)).await.unwrap().version, 3);
    assert_eq!(list(&alice, 0).await, ["* 1", "task 3"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_told() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let (alice, bob) = (server.admin("alice").await, server.client("bob").await);
    let none = String::new;
    for refused in [
        set(&bob, policy("task", Strategy::Merge), None).await.unwrap_err(),
        delete(&bob, "task", None).await.unwrap_err(),
    ] {
        let grant = refused.get_error_details().error_info().unwrap().metadata["grant"].clone();
        assert_eq!(grant, "policies");
        assert_eq!(told(&refused), (Code::PermissionDenied, "PERMISSION_DENIED".into(), none()));
    }
    let gone = told(&delete(&alice, "task", None).await.unwrap_err());
    assert_eq!(gone, (Code::NotFound, "POLICY_NOT_FOUND".into(), none()));
    set(&alice, policy("task", Strategy::Merge), None).await.unwrap();
    // Everybody may read.
    assert_eq!(get(&bob, "task", 0).await.unwrap().version, 1);
    assert_eq!(list(&bob, 0).await, ["task 1"]);
    for changed in [
        set(&alice, policy("task", Strategy::Auto), Some(0)).await.unwrap_err(),
        delete(&alice, "task", Some(7)).await.unwrap_err(),
    ] {
        let version = changed.get_error_details().error_info().unwrap().metadata["version"].clone();
        assert_eq!(version, "1");
        assert_eq!(told(&changed), (Code::FailedPrecondition, "POLICY_CHANGED".into(), none()));
    }
    server.stop().await;
}

fn rule(path: &str, kind: FieldRuleKind, key_field: &str) -> FieldRule {
    FieldRule { path: path.into(), kind: kind.into(), key_field: key_field.into() }
}

/// Each of them is refused, with the fields that are wrong.
async fn refuse(senseless: Vec<(Policy, &str)>) {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.admin("alice").await;
    for (wrong, fields) in senseless {
        let refused = set(&alice, wrong.clone(), None).await.unwrap_err();
        let expected = (Code::InvalidArgument, "VALIDATION_ERROR".into(), fields.to_owned());
        assert_eq!(told(&refused), expected, "{wrong:?}");
    }
    assert_eq!(list(&alice, 0).await, Vec::<String>::new(), "nothing of it was stored");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_makes_no_sense_is_told_at_once() {
    let task = || policy("task", Strategy::Merge);
    let highest = || policy("task", Strategy::HighestVersionWins);
    refuse(vec![
        (policy("", Strategy::Merge), "policy.collection"),
        (
            Policy { strategy: 99, fallback: 98, deletes: 97, mode: 96, ..task() },
            "policy.strategy policy.fallback policy.deletes policy.mode",
        ),
        (Policy { fallback: Strategy::Merge.into(), ..task() }, "policy.fallback"),
        (
            Policy { fallback: Strategy::ServerWins.into(), ..policy("task", Strategy::Auto) },
            "policy.fallback",
        ),
        (Policy { version_field: "/v".into(), ..task() }, "policy.version_field"),
        (Policy { version_field: "v".into(), ..highest() }, "policy.version_field"),
        (Policy { version_field: "/\0".into(), ..highest() }, "policy.version_field"),
        (Policy { json_schema: r#"{"type":"text"}"#.into(), ..task() }, "policy.json_schema"),
        (
            Policy { conflict_retention: Some(Duration { seconds: -1, nanos: 0 }), ..task() },
            "policy.conflict_retention",
        ),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn field_rules_that_make_no_sense_are_told() {
    use FieldRuleKind::{Max, Min, Union, Unspecified};
    let with = |fields: Vec<FieldRule>| Policy { fields, ..policy("task", Strategy::Merge) };
    let many = (0..101).map(|number| rule(&format!("/{number}"), Max, ""));
    let long = "x".repeat(2_000);
    let long = (0..100).map(|number| rule(&format!("/{long}/{number}"), Max, ""));
    let json_schema = format!(r#"{{"title":"{}"}}"#, "x".repeat(65_000));
    refuse(vec![
        (with(many.collect()), "policy.fields"),
        (Policy { json_schema, ..with(long.collect()) }, "policy.fields"),
        (
            with(vec![rule("a", Max, ""), rule("/a", Unspecified, "")]),
            "policy.fields[0].path policy.fields[1].kind",
        ),
        (
            with(vec![rule("/a", Max, "id"), rule("/a", Min, "")]),
            "policy.fields[0].key_field policy.fields[1].path",
        ),
        (with(vec![rule("/a\0", Max, ""), rule("/b", Union, "")]), "policy.fields[0].path"),
        (with(vec![rule("/a", Union, "i\0d")]), "policy.fields[0].key_field"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_at_most_a_thousand_and_lists_are_paged() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.admin("alice").await;
    // Large ones first: a page must not outgrow a message.
    let schema = format!(r#"{{"title":"{}"}}"#, "x".repeat(65_000));
    // Spaces that the database adds count towards a page, too.
    let rules = (0..100).map(|number| FieldRule {
        path: format!("/{number}"),
        kind: FieldRuleKind::Max.into(),
        key_field: String::new(),
    });
    let rules: Vec<_> = rules.collect();
    for number in 0..60 {
        let large = Policy {
            fields: rules.clone(),
            json_schema: schema.clone(),
            ..policy(&format!("a{number:04}"), Strategy::Merge)
        };
        set(&alice, large, None).await.unwrap();
    }
    let mut filled = database.connect().await;
    sqlx::query(
        "insert into policies select 'b' || n, 1, 60 + n, p.policy, 'x', now()
         from generate_series(1, 939) n, policies p where p.collection = 'a0000'",
    )
    .execute(&mut filled)
    .await
    .unwrap();
    sqlx::query(
        "update policies set policy = policy - 'schema' - 'fields' where collection like 'b%'",
    )
    .execute(&mut filled)
    .await
    .unwrap();
    set(&alice, policy("last", Strategy::Merge), None).await.unwrap();
    let full = set(&alice, policy("more", Strategy::Merge), None).await.unwrap_err();
    assert_eq!(
        (full.code(), error_reason(&full)),
        (Code::FailedPrecondition, "TOO_MANY_POLICIES".into())
    );
    // One that is there may change.
    assert_eq!(set(&alice, policy("last", Strategy::Auto), None).await.unwrap().version, 2);
    let mut names = list(&alice, 1_000).await;
    assert_eq!(names.len(), 1_000);
    assert!(names.is_sorted());
    names.dedup();
    assert_eq!(names.len(), 1_000);
    assert_eq!(list(&alice, 7).await, names);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_replicas_follow_within_seconds() {
    let database = Database::create().await;
    let servers = [TestServer::start(&database).await, TestServer::start(&database).await];
    let (here, there) = (servers[0].admin("alice").await, servers[1].client("alice").await);
    for (number, (strategy, expected)) in [
        (Strategy::Merge, MutationOutcome::Merged),
        (Strategy::ServerWins, MutationOutcome::Superseded),
        (Strategy::Manual, MutationOutcome::Conflict),
    ]
    .into_iter()
    .enumerate()
    {
        set(&here, policy("task", strategy), None).await.unwrap();
        let mut tries = 0;
        let holds = async || {
            tries += 1;
            let outcome = meet(&there, &format!("{number}-{tries}")).await;
            (outcome == expected).then_some(())
        };
        wait_for("the policy to hold on the other replica", holds).await;
    }
    for server in servers {
        server.stop().await;
    }
}

/// Perhaps a newer server has set it.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_cannot_be_read_stands_in_nobody_s_way() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.admin("alice").await;
    set(&alice, policy("task", Strategy::Merge), None).await.unwrap();
    const FUTURE: &str = r#"insert into policies values
        ('task', 2, 2, '{"strategy":"of the future"}', 'somebody', now())"#;
    sqlx::raw_sql(FUTURE).execute(&mut database.connect().await).await.unwrap();
    // Others go on being set, and what was known of this one holds.
    set(&alice, policy("note", Strategy::ServerWins), None).await.unwrap();
    assert_eq!(meet(&alice, "1").await, MutationOutcome::Merged);
    assert_eq!(list(&alice, 1).await, ["note 1"]);
    server.stop().await;
    // A server that starts with it loses nothing by what holds for all others.
    let server = TestServer::start(&database).await;
    let alice = server.admin("alice").await;
    set(&alice, policy("*", Strategy::ServerWins), None).await.unwrap();
    assert_eq!(meet(&alice, "2").await, MutationOutcome::Conflict);
    let repaired = set(&alice, policy("task", Strategy::ClientWins), Some(2)).await.unwrap();
    assert_eq!(repaired.version, 3);
    assert_eq!(meet(&alice, "3").await, MutationOutcome::Applied);
    server.stop().await;
}

fn from_file(strategy: domain::Strategy) -> Policies {
    let collection = domain::CollectionName::parse("task").unwrap();
    Policies(vec![(collection, domain::Policy { strategy, ..domain::Policy::default() })])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_begins_and_the_service_decides() {
    let database = Database::create().await;
    let start = async |strategy| {
        TestServer::start_with(&database, Clock::system(), |config| {
            config.policies = from_file(strategy);
        })
        .await
    };
    // Two that start at once make one version.
    let (one, two) = tokio::join!(start(domain::Strategy::Merge), start(domain::Strategy::Merge));
    let alice = one.admin("alice").await;
    let begun = get(&alice, "task", 0).await.unwrap();
    assert_eq!((begun.version, begun.author.as_str()), (1, ""));
    assert_eq!(meet(&alice, "1").await, MutationOutcome::Merged);
    two.stop().await;
    // The file is followed as long as it alone has spoken.
    let three = start(domain::Strategy::Auto).await;
    assert_eq!(get(&alice, "task", 0).await.unwrap().version, 2);
    three.stop().await;
    set(&alice, policy("task", Strategy::ServerWins), None).await.unwrap();
    let four = start(domain::Strategy::Auto).await;
    let stands = get(&alice, "task", 0).await.unwrap();
    assert_eq!((stands.version, stands.strategy()), (3, Strategy::ServerWins));
    delete(&alice, "task", None).await.unwrap();
    let five = start(domain::Strategy::Auto).await;
    assert!(get(&alice, "task", 0).await.is_err(), "what was deleted stays deleted");
    for server in [one, four, five] {
        server.stop().await;
    }
}
