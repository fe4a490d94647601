//! Applies a patch to a document.

use time::OffsetDateTime;

use super::document::JsonObject;
use super::fields::{merge_fields, remove_at};
use super::{Document, Patch, Violation, transform};

impl Patch {
    /// The patched document, or why there can be none.
    pub fn apply(&self, document: &Document, now: OffsetDateTime) -> Result<Document, Violation> {
        let mut fields = document.fields();
        self.edit(&mut fields);
        transform(&mut fields, &self.transforms, now)?;
        patched(fields)
    }

    /// Whether all that it does is relative to what is there.
    pub fn is_relative(&self) -> bool {
        !self.transforms.is_empty() && self.unset.is_empty() && self.set.as_str() == "{}"
    }

    /// Applies what is not relative.
    pub(super) fn edit(&self, fields: &mut JsonObject) {
        for path in &self.unset {
            remove_at(fields, path.keys());
        }
        merge_fields(fields, self.set.fields());
    }
}

/// The document that a patch has led to.
pub(super) fn patched(fields: JsonObject) -> Result<Document, Violation> {
    Document::from_fields(fields).map_err(|fault| {
        Violation::new("mutation.patch", format!("the patched document would be invalid: {fault}"))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::laws::laws;
    use crate::domain::{Pointer, Transform, TransformKind};

    const EPOCH: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn document(text: &str) -> Document {
        Document::from_json(text.as_bytes()).unwrap()
    }

    fn patch(set: &str, unset: &[&str]) -> Patch {
        let unset = unset.iter().map(|path| Pointer::parse(path).unwrap()).collect();
        Patch { set: document(set), unset, transforms: Vec::new() }
    }

    #[test]
    fn patches_merge_and_remove() {
        for (before, set, unset, after) in [
            ("{}", r#"{"a":1}"#, &[][..], r#"{"a":1}"#),
            (r#"{"a":{"b":1,"c":2}}"#, r#"{"a":{"b":3}}"#, &[], r#"{"a":{"b":3,"c":2}}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":null}"#, &[], r#"{"a":null}"#),
            (r#"{"a":[1,2]}"#, r#"{"a":[3]}"#, &[], r#"{"a":[3]}"#),
            (r#"{"a":1}"#, r#"{"a":{"b":2}}"#, &[], r#"{"a":{"b":2}}"#),
            (r#"{"a":{"b":1},"c":2}"#, "{}", &["/a/b", "/x/y", "/c"], r#"{"a":{}}"#),
            (r#"{"a":[1]}"#, "{}", &["/a/0"], r#"{"a":[1]}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"c":2}}"#, &["/a"], r#"{"a":{"c":2}}"#),
        ] {
            let patched = patch(set, unset).apply(&document(before), EPOCH).unwrap();
            assert_eq!(patched.as_str(), after, "{before} + {set} - {unset:?}");
        }
    }

    #[test]
    fn a_patch_cannot_outgrow_the_limits() {
        let half = format!("{{\"{{}}\":\"{}\"}}", "x".repeat(200 << 10));
        let (a, b) = (half.replace("{}", "a"), half.replace("{}", "b"));
        assert!(
            patch(&a, &[]).apply(&document(&b), EPOCH).unwrap_err().description.contains("at most")
        );
    }

    #[test]
    fn transforms_come_last() {
        let mut patch = patch(r#"{"n":5}"#, &["/m"]);
        assert!(!patch.is_relative());
        for path in ["/n", "/m"] {
            let path = Pointer::parse(path).unwrap();
            patch.transforms.push(Transform { path, kind: TransformKind::Increment(1.into()) });
        }
        let patched = patch.apply(&document(r#"{"m":7,"n":1}"#), EPOCH).unwrap();
        assert_eq!(patched.as_str(), r#"{"m":1,"n":6}"#);
        assert!(!patch.is_relative());
        (patch.set, patch.unset) = (document("{}"), Vec::new());
        assert!(patch.is_relative());
        let violation = patch.apply(&document(r#"{"m":[]}"#), EPOCH).unwrap_err();
        assert_eq!(violation.field, "mutation.patch.transforms[1]");
    }

    proptest! {
        #![proptest_config(laws())]

        #[test]
        fn applying_twice_equals_once(
            before in prop::collection::btree_map("[ab]", 0..3i64, 0..3),
            set in prop::collection::btree_map("[ab]", 0..3i64, 0..3),
            gone in prop::collection::vec("/[ab]", 0..2),
        ) {
            let object = |fields: std::collections::BTreeMap<String, i64>| {
                Document::from_fields(fields.into_iter().map(|(k, v)| (k, v.into())).collect()).unwrap()
            };
            let unset = gone.iter().map(|path| Pointer::parse(path).unwrap()).collect();
            let patch = Patch { set: object(set), unset, transforms: Vec::new() };
            let once = patch.apply(&object(before), EPOCH).unwrap();
            let twice = patch.apply(&once, EPOCH).unwrap();
            prop_assert_eq!(twice.as_str(), once.as_str());
        }
    }
}
