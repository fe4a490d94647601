//! Two worlds: whatever alice asks, the answers are the same in a world where she is alone
//! and in one that is full of others, who use her ids, and spaces that she may not see.

use std::fmt::{Debug, Write as _};

use syncline::rpc::proto::{
    self, ChangesSinceRequest, GetRecordRequest, GetSpaceRequest, GetStatusRequest,
    ListAuditEntriesRequest, ListConflictsRequest, ListMembersRequest, ListRecordHistoryRequest,
    ListRecordsRequest, ListSpacesRequest, MutateRequest, Mutation, RecordKey, Role,
};
use tonic::{Response, Status};

use super::{Team, create, put_in, remove, set, write};
use crate::support::{Client, Database, Random, TestServer, describe, scale, seed};

/// Times, epochs and what follows from them, which differ between any two worlds.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let is_part = |it: char| it.is_ascii_hexdigit() || it == '-';
    let mut rest = text;
    while let Some(begin) = rest.find(is_part) {
        let (before, from) = rest.split_at(begin);
        let end = from.find(|it| !is_part(it)).unwrap_or(from.len());
        let (word, after) = from.split_at(end);
        out.push_str(before);
        let digits = word.chars().filter(char::is_ascii_digit).count();
        let nanos = out.ends_with("nanos: ");
        out.push_str(if nanos || word.len() >= 36 || digits >= 10 { "…" } else { word });
        rest = after;
    }
    out.push_str(rest);
    out
}

fn said<T: Debug>(answer: Result<Response<T>, Status>) -> String {
    match answer {
        Ok(answer) => masked(&format!("{:?}", answer.into_inner())),
        Err(status) => {
            // The order of metadata is by chance, for each answer anew.
            masked(&format!("{} {}", status.message(), describe(&status)))
        }
    }
}

/// A space that alice may name: her own, her team's, and others.
fn space(random: &mut Random, team: &str) -> String {
    match random.below(6) {
        0 => "users/bob".into(),
        1 => "users/nobody".into(),
        2 => "spaces/secret".into(),
        3 | 4 => team.to_owned(),
        _ => String::new(),
    }
}

fn mutation(random: &mut Random) -> Mutation {
    let (id, record) = (format!("m{}", random.below(40)), random.below(5).to_string());
    let base = (random.below(3) == 0).then_some(0);
    let document = format!("{{\"n\":{}}}", random.below(10));
    Mutation { base, ..put_in("task", &id, &record, &document) }
}

/// One thing that alice asks, and its answer.
async fn ask(random: &mut Random, alice: &Client, team: &str) -> String {
    let space = space(random, team);
    let key = Some(RecordKey { collection: "task".into(), id: random.below(5).to_string() });
    let (mut stub, mut spaces) = (alice.stub.clone(), alice.spaces.clone());
    match random.below(13) {
        0..=3 => {
            let (mutation, device) = (Some(mutation(random)), "phone".into());
            let request = MutateRequest { space, mutation, device, ..Default::default() };
            said(stub.mutate(request).await)
        }
        4 => said(stub.get_record(GetRecordRequest { space, key, ..Default::default() }).await),
        5 => {
            let collection = "task".into();
            let request = ListRecordsRequest { space, collection, ..Default::default() };
            said(stub.list_records(request).await)
        }
        6 => said(stub.changes_since(ChangesSinceRequest { space, ..Default::default() }).await),
        7 => {
            let request = GetStatusRequest { space, device: "phone".into(), ..Default::default() };
            said(stub.get_status(request).await)
        }
        8 => {
            let request = ListConflictsRequest { space, ..Default::default() };
            said(alice.conflicts.clone().list_conflicts(request).await)
        }
        9 => {
            let request = ListRecordHistoryRequest { space, key, ..Default::default() };
            said(spaces.list_record_history(request).await)
        }
        10 => {
            let found = said(spaces.get_space(GetSpaceRequest { space: space.clone() }).await);
            let members = ListMembersRequest { space, ..Default::default() };
            found + &said(spaces.list_members(members).await)
        }
        11 => {
            let action = "member_set".into();
            let request = ListAuditEntriesRequest { space, action, ..Default::default() };
            said(spaces.list_audit_entries(request).await)
        }
        _ => {
            let changed = match random.below(2) {
                0 => set(alice, &space, ("carol", Role::Reader, &["task"])).await,
                _ => remove(alice, &space, "carol").await,
            };
            let changed = said(changed.map(Response::new));
            changed + &said(spaces.list_spaces(ListSpacesRequest::default()).await)
        }
    }
}

/// All answers of alice's script.
async fn script(server: &TestServer, seed: u64, steps: u64) -> String {
    let alice = server.client("alice").await;
    let team = create(&alice, "team").await.unwrap().space;
    let mut random = Random(seed);
    let mut answers = String::new();
    for number in 0..steps {
        let answer = ask(&mut random, &alice, &team).await;
        writeln!(answers, "{number} {answer}").unwrap();
    }
    answers
}

/// Others, with alice's ids everywhere, and spaces that she may not see.
async fn crowded(server: &TestServer) {
    let service = super::granted(server, "service", &["admin:*"]).await;
    let request = proto::CreateSpaceRequest {
        space_id: "secret".into(),
        title: "Secret".into(),
        ..Default::default()
    };
    service.spaces.clone().create_space(request).await.unwrap();
    for user in ["bob", "carol", "dave"] {
        let client = server.client(user).await;
        let team = create(&client, "team").await.unwrap().space;
        for space in ["", team.as_str()] {
            let puts = (0..40).map(|n| {
                let (id, record) = (format!("m{n}"), (n % 5).to_string());
                put_in("task", &id, &record, "{\"theirs\":true}")
            });
            write(&client, space, puts.collect()).await.unwrap();
            let stale = Mutation { base: Some(0), ..put_in("task", "stale", "1", "{}") };
            write(&client, space, vec![stale]).await.unwrap();
        }
    }
    let puts = (0..5).map(|n| put_in("task", &format!("m{n}"), &n.to_string(), "{\"s\":1}"));
    write(&service, "spaces/secret", puts.collect()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_tell_whether_others_are_there() {
    for _ in 0..2 * scale() {
        let seed = seed();
        let empty = Database::create().await;
        let server = TestServer::start(&empty).await;
        let alone = script(&server, seed, 200).await;
        server.stop().await;

        let team = Team::new().await;
        crowded(&team.server).await;
        let among_others = script(&team.server, seed, 200).await;
        for (alone, among_others) in alone.lines().zip(among_others.lines()) {
            assert_eq!(alone, among_others, "with seed {seed}");
        }
        assert_eq!(alone.lines().count(), among_others.lines().count());
        assert!(alone.contains("SPACE_NOT_FOUND") || alone.contains("NotFound"));
        team.end().await;
    }
}

#[test]
fn only_what_must_differ_is_masked() {
    let text =
        "seconds: 1764194000, nanos: 7 } id: 42 head: 3 a1b2c3d4-0000-4000-8000-000000000001";
    assert_eq!(masked(text), "seconds: …, nanos: … } id: 42 head: 3 …");
}
