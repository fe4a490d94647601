//! A request of each method, as bytes.

use prost::Message;
use syncline::rpc::proto::import_space_request::Part as ImportPart;
use syncline::rpc::proto::replace_all_request::Part as ReplacePart;
use syncline::rpc::proto::resolve_conflict_request::Resolution;
use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::{self, Role, SubscribeRequest};

use super::put_in;

/// A request of each method for a space, that does no harm. A new RPC needs one.
pub fn request(method: &str, space: &str) -> Vec<u8> {
    let space = space.to_owned();
    let key = Some(proto::RecordKey { collection: "task".into(), id: "1".into() });
    let mutation = put_in("task", &uuid::Uuid::new_v4().to_string(), "1", "{}");
    match method {
        "SyncService/Mutate" => {
            encode(&proto::MutateRequest { space, mutation: Some(mutation), ..Default::default() })
        }
        "SyncService/BatchMutate" => {
            let mutations = vec![mutation];
            encode(&proto::BatchMutateRequest { space, mutations, ..Default::default() })
        }
        "SyncService/Exchange" => {
            let mutations = vec![mutation];
            encode(&proto::ExchangeRequest { space, mutations, ..Default::default() })
        }
        "SyncService/GetRecord" => {
            encode(&proto::GetRecordRequest { space, key, ..Default::default() })
        }
        "SyncService/ListRecords" => {
            let collection = "task".into();
            encode(&proto::ListRecordsRequest { space, collection, ..Default::default() })
        }
        "SyncService/ChangesSince" => {
            encode(&proto::ChangesSinceRequest { space, ..Default::default() })
        }
        "SyncService/Snapshot" => encode(&proto::SnapshotRequest { space, ..Default::default() }),
        "SyncService/ReplaceAll" => {
            let begin = proto::ReplaceAllBegin { space, id: "r".into(), ..Default::default() };
            encode(&proto::ReplaceAllRequest { part: Some(ReplacePart::Begin(begin)) })
        }
        "SyncService/Subscribe" => {
            let subscription_id = "s".into();
            let frame = proto::SubscribeFrame { subscription_id, space, ..Default::default() };
            encode(&SubscribeRequest { frame: Some(Out::Subscribe(frame)) })
        }
        "SyncService/Watch" => {
            let subscription = Some(proto::SubscribeFrame { space, ..Default::default() });
            encode(&proto::WatchRequest { subscription })
        }
        "SyncService/GetStatus" => encode(&proto::GetStatusRequest { space, ..Default::default() }),
        other => small_request(other, space),
    }
}

fn small_request(method: &str, space: String) -> Vec<u8> {
    let mutation = put_in("task", &uuid::Uuid::new_v4().to_string(), "1", "{}");
    let policy = Some(proto::Policy { collection: "other".into(), ..Default::default() });
    let id = "nothing".to_owned();
    match method {
        "ConflictService/ListConflicts" => {
            encode(&proto::ListConflictsRequest { space, ..Default::default() })
        }
        "ConflictService/GetConflict" => {
            encode(&proto::GetConflictRequest { space, conflict_id: id, ..Default::default() })
        }
        "ConflictService/ResolveConflict" => encode(&proto::ResolveConflictRequest {
            space,
            mutation_id: "r".into(),
            conflict_id: id,
            resolution: Some(Resolution::KeepClient(proto::KeepClient {})),
            ..Default::default()
        }),
        "PolicyService/SetPolicy" => {
            encode(&proto::SetPolicyRequest { policy, expected_version: Some(77) })
        }
        "PolicyService/GetPolicy" => {
            encode(&proto::GetPolicyRequest { collection: "none".into(), ..Default::default() })
        }
        "PolicyService/ListPolicies" => encode(&proto::ListPoliciesRequest::default()),
        "PolicyService/DeletePolicy" => {
            encode(&proto::DeletePolicyRequest { collection: "none".into(), ..Default::default() })
        }
        "PolicyService/PreviewPolicy" => {
            let policy = Some(proto::Policy { collection: "task".into(), ..Default::default() });
            encode(&proto::PreviewPolicyRequest { space, policy, ..Default::default() })
        }
        "QueueService/Enqueue" => {
            let (device, mutations) = ("phone".into(), vec![mutation]);
            encode(&proto::EnqueueRequest { space, device, mutations })
        }
        "QueueService/ListQueued" => {
            encode(&proto::ListQueuedRequest { space, ..Default::default() })
        }
        "QueueService/RetryQueued" => {
            encode(&proto::RetryQueuedRequest { space, mutation_id: id, ..Default::default() })
        }
        "QueueService/DiscardQueued" => {
            encode(&proto::DiscardQueuedRequest { space, mutation_id: id })
        }
        "QueueService/MarkSynced" => {
            encode(&proto::MarkSyncedRequest { space, mutation_ids: vec![id] })
        }
        "QueueService/ClearSynced" => encode(&proto::ClearSyncedRequest { space }),
        other => space_request(other, space),
    }
}

fn space_request(method: &str, space: String) -> Vec<u8> {
    let key = Some(proto::RecordKey { collection: "task".into(), id: "1".into() });
    match method {
        "SpaceService/CreateSpace" => encode(&proto::CreateSpaceRequest {
            request_id: "r".into(),
            title: "Theirs".into(),
            ..Default::default()
        }),
        "SpaceService/GetSpace" => encode(&proto::GetSpaceRequest { space }),
        "SpaceService/ListSpaces" => {
            encode(&proto::ListSpacesRequest { all: true, ..Default::default() })
        }
        "SpaceService/RenameSpace" => {
            encode(&proto::RenameSpaceRequest { space, title: "Ours".into() })
        }
        "SpaceService/SetMember" => {
            let (user, role) = ("reader".into(), Role::Reader.into());
            encode(&proto::SetMemberRequest { space, user, role, collections: Vec::new() })
        }
        "SpaceService/RemoveMember" => {
            encode(&proto::RemoveMemberRequest { space, user: "nobody".into() })
        }
        "SpaceService/ListMembers" => {
            encode(&proto::ListMembersRequest { space, ..Default::default() })
        }
        "SpaceService/ListAuditEntries" => {
            encode(&proto::ListAuditEntriesRequest { space, ..Default::default() })
        }
        "SpaceService/ListRecordHistory" => {
            encode(&proto::ListRecordHistoryRequest { space, key, ..Default::default() })
        }
        "SpaceService/UndeleteRecord" => encode(&proto::UndeleteRecordRequest {
            space,
            mutation_id: "u".into(),
            key,
            ..Default::default()
        }),
        "SpaceService/ExportSpace" => encode(&proto::ExportSpaceRequest { space }),
        "SpaceService/ExportUser" => encode(&proto::ExportUserRequest { user: "alice".into() }),
        "SpaceService/ImportSpace" => {
            let begin = proto::ImportSpaceBegin { space, id: "i".into(), ..Default::default() };
            encode(&proto::ImportSpaceRequest { part: Some(ImportPart::Begin(begin)) })
        }
        // Without the name it erases nothing.
        "SpaceService/EraseSpace" => {
            encode(&proto::EraseSpaceRequest { space, ..Default::default() })
        }
        "SpaceService/EraseUser" => {
            encode(&proto::EraseUserRequest { user: "alice".into(), ..Default::default() })
        }
        other => panic!("a new RPC: give a request for {other}"),
    }
}

fn encode(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}
