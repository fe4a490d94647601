//! What was written to a record since the base, by path: which version claims it.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use super::edits::{Path, about, edits, parent};
use crate::domain::document::JsonObject;
use crate::domain::{Document, Policy, Step, Version};

/// The highest version that claims each path. A claim covers all that lies below.
#[derive(Clone, Debug, Default)]
pub(in crate::domain) struct Claims {
    by_path: BTreeMap<Path, Version>,
    /// The last version that is not all about values that have rules.
    unruled: Option<Version>,
}

/// A path and the version that claims it. The empty path is a deletion.
pub(in crate::domain) type Claim<'c> = (&'c Path, &'c Version);

impl Claims {
    /// What the steps claim that the client had not seen.
    pub(in crate::domain) fn of(policy: &Policy, base: Option<&Document>, steps: &[Step]) -> Self {
        let mut claims = Self::default();
        let mut before = base;
        for step in steps {
            // What was seen is not even read: a device may have queued a thousand.
            if !step.seen {
                let paths = paths(before, step);
                if !by_rules(policy, &paths) {
                    claims.unruled = claims.unruled.max(Some(step.claimed.clone()));
                }
                paths.into_iter().for_each(|path| claims.add(path, &step.claimed));
            }
            before = step.document.as_ref();
        }
        claims
    }

    /// What one write of this version claims, which made one document of another.
    pub(super) fn between(before: &JsonObject, after: &JsonObject, version: &Version) -> Self {
        let mut claims = Self::default();
        difference(before, after).for_each(|path| claims.add(path, version));
        claims
    }

    fn add(&mut self, path: Path, version: &Version) {
        let claim = self.by_path.entry(path).or_insert_with(|| version.clone());
        if *claim < *version {
            *claim = version.clone();
        }
    }

    /// All claims.
    pub(in crate::domain) fn iter(&self) -> impl Iterator<Item = Claim<'_>> {
        self.by_path.iter()
    }

    /// The last version of a write that rules for values do not decide alone.
    pub(in crate::domain) fn unruled(&self) -> Option<&Version> {
        self.unruled.as_ref()
    }

    /// The last deletion of the whole.
    pub(in crate::domain) fn deletion(&self) -> Option<&Version> {
        self.by_path.get(&Path::new())
    }

    /// Claims of the path, of what it lies in, and of the whole.
    pub(super) fn covering<'c>(&'c self, path: &'c [String]) -> impl Iterator<Item = Claim<'c>> {
        let lengths = 0..=path.len();
        lengths.filter_map(|length| self.by_path.get_key_value(path.get(..length)?))
    }

    /// Claims of what lies below the path.
    pub(super) fn below<'c>(&'c self, path: &'c [String]) -> impl Iterator<Item = Claim<'c>> {
        let from = (Bound::Excluded(path), Bound::Unbounded);
        self.by_path.range::<[String], _>(from).take_while(move |(it, _)| it.starts_with(path))
    }
}

/// Whether rules decide all that is claimed. That something is an object is said by
/// the values in it as well, and then counts with them.
fn by_rules(policy: &Policy, paths: &[Path]) -> bool {
    let inside: HashSet<_> = paths.iter().filter_map(|path| parent(about(path))).collect();
    let counts = |path: &&Path| about(path).len() == path.len() || !inside.contains(about(path));
    let mut counting = paths.iter().filter(counts).peekable();
    counting.peek().is_some() && counting.all(|path| policy.rule(about(path)).is_some())
}

/// What a step claims.
fn paths(before: Option<&Document>, step: &Step) -> Vec<Path> {
    match (&step.document, &step.paths) {
        (None, _) => vec![Path::new()],
        (Some(_), Some(paths)) => paths.iter().map(|it| it.keys().to_vec()).collect(),
        (Some(after), None) => {
            let before = before.map(Document::fields).unwrap_or_default();
            difference(&before, &after.fields()).collect()
        }
    }
}

/// What a write claims that made one document of another.
fn difference(before: &JsonObject, after: &JsonObject) -> impl Iterator<Item = Path> {
    edits(before, after).into_iter().flat_map(|edit| edit.claims().collect::<Vec<_>>())
}
