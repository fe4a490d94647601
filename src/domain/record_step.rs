//! A step of a record's history: a change beside the one that it came upon.

use std::sync::Arc;

use super::merge::edits;
use super::{Change, MutationId, Pointer, Revision};

/// A change of a record, and what it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordStep {
    pub change: Arc<Change>,
    /// The record's change before; None if there was none, or if it is no longer kept.
    pub before: Option<Arc<Change>>,
    /// The conflicts that it settled, as far as they are kept.
    pub conflicts: Vec<MutationId>,
}

impl RecordStep {
    /// Whether the change before is kept, or there was none.
    pub fn is_before_known(&self) -> bool {
        self.before.is_some() || self.change.previous_revision == Revision::ZERO
    }

    /// Where the document became another one; at most so many as a log keeps. None
    /// where it came or went as a whole, or where the one before is not known.
    pub fn changed_paths(&self) -> Vec<Pointer> {
        let before = self.before.as_ref().and_then(|it| it.document.as_ref());
        match before.zip(self.change.document.as_ref()) {
            None => Vec::new(),
            Some((before, after)) => {
                let edits = edits(&before.fields(), &after.fields());
                Pointer::few(edits.into_iter().map(|edit| edit.path))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Document, limits};

    fn change(revision: i64, previous: i64, text: Option<&str>) -> Arc<Change> {
        Arc::new(Change {
            document: text.map(|text| Document::from_json(text.as_bytes()).unwrap()),
            previous_revision: Revision::new(previous).unwrap(),
            ..Change::sample(revision)
        })
    }

    fn step(before: Option<&str>, after: Option<&str>) -> RecordStep {
        let before = Some(change(1, 0, before));
        RecordStep { change: change(2, 1, after), before, conflicts: Vec::new() }
    }

    fn paths(before: Option<&str>, after: Option<&str>) -> String {
        let paths = step(before, after).changed_paths();
        paths.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_became_another_value_is_told() {
        for (before, after, expected) in [
            (r#"{"a":1,"b":2}"#, r#"{"a":1,"b":3}"#, "/b"),
            (r#"{"a":1,"b":2}"#, r#"{"c":1}"#, "/a /b /c"),
            (r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":1,"c":3,"d":{"e":4}}}"#, "/a/c /a/d/e"),
            (r#"{"a":[1,2]}"#, r#"{"a":[1,3]}"#, "/a"),
            (r#"{"a":{"b":1}}"#, "{}", "/a"),
            (r#"{"~/":1}"#, r#"{"~/":2}"#, "/~0~1"),
            (r#"{"a":1}"#, r#"{"a":1}"#, ""),
        ] {
            assert_eq!(paths(Some(before), Some(after)), expected, "{before} to {after}");
        }
    }

    #[test]
    fn a_document_that_comes_or_goes_is_told_as_a_whole() {
        assert_eq!(paths(None, Some(r#"{"a":1}"#)), "");
        assert_eq!(paths(Some(r#"{"a":1}"#), None), "");
        assert_eq!(paths(None, None), "");
        let lost = RecordStep { before: None, ..step(None, Some("{}")) };
        assert!(!lost.is_before_known());
        assert_eq!(lost.changed_paths(), []);
        assert!(RecordStep { change: change(1, 0, Some("{}")), ..lost }.is_before_known());
        assert!(step(None, Some("{}")).is_before_known());
    }

    #[test]
    fn the_paths_are_few_and_short_enough() {
        let long = "k".repeat(4_000);
        let document = |value: i64| {
            let values: Vec<_> = (0..500).map(|it| format!("\"{it:03}\":{value}")).collect();
            format!(
                "{{\"{long}\":{{{}}},\"a\":{{\"{long}\":{{\"{long}\":{{\"{long}\":{value}}}}}}}}}",
                values.join(",")
            )
        };
        let found = step(Some(&document(1)), Some(&document(2))).changed_paths();
        let bytes: usize = found.iter().map(|path| path.to_string().len()).sum();
        assert!((2..=limits::CONFLICT_PATHS_MAX).contains(&found.len()), "{}", found.len());
        assert!(bytes <= limits::CONFLICT_PATHS_BYTES_MAX, "{bytes}");
        assert_eq!(found[0].to_string(), format!("/a/{long}/{long}"), "what is around it");
    }
}
