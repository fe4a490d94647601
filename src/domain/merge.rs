//! Merges what a client changed into what a server has, value by value. Each
//! value that only one side changed is taken from that side; where both changed
//! one, its rule or the fallback decides.
//!
//! With versions deciding, the result is what applying all writes in the order
//! of their versions would give, in whatever order they arrive.

mod claims;
mod edits;
mod join;
mod lists;
mod text;

use std::collections::BTreeSet;
use std::ops::Bound;

use serde_json::{Map, Value};

use super::document::JsonObject;
use super::fields::{put_at, remove_at, value_at};
use super::{Fallback, FieldRule, FieldRuleKind, Policy, Strategy, Version};
use join::{Joined, Open};

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
    /// Steps that went into comparing texts.
    pub(super) text_steps: usize,
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
        self.run_from(edits, 0)
    }

    fn run_from(&self, edits: &[Edit], text_steps: usize) -> Merged {
        let (fields, is_void) = (self.server.clone(), !edits.is_empty());
        let mut merged = Merged { fields, is_void, text_steps, ..Merged::default() };
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
        let steps = &mut merged.text_steps;
        match version.and_then(|version| self.join(edit, there, version, steps)) {
            Some(Ok(Joined { value, whole })) => {
                let stays = there == Some(&value) && !whole;
                // A later one that lost by its rule is still the last that was said.
                merged.is_void &= stays && !covered.contains(&Winner::Client);
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
