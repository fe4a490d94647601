//! One value made of both sides' values, where a rule, or the strategy, says how.

use serde_json::{Map, Value};

use super::claims::Claims;
use super::edits::{Edit, Path, To, edits};
use super::text::{Merged as MergedText, Side};
use super::{Merge, Winner, by_fallback, later, lists, text};
use crate::domain::document::JsonObject;
use crate::domain::fields::{put_at, value_at};
use crate::domain::{FieldRuleKind, Strategy, Version, number};

/// One value made of both sides'.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub(super) value: Value,
    /// Nothing of either side was left out.
    pub(super) whole: bool,
}

/// An overlap inside a value is left to somebody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open;

impl Merge<'_> {
    /// One value made of both sides' values, if the rule for it is of that kind
    /// and they are of the right kind for it.
    pub(super) fn join(
        &self,
        edit: &Edit,
        there: Option<&Value>,
        version: &Version,
        text_steps: &mut usize,
    ) -> Option<Result<Joined, Open>> {
        let base = value_at(self.base, &edit.path);
        let To::Value(client) = &edit.to else { return None };
        let server = there?;
        let rule = self.policy.rule(&edit.path);
        let (kind, key_field) = match rule {
            Some(rule) => (rule.kind, rule.key_field.as_deref()),
            None if self.policy.strategy == Strategy::Additive => (FieldRuleKind::Union, None),
            None => return None,
        };
        let chosen = |of_client: bool| {
            let value = if of_client { client.clone() } else { server.clone() };
            Some(Ok(Joined { value, whole: false }))
        };
        match (kind, server, client) {
            (FieldRuleKind::Max, Value::Number(server), Value::Number(client)) => {
                chosen(number::compare(client, server).is_gt())
            }
            (FieldRuleKind::Min, Value::Number(server), Value::Number(client)) => {
                chosen(number::compare(client, server).is_lt())
            }
            (FieldRuleKind::Max, Value::String(server), Value::String(client)) => {
                chosen(client > server)
            }
            (FieldRuleKind::Min, Value::String(server), Value::String(client)) => {
                chosen(client < server)
            }
            (FieldRuleKind::Sum, Value::Number(server), Value::Number(client))
                if self.base_known =>
            {
                let zero = serde_json::Number::from(0);
                let base = match base {
                    None => &zero,
                    Some(Value::Number(base)) => base,
                    Some(_) => return None,
                };
                let value = Value::Number(number::add_change(server, client, base)?);
                Some(Ok(Joined { value, whole: true }))
            }
            (FieldRuleKind::Union, Value::Array(server), Value::Array(client)) => {
                let base = base.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                let lists = (base, server.as_slice(), client.as_slice());
                Some(self.join_lists(&edit.path, key_field, lists, version, text_steps))
            }
            (FieldRuleKind::Text, Value::String(server), Value::String(client)) => {
                self.join_texts((base?.as_str()?, server, client), version, text_steps)
            }
            _ => None,
        }
    }

    fn join_texts(
        &self,
        (base, server, client): (&str, &str, &str),
        version: &Version,
        text_steps: &mut usize,
    ) -> Option<Result<Joined, Open>> {
        let client_is_later = later(version, self.claimed) == Winner::Client;
        let first = if client_is_later { Side::Server } else { Side::Client };
        let winner = match by_fallback(self.policy.fallback(), version, self.claimed) {
            Winner::Server => Some(Side::Server),
            Winner::Client => Some(Side::Client),
            Winner::Nobody => None,
        };
        match text::merge(base, server, client, (winner, first), text_steps) {
            MergedText::Text(text, whole) => Some(Ok(Joined { value: Value::String(text), whole })),
            MergedText::Open => Some(Err(Open)),
            MergedText::TooLong => None,
        }
    }

    fn join_lists(
        &self,
        path: &Path,
        key_field: Option<&str>,
        (base, server, client): (&[Value], &[Value], &[Value]),
        version: &Version,
        text_steps: &mut usize,
    ) -> Result<Joined, Open> {
        let mut whole = true;
        let by_key = key_field.map(|key_field| {
            lists::join_by_key(key_field, (base, server, client), |key, base, server, client| {
                let items = (base, server, client);
                let joined = self.join_items(path, key, items, version, text_steps)?;
                whole &= joined.whole;
                Ok(joined.value)
            })
        });
        let (joined, kept) = match by_key.transpose()?.flatten() {
            Some(joined) => joined,
            None => (lists::join(base, server, client), true),
        };
        Ok(Joined { value: Value::Array(joined), whole: whole && kept })
    }

    /// Merges an item of a list that both sides have, with the paths of its
    /// values below the list's.
    fn join_items(
        &self,
        list: &Path,
        key: &str,
        (base, server, client): (Option<&Value>, &Value, &Value),
        version: &Version,
        text_steps: &mut usize,
    ) -> Result<Joined, Open> {
        let (Value::Object(server), Value::Object(client)) = (server, client) else {
            // Without a key they are told apart by what they are.
            return Ok(Joined { value: server.clone(), whole: true });
        };
        let mut way = list.clone();
        way.push(key.to_owned());
        let whole = |fields: &JsonObject| {
            let mut document = Map::new();
            put_at(&mut document, &way, Value::Object(fields.clone()));
            document
        };
        let empty = Map::new();
        let (base, server, client) = (
            whole(base.and_then(Value::as_object).unwrap_or(&empty)),
            whole(server),
            whole(client),
        );
        let claims = Claims::between(&base, &server, version);
        let merge = Merge { base: &base, server: &server, claims: &claims, ..*self };
        let merged = merge.run_from(&edits(&base, &client), *text_steps);
        *text_steps = merged.text_steps;
        if merged.open {
            return Err(Open);
        }
        let whole = merged.overlaps.len() == merged.joined.len();
        let value = value_at(&merged.fields, &way).cloned().unwrap_or(Value::Null);
        Ok(Joined { value, whole })
    }
}
