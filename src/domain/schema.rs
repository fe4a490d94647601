//! JSON Schemas that documents must satisfy. References lead nowhere but into the
//! schema itself, and patterns take time in proportion to the text.

use std::fmt;
use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Document, Violation, limits};

/// A schema that has been compiled. Cheap to clone.
#[derive(Clone, Serialize)]
#[serde(into = "String")]
pub struct Schema {
    text: Arc<str>,
    validator: Arc<Validator>,
}

/// What the automaton of one pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

impl Schema {
    /// The schema, or why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let max = limits::SCHEMA_BYTES_MAX;
        if text.len() > max {
            return Err(format!("has {} bytes; at most {max}", text.len()));
        }
        let schema: Value =
            serde_json::from_str(text).map_err(|error| format!("is not valid JSON: {error}"))?;
        if !schema.is_object() {
            return Err("must be a JSON object".into());
        }
        if depth(&schema) > limits::DOCUMENT_DEPTH_MAX {
            return Err(format!("is deeper than {} levels", limits::DOCUMENT_DEPTH_MAX));
        }
        let patterns =
            PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let draft = Draft::default().detect(&schema);
        if draft == Draft::Unknown {
            return Err(
                "names a `$schema` that is not known; leave it out for draft 2020-12".into()
            );
        }
        let validator = jsonschema::options()
            .with_draft(draft)
            .with_pattern_options(patterns)
            .should_validate_formats(true)
            .offline()
            .build(&schema)
            .map_err(|error| fault(&error))?;
        Ok(Self { text: text.into(), validator: Arc::new(validator) })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What breaks the schema, by path; at most so many as an answer names.
    pub fn check(&self, document: &Document) -> Vec<Violation> {
        let document = Value::Object(document.fields());
        let errors = self.validator.iter_errors(&document);
        let violation = |error: ValidationError<'_>| {
            let field = format!("document{}", error.instance_path());
            Violation::new(field, error.masked_with("the value").to_string())
        };
        let mut violations: Vec<_> =
            errors.take(limits::SCHEMA_VIOLATIONS_MAX).map(violation).collect();
        violations.sort_by(|a, b| (&a.field, &a.description).cmp(&(&b.field, &b.description)));
        violations
    }
}

/// Why something is no schema, and where.
fn fault(error: &ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { String::new() } else { format!(" at {place}") };
    format!("is no valid schema{place}: {}", error.masked_with("the value"))
}

/// How deep objects and lists are nested in it.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({} bytes)", self.text.len())
    }
}

impl From<Schema> for String {
    fn from(schema: Schema) -> Self {
        schema.as_str().to_owned()
    }
}

/// As text, which is what is stored, or as the object itself, which is easier to
/// write into a configuration file.
impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document::from_json(text.as_bytes()).unwrap()
    }

    #[test]
    fn every_violation_is_named_by_its_path() {
        let schema = Schema::parse(
            r#"{
                "type": "object",
                "properties": {
                    "title": {"type": "string", "maxLength": 3},
                    "at": {"type": "object", "properties": {"a/b": {"minimum": 9007199254740993}}},
                    "tags": {"items": {"pattern": "^[a-z]+$"}},
                    "mail": {"format": "email"}
                },
                "required": ["title"],
                "additionalProperties": false
            }"#,
        )
        .unwrap();
        let check = |text: &str| schema.check(&document(text));
        assert_eq!(check(r#"{"title":"abc","at":{"a/b":9007199254740993},"tags":["a"]}"#), []);
        let found = check(
            r#"{"x":1,"at":{"a/b":9007199254740992},"tags":["a","B","c","1"],"mail":"nobody"}"#,
        );
        let shown = found.iter().map(|it| format!("{}: {}", it.field, it.description));
        let expected = [
            "document: \"title\" is a required property",
            "document: Additional properties are not allowed ('x' was unexpected)",
            "document/at/a~1b: the value is less than the minimum of 9007199254740993",
            "document/mail: the value is not a \"email\"",
            "document/tags/1: the value does not match \"^[a-z]+$\"",
            "document/tags/3: the value does not match \"^[a-z]+$\"",
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_no_schema_is_refused_with_its_reason() {
        let deep = format!("{}{}", r#"{"not":"#.repeat(40), "{}".to_owned() + &"}".repeat(40));
        let long = format!(r#"{{"title":"{}"}}"#, "x".repeat(limits::SCHEMA_BYTES_MAX));
        let huge = r#"{"pattern":"(a{1000}){1000}{1000}"}"#;
        for (text, reason) in [
            ("", "is not valid JSON"),
            ("true", "must be a JSON object"),
            (r#"{"type":"text"}"#, "is no valid schema at /type"),
            (r#"{"properties":{"a":{"minimum":"1"}}}"#, "at /properties/a/minimum"),
            (r#"{"$ref":"https://example.com/x.json"}"#, "is no valid schema"),
            (r#"{"$ref":"file:///etc/passwd"}"#, "is no valid schema"),
            (r##"{"$ref":"#/$defs/none"}"##, "is no valid schema"),
            (r#"{"$schema":"https://example.com/mine"}"#, "names a `$schema`"),
            (r#"{"pattern":"(?=a)b"}"#, "is no valid schema"),
            (huge, "is no valid schema"),
            (&deep, "is deeper than 32 levels"),
            (&long, "at most 65536"),
        ] {
            let found = Schema::parse(text).unwrap_err();
            assert!(found.contains(reason), "{text:.80}: {found}");
        }
    }

    #[test]
    fn a_schema_may_refer_to_itself_and_choose_its_draft() {
        let tree = r##"{"$schema":"http://json-schema.org/draft-07/schema#",
            "properties":{"next":{"$ref":"#"},"n":{"type":"integer"}}}"##;
        let schema = Schema::parse(tree).unwrap();
        let found = schema.check(&document(r#"{"next":{"next":{"n":"x"}}}"#));
        assert_eq!(found.first().unwrap().field, "document/next/next/n");
    }

    #[test]
    fn patterns_take_no_longer_than_the_text_is_long() {
        let schema = Schema::parse(r#"{"properties":{"t":{"pattern":"^(a+)+$"}}}"#).unwrap();
        let text = format!(r#"{{"t":"{}!"}}"#, "a".repeat(200_000));
        assert_eq!(schema.check(&document(&text)).len(), 1);
    }

    #[test]
    fn no_more_violations_than_an_answer_names() {
        let schema = Schema::parse(r#"{"additionalProperties":{"type":"string"}}"#).unwrap();
        let fields: Vec<_> = (0..500).map(|number| format!("\"k{number}\":1")).collect();
        let found = schema.check(&document(&format!("{{{}}}", fields.join(","))));
        assert_eq!(found.len(), limits::SCHEMA_VIOLATIONS_MAX);
    }
}
