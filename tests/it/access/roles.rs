//! Every RPC of the contract, called by everybody: who gets how far. What a call comes to
//! behind the door does not matter here, only that it came there.

use std::fmt::Write as _;

use prost::Message;
use syncline::clock::Clock;
use syncline::rpc::proto::import_space_request::Part as ImportPart;
use syncline::rpc::proto::replace_all_request::Part as ReplacePart;
use syncline::rpc::proto::resolve_conflict_request::Resolution;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{self, Role, SubscribeRequest};
use tonic::{Code, Status};

use super::{Team, put_in, write};
use crate::support::generic::{Generic, methods};
use crate::support::{describe, mint_granted};

/// A request of each method for a space, that does no harm. A new RPC needs one.
fn request(method: &str, space: &str) -> Vec<u8> {
    let space = space.to_owned();
    let key = Some(proto::RecordKey { collection: "task".into(), id: "1".into() });
    let mutation = put_in("task", &uuid::Uuid::new_v4().to_string(), "1", "{}");
    let policy = Some(proto::Policy { collection: "other".into(), ..Default::default() });
    let id = "nothing".to_owned();
    match method {
        "SyncService/Mutate" => {
            encode(proto::MutateRequest { space, mutation: Some(mutation), ..Default::default() })
        }
        "SyncService/BatchMutate" => {
            let mutations = vec![mutation];
            encode(proto::BatchMutateRequest { space, mutations, ..Default::default() })
        }
        "SyncService/Exchange" => {
            let mutations = vec![mutation];
            encode(proto::ExchangeRequest { space, mutations, ..Default::default() })
        }
        "SyncService/GetRecord" => {
            encode(proto::GetRecordRequest { space, key, ..Default::default() })
        }
        "SyncService/ListRecords" => {
            let collection = "task".into();
            encode(proto::ListRecordsRequest { space, collection, ..Default::default() })
        }
        "SyncService/ChangesSince" => {
            encode(proto::ChangesSinceRequest { space, ..Default::default() })
        }
        "SyncService/Snapshot" => encode(proto::SnapshotRequest { space, ..Default::default() }),
        "SyncService/ReplaceAll" => {
            let begin = proto::ReplaceAllBegin { space, id: "r".into(), ..Default::default() };
            encode(proto::ReplaceAllRequest { part: Some(ReplacePart::Begin(begin)) })
        }
        "SyncService/Subscribe" => {
            let subscription_id = "s".into();
            let frame = proto::SubscribeFrame { subscription_id, space, ..Default::default() };
            encode(SubscribeRequest { frame: Some(Out::Subscribe(frame)) })
        }
        "SyncService/Watch" => {
            let subscription = Some(proto::SubscribeFrame { space, ..Default::default() });
            encode(proto::WatchRequest { subscription })
        }
        "SyncService/GetStatus" => encode(proto::GetStatusRequest { space, ..Default::default() }),
        "ConflictService/ListConflicts" => {
            encode(proto::ListConflictsRequest { space, ..Default::default() })
        }
        "ConflictService/GetConflict" => {
            encode(proto::GetConflictRequest { space, conflict_id: id, ..Default::default() })
        }
        "ConflictService/ResolveConflict" => encode(proto::ResolveConflictRequest {
            space,
            mutation_id: "r".into(),
            conflict_id: id,
            resolution: Some(Resolution::KeepClient(proto::KeepClient {})),
            ..Default::default()
        }),
        "PolicyService/SetPolicy" => {
            encode(proto::SetPolicyRequest { policy, expected_version: Some(77) })
        }
        "PolicyService/GetPolicy" => {
            encode(proto::GetPolicyRequest { collection: "none".into(), ..Default::default() })
        }
        "PolicyService/ListPolicies" => encode(proto::ListPoliciesRequest::default()),
        "PolicyService/DeletePolicy" => {
            encode(proto::DeletePolicyRequest { collection: "none".into(), ..Default::default() })
        }
        "PolicyService/PreviewPolicy" => {
            let policy = Some(proto::Policy { collection: "task".into(), ..Default::default() });
            encode(proto::PreviewPolicyRequest { space, policy, ..Default::default() })
        }
        "QueueService/Enqueue" => {
            let (device, mutations) = ("phone".into(), vec![mutation]);
            encode(proto::EnqueueRequest { space, device, mutations })
        }
        "QueueService/ListQueued" => {
            encode(proto::ListQueuedRequest { space, ..Default::default() })
        }
        "QueueService/RetryQueued" => {
            encode(proto::RetryQueuedRequest { space, mutation_id: id, ..Default::default() })
        }
        "QueueService/DiscardQueued" => {
            encode(proto::DiscardQueuedRequest { space, mutation_id: id })
        }
        "QueueService/MarkSynced" => {
            encode(proto::MarkSyncedRequest { space, mutation_ids: vec![id] })
        }
        "QueueService/ClearSynced" => encode(proto::ClearSyncedRequest { space }),
        other => space_request(other, space),
    }
}

fn space_request(method: &str, space: String) -> Vec<u8> {
    let key = Some(proto::RecordKey { collection: "task".into(), id: "1".into() });
    match method {
        "SpaceService/CreateSpace" => encode(proto::CreateSpaceRequest {
            request_id: "r".into(),
            title: "Theirs".into(),
            ..Default::default()
        }),
        "SpaceService/GetSpace" => encode(proto::GetSpaceRequest { space }),
        "SpaceService/ListSpaces" => {
            encode(proto::ListSpacesRequest { all: true, ..Default::default() })
        }
        "SpaceService/RenameSpace" => {
            encode(proto::RenameSpaceRequest { space, title: "Ours".into() })
        }
        "SpaceService/SetMember" => {
            let (user, role) = ("reader".into(), Role::Reader.into());
            encode(proto::SetMemberRequest { space, user, role, collections: Vec::new() })
        }
        "SpaceService/RemoveMember" => {
            encode(proto::RemoveMemberRequest { space, user: "nobody".into() })
        }
        "SpaceService/ListMembers" => {
            encode(proto::ListMembersRequest { space, ..Default::default() })
        }
        "SpaceService/ListAuditEntries" => {
            encode(proto::ListAuditEntriesRequest { space, ..Default::default() })
        }
        "SpaceService/ListRecordHistory" => {
            encode(proto::ListRecordHistoryRequest { space, key, ..Default::default() })
        }
        "SpaceService/UndeleteRecord" => encode(proto::UndeleteRecordRequest {
            space,
            mutation_id: "u".into(),
            key,
            ..Default::default()
        }),
        "SpaceService/ExportSpace" => encode(proto::ExportSpaceRequest { space }),
        "SpaceService/ExportUser" => encode(proto::ExportUserRequest { user: "alice".into() }),
        "SpaceService/ImportSpace" => {
            let begin = proto::ImportSpaceBegin { space, id: "i".into(), ..Default::default() };
            encode(proto::ImportSpaceRequest { part: Some(ImportPart::Begin(begin)) })
        }
        // Without the name it erases nothing.
        "SpaceService/EraseSpace" => {
            encode(proto::EraseSpaceRequest { space, ..Default::default() })
        }
        "SpaceService/EraseUser" => {
            encode(proto::EraseUserRequest { user: "alice".into(), ..Default::default() })
        }
        other => panic!("a new RPC: give a request for {other}"),
    }
}

fn encode(message: impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

/// How far a call came.
fn word(answer: Result<Option<bytes::Bytes>, Status>, streams: bool) -> &'static str {
    let status = match answer {
        Ok(Some(message)) if streams => {
            let frame = proto::SubscribeResponse::decode(message).unwrap().frame;
            match frame {
                Some(Frame::Closed(frame)) => {
                    return if frame.reason == "SPACE_NOT_FOUND" { "unseen" } else { "denied" };
                }
                _ => return "in",
            }
        }
        Ok(_) => return "in",
        Err(status) => status,
    };
    assert_ne!(status.code(), Code::Unknown, "{status:?}");
    assert_ne!(status.code(), Code::Internal, "{status:?}");
    match (status.code(), describe(&status)) {
        (Code::Unauthenticated, _) => "no token",
        (Code::PermissionDenied, _) => "denied",
        (Code::NotFound, words) if words.contains("SPACE_NOT_FOUND") => "unseen",
        _ => "in",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_lets_in_whom_it_should() {
    let team = Team::new().await;
    write(&team.alice, &team.space, vec![put_in("task", "m", "1", "{}")]).await.unwrap();
    team.set("limited", Role::Writer, &["other"]).await;
    team.set("reader", Role::Reader, &[]).await;
    team.set("writer", Role::Writer, &[]).await;
    team.set("admin", Role::Admin, &[]).await;
    let callers: [(&str, &str, &[&str]); 11] = [
        ("nobody", "", &[]),
        ("stranger", "stranger", &[]),
        ("limited", "limited", &[]),
        ("reader", "reader", &[]),
        ("writer", "writer", &[]),
        ("admin", "admin", &[]),
        ("read:*", "service", &["read:*"]),
        ("write:*", "service", &["write:*"]),
        ("admin:*", "service", &["admin:*"]),
        ("policies", "service", &["policies"]),
        ("audit", "service", &["audit"]),
    ];
    let mut table = format!("{:32}", "");
    callers.iter().for_each(|(name, ..)| write!(table, "{name:>10}").unwrap());
    let call = Generic::connect(team.server.address()).await;
    for path in methods() {
        let method = path.strip_prefix("/syncline.v1.").unwrap();
        write!(table, "\n{method:32}").unwrap();
        for (_, user, grants) in callers {
            let token = (!user.is_empty()).then(|| {
                let ttl = std::time::Duration::from_hours(1);
                format!("Bearer {}", mint_granted(user, grants, ttl, &Clock::system()))
            });
            let metadata: Vec<_> =
                token.iter().map(|token| ("authorization", token.as_str())).collect();
            let streams = method == "SyncService/Subscribe";
            let message = request(method, &team.space);
            let word = word(call.call(&path, &metadata, vec![message]).await, streams);
            write!(table, "{word:>10}").unwrap();
        }
    }
    // Nobody whom it did not let in has changed anything.
    let mut connection = team.database.connect().await;
    let sql = "select author from changes group by author order by min(author)";
    let authors = sqlx::query_scalar(sql).fetch_all(&mut connection).await;
    let authors: Vec<String> = authors.unwrap();
    assert_eq!(authors, ["admin", "alice", "service", "writer"]);
    insta::assert_snapshot!("roles", table);
    team.end().await;
}
