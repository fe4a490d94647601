//! Policies from the wire, as the server is told them and as it tells them to clients: all that
//! is wrong with one, with the field's path.

use super::proto;
use crate::domain::{
    CollectionName, DeleteRule, Fallback, FieldRule, FieldRuleKind, Pattern, Pointer, Policy,
    PolicyMode, Schema, Strategy, Violation, limits,
};

/// A policy, with the collection that it is for, or all rules that it breaks.
pub fn parse_policy(wire: &proto::Policy) -> Result<(CollectionName, Policy), Vec<Violation>> {
    let mut found = Vec::new();
    let mut field =
        |name: &str, rule: String| found.push(Violation::new(format!("policy.{name}"), rule));
    let collection = CollectionName::parse(&wire.collection);
    let collection = collection.map_err(|rule| field("collection", rule)).ok();
    let strategy = strategy(wire.strategy).map_err(|rule| field("strategy", rule)).ok();
    let fallback = fallback(wire.fallback).map_err(|rule| field("fallback", rule)).ok();
    let deletes = deletes(wire.deletes).map_err(|rule| field("deletes", rule)).ok();
    let mode = mode(wire.mode).map_err(|rule| field("mode", rule)).ok();
    let version_field = given(&wire.version_field, Pointer::parse);
    let version_field = version_field.map_err(|rule| field("version_field", rule)).ok();
    let schema = given(&wire.json_schema, Schema::parse);
    let schema = schema.map_err(|rule| field("json_schema", rule)).ok();
    let retentions = [
        ("conflict_retention", &wire.conflict_retention),
        ("log_retention", &wire.log_retention),
        ("tombstone_retention", &wire.tombstone_retention),
    ];
    let retentions = retentions
        .map(|(name, span)| retention(span.as_ref()).map_err(|rule| field(name, rule)).ok());
    // The first of them, so that a huge list costs no more.
    let rules = wire.fields.iter().take(limits::POLICY_FIELDS_MAX + 1).enumerate();
    let fields = rules.map(|(index, wire)| rule(index, wire, &mut field)).collect::<Vec<_>>();
    let fields = fields.into_iter().collect::<Option<Vec<_>>>();
    let parsed = strategy.zip(fallback).zip(deletes).zip(mode).zip(version_field).zip(schema);
    let parsed = parsed.zip(fields);
    let policy = parsed.map(
        |((((((strategy, fallback), deletes), mode), version_field), schema), fields)| {
            let [conflict_retention_seconds, log_retention_seconds, tombstone_retention_seconds] =
                retentions.map(Option::flatten);
            Policy {
                strategy,
                fallback,
                deletes,
                mode,
                fields,
                version_field,
                schema,
                conflict_retention_seconds,
                log_retention_seconds,
                tombstone_retention_seconds,
            }
        },
    );
    for wrong in policy.iter().flat_map(Policy::violations) {
        field(&wrong.field, wrong.description);
    }
    match collection.zip(policy) {
        Some(parsed) if found.is_empty() => Ok(parsed),
        _ => Err(found),
    }
}

fn fallback(number: i32) -> Result<Fallback, String> {
    match strategy(number)? {
        Strategy::LastWriteWins => Ok(Fallback::LastWriteWins),
        Strategy::ServerWins => Ok(Fallback::ServerWins),
        Strategy::ClientWins => Ok(Fallback::ClientWins),
        Strategy::Manual => Ok(Fallback::Manual),
        _ => Err("must be LAST_WRITE_WINS, SERVER_WINS, CLIENT_WINS or MANUAL".into()),
    }
}

fn deletes(number: i32) -> Result<DeleteRule, String> {
    match proto::DeleteRule::try_from(number) {
        Ok(proto::DeleteRule::Unspecified) => Ok(DeleteRule::ByStrategy),
        Ok(proto::DeleteRule::DeleteWins) => Ok(DeleteRule::DeleteWins),
        Ok(proto::DeleteRule::UpdateWins) => Ok(DeleteRule::UpdateWins),
        Err(_unknown) => Err(format!("has no value {number}")),
    }
}

fn mode(number: i32) -> Result<PolicyMode, String> {
    match proto::PolicyMode::try_from(number) {
        Ok(proto::PolicyMode::Unspecified | proto::PolicyMode::Enforced) => {
            Ok(PolicyMode::Enforced)
        }
        Ok(proto::PolicyMode::Advisory) => Ok(PolicyMode::Advisory),
        Err(_unknown) => Err(format!("has no value {number}")),
    }
}

fn retention(wire: Option<&prost_types::Duration>) -> Result<Option<u64>, String> {
    // Beyond this no date can be told.
    const SECONDS_MAX: i64 = 100 * 366 * 86_400;
    match wire {
        None => Ok(None),
        Some(it) if it.nanos == 0 && (0..=SECONDS_MAX).contains(&it.seconds) => {
            Ok(u64::try_from(it.seconds).ok())
        }
        Some(_) => Err("must be whole seconds, from 0 to a hundred years".into()),
    }
}

fn rule(
    index: usize,
    wire: &proto::FieldRule,
    wrong: &mut impl FnMut(&str, String),
) -> Option<FieldRule> {
    use proto::FieldRuleKind as Wire;
    let path = Pattern::parse(&wire.path);
    let path = path.map_err(|rule| wrong(&format!("fields[{index}].path"), rule)).ok();
    let kind = match Wire::try_from(wire.kind) {
        Ok(Wire::Server) => Ok(FieldRuleKind::Server),
        Ok(Wire::Client) => Ok(FieldRuleKind::Client),
        Ok(Wire::Latest) => Ok(FieldRuleKind::Latest),
        Ok(Wire::Max) => Ok(FieldRuleKind::Max),
        Ok(Wire::Min) => Ok(FieldRuleKind::Min),
        Ok(Wire::Sum) => Ok(FieldRuleKind::Sum),
        Ok(Wire::Union) => Ok(FieldRuleKind::Union),
        Ok(Wire::Text) => Ok(FieldRuleKind::Text),
        Ok(Wire::Manual) => Ok(FieldRuleKind::Manual),
        Ok(Wire::Unspecified) => Err("must be given".to_owned()),
        Err(_unknown) => Err(format!("has no value {}", wire.kind)),
    };
    let kind = kind.map_err(|rule| wrong(&format!("fields[{index}].kind"), rule)).ok();
    let key_field = (!wire.key_field.is_empty()).then(|| wire.key_field.clone());
    path.zip(kind).map(|(path, kind)| FieldRule { path, kind, key_field })
}

/// A strategy; unspecified means `Manual`.
pub(super) fn strategy(number: i32) -> Result<Strategy, String> {
    use proto::Strategy as Wire;
    Ok(match Wire::try_from(number) {
        Ok(Wire::LastWriteWins) => Strategy::LastWriteWins,
        Ok(Wire::FirstWriteWins) => Strategy::FirstWriteWins,
        Ok(Wire::HighestVersionWins) => Strategy::HighestVersionWins,
        Ok(Wire::ServerWins) => Strategy::ServerWins,
        Ok(Wire::ClientWins) => Strategy::ClientWins,
        Ok(Wire::Merge) => Strategy::Merge,
        Ok(Wire::Additive) => Strategy::Additive,
        Ok(Wire::Unspecified | Wire::Manual) => Strategy::Manual,
        Ok(Wire::Auto) => Strategy::Auto,
        Err(_unknown) => return Err(format!("has no value {number}")),
    })
}

/// An empty text is none.
pub(super) fn given<T>(
    text: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}
