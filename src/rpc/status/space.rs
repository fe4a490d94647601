//! What is wrong with somebody's way into a space, or with its members.

use tonic::{Code, Status};

use super::{QUOTA_RETRY, retry_after, status};
use crate::domain::{CollectionName, Right, Usage, limits};

pub(super) fn right_not_granted(right: Right) -> Status {
    let message = match right {
        Right::Read => "neither the token nor a membership lets you read in the space",
        Right::Write => "neither the token nor a membership lets you write in the space",
        Right::Admin => "this takes an admin of the space",
    };
    status(Code::PermissionDenied, "PERMISSION_DENIED", message, [("right", right.to_string())])
}

pub(super) fn collection_not_granted(collection: &CollectionName) -> Status {
    let message = "the membership of the space is limited to other collections";
    let collection = [("collection", collection.to_string())];
    status(Code::PermissionDenied, "PERMISSION_DENIED", message, collection)
}

pub(super) fn whole_space_not_granted() -> Status {
    let message = "this concerns the whole space, and the membership is limited to collections";
    status(Code::PermissionDenied, "PERMISSION_DENIED", message, [])
}

pub(super) fn access_changed() -> Status {
    let message = "what the membership extends to has changed; begin again";
    status(Code::Aborted, "ACCESS_CHANGED", message, [])
}

pub(super) fn exists() -> Status {
    let message = "there is a space of this id already";
    status(Code::AlreadyExists, "ALREADY_EXISTS", message, [])
}

pub(super) fn private() -> Status {
    let message = "the space is private: it has no members; create a shared one";
    status(Code::FailedPrecondition, "PRIVATE_SPACE", message, [])
}

pub(super) fn last_admin() -> Status {
    let message = "this is the space's last admin; make somebody else one, or erase it";
    status(Code::FailedPrecondition, "LAST_ADMIN", message, [])
}

pub(super) fn too_many_members() -> Status {
    let (members, spaces) = (limits::SPACE_MEMBERS_MAX, limits::USER_SPACES_MAX);
    let message =
        format!("a space has {members} members at most, and a user is one of {spaces} spaces");
    status(Code::ResourceExhausted, "TOO_MANY_MEMBERS", message, [])
}

pub(super) fn too_many_subscriptions() -> Status {
    let message = "the space has as many subscriptions as it may; see GetStatus";
    retry_after(Code::ResourceExhausted, "QUOTA_EXCEEDED", message, QUOTA_RETRY, [])
}

pub(super) fn over_quota(used: Usage, quota: Usage) -> Status {
    let message = format!(
        "the space holds {} records with {} bytes, and may hold {} with {} (0 = any); delete some",
        used.records, used.bytes, quota.records, quota.bytes
    );
    let numbers = [
        ("records", used.records.to_string()),
        ("bytes", used.bytes.to_string()),
        ("records_max", quota.records.to_string()),
        ("bytes_max", quota.bytes.to_string()),
    ];
    retry_after(Code::ResourceExhausted, "QUOTA_EXCEEDED", message, QUOTA_RETRY, numbers)
}
