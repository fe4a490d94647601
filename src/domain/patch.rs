//! Applies a patch to a document.

use serde_json::Value;

use super::document::JsonObject;
use super::{Document, DocumentFault, Patch};

impl Patch {
    /// The patched document, or why the result would not be one.
    pub fn apply(&self, document: &Document) -> Result<Document, DocumentFault> {
        let mut fields = document.fields();
        for path in &self.unset {
            unset(&mut fields, path.keys());
        }
        merge(&mut fields, self.set.fields());
        Document::from_fields(fields)
    }
}

fn merge(into: &mut JsonObject, from: JsonObject) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => merge(inner, value),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn unset(fields: &mut JsonObject, path: &[String]) {
    match path {
        [] => {}
        [key] => {
            fields.remove(key);
        }
        [key, rest @ ..] => {
            if let Some(Value::Object(inner)) = fields.get_mut(key) {
                unset(inner, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Pointer;

    fn document(text: &str) -> Document {
        Document::from_json(text.as_bytes()).unwrap()
    }

    fn patch(set: &str, unset: &[&str]) -> Patch {
        let unset = unset.iter().map(|path| Pointer::parse(path).unwrap()).collect();
        Patch { set: document(set), unset }
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
            let patched = patch(set, unset).apply(&document(before)).unwrap();
            assert_eq!(patched.as_str(), after, "{before} + {set} - {unset:?}");
        }
    }

    #[test]
    fn a_patch_cannot_outgrow_the_limits() {
        let half = format!("{{\"{{}}\":\"{}\"}}", "x".repeat(200 << 10));
        let (a, b) = (half.replace("{}", "a"), half.replace("{}", "b"));
        assert!(patch(&a, &[]).apply(&document(&b)).unwrap_err().rule.contains("at most"));
    }

    proptest! {
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
            let patch = Patch { set: object(set), unset };
            let once = patch.apply(&object(before)).unwrap();
            let twice = patch.apply(&once).unwrap();
            prop_assert_eq!(twice.as_str(), once.as_str());
        }
    }
}
