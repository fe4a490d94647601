//! A draft of what a conflict's record may become: JSON text with what only one side has changed
//! in place, and marks around what both have. And the way back, from what an editor leaves. Pure;
//! must not know of servers nor editors.

use serde_json::Value;

use super::sides::{Objects, Sides, objects};
use crate::domain::Document;

const THEIRS: &str = "<<<<<<< theirs";
const BASE: &str = "||||||| base";
const MIDDLE: &str = "=======";
const MINE: &str = ">>>>>>> mine";
const COMMENT: &str = "//";

/// The draft, with remarks above it.
pub(super) fn write(sides: &Sides, remarks: &[String]) -> String {
    let mut text = String::new();
    for remark in remarks {
        push(&mut text, 0, &format!("{COMMENT} {remark}"));
    }
    let Sides { base, theirs, mine } = sides;
    match objects([base.as_ref(), theirs.as_ref(), mine.as_ref()]) {
        Some(objects) => {
            push(&mut text, 0, "{");
            entries(&mut text, 1, &objects);
            push(&mut text, 0, "}");
        }
        // One side is a deletion, which no document can be: the other is all there is.
        None => {
            let living = theirs.as_ref().or(mine.as_ref());
            text.push_str(&living.map(|value| format!("{value:#}\n")).unwrap_or_default());
        }
    }
    text
}

fn push(text: &mut String, depth: usize, line: &str) {
    text.extend(std::iter::repeat_n("  ", depth));
    text.push_str(line);
    text.push('\n');
}

/// Each ends with a comma; who reads the draft knows.
fn entries(text: &mut String, depth: usize, level: &Objects<'_>) {
    for (name, sides) in level.entries() {
        let [was, their, my] = sides;
        if their == my || my == was {
            entry(text, depth, name, their);
        } else if their == was {
            entry(text, depth, name, my);
        } else if let Some(inner) = objects(sides) {
            push(text, depth, &format!("{}: {{", Value::from(name)));
            entries(text, depth + 1, &inner);
            push(text, depth, "},");
        } else {
            push(text, 0, THEIRS);
            entry(text, depth, name, their);
            push(text, 0, BASE);
            entry(text, depth, name, was);
            push(text, 0, MIDDLE);
            entry(text, depth, name, my);
            push(text, 0, MINE);
        }
    }
}

fn entry(text: &mut String, depth: usize, name: &str, value: Option<&Value>) {
    let Some(value) = value else { return };
    let written = format!("{}: {value:#},", Value::from(name));
    for line in written.lines() {
        push(text, depth, line);
    }
}

/// The document in what was edited, as JSON text; or what is wrong with it.
pub(super) fn read(text: &str) -> Result<String, String> {
    let is_mark = |line: &str| {
        ["<<<<<<<", "|||||||", ">>>>>>>"].iter().any(|mark| line.starts_with(mark))
            || line == MIDDLE
    };
    if let Some(index) = text.lines().position(|line| is_mark(line.trim_end())) {
        return Err(format!(
            "line {}: a mark is left; keep one side and remove the marks",
            index + 1
        ));
    }
    // Lines stay where they are, so that a mistake is told where it is.
    let lines: Vec<&str> = text
        .lines()
        .map(|line| if line.trim_start().starts_with(COMMENT) { "" } else { line })
        .collect();
    let plain = without_last_commas(&lines.join("\n"));
    match serde_json::from_str::<Value>(&plain) {
        // Of a key that is there twice, as where only the marks were removed, one value would be lost.
        Ok(Value::Object(_)) => match Document::from_json(plain.as_bytes()) {
            Ok(document) => Ok(document.as_str().to_owned()),
            Err(fault) => Err(fault.to_string()),
        },
        Ok(_) => Err("it is no JSON object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether nothing is left but remarks.
pub(super) fn is_empty(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with(COMMENT))
}

/// Blanks commas that nothing follows in their object or list.
fn without_last_commas(text: &str) -> String {
    let mut plain: Vec<u8> = text.as_bytes().to_vec();
    let (mut in_text, mut is_escaped, mut comma) = (false, false, None);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => (in_text, comma) = (!in_text, None),
            _ if in_text => {}
            b',' => comma = Some(index),
            b'}' | b']' => {
                if let Some(byte) = comma.take().and_then(|at: usize| plain.get_mut(at)) {
                    *byte = b' ';
                }
            }
            byte if byte.is_ascii_whitespace() => {}
            _ => comma = None,
        }
    }
    // Only whole characters were replaced.
    String::from_utf8(plain).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::remote::resolve::sides::tests::sides;

    #[test]
    fn what_one_side_changed_is_in_place_and_overlaps_are_marked() {
        let sides = sides(
            json!({"a": 1, "b": 1, "in": {"x": 1}, "gone": 1}),
            json!({"a": 2, "b": 1, "in": {"x": 2, "y": 1}, "gone": 1}),
            json!({"a": 1, "b": 2, "in": {"x": 3}}),
        );
        let draft = write(&sides, &["Remark.".to_owned()]);
        let expected = "// Remark.\n{\n  \"a\": 2,\n  \"b\": 2,\n  \"in\": {\n<<<<<<< theirs\n    \
                        \"x\": 2,\n||||||| base\n    \"x\": 1,\n=======\n    \"x\": 3,\n>>>>>>> \
                        mine\n    \"y\": 1,\n  },\n}\n";
        assert_eq!(draft, expected);
        let error = read(&draft).unwrap_err();
        assert!(error.starts_with("line 6: a mark is left"), "{error}");
    }

    #[test]
    fn a_draft_without_overlaps_reads_as_the_merge_of_both() {
        let sides =
            sides(json!({"a": 1}), json!({"a": 1, "t": ["x,]", {"k": 1}]}), json!({"a": 2}));
        let merged: Value = serde_json::from_str(&read(&write(&sides, &[])).unwrap()).unwrap();
        assert_eq!(merged, json!({"a": 2, "t": ["x,]", {"k": 1}]}));
    }

    #[test]
    fn of_a_deletion_the_other_side_is_the_draft() {
        let sides = sides(json!({"a": 1}), Value::Null, json!({"a": 2}));
        assert_eq!(read(&write(&sides, &[])).unwrap(), "{\"a\":2}");
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        let error = read("// a remark\n{\n  \"a\": oops\n}\n").unwrap_err();
        assert!(error.contains("line 3"), "{error}");
        assert!(is_empty("// only remarks\n\n") && !is_empty("// remark\n{"));
        assert_eq!(read("[1]").unwrap_err(), "it is no JSON object");
        let error =
            read("{\n  \"a\": 1,\n  \"b\": {\n    \"x\": 1,\n    \"x\": 2\n  }\n}\n").unwrap_err();
        assert!(error.contains("twice") && error.contains("line 5"), "{error}");
        assert_eq!(read("{\"a\": \"\\\",}\",}").unwrap(), "{\"a\":\"\\\",}\"}");
    }
}
