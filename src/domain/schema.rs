//! JSON Schemas that documents must satisfy. References lead nowhere but into the
//! schema itself, and patterns take time in proportion to the text.

mod effort;
mod graph;

use std::fmt;
use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{Document, Violation, limits};
use effort::Effort;

/// A schema that has been compiled. Cheap to clone.
#[derive(Clone, Serialize)]
#[serde(into = "String")]
pub struct Schema {
    text: Arc<str>,
    validator: Arc<Validator>,
    effort: Arc<Effort>,
}

/// What the automaton of one pattern may take, and those of all.
const PATTERN_BYTES_MAX: usize = 1 << 20;
const PATTERNS_BYTES_MAX: usize = 32 << 20;

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
        let pattern_bytes = PATTERN_BYTES_MAX.min(PATTERNS_BYTES_MAX / patterns(&schema).max(1));
        let patterns =
            PatternOptions::regex().size_limit(pattern_bytes).dfa_size_limit(pattern_bytes);
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
        let effort = Arc::new(Effort::of(&schema)?);
        Ok(Self { text: text.into(), validator: Arc::new(validator), effort })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What breaks the schema, by path; at most so many as an answer names.
    pub fn check(&self, document: &Document) -> Vec<Violation> {
        let document = Value::Object(document.fields());
        // Bounded by what `Effort` permits; finding all faults is more work.
        if self.validator.is_valid(&document) {
            return Vec::new();
        }
        if !self.effort.permits_details(&document) {
            let rule = "breaks the schema, in which there are too many ways to say where";
            return vec![Violation::new("document", rule)];
        }
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

/// How many patterns it has, at most.
fn patterns(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(patterns).sum(),
        Value::Object(fields) => {
            let named = fields.get("patternProperties").and_then(Value::as_object);
            let own = usize::from(fields.get("pattern").is_some_and(Value::is_string));
            own + named.map_or(0, |it| it.len()) + fields.values().map(patterns).sum::<usize>()
        }
        _ => 0,
    }
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
        let manifold = |number| {
            let next = format!("{{\"$ref\":\"#/$defs/{}\"}}", number + 1);
            format!("\"{number}\":{{\"anyOf\":[{next},{next},{next},{next}]}},")
        };
        let manifold: String = (0..7).map(manifold).collect();
        let manifold = format!(r##"{{"$ref":"#/$defs/0","$defs":{{{manifold}"7":{{}}}}}}"##);
        // Little for each value, and for each level four times as much.
        let below = |number| {
            let next = format!("{{\"$ref\":\"#/$defs/{}\"}}", number + 1);
            let any = format!("{{\"anyOf\":[{next},{next},{next},{next}]}}");
            format!("\"{number}\":{{\"properties\":{{\"a\":{any}}}}},")
        };
        let below: String = (0..30).map(below).collect();
        let nested = format!(r##"{{"$ref":"#/$defs/0","$defs":{{{below}"30":{{}}}}}}"##);
        for (text, reason) in [
            (manifold.as_str(), "holds one value against more than 10000 schemas"),
            (&chain(11, ""), "leads one value through more than 16 schemas"),
            (r##"{"allOf":[{"$ref":"#"}]}"##, "refers to itself for one and the same value"),
            (&nested, "holds one value against more than 10000 schemas"),
            (r##"{"$id":"a","$defs":{"b":{"$id":"c"}}}"##, "has an `$id` below its top"),
            (
                r##"{"$schema":"http://json-schema.org/draft-04/schema#",
                    "definitions":{"b":{"id":"http://c/"}}}"##,
                "has an `$id` below its top",
            ),
            (
                r##"{"properties":{"x":{"$schema":"http://json-schema.org/draft-04/schema#"}}}"##,
                "has a `$schema` below its top",
            ),
            (
                r##"{"$ref":"https://json-schema.org/draft/2020-12/schema"}"##,
                "write it as #/$defs/name",
            ),
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

    /// A schema that leads each value of a document through so many links, of which
    /// every second one counts twice.
    fn chain(links: usize, rest: &str) -> String {
        let link = |number| {
            let next = format!("\"#/$defs/{}\"", number + 1);
            let rest = if number < 6 { rest } else { "" };
            match number % 2 {
                0 => format!("\"{number}\":{{\"$ref\":{next}}},"),
                _ => format!("\"{number}\":{{\"oneOf\":[{{\"$ref\":{next}}}]{rest}}},"),
            }
        };
        let (last, links) = (links, (0..links).map(link).collect::<String>());
        format!(
            r##"{{"$ref":"#/$defs/0","$defs":{{{links}"{last}":{{
                "additionalProperties":{{"$ref":"#/$defs/0"}},"type":"object"}}}}}}"##
        )
    }

    #[test]
    fn the_deepest_document_in_the_deepest_schema_fits_on_the_stack() {
        let deep = |inmost: &str| {
            let levels = limits::DOCUMENT_DEPTH_MAX - 1;
            document(&format!("{}{inmost}{}", "{\"a\":".repeat(levels), "}".repeat(levels)))
        };
        for rest in ["", r#","unevaluatedProperties":{}"#] {
            let schema = Schema::parse(&chain(10, rest)).unwrap();
            assert_eq!(schema.check(&deep("{}")), []);
            assert_eq!(schema.check(&deep("1")).len(), 1, "{rest}");
        }
    }

    #[test]
    fn what_is_too_intricate_is_refused_without_saying_where() {
        let schema = Schema::parse(
            r##"{"properties":{"a":{"anyOf":[{"$ref":"#"},{"$ref":"#"}]},"n":{"type":"null"}}}"##,
        )
        .unwrap();
        let shallow = schema.check(&document(r#"{"a":{"a":{}},"n":1}"#));
        assert_eq!(shallow.first().unwrap().field, "document/n");
        let levels = limits::DOCUMENT_DEPTH_MAX - 1;
        let deep = format!("{}{{\"n\":1}}{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let found = schema.check(&document(&deep));
        let [told] = found.as_slice() else { panic!("{found:?}") };
        assert!(told.description.contains("too many ways"), "{told:?}");
        let deep = deep.replace("{\"n\":1}", "{\"n\":null}");
        assert_eq!(schema.check(&document(&deep)), []);
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
    fn trees_of_many_kinds_are_ordinary() {
        let kind = |number| {
            format!(
                r##"{{"properties":{{"kind":{{"const":{number}}},
                    "left":{{"$ref":"#/$defs/node"}},"right":{{"$ref":"#/$defs/node"}}}}}}"##
            )
        };
        let kinds: Vec<_> = (0..10).map(kind).collect();
        let schema = Schema::parse(&format!(
            r##"{{"$ref":"#/$defs/node","$defs":{{"node":{{"oneOf":[{}]}}}}}}"##,
            kinds.join(",")
        ))
        .unwrap();
        let node = |kind: i64, depth: usize| {
            let levels = limits::DOCUMENT_DEPTH_MAX - depth;
            let open = format!("{{\"kind\":{kind},\"left\":").repeat(levels);
            document(&format!("{open}{{\"kind\":1}}{}", "}".repeat(levels)))
        };
        assert_eq!(schema.check(&node(3, 1)), []);
        assert_eq!(schema.check(&node(11, 1)).len(), 1);
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
