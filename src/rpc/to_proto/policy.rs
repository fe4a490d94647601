//! Policies to the wire.

use super::{conflict, key, strategy, timestamp, violations};
use crate::app::StoredPolicy;
use crate::domain::{
    DeleteRule, Fallback, FieldRule, FieldRuleKind, Pointer, PolicyMode, Preview, Schema, Strategy,
    Verdict,
};
use crate::rpc::proto;

/// A policy; None if it was deleted.
pub(in crate::rpc) fn policy(stored: &StoredPolicy) -> Option<proto::Policy> {
    let policy = stored.policy.as_ref()?;
    Some(proto::Policy {
        collection: stored.collection.as_str().to_owned(),
        strategy: strategy(policy.strategy).into(),
        fallback: fallback(policy.fallback).into(),
        deletes: deletes(policy.deletes).into(),
        fields: policy.fields.iter().map(rule).collect(),
        mode: mode(policy.mode).into(),
        version_field: policy.version_field.as_ref().map_or_else(String::new, Pointer::to_string),
        json_schema: policy.schema.as_ref().map_or("", Schema::as_str).to_owned(),
        conflict_retention: policy.conflict_retention_seconds.map(seconds),
        log_retention: policy.log_retention_seconds.map(seconds),
        tombstone_retention: policy.tombstone_retention_seconds.map(seconds),
        version: stored.version,
        author: stored.author.clone().unwrap_or_default(),
        update_time: Some(timestamp(stored.set_at)),
    })
}

fn seconds(seconds: u64) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

fn fallback(fallback: Fallback) -> proto::Strategy {
    strategy(match fallback {
        Fallback::LastWriteWins => Strategy::LastWriteWins,
        Fallback::ServerWins => Strategy::ServerWins,
        Fallback::ClientWins => Strategy::ClientWins,
        Fallback::Manual => Strategy::Manual,
    })
}

fn deletes(deletes: DeleteRule) -> proto::DeleteRule {
    match deletes {
        DeleteRule::ByStrategy => proto::DeleteRule::Unspecified,
        DeleteRule::DeleteWins => proto::DeleteRule::DeleteWins,
        DeleteRule::UpdateWins => proto::DeleteRule::UpdateWins,
    }
}

fn mode(mode: PolicyMode) -> proto::PolicyMode {
    match mode {
        PolicyMode::Enforced => proto::PolicyMode::Enforced,
        PolicyMode::Advisory => proto::PolicyMode::Advisory,
    }
}

fn rule(rule: &FieldRule) -> proto::FieldRule {
    let kind = match rule.kind {
        FieldRuleKind::Server => proto::FieldRuleKind::Server,
        FieldRuleKind::Client => proto::FieldRuleKind::Client,
        FieldRuleKind::Latest => proto::FieldRuleKind::Latest,
        FieldRuleKind::Max => proto::FieldRuleKind::Max,
        FieldRuleKind::Min => proto::FieldRuleKind::Min,
        FieldRuleKind::Sum => proto::FieldRuleKind::Sum,
        FieldRuleKind::Union => proto::FieldRuleKind::Union,
        FieldRuleKind::Text => proto::FieldRuleKind::Text,
        FieldRuleKind::Manual => proto::FieldRuleKind::Manual,
    };
    proto::FieldRule {
        path: rule.path.to_string(),
        kind: kind.into(),
        key_field: rule.key_field.clone().unwrap_or_default(),
    }
}

/// What a policy would have done.
pub(in crate::rpc) fn preview(preview: &Preview) -> proto::PreviewPolicyResponse {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let decision = |verdict: Option<Verdict>| {
        verdict.map_or(proto::ConflictDecision::Rejected, conflict::decision)
    };
    let changed = preview.changed.iter().map(|it| proto::PreviewedConflict {
        conflict_id: it.id.as_str().to_owned(),
        key: Some(key(&it.key)),
        decision: decision(Some(it.decision)).into(),
        preview: decision(it.preview).into(),
        lost_paths: it.lost.iter().map(ToString::to_string).collect(),
    });
    let invalid = preview.invalid.iter().map(|it| proto::PreviewedWrite {
        revision: it.revision.get(),
        key: Some(key(&it.key)),
        violations: violations(&it.violations),
    });
    proto::PreviewPolicyResponse {
        conflicts: count(preview.conflicts),
        applied: count(preview.applied),
        merged: count(preview.merged),
        superseded: count(preview.superseded),
        opened: count(preview.opened),
        rejected: count(preview.rejected),
        changed: changed.collect(),
        writes: count(preview.writes),
        invalid_writes: count(preview.invalid_writes),
        invalid: invalid.collect(),
    }
}
