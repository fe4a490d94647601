//! A good part of the tables through gRPC, policies, PostgreSQL and all.

use prost_types::Timestamp;
use syncline::rpc::proto::field_transform::Transform;
use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::number::Value as NumberValue;
use syncline::rpc::proto::values::Form;
use syncline::rpc::proto::{
    ConflictDecision, CreateOperation, DeleteOperation, DeleteRule, FieldRule, FieldRuleKind,
    FieldTransform, MutationOutcome, MutationResult, Number, PatchOperation, Policy, PolicyMode,
    PutOperation, Strategy, Values,
};
use tonic::Code;

use super::{MEETINGS, Meeting, Seen, Table, is_due, spec, tables};
use crate::support::{Client, Database, TestServer, json, mutation};

#[tokio::test(flavor = "multi_thread")]
async fn the_service_does_what_the_tables_say() {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.admin("alice").await;
    let mut records = 0;
    for (number, table) in tables().iter().enumerate() {
        for (row, (line, _)) in table.rows.iter().enumerate() {
            if !is_due(number, row) {
                continue;
            }
            let expected: Vec<_> = line.split('|').skip(1).map(str::trim).collect();
            for (meeting, expected) in MEETINGS.into_iter().zip(expected) {
                records += 1;
                alice.set_policy(policy(spec(line), meeting)).await.unwrap();
                let seen = meet(&alice, table, meeting, &records.to_string()).await;
                assert_eq!(seen, expected, "{}: {line}", table.name);
            }
        }
    }
    assert!(records > 300, "{records} rows were tried");
    server.stop().await;
}

fn policy(spec: &str, meeting: Meeting) -> Policy {
    let named =
        |name: &str| Strategy::from_str_name(&format!("STRATEGY_{}", name.to_uppercase())).unwrap();
    let mut words = spec.split_whitespace();
    let mut policy = Policy { collection: "task".into(), ..Policy::default() };
    policy.set_strategy(named(words.next().unwrap()));
    policy.set_mode(match meeting {
        Meeting::Advisory => PolicyMode::Advisory,
        Meeting::ClientLater | Meeting::ClientEarlier => PolicyMode::Enforced,
    });
    for (key, value) in words.map(|word| word.split_once('=').unwrap()) {
        match key {
            "fallback" => policy.set_fallback(named(value)),
            "deletes" => {
                let name = format!("DELETE_RULE_{}", value.to_uppercase());
                policy.set_deletes(DeleteRule::from_str_name(&name).unwrap());
            }
            "version_field" => policy.version_field = value.to_owned(),
            path => {
                let (kind, key_field) = value.split_once(':').unwrap_or((value, ""));
                let name = format!("FIELD_RULE_KIND_{}", kind.to_uppercase());
                let kind = FieldRuleKind::from_str_name(&name).unwrap().into();
                let (path, key_field) = (path.to_owned(), key_field.to_owned());
                policy.fields.push(FieldRule { path, kind, key_field });
            }
        }
    }
    policy
}

async fn meet(client: &Client, table: &Table, meeting: Meeting, record: &str) -> String {
    let times = meeting.micros();
    let mut base = 0;
    if let Some(text) = &table.base {
        base = write(client, record, "seed", text, 0, times[0]).await.revision;
    }
    let server = write(client, record, "laptop", &table.server, base, times[1]).await;
    assert_eq!(server.outcome(), MutationOutcome::Applied, "{server:?}");
    let result = write(client, record, "phone", &table.client, base, times[2]).await;
    let document = match client.task(record).await {
        Ok(text) => Some(text),
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
            None
        }
    };
    let conflict = result.conflict.as_ref();
    let seen = Seen {
        outcome: match result.outcome() {
            MutationOutcome::Applied => "applied",
            MutationOutcome::Merged => "merged",
            MutationOutcome::Superseded => "superseded",
            MutationOutcome::Conflict => "conflict",
            MutationOutcome::Rejected => "rejected",
            MutationOutcome::Unspecified => panic!("never sent"),
        },
        document,
        lost: conflict.map_or_else(Vec::new, |it| it.lost_paths.clone()),
        told: conflict.filter(|it| it.advisory).map(|it| match it.decision() {
            ConflictDecision::Client => "client",
            ConflictDecision::Server => "server",
            ConflictDecision::Merged => "merged",
            ConflictDecision::Open => "open",
            ConflictDecision::Unspecified | ConflictDecision::Rejected => panic!("never sent"),
        }),
    };
    seen.show()
}

async fn write(
    client: &Client,
    record: &str,
    device: &str,
    text: &str,
    base: i64,
    micros: i64,
) -> MutationResult {
    let mut mutation = mutation(&format!("{device}-{record}"), record, operation(text));
    mutation.base = Some(base);
    let nanos = i32::try_from(micros % 1_000_000 * 1_000).unwrap();
    mutation.client_time = Some(Timestamp { seconds: micros / 1_000_000, nanos });
    client.mutate_from(device, mutation).await.unwrap()
}

/// The words of the tables, see [`super::operation`].
fn operation(text: &str) -> Operation {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    match name {
        "put" => Operation::Put(PutOperation { document: json(rest) }),
        "create" => Operation::Create(CreateOperation { document: json(rest) }),
        "delete" => Operation::Delete(DeleteOperation {}),
        "patch" => {
            let (set, unset) = rest.split_once(" - ").unwrap_or((rest, ""));
            let unset = unset.split_whitespace().map(str::to_owned).collect();
            Operation::Patch(PatchOperation { set: json(set), unset, transforms: Vec::new() })
        }
        name => {
            let (path, operand) = rest.split_once(' ').unwrap();
            let number = || Number { value: Some(NumberValue::Integer(operand.parse().unwrap())) };
            let list = || Values { form: Some(Form::Json(operand.to_owned().into())) };
            let transform = match name {
                "increment" => Transform::Increment(number()),
                "max" => Transform::Max(number()),
                "min" => Transform::Min(number()),
                "append_missing" => Transform::AppendMissing(list()),
                "remove_all" => Transform::RemoveAll(list()),
                other => panic!("an unknown operation: {other}"),
            };
            let (path, transform) = (path.to_owned(), Some(transform));
            let transforms = vec![FieldTransform { path, transform }];
            Operation::Patch(PatchOperation { transforms, ..PatchOperation::default() })
        }
    }
}
