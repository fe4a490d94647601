//! Policies from the wire.

use super::{Violations, done, note, one, page_size};
use crate::app::Condition;
use crate::domain::{CollectionName, OTHERS, Policy};
use crate::rpc::proto;
use crate::rpc::rules::parse_policy;

/// The policy to set, and when.
pub(in crate::rpc) fn policy_to_set(
    wire: &proto::SetPolicyRequest,
) -> Result<((CollectionName, Policy), Condition), Violations> {
    let mut violations = Vec::new();
    let policy = policy(wire.policy.as_ref()).map_err(|it| violations.extend(it)).ok();
    let condition = condition(wire.expected_version).map_err(|it| violations.extend(it)).ok();
    done(policy.zip(condition), violations)
}

/// The collection whose policy is to be deleted, and when.
pub(in crate::rpc) fn policy_to_delete(
    wire: &proto::DeletePolicyRequest,
) -> Result<(CollectionName, Condition), Violations> {
    let mut violations = Vec::new();
    let collection = CollectionName::parse(&wire.collection);
    let collection = note(&mut violations, "collection", collection);
    let condition = condition(wire.expected_version).map_err(|it| violations.extend(it)).ok();
    done(collection.zip(condition), violations)
}

/// A collection, and a version of its policy if not the last one is meant.
pub(in crate::rpc) fn policy_version(
    wire: &proto::GetPolicyRequest,
) -> Result<(CollectionName, Option<i64>), Violations> {
    let mut violations = Vec::new();
    let collection = CollectionName::parse(&wire.collection);
    let collection = note(&mut violations, "collection", collection);
    let version = match wire.version {
        0 => Ok(None),
        version if version > 0 => Ok(Some(version)),
        _ => Err("must not be negative".to_owned()),
    };
    let version = note(&mut violations, "version", version);
    done(collection.zip(version), violations)
}

/// The policy to preview, and on how many conflicts and writes.
pub(in crate::rpc) fn preview(
    wire: &proto::PreviewPolicyRequest,
) -> Result<(CollectionName, Policy, usize), Violations> {
    let mut violations = Vec::new();
    let policy = policy(wire.policy.as_ref()).map_err(|it| violations.extend(it)).ok();
    if policy.as_ref().is_some_and(|(collection, _)| collection.as_str() == OTHERS) {
        violations.extend(one("policy.collection", "must be a single one for a preview"));
    }
    let entries_max =
        page_size(wire.limit).map_err(|_negative| one("limit", "must not be negative"));
    let entries_max = entries_max.map_err(|it| violations.extend(it)).ok();
    let parsed = policy.zip(entries_max);
    done(parsed.map(|((collection, policy), max)| (collection, policy, max)), violations)
}

fn condition(expected_version: Option<i64>) -> Result<Condition, Violations> {
    match expected_version {
        None => Ok(Condition::Always),
        Some(version) if version >= 0 => Ok(Condition::Version(version)),
        Some(_) => Err(one("expected_version", "must not be negative")),
    }
}

fn policy(wire: Option<&proto::Policy>) -> Result<(CollectionName, Policy), Violations> {
    parse_policy(wire.ok_or_else(|| one("policy", "must be given"))?)
}
