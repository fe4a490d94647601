//! Field paths inside a document: JSON Pointers (RFC 6901).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::limits;

/// A path to a value below the top of a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// The pointer, or the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("contains the character U+0000, which no document has".into());
        }
        Self::from_stored(text)
    }

    /// From text that was written by us.
    fn from_stored(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err("must be a JSON Pointer such as /address/city".into());
        };
        let keys = rest.split('/').map(unescape).collect::<Result<Vec<_>, _>>()?;
        if keys.len() > limits::DOCUMENT_DEPTH_MAX {
            return Err(format!("has more than {} levels", limits::DOCUMENT_DEPTH_MAX));
        }
        Ok(Self(keys))
    }

    /// A pointer to a value below the top; None for the top itself.
    pub fn from_keys(keys: Vec<String>) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The keys from the top down; never empty.
    pub fn keys(&self) -> &[String] {
        &self.0
    }

    /// Paths for people and logs: each once, and not too many.
    pub(super) fn few(paths: impl Iterator<Item = Vec<String>>) -> Vec<Self> {
        let paths: BTreeSet<_> = paths.filter_map(Self::short).collect();
        let mut bytes = 0;
        let fits = |path: &Self| {
            bytes += path.to_string().len();
            bytes <= limits::CONFLICT_PATHS_BYTES_MAX
        };
        paths.into_iter().take(limits::CONFLICT_PATHS_MAX).take_while(fits).collect()
    }

    /// The path, or the innermost one around it that is not too long.
    fn short(mut keys: Vec<String>) -> Option<Self> {
        while keys.iter().map(|key| escape(key).len() + 1).sum::<usize>()
            > limits::CONFLICT_PATH_BYTES_MAX
        {
            keys.pop();
        }
        Self::from_keys(keys)
    }
}

impl TryFrom<String> for Pointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::from_stored(&text)
    }
}

impl From<Pointer> for String {
    fn from(pointer: Pointer) -> Self {
        pointer.to_string()
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|key| write!(f, "/{}", escape(key)))
    }
}

/// One key as a pointer spells it.
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn unescape(token: &str) -> Result<String, String> {
    let mut key = String::with_capacity(token.len());
    let mut rest = token.chars();
    while let Some(char) = rest.next() {
        key.push(match char {
            '~' => match rest.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err("has a ~ that is neither ~0 nor ~1".into()),
            },
            other => other,
        });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_read_and_written_alike() {
        for text in ["/a", "/a/b", "/a~1b/~0", "/", "/a//b", "/ü"] {
            assert_eq!(Pointer::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "a", "a/b", "/~", "/~2", "/a\0", &"/x".repeat(33)] {
            assert!(Pointer::parse(text).is_err(), "{text:?}");
        }
    }
}
