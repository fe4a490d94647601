//! A document as its difference from an earlier one, for readers who have that.

use super::document::JsonObject;
use super::fields::put_at;
use super::merge::edits;
use super::{Document, Pointer};

/// What to remove from a document, and then what to merge into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    pub unset: Vec<Pointer>,
    pub set: Document,
}

impl Delta {
    /// The way from one document to another; None if the whole is smaller.
    pub fn between(before: &Document, after: &Document) -> Option<Self> {
        Self::whole(before, after).filter(|delta| delta.size_bytes() < after.as_str().len())
    }

    /// The way from one document to another, however large.
    pub fn whole(before: &Document, after: &Document) -> Option<Self> {
        let mut unset = Vec::new();
        let mut set = JsonObject::new();
        for edit in edits(&before.fields(), &after.fields()) {
            match edit.value() {
                None => unset.push(Pointer::from_keys(edit.path)?),
                Some(value) => put_at(&mut set, &edit.path, value),
            }
        }
        // A part of a valid document is valid.
        Some(Self { unset, set: Document::from_fields(set).ok()? })
    }

    fn size_bytes(&self) -> usize {
        let unset = self.unset.iter().map(|path| path.to_string().len());
        self.set.as_str().len() + unset.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use time::OffsetDateTime;

    use super::*;
    use crate::domain::Patch;
    use crate::domain::laws::laws;

    fn document(text: &str) -> Document {
        Document::from_json(text.as_bytes()).unwrap()
    }

    /// A client's way: a patch without transforms does the same.
    fn applied(delta: &Delta, before: &Document) -> Document {
        let Delta { unset, set } = delta.clone();
        let patch = Patch { set, unset, transforms: Vec::new() };
        patch.apply(before, OffsetDateTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn only_what_differs_is_told_and_only_where_that_is_smaller() {
        let pad = r#""pad":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#;
        for (before, after, expected) in [
            ("", r#""a":1"#, Some((r#"{"a":1}"#, ""))),
            (r#""a":1,"b":2"#, r#""b":2"#, Some(("{}", "/a"))),
            (r#""a":{"b":1,"c":2}"#, r#""a":{"b":1,"c":3}"#, Some((r#"{"a":{"c":3}}"#, ""))),
            (r#""a":{"b":1}"#, r#""a":{}"#, Some(("{}", "/a/b"))),
            (r#""a":{"b":1}"#, r#""a":[1]"#, Some((r#"{"a":[1]}"#, ""))),
            (r#""a":[1]"#, r#""a":{}"#, Some((r#"{"a":{}}"#, ""))),
            (r#""a":1"#, r#""a":null"#, Some((r#"{"a":null}"#, ""))),
            (r#""a":1"#, r#""a":1"#, Some(("{}", ""))),
        ] {
            let whole = |text: &str| match text {
                "" => document(&format!("{{{pad}}}")),
                text => document(&format!("{{{text},{pad}}}")),
            };
            let (before, after) = (whole(before), whole(after));
            let delta = Delta::between(&before, &after);
            let seen = delta.as_ref().map(|it| {
                let unset: String = it.unset.iter().map(Pointer::to_string).collect();
                (it.set.as_str().to_owned(), unset)
            });
            let expected = expected.map(|(set, unset)| (set.to_owned(), unset.to_owned()));
            assert_eq!(seen, expected, "{} to {}", before.as_str(), after.as_str());
            assert_eq!(applied(&delta.unwrap(), &before), after);
        }
        assert_eq!(Delta::between(&document("{}"), &document(r#"{"a":1}"#)), None);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3i64).prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                object(inner).prop_map(Value::Object),
            ]
        })
    }

    fn object(inner: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<JsonObject> {
        let fields = prop::collection::btree_map("[abc~/]", inner, 0..4);
        fields.prop_map(|fields| fields.into_iter().collect()).boxed()
    }

    proptest! {
        #![proptest_config(laws())]

        #[test]
        fn a_delta_leads_from_one_document_to_the_other(
            before in object(value()),
            mut after in object(value()),
        ) {
            // So that no delta is too large.
            after.insert("pad".into(), "x".repeat(2_000).into());
            let mut before = before;
            before.insert("pad".into(), "x".repeat(2_000).into());
            let (before, after) =
                (Document::from_fields(before).unwrap(), Document::from_fields(after).unwrap());
            let delta = Delta::between(&before, &after).unwrap();
            prop_assert_eq!(applied(&delta, &before), after);
        }
    }
}
