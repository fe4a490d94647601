//! What each transform does, what it refuses, and that the order is free.

use proptest::prelude::*;
use time::Duration;

use super::*;
use crate::domain::Document;
use crate::domain::laws::laws;

fn now() -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::seconds(1_769_860_800) + Duration::nanoseconds(1_999)
}

fn number(text: &str) -> Number {
    serde_json::from_str(text).unwrap()
}

fn values(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn read(path: &str, kind: &str, operand: &str) -> Transform {
    let kind = match kind {
        "increment" => TransformKind::Increment(number(operand)),
        "max" => TransformKind::Max(number(operand)),
        "min" => TransformKind::Min(number(operand)),
        "append_missing" => TransformKind::AppendMissing(values(operand)),
        "remove_all" => TransformKind::RemoveAll(values(operand)),
        _ => TransformKind::ServerTime,
    };
    Transform { path: Pointer::parse(path).unwrap(), kind }
}

fn run(before: &str, transforms: &[Transform]) -> Result<String, Violation> {
    let mut fields = Document::from_json(before.as_bytes()).unwrap().fields();
    transform(&mut fields, transforms, now())?;
    Ok(Document::from_fields(fields).unwrap().as_str().to_owned())
}

#[test]
fn each_kind_changes_what_is_there() {
    for (before, path, kind, operand, after) in [
        (r#"{"n":1}"#, "/n", "increment", "2", r#"{"n":3}"#),
        (r#"{"n":1}"#, "/n", "increment", "0.5", r#"{"n":1.5}"#),
        (r#"{"n":0.5}"#, "/n", "increment", "0.5", r#"{"n":1}"#),
        (r#"{"n":9007199254740993}"#, "/n", "increment", "2", r#"{"n":9007199254740995}"#),
        (r#"{"n":9223372036854775807}"#, "/n", "increment", "1", r#"{"n":9223372036854775808}"#),
        ("{}", "/n", "increment", "-2", r#"{"n":-2}"#),
        ("{}", "/a/b/n", "increment", "1", r#"{"a":{"b":{"n":1}}}"#),
        (r#"{"n":1}"#, "/n", "max", "2", r#"{"n":2}"#),
        (r#"{"n":3}"#, "/n", "max", "2.5", r#"{"n":3}"#),
        (r#"{"n":9007199254740992}"#, "/n", "max", "9007199254740993", r#"{"n":9007199254740993}"#),
        ("{}", "/n", "max", "-5", r#"{"n":-5}"#),
        (r#"{"n":1}"#, "/n", "min", "2", r#"{"n":1}"#),
        (r#"{"n":3}"#, "/n", "min", "2.5", r#"{"n":2.5}"#),
        ("{}", "/n", "min", "5", r#"{"n":5}"#),
        (r#"{"l":[1]}"#, "/l", "append_missing", "[1.0,2,2]", r#"{"l":[1,2]}"#),
        (
            "{}",
            "/l",
            "append_missing",
            r#"[{"b":1,"a":2},{"a":2,"b":1}]"#,
            r#"{"l":[{"a":2,"b":1}]}"#,
        ),
        ("{}", "/l", "append_missing", "[]", r#"{"l":[]}"#),
        (r#"{"l":[1,2,1,3]}"#, "/l", "remove_all", "[1,4]", r#"{"l":[2,3]}"#),
        ("{}", "/a/l", "remove_all", "[1]", "{}"),
        (r#"{"a":{}}"#, "/a/l", "remove_all", "[1]", r#"{"a":{}}"#),
        ("{}", "/t", "server_time", "", r#"{"t":"2026-01-31T12:00:00.000001Z"}"#),
        (r#"{"t":[1]}"#, "/t", "server_time", "", r#"{"t":"2026-01-31T12:00:00.000001Z"}"#),
    ] {
        let transforms = [read(path, kind, operand)];
        assert_eq!(run(before, &transforms).unwrap(), after, "{before} {kind} {operand}");
    }
}

#[test]
fn a_value_of_another_type_is_refused_with_what_is_there() {
    for (before, path, kind, operand, rule) in [
        (
            r#"{"n":"x"}"#,
            "/n",
            "increment",
            "1",
            "at /n: holds a text, and increment needs a number",
        ),
        (r#"{"n":null}"#, "/n", "max", "1", "at /n: holds null, and max needs a number"),
        (r#"{"n":[]}"#, "/n", "min", "1", "at /n: holds a list, and min needs a number"),
        (
            r#"{"l":{}}"#,
            "/l",
            "append_missing",
            "[1]",
            "at /l: holds an object, and append_missing needs a list",
        ),
        (
            r#"{"l":true}"#,
            "/l",
            "remove_all",
            "[1]",
            "at /l: holds a boolean, and remove_all needs a list",
        ),
        (
            r#"{"a":[{}]}"#,
            "/a/0/n",
            "increment",
            "1",
            "at /a: holds a list, and /a/0/n needs an object there",
        ),
        (
            r#"{"a":1}"#,
            "/a/b",
            "remove_all",
            "[1]",
            "at /a: holds a number, and /a/b needs an object there",
        ),
        (
            r#"{"n":18446744073709551615}"#,
            "/n",
            "increment",
            "1",
            "at /n: holds 18446744073709551615, and no number can hold that incremented by 1",
        ),
    ] {
        let transforms = [read("/fine", "increment", "1"), read(path, kind, operand)];
        let violation = run(before, &transforms).unwrap_err();
        assert_eq!(violation.field, "mutation.patch.transforms[1]");
        assert_eq!(violation.description, rule);
    }
}

#[test]
fn they_are_applied_in_their_order() {
    let transforms =
        [read("/n", "increment", "5"), read("/n", "min", "3"), read("/n", "increment", "1")];
    assert_eq!(run("{}", &transforms).unwrap(), r#"{"n":4}"#);
}

/// Operands that meet: small, beyond 2^53, and doubles.
fn operand() -> impl Strategy<Value = Number> {
    prop_oneof![
        (-3..4_i64).prop_map(Number::from),
        (1_i64 << 60..(1 << 60) + 3).prop_map(Number::from),
        (-3..4_i32).prop_map(|half| Number::from_f64(f64::from(half) / 2.0).unwrap()),
        Just(Number::from_f64(1_152_921_504_606_846_976.0).unwrap()),
    ]
}

fn kinds() -> impl Strategy<Value = Vec<TransformKind>> {
    let lists = || prop::collection::vec(prop::collection::vec(0..6_i64, 0..4), 1..6);
    let list = |values: Vec<i64>| values.into_iter().map(Value::from).collect();
    let each =
        |kind: fn(Number) -> TransformKind| prop::collection::vec(operand().prop_map(kind), 1..6);
    let integers = prop::collection::vec(any::<i32>(), 1..6)
        .prop_map(|all| all.into_iter().map(|it| TransformKind::Increment(it.into())).collect());
    prop_oneof![
        integers,
        each(TransformKind::Max),
        each(TransformKind::Min),
        lists().prop_map(move |all| {
            all.into_iter().map(|it| TransformKind::AppendMissing(list(it))).collect()
        }),
        lists().prop_map(move |all| {
            all.into_iter().map(|it| TransformKind::RemoveAll(list(it))).collect()
        }),
    ]
}

proptest! {
    #![proptest_config(laws())]

    #[test]
    fn transforms_of_one_kind_commute(
        (kinds, shuffled) in kinds().prop_flat_map(|kinds| (Just(kinds.clone()), Just(kinds).prop_shuffle())),
        number in prop::option::of(operand()),
        list in prop::option::of(prop::collection::vec(0..6_i64, 0..4)),
    ) {
        let is_list = matches!(kinds[0], TransformKind::AppendMissing(_) | TransformKind::RemoveAll(_));
        let before = if is_list { list.map(Value::from) } else { number.map(Value::Number) };
        let before: JsonObject = before.into_iter().map(|value| ("v".to_owned(), value)).collect();
        // An integer plus integers: with doubles in between, sums round.
        let before = if matches!(kinds[0], TransformKind::Increment(_)) { Map::new() } else { before };
        let run = |kinds: Vec<TransformKind>| {
            let path = Pointer::parse("/v").unwrap();
            let transforms: Vec<_> =
                kinds.into_iter().map(|kind| Transform { path: path.clone(), kind }).collect();
            let mut fields = before.clone();
            transform(&mut fields, &transforms, now()).unwrap();
            if let Some(Value::Array(list)) = fields.get_mut("v") {
                list.sort_by_key(canonical);
            }
            Document::from_fields(fields).unwrap()
        };
        let (one, other) = (run(kinds), run(shuffled));
        prop_assert_eq!(one.as_str(), other.as_str());
    }
}
