//! The lines of an import: each a record, or a mistake with its number. Must not know where they go.

use std::io::{self, BufRead};

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// A record that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) collection: String,
    pub(super) id: String,
    /// JSON text of an object, as it stands in the line.
    pub(super) document: String,
}

/// A line that is not blank.
#[derive(Debug)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    /// As it is, with its end.
    pub(super) text: Vec<u8>,
    /// What it says, or what is wrong with it.
    pub(super) parsed: Result<Wanted, String>,
}

#[derive(Deserialize)]
struct Fields<'l> {
    collection: String,
    id: String,
    #[serde(borrow)]
    document: &'l RawValue,
}

/// Reads lines, and knows how far it is.
#[derive(Debug)]
pub(super) struct Lines<R> {
    input: R,
    hasher: Sha256,
    /// Lines that were read.
    pub(super) number: u64,
    /// Bytes that were read.
    pub(super) bytes: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, hasher: Sha256::new(), number: 0, bytes: 0 }
    }

    /// Of all that was read.
    pub(super) fn hash(&self) -> String {
        let hash = self.hasher.clone().finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Goes behind that many lines; the hash of these.
    pub(super) fn skip(&mut self, lines: u64) -> io::Result<String> {
        let mut text = Vec::new();
        while self.number < lines && self.read(&mut text)? {}
        Ok(self.hash())
    }

    /// One line as it is; false at the end.
    fn read(&mut self, text: &mut Vec<u8>) -> io::Result<bool> {
        text.clear();
        let length = self.input.read_until(b'\n', text)?;
        if length == 0 {
            return Ok(false);
        }
        self.hasher.update(&*text);
        self.number += 1;
        self.bytes += u64::try_from(length).unwrap_or_default();
        Ok(true)
    }

    /// The next line that is not blank; None at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut text = Vec::new();
        while self.read(&mut text)? {
            if !text.trim_ascii().is_empty() {
                let parsed = parse(&text);
                return Ok(Some(Line { number: self.number, text, parsed }));
            }
        }
        Ok(None)
    }
}

/// Other fields, such as those that `ls --json` prints, are left out.
fn parse(text: &[u8]) -> Result<Wanted, String> {
    let fields: Fields<'_> = serde_json::from_slice(text).map_err(|error| {
        let text = error.to_string();
        // Each line is the first of its own text, which says nothing.
        text.replace(" at line 1 column", ", column").replace(" at line 2 column 0", "")
    })?;
    let document = fields.document.get();
    if !document.starts_with('{') {
        return Err("`document` is no JSON object".to_owned());
    }
    let document = document.to_owned();
    Ok(Wanted { collection: fields.collection, id: fields.id, document })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(u64, Result<Wanted, String>)> {
        let mut lines = Lines::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push((line.number, line.parsed));
        }
        assert_eq!(lines.bytes, u64::try_from(text.len()).unwrap());
        found
    }

    #[test]
    fn each_line_is_a_record_or_a_mistake() {
        let found = all(
            "{\"collection\":\"a\",\"id\":\"1\",\"document\":{\"n\": 9007199254740993}}\r\n\n  \n\
             {\"collection\":\"a\",\"id\":\"2\",\"document\":[]}\n{\"id\":\"3\",\"document\":{}}\n\
             oops\n{\"revision\":1,\"id\":\"4\",\"document\":{},\"collection\":\"a\"}",
        );
        let numbers: Vec<_> = found.iter().map(|it| it.0).collect();
        assert_eq!(numbers, [1, 4, 5, 6, 7]);
        let first = found[0].1.as_ref().unwrap();
        assert_eq!(first.document, "{\"n\": 9007199254740993}", "all digits stay");
        assert_eq!(found[1].1, Err("`document` is no JSON object".to_owned()));
        assert!(found[2].1.as_ref().unwrap_err().contains("missing field `collection`"));
        assert!(found[3].1.as_ref().unwrap_err().contains("column"), "{:?}", found[3]);
        assert!(found[4].1.is_ok(), "other fields and orders are as good");
    }

    #[test]
    fn what_is_not_text_is_a_mistake() {
        let mut lines = Lines::new(&b"\xff\n"[..]);
        let line = lines.next().unwrap().unwrap();
        assert_eq!((line.number, lines.bytes, line.parsed.is_err()), (1, 2, true));
    }

    #[test]
    fn who_skips_lines_has_the_hash_of_who_read_them() {
        let text = "{}\n\n[]\nlast";
        let (mut reader, mut skipper) = (Lines::new(text.as_bytes()), Lines::new(text.as_bytes()));
        reader.next().unwrap();
        reader.next().unwrap();
        assert_eq!(skipper.skip(3).unwrap(), reader.hash());
        assert_eq!((skipper.number, skipper.bytes), (reader.number, reader.bytes));
        let mut other = Lines::new("{}\n\n()\nlast".as_bytes());
        assert_ne!(other.skip(3).unwrap(), reader.hash());
    }

    #[test]
    fn the_end_of_the_text_is_no_line() {
        let mut lines = Lines::new(&b"\n"[..]);
        assert!(lines.next().unwrap().is_none() && lines.number == 1);
    }
}
