//! Edits as JSON Lines, one on each. Pure; must not know what is done with them.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::edits;
use crate::client::{Edit, Error};
use crate::config::{Increment, Number};

/// An edit as a line has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    op: Op,
    pub(super) collection: String,
    pub(super) id: String,
    document: Option<Map<String, Value>>,
    #[serde(default)]
    unset: Vec<String>,
    #[serde(default)]
    increment: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Put,
    Create,
    Patch,
    Delete,
}

/// What a line asks for, or why it is no edit.
pub(super) fn parse(text: &str) -> Result<(Line, What), String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let has_parts = !line.unset.is_empty() || !line.increment.is_empty();
    if line.op != Op::Patch && has_parts {
        return Err("only a patch has `unset` and `increment`".to_owned());
    }
    let document = line.document.clone().map(Value::Object);
    let what = match (line.op, document) {
        (Op::Put, Some(document)) => What::Put(document),
        (Op::Create, Some(document)) => What::Create(document),
        (Op::Put | Op::Create, None) => return Err("there is no `document`".to_owned()),
        (Op::Delete, None) => What::Edit(Edit::Delete),
        (Op::Delete, Some(_)) => return Err("a deletion has no `document`".to_owned()),
        (Op::Patch, document) => {
            let by = line.increment.iter().map(|(path, by)| increment(path, by));
            let by = by.collect::<Result<Vec<_>, _>>()?;
            let fields = document.unwrap_or_else(|| Value::Object(Map::new()));
            let patch = edits::patch(fields, &by, &line.unset);
            What::Edit(Edit::Patch(patch.map_err(|error: Error| error.to_string())?))
        }
    };
    Ok((line, what))
}

/// What is done to a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Put(Value),
    Create(Value),
    Edit(Edit),
}

fn increment(path: &str, by: &Value) -> Result<Increment, String> {
    let by = match (by.as_i64(), by.as_f64()) {
        (Some(integer), _) => Number::Integer(integer),
        (None, Some(real)) => Number::Real(real),
        (None, None) => return Err(format!("the increment of {path} is no number")),
    };
    Ok(Increment { path: path.to_owned(), by })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_edits_or_say_why_not() {
        let good = [
            r#"{"op":"put","collection":"a","id":"1","document":{"b":1}}"#,
            r#"{"op":"create","collection":"a","id":"1","document":{}}"#,
            r#"{"op":"patch","collection":"a","id":"1","increment":{"/n":-1,"/m":0.5}}"#,
            r#"{"op":"patch","collection":"a","id":"1","document":{"b":1},"unset":["/c"]}"#,
            r#"{"op":"delete","collection":"a","id":"1"}"#,
        ];
        for line in good {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
        let bad = [
            ("", "EOF"),
            ("[]", "invalid length"),
            (r#"{"op":"put","collection":"a","id":"1"}"#, "no `document`"),
            (r#"{"op":"put","collection":"a","id":"1","document":[]}"#, "expected a map"),
            (r#"{"op":"move","collection":"a","id":"1"}"#, "unknown variant"),
            (r#"{"op":"delete","collection":"a","id":"1","document":{}}"#, "has no `document`"),
            (r#"{"op":"delete","collection":"a","id":"1","unset":["/a"]}"#, "only a patch"),
            (r#"{"op":"patch","collection":"a","id":"1","unset":["a"]}"#, "path"),
            (r#"{"op":"patch","collection":"a","id":"1","increment":{"/a":"x"}}"#, "no number"),
            (r#"{"op":"patch","collection":"a","id":"1","incremnt":{}}"#, "unknown field"),
        ];
        for (line, why) in bad {
            let said = parse(line).unwrap_err();
            assert!(said.contains(why), "{line}: {said}");
        }
    }
}
