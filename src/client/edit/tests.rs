//! What two edits are together, and the form in which they are kept.

use proptest::prelude::*;
use serde_json::json;
use time::OffsetDateTime;

use super::*;
use crate::domain::laws::laws;

fn document(value: impl std::borrow::Borrow<Value>) -> Document {
    Document::from_json(value.borrow().to_string().as_bytes()).unwrap()
}

fn patch(set: Value, unset: &[&str]) -> Patch {
    let unset = unset.iter().map(|path| Pointer::parse(path).unwrap()).collect();
    Patch { set: document(set), unset, transforms: Vec::new() }
}

/// What an edit makes of a record; None if it would be refused.
fn applied(edit: &Edit, before: Option<&Document>) -> Option<Option<Document>> {
    match (edit, before) {
        (Edit::Create(document), None) | (Edit::Put(document), _) => Some(Some(document.clone())),
        (Edit::Patch(patch), Some(before)) => {
            patch.to_domain().apply(before, OffsetDateTime::UNIX_EPOCH).ok().map(Some)
        }
        (Edit::Delete, Some(_)) => Some(None),
        _ => None,
    }
}

#[test]
fn the_stored_form_is_stable() {
    let edits = [
        Edit::Create(document(json!({"b": 1, "a": 9_007_199_254_740_993_i64}))),
        Edit::Put(document(json!({}))),
        Edit::Patch(
            patch(json!({"a": {"b": 1}}), &["/c/d"])
                .increment("/n", 2)
                .unwrap()
                .server_time("/t")
                .unwrap(),
        ),
        Edit::Patch(Patch::new()),
        Edit::Delete,
    ];
    let texts = edits.each_ref().map(|edit| serde_json::to_string(edit).unwrap());
    assert_eq!(
        texts.each_ref().map(String::as_str),
        [
            r#"{"create":{"a":9007199254740993,"b":1}}"#,
            r#"{"put":{}}"#,
            r#"{"patch":{"set":{"a":{"b":1}},"unset":["/c/d"],"transforms":[{"path":"/n","kind":{"increment":2}},{"path":"/t","kind":"server_time"}]}}"#,
            r#"{"patch":{"set":{}}}"#,
            r#""delete""#,
        ]
    );
    for (edit, text) in edits.iter().zip(&texts) {
        assert_eq!(&serde_json::from_str::<Edit>(text).unwrap(), edit);
    }
    assert!(serde_json::from_str::<Edit>(r#"{"put":[1]}"#).is_err());
}

#[test]
fn successive_edits_become_one_where_it_changes_nothing() {
    let put = |value| Edit::Put(document(value));
    let set = |value, unset: &[&str]| Edit::Patch(patch(value, unset));
    for (first, second, expected) in [
        (put(json!({"a": 1})), put(json!({"b": 2})), Some(put(json!({"b": 2})))),
        // The put may lose to somebody else's, and the patch not.
        (put(json!({"a": 1})), set(json!({"b": 2}), &["/a"]), None),
        (Edit::Create(document(json!({}))), put(json!({"b": 2})), None),
        (set(json!({}), &[]), Edit::Patch(Patch::new().increment("/n", 1).unwrap()), None),
        (set(json!({"a": 1}), &["/c"]), set(json!({"a": 2}), &["/c"]), {
            Some(set(json!({"a": 2}), &["/c"]))
        }),
        (set(json!({"a": {"b": 1}}), &[]), set(json!({"a": {"b": 2}}), &[]), {
            Some(set(json!({"a": {"b": 2}}), &[]))
        }),
        // What the first has set is older than what the second sets.
        (set(json!({"a": 1}), &[]), set(json!({"b": 2}), &[]), None),
        // The second may lose, with what else it sets.
        (set(json!({"a": 1}), &[]), set(json!({"a": 2, "b": 3}), &[]), None),
        (set(json!({}), &["/c"]), set(json!({"a": 2}), &[]), None),
        (set(json!({"a": 1}), &[]), Edit::Patch(Patch::new().increment("/n", 1).unwrap()), None),
        // The second would take away what the first has set, or only that.
        (set(json!({"a": 1}), &[]), set(json!({}), &["/a"]), None),
        (set(json!({"a": 1}), &[]), set(json!({"a": {"b": 1}}), &[]), None),
        (set(json!({}), &[]), put(json!({})), None),
        (put(json!({})), Edit::Delete, None),
        (Edit::Delete, put(json!({})), None),
    ] {
        assert_eq!(first.then(&second), expected, "{first:?} then {second:?}");
    }
    let by = |number: i64| Patch::new().increment("/n", number).unwrap();
    assert_eq!(by(1).then(&by(2)), Some(by(3)));
    let anew = Patch { unset: vec![Pointer::parse("/n").unwrap()], ..by(1) };
    assert_eq!(anew.then(&anew), None);
    let apart = Patch { transforms: [by(i64::MAX).transforms, by(1).transforms].concat(), ..by(1) };
    assert_eq!(by(i64::MAX).then(&by(1)), Some(apart));
    // No more than the server takes.
    let append = |number: usize| Patch::new().append("/tags", [number]).unwrap();
    let full = (1..limits::PATCH_TRANSFORMS_MAX).map(append);
    let full = full.fold(append(0), |all, next| all.then(&next).unwrap());
    assert_eq!(full.then(&append(0)), None);
    assert_eq!(Edit::Patch(by(1)).then(&set(json!({"n": 5}), &[])), None);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![(0..3i64).prop_map(Value::from), Just(Value::Null)];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop::collection::btree_map("[ab]", inner, 0..3)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    })
}

fn object() -> impl Strategy<Value = Document> {
    prop::collection::btree_map("[abc]", value(), 0..3)
        .prop_map(|map| Document::from_fields(map.into_iter().collect()).unwrap())
}

fn edit() -> impl Strategy<Value = Edit> {
    let transform = prop_oneof![
        (0..3i64).prop_map(|by| TransformKind::Increment(by.into())),
        (0..3i64).prop_map(|it| TransformKind::Max(it.into())),
        Just(TransformKind::ServerTime),
    ];
    let transforms = prop::collection::vec(("/[ab]", transform), 0..2);
    let patch = (object(), prop::collection::vec("/[abc](/[ab])?", 0..2), transforms).prop_map(
        |(set, unset, transforms)| {
            let unset = unset.iter().map(|path| Pointer::parse(path).unwrap()).collect();
            let transforms = transforms
                .into_iter()
                .map(|(path, kind)| Transform { path: Pointer::parse(&path).unwrap(), kind });
            Patch { set, unset, transforms: transforms.collect() }
        },
    );
    prop_oneof![
        object().prop_map(Edit::Create),
        object().prop_map(Edit::Put),
        patch.prop_map(Edit::Patch),
        Just(Edit::Delete),
    ]
}

proptest! {
    #![proptest_config(laws())]

    #[test]
    fn together_is_one_after_the_other(
        first in edit(),
        second in edit(),
        before in prop::option::of(object()),
    ) {
        if let Some(both) = first.then(&second) {
            let apart = applied(&first, before.as_ref())
                .and_then(|between| applied(&second, between.as_ref()));
            // Where the first alone would have been refused, both are.
            if applied(&first, before.as_ref()).is_some() {
                prop_assert_eq!(applied(&both, before.as_ref()), apart);
            }
        }
    }
}
