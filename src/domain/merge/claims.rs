//! What was written to a record since the base, by path: which version claims it.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::edits::{Path, edits};
use crate::domain::document::JsonObject;
use crate::domain::{Document, Step, Version};

/// The highest version that claims each path. A claim covers all that lies below.
#[derive(Clone, Debug, Default)]
pub(in crate::domain) struct Claims(BTreeMap<Path, Version>);

/// A path and the version that claims it. The empty path is a deletion.
pub(in crate::domain) type Claim<'c> = (&'c Path, &'c Version);

impl Claims {
    /// What the steps claim that the client had not seen.
    pub(in crate::domain) fn of(base: Option<&Document>, steps: &[Step]) -> Self {
        let mut claims = Self::default();
        let mut before = base;
        for step in steps {
            match (&step.document, &step.paths) {
                // Not even read: a device may have queued a thousand.
                _ if step.seen => {}
                (None, _) => claims.add(Vec::new(), &step.claimed),
                (Some(_), Some(paths)) => {
                    paths.iter().for_each(|it| claims.add(it.keys().to_vec(), &step.claimed));
                }
                (Some(after), None) => {
                    let before = before.map(Document::fields).unwrap_or_default();
                    claims.add_difference(&before, &after.fields(), &step.claimed);
                }
            }
            before = step.document.as_ref();
        }
        claims
    }

    /// What one write of this version claims, which made one document of another.
    pub(super) fn between(before: &JsonObject, after: &JsonObject, version: &Version) -> Self {
        let mut claims = Self::default();
        claims.add_difference(before, after, version);
        claims
    }

    fn add_difference(&mut self, before: &JsonObject, after: &JsonObject, version: &Version) {
        for edit in edits(before, after) {
            edit.claims().for_each(|path| self.add(path, version));
        }
    }

    fn add(&mut self, path: Path, version: &Version) {
        let claim = self.0.entry(path).or_insert_with(|| version.clone());
        if *claim < *version {
            *claim = version.clone();
        }
    }

    /// All claims.
    pub(in crate::domain) fn iter(&self) -> impl Iterator<Item = Claim<'_>> {
        self.0.iter()
    }

    /// The last deletion of the whole.
    pub(in crate::domain) fn deletion(&self) -> Option<&Version> {
        self.0.get(&Path::new())
    }

    /// Claims of the path, of what it lies in, and of the whole.
    pub(super) fn covering<'c>(&'c self, path: &'c [String]) -> impl Iterator<Item = Claim<'c>> {
        let lengths = 0..=path.len();
        lengths.filter_map(|length| self.0.get_key_value(path.get(..length)?))
    }

    /// Claims of what lies below the path.
    pub(super) fn below<'c>(&'c self, path: &'c [String]) -> impl Iterator<Item = Claim<'c>> {
        let from = (Bound::Excluded(path), Bound::Unbounded);
        self.0.range::<[String], _>(from).take_while(move |(it, _)| it.starts_with(path))
    }
}
