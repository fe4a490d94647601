//! What a collection does with concurrent writes, and which documents it takes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CollectionName, Pattern, Pointer, Schema, Violation, limits};

/// A collection's policy. Its serialised form is what the database and the
/// configuration file hold, so names in it never change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    pub strategy: Strategy,
    /// Where both sides changed the same value, for `Merge` and `Additive`.
    pub fallback: Fallback,
    /// An update beside a deletion.
    pub deletes: DeleteRule,
    pub mode: PolicyMode,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldRule>,
    /// The number that `HighestVersionWins` compares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_field: Option<Pointer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
    /// None = for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict_retention_seconds: Option<u64>,
    /// Of changes that a later one has replaced; None = the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_retention_seconds: Option<u64>,
    /// None = the server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tombstone_retention_seconds: Option<u64>,
}

/// What decides between two writes, neither of which knew the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    LastWriteWins,
    FirstWriteWins,
    HighestVersionWins,
    ServerWins,
    ClientWins,
    Merge,
    Additive,
    #[default]
    Manual,
    Auto,
}

/// What decides where both sides changed the same value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    LastWriteWins,
    ServerWins,
    ClientWins,
    #[default]
    Manual,
}

/// What becomes of an update beside a deletion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteRule {
    #[default]
    ByStrategy,
    DeleteWins,
    UpdateWins,
}

/// Whether a policy decides, or only tells what it would.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyMode {
    #[default]
    Enforced,
    Advisory,
}

/// A rule for the values at some paths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldRule {
    pub path: Pattern,
    pub kind: FieldRuleKind,
    /// Tells the items of a list apart, with `Union`; None = by value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_field: Option<String>,
}

/// What decides where both sides changed a value that has a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldRuleKind {
    Server,
    Client,
    Latest,
    Max,
    Min,
    Sum,
    Union,
    Text,
    Manual,
}

/// How long what is kept, where no policy says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Changes that later ones have replaced: so long may cursors resume.
    pub log: Duration,
    pub tombstones: Duration,
    /// Devices that have not acknowledged are waited for so much longer.
    pub device_wait: Duration,
}

impl Policy {
    /// What of it makes no sense together.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut wrong = |field: &str, rule: &str| found.push(Violation::new(field, rule));
        let by_value = matches!(self.strategy, Strategy::Merge | Strategy::Additive);
        if self.fallback != Fallback::default() && !by_value {
            wrong("fallback", "goes with the strategies merge and additive only");
        }
        let field = self.version_field.as_ref();
        if field.is_some_and(|it| it.keys().iter().any(|key| key.contains('\0'))) {
            wrong("version_field", "contains the character U+0000, which no document has");
        }
        if field.is_some() && self.strategy != Strategy::HighestVersionWins {
            wrong("version_field", "goes with the strategy highest_version_wins only");
        }
        if self.fields.len() > limits::POLICY_FIELDS_MAX {
            let (count, max) = (self.fields.len(), limits::POLICY_FIELDS_MAX);
            wrong("fields", &format!("has {count} rules; at most {max}"));
        }
        for (index, rule) in self.fields.iter().enumerate() {
            let earlier = self.fields.iter().take(index);
            if earlier.filter(|it| it.path == rule.path).count() > 0 {
                wrong(&format!("fields[{index}].path"), "has a rule already");
            }
            match &rule.key_field {
                Some(_) if rule.kind != FieldRuleKind::Union => {
                    wrong(&format!("fields[{index}].key_field"), "goes with union only");
                }
                Some(field) if field.is_empty() || field.contains('\0') => {
                    let rule = "must be a key that a document can have";
                    wrong(&format!("fields[{index}].key_field"), rule);
                }
                _ => {}
            }
        }
        let (bytes, max) = (self.size_bytes(), limits::POLICY_BYTES_MAX);
        if bytes > max {
            found.push(Violation::new(
                "fields",
                format!("make a policy of {bytes} bytes; at most {max}"),
            ));
        }
        found
    }

    /// What it takes when it is stored, about.
    fn size_bytes(&self) -> usize {
        serde_json::to_string(self).map_or(usize::MAX, |text| text.len())
    }
}

/// A policy as it was set.
#[derive(Clone, Debug, PartialEq)]
pub struct SetPolicy {
    /// Of which collection, or of all others.
    pub collection: CollectionName,
    pub policy: Policy,
    /// Counts how often the collection's policy was set or deleted.
    pub version: i64,
}

/// All policies, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    by_collection: HashMap<CollectionName, Arc<SetPolicy>>,
    /// For collections without their own.
    others: Option<Arc<SetPolicy>>,
}

/// The name that stands for all collections without a policy of their own.
pub const OTHERS: &str = "*";

impl PolicySet {
    /// Puts a policy in.
    pub fn set(&mut self, policy: Arc<SetPolicy>) {
        if policy.collection.as_str() == OTHERS {
            self.others = Some(policy);
        } else {
            self.by_collection.insert(policy.collection.clone(), policy);
        }
    }

    /// All that are set under a name of their own.
    pub fn all(&self) -> impl Iterator<Item = &Arc<SetPolicy>> {
        self.by_collection.values()
    }

    /// The one that holds for all other collections.
    pub fn others(&self) -> Option<&Arc<SetPolicy>> {
        self.others.as_ref()
    }

    /// The policy that is set under a name, if one is.
    pub fn own(&self, collection: &CollectionName) -> Option<&Arc<SetPolicy>> {
        match collection.as_str() {
            OTHERS => self.others.as_ref(),
            _ => self.by_collection.get(collection),
        }
    }

    /// The policy that holds for a collection, if any does.
    pub fn of(&self, collection: &CollectionName) -> Option<&Arc<SetPolicy>> {
        self.own(collection).or(self.others.as_ref())
    }
}
