//! What is a document, what is none and why, and its canonical form.

use proptest::prelude::*;

use super::*;
use crate::domain::laws::laws;

fn canonical(text: &str) -> String {
    Document::from_json(text.as_bytes()).unwrap().as_str().to_owned()
}

fn refused(text: &str) -> DocumentFault {
    Document::from_json(text.as_bytes()).unwrap_err()
}

#[test]
fn text_becomes_canonical() {
    for (text, expected) in [
        ("{}", "{}"),
        (r#" { "b" : 1, "a" : [ ] } "#, r#"{"a":[],"b":1}"#),
        (
            r#"{"n":[1.0,-0.0,1e3,0.1,1e21,1e-7,333333333.33333329]}"#,
            r#"{"n":[1,0,1000,0.1,1e+21,1e-7,333333333.3333333]}"#,
        ),
        // Exact beyond 2^53, where RFC 8785 alone would make neighbours equal.
        (
            r#"{"n":[9007199254740993,-9223372036854775808,18446744073709551615]}"#,
            r#"{"n":[9007199254740993,-9223372036854775808,18446744073709551615]}"#,
        ),
        (
            r#"{"s":"\u0001\u001f\b\f\n\r\t\"\\\/é\u2028"}"#,
            "{\"s\":\"\\u0001\\u001f\\b\\f\\n\\r\\t\\\"\\\\/é\u{2028}\"}",
        ),
        // UTF-16 order: the surrogates of U+1F600 come before U+FB33.
        ("{\"\u{fb33}\":1,\"\u{1f600}\":2}", "{\"\u{1f600}\":2,\"\u{fb33}\":1}"),
        (r#"{"a":null,"":{"":[[]]}}"#, r#"{"":{"":[[]]},"a":null}"#),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn what_is_no_document_is_refused_with_its_path() {
    let deep = |n: usize| format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n));
    assert!(Document::from_json(deep(limits::DOCUMENT_DEPTH_MAX).as_bytes()).is_ok());
    let many = format!("{{\"a\":[{}]}}", vec!["1"; limits::DOCUMENT_VALUES_MAX].join(","));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(limits::DOCUMENT_BYTES_MAX));
    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(3 * limits::DOCUMENT_BYTES_MAX));
    for (text, path) in [
        ("", ""),
        ("[]", ""),
        ("null", ""),
        ("{} {}", ""),
        (r#"{"a":1,"a":2}"#, "/a"),
        (r#"{"a":[0,{"b":1,"b":1}]}"#, "/a/1/b"),
        (r#"{"a":1e400}"#, "/a"),
        (r#"{"a":NaN}"#, "/a"),
        (r#"{"a":"\ud800"}"#, "/a"),
        (r#"{"a":{"b/c":"\u0000"}}"#, "/a/b~1c"),
        (r#"{"a\u0000":1}"#, "/a\u{0}"),
        (&deep(limits::DOCUMENT_DEPTH_MAX + 1), &"/a".repeat(limits::DOCUMENT_DEPTH_MAX)),
        (&many, ""),
        (&large, ""),
        (&huge, ""),
    ] {
        let shown = text.get(..40).unwrap_or(text);
        assert_eq!(refused(text).path, path, "{shown}");
    }
    assert!(Document::from_json(b"{\"a\":\"\xff\"}").is_err(), "invalid UTF-8");
    assert!(Document::from_json("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn keys_and_the_paths_that_they_make_are_bounded() {
    let with_key = |bytes: usize| format!("{{\"{}\":1}}", "k".repeat(bytes));
    assert!(Document::from_json(with_key(limits::DOCUMENT_KEY_BYTES_MAX).as_bytes()).is_ok());
    assert!(refused(&with_key(limits::DOCUMENT_KEY_BYTES_MAX + 1)).rule.contains("at most 4096"));
    let with_values = |count: usize| {
        let values: Vec<_> = (0..count).map(|number| format!("\"{number:04}\":1")).collect();
        format!("{{\"{}\":{{{}}}}}", "k".repeat(4_000), values.join(","))
    };
    assert!(Document::from_json(with_values(1_000).as_bytes()).is_ok());
    assert!(refused(&with_values(1_100)).rule.contains("more than 4 MiB"));
}

#[test]
fn documents_do_not_show_in_debug_output() {
    let document = Document::from_json(br#"{"secret":"canary"}"#).unwrap();
    assert_eq!(format!("{document:?}"), "Document(19 bytes)");
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |double| double.is_finite()).prop_map(Value::from),
        "[^\u{0}]{0,8}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map("[^\u{0}]{0,4}", inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The same value spelt otherwise: other white space, order of keys, escapes and
/// forms of numbers, as `choices` have it.
fn spell(value: &Value, choices: &mut impl Iterator<Item = u8>, out: &mut String) {
    let gap = |out: &mut String, choices: &mut dyn Iterator<Item = u8>| {
        out.push_str(["", " ", "\n", "\t \r"][usize::from(choices.next().unwrap_or(0) % 4)]);
    };
    gap(out, choices);
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            if choices.next().unwrap_or(0).is_multiple_of(2) {
                fields.reverse();
            }
            let mut separator = '{';
            for (key, item) in &fields {
                out.push(separator);
                separator = ',';
                spell(&Value::String((*key).clone()), choices, out);
                out.push(':');
                spell(item, choices, out);
            }
            out.push_str(if fields.is_empty() { "{}" } else { "}" });
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                spell(item, choices, out);
            }
            out.push(']');
        }
        Value::String(text) => {
            out.push('"');
            for unit in text.encode_utf16().collect::<Vec<_>>() {
                out.push_str(&format!("\\u{unit:04X}"));
            }
            out.push('"');
        }
        Value::Number(number) if number.is_i64() && number.as_i64().unwrap().abs() < 1 << 50 => {
            let number = number.as_i64().unwrap();
            match choices.next().unwrap_or(0) % 4 {
                0 => out.push_str(&format!("{number}.0")),
                1 => out.push_str(&format!("{number}e0")),
                2 => out.push_str(&format!("{number}0E-1")),
                _ => out.push_str(&number.to_string()),
            }
        }
        other => out.push_str(&other.to_string()),
    }
    gap(out, choices);
}

proptest! {
    #![proptest_config(laws())]

    #[test]
    fn canonical_text_is_a_fixed_point(fields in prop::collection::btree_map("[a-z]{1,3}", json(), 0..6)) {
        let first = Document::from_fields(fields.into_iter().collect()).unwrap();
        let second = Document::from_json(first.as_str().as_bytes()).unwrap();
        prop_assert_eq!(first.as_str(), second.as_str());
        let third = Document::from_fields(second.fields()).unwrap();
        prop_assert_eq!(first.as_str(), third.as_str());
    }

    #[test]
    fn however_it_is_spelt_a_document_has_one_checksum(
        fields in prop::collection::btree_map("[a-zé💧]{1,3}", json(), 0..6),
        choices in prop::collection::vec(any::<u8>(), 64),
    ) {
        let plain = Document::from_fields(fields.clone().into_iter().collect()).unwrap();
        let mut spelt = String::new();
        let value = Value::Object(fields.into_iter().collect());
        spell(&value, &mut choices.into_iter().cycle(), &mut spelt);
        let spelt = Document::from_json(spelt.as_bytes()).unwrap();
        prop_assert_eq!(plain.as_str(), spelt.as_str());
        prop_assert_eq!(plain.checksum(), spelt.checksum());
    }

    #[test]
    fn any_bytes_are_a_document_or_a_fault(text in prop::collection::vec(any::<u8>(), 0..64)) {
        let _verdict = Document::from_json(&text);
    }

    #[test]
    fn doubles_come_back_bit_for_bit(double in any::<f64>().prop_filter("finite", |d| d.is_finite())) {
        let fields = [("n".to_owned(), Value::from(double))].into_iter().collect();
        let document = Document::from_fields(fields).unwrap();
        let back = document.fields()["n"].as_f64().unwrap();
        prop_assert_eq!(back, double, "equal, though -0 becomes 0");
    }
}
