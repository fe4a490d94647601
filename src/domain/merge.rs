//! Merges what a client changed into what a server has, value by value. Each
//! value that only one side changed is taken from that side; where both changed
//! one, its rule or the fallback decides.
//!
//! With versions deciding, the result is what applying all writes in the order
//! of their versions would give, in whatever order they arrive.

mod claims;
mod edits;
mod lists;
mod text;

use std::collections::BTreeSet;
use std::ops::Bound;

use serde_json::{Map, Value};

use super::document::JsonObject;
use super::fields::{put_at, remove_at, value_at};
use super::{Fallback, FieldRule, FieldRuleKind, Policy, Strategy, Version, number};
use text::{Merged as MergedText, Side};

use claims::Claim;
pub(super) use claims::Claims;
use edits::parent;

pub(super) use edits::{Edit, Path, To, about, edits};

/// Who is to win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Winner {
    Server,
    Client,
    /// Somebody has to decide.
    Nobody,
}

/// Two sides of a document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merge<'a> {
    pub(super) policy: &'a Policy,
    /// The document as the client had it before its edits.
    pub(super) base: &'a JsonObject,
    /// Without, no difference to it can be told.
    pub(super) base_known: bool,
    pub(super) server: &'a JsonObject,
    /// What was written to the server's side since the base.
    pub(super) claims: &'a Claims,
    /// The version of the client's edits.
    pub(super) claimed: &'a Version,
    /// Who wins against a deletion that was undone since.
    pub(super) deletion: Winner,
}

/// What the edits come to.
#[derive(Clone, Debug, Default)]
pub(super) struct Merged {
    pub(super) fields: JsonObject,
    /// Where both sides changed the same value.
    pub(super) overlaps: Vec<Path>,
    /// Where both sides count in what became of it.
    pub(super) joined: BTreeSet<Path>,
    /// Some overlap is left to somebody.
    pub(super) open: bool,
    /// All edits were of values that the server's side has later ones for.
    pub(super) is_void: bool,
}

impl Merged {
    /// Whether both sides count in what is there, around it, or inside it.
    pub(super) fn is_joined(&self, path: &[String]) -> bool {
        let mut around = (1..=path.len()).filter_map(|length| path.get(..length));
        let from = (Bound::Excluded(path), Bound::Unbounded);
        let inside = self.joined.range::<[String], _>(from).next();
        around.any(|it| self.joined.contains(it)) || inside.is_some_and(|it| it.starts_with(path))
    }
}

impl Policy {
    /// The rule for the value at a path: the longest that holds there.
    pub(super) fn rule(&self, path: &[String]) -> Option<&FieldRule> {
        let matching = self.fields.iter().filter_map(|rule| Some((rule.path.matches(path)?, rule)));
        matching.max_by_key(|(closeness, _)| *closeness).map(|(_, rule)| rule)
    }

    /// What decides an overlap that no rule is for.
    pub(super) fn fallback(&self) -> Fallback {
        match self.strategy {
            Strategy::Merge | Strategy::Additive => self.fallback,
            Strategy::Auto | Strategy::LastWriteWins | Strategy::HighestVersionWins => {
                Fallback::LastWriteWins
            }
            Strategy::FirstWriteWins | Strategy::ServerWins => Fallback::ServerWins,
            Strategy::ClientWins => Fallback::ClientWins,
            Strategy::Manual => Fallback::Manual,
        }
    }
}

/// Who wins between two versions of a value.
pub(super) fn by_fallback(fallback: Fallback, server: &Version, client: &Version) -> Winner {
    match fallback {
        Fallback::LastWriteWins => later(server, client),
        Fallback::ServerWins => Winner::Server,
        Fallback::ClientWins => Winner::Client,
        Fallback::Manual => Winner::Nobody,
    }
}

/// The later of two; the server's if they are the same.
pub(super) fn later(server: &Version, client: &Version) -> Winner {
    if client > server { Winner::Client } else { Winner::Server }
}

impl Merge<'_> {
    /// Applies the client's edits to the server's side.
    pub(super) fn run(&self, edits: &[Edit]) -> Merged {
        let fields = self.server.clone();
        let mut merged = Merged { fields, is_void: !edits.is_empty(), ..Merged::default() };
        for edit in edits {
            self.apply(edit, &mut merged);
        }
        merged
    }

    fn apply(&self, edit: &Edit, merged: &mut Merged) {
        let claimed = edit.claim();
        let covering: Vec<_> = self.claims.covering(&claimed).collect();
        let below: Vec<_> = self.claims.below(&claimed).collect();
        let there = value_at(self.server, &edit.path);
        if covering.is_empty() && below.is_empty() {
            merged.is_void = false;
            return write(&mut merged.fields, edit);
        }
        let winner = |(path, version): &Claim<'_>| {
            if path.is_empty() { self.deletion } else { self.winner(&edit.path, path, version) }
        };
        let covered: Vec<_> = covering.iter().map(winner).collect();
        let is_object = |path| value_at(self.server, path).is_some_and(Value::is_object);
        let agreed = match edit.to {
            To::Object => is_object(&edit.path),
            _ => there == edit.value().as_ref() && parent(&edit.path).is_none_or(is_object),
        };
        // Two equal amounts are both to count.
        let adds = self.rule_kind(&edit.path) == Some(FieldRuleKind::Sum);
        if agreed && !adds {
            merged.is_void &= covered.contains(&Winner::Server);
            return;
        }
        let outer = covering.iter().find(|(path, _)| !path.is_empty());
        merged.overlaps.push(outer.map_or(&edit.path[..], |(path, _)| about(path)).to_vec());
        let version = covering.iter().chain(&below).map(|(_, version)| *version).max();
        match version.and_then(|version| self.join(edit, there, version)) {
            Some(Ok(Joined { value, whole })) => {
                merged.is_void &= there == Some(&value) && !whole;
                merged.joined.extend(whole.then(|| edit.path.clone()));
                return put_at(&mut merged.fields, &edit.path, value);
            }
            Some(Err(Open)) => return merged.open = true,
            None => {}
        }
        let kept: Vec<_> = below.iter().map(|claim| (claim.0, winner(claim))).collect();
        let mut winners = covered.iter().chain(kept.iter().map(|(_, winner)| winner));
        merged.open |= winners.any(|it| *it == Winner::Nobody);
        if covered.contains(&Winner::Server) {
            return;
        }
        merged.is_void = false;
        write(&mut merged.fields, edit);
        for (path, _) in kept.iter().filter(|(_, winner)| *winner == Winner::Server) {
            self.keep(path, &mut merged.fields);
        }
    }

    /// Puts what the server's side has at a claimed path over what was written
    /// around it.
    fn keep(&self, claimed: &Path, fields: &mut JsonObject) {
        let path = about(claimed);
        match value_at(self.server, path) {
            // Of an object that was begun there is no more to keep than that.
            Some(Value::Object(_)) if path.len() < claimed.len() => begin_at(fields, path),
            Some(value) => put_at(fields, path, value.clone()),
            None => {
                let parent = parent(path);
                let there = parent.and_then(|parent| value_at(self.server, parent));
                if parent.is_none() || there.is_some_and(Value::is_object) {
                    take_at(fields, path);
                }
            }
        }
    }

    fn rule_kind(&self, path: &[String]) -> Option<FieldRuleKind> {
        self.policy.rule(path).map(|rule| rule.kind)
    }

    /// Who wins where the client has changed `edited` and the server's side
    /// `claimed`, of which one lies in the other. The deeper one's rule counts.
    fn winner(&self, edited: &[String], claimed: &[String], version: &Version) -> Winner {
        let claimed = about(claimed);
        let deeper = if edited.len() >= claimed.len() { edited } else { claimed };
        match self.rule_kind(deeper) {
            Some(FieldRuleKind::Server) => Winner::Server,
            Some(FieldRuleKind::Client) => Winner::Client,
            Some(FieldRuleKind::Latest) => later(version, self.claimed),
            Some(FieldRuleKind::Manual) => Winner::Nobody,
            Some(
                FieldRuleKind::Max
                | FieldRuleKind::Min
                | FieldRuleKind::Sum
                | FieldRuleKind::Union
                | FieldRuleKind::Text,
            )
            | None => by_fallback(self.policy.fallback(), version, self.claimed),
        }
    }

    /// One value made of both sides' values, if the rule for it is of that kind
    /// and they are of the right kind for it.
    fn join(
        &self,
        edit: &Edit,
        there: Option<&Value>,
        version: &Version,
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
                Some(self.join_lists(&edit.path, key_field, (base, server, client), version))
            }
            (FieldRuleKind::Text, Value::String(server), Value::String(client)) => {
                self.join_texts(base?.as_str()?, server, client, version)
            }
            _ => None,
        }
    }

    fn join_texts(
        &self,
        base: &str,
        server: &str,
        client: &str,
        version: &Version,
    ) -> Option<Result<Joined, Open>> {
        let client_is_later = later(version, self.claimed) == Winner::Client;
        let first = if client_is_later { Side::Server } else { Side::Client };
        let winner = match by_fallback(self.policy.fallback(), version, self.claimed) {
            Winner::Server => Some(Side::Server),
            Winner::Client => Some(Side::Client),
            Winner::Nobody => None,
        };
        match text::merge(base, server, client, winner, first) {
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
    ) -> Result<Joined, Open> {
        let mut whole = true;
        let by_key = key_field.map(|key_field| {
            lists::join_by_key(key_field, (base, server, client), |key, base, server, client| {
                let joined = self.join_items(path, key, (base, server, client), version)?;
                whole &= joined.whole;
                Ok(joined.value)
            })
        });
        let joined = match by_key.transpose()?.flatten() {
            Some(joined) => joined,
            None => lists::join(base, server, client),
        };
        Ok(Joined { value: Value::Array(joined), whole })
    }

    /// Merges an item of a list that both sides have, with the paths of its
    /// values below the list's.
    fn join_items(
        &self,
        list: &Path,
        key: &str,
        (base, server, client): (Option<&Value>, &Value, &Value),
        version: &Version,
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
        let merged = merge.run(&edits(&base, &client));
        if merged.open {
            return Err(Open);
        }
        let whole = merged.overlaps.len() == merged.joined.len();
        let value = value_at(&merged.fields, &way).cloned().unwrap_or(Value::Null);
        Ok(Joined { value, whole })
    }
}

/// Writes an edit, whatever is there.
fn write(fields: &mut JsonObject, edit: &Edit) {
    match &edit.to {
        To::Value(value) => put_at(fields, &edit.path, value.clone()),
        To::Nothing => take_at(fields, &edit.path),
        To::Object => begin_at(fields, &edit.path),
    }
}

/// Takes a value out of its object, which there is then.
fn take_at(fields: &mut JsonObject, path: &[String]) {
    if let Some(parent) = parent(path) {
        begin_at(fields, parent);
    }
    remove_at(fields, path);
}

/// Sees to it that there is an object.
fn begin_at(fields: &mut JsonObject, path: &[String]) {
    if !value_at(fields, path).is_some_and(Value::is_object) {
        put_at(fields, path, Value::Object(Map::new()));
    }
}

/// One value made of both sides'.
#[derive(Clone, Debug)]
struct Joined {
    value: Value,
    /// Nothing of either side was left out.
    whole: bool,
}

/// An overlap inside a value is left to somebody.
#[derive(Clone, Copy, Debug)]
struct Open;
