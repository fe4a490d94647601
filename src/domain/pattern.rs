//! Paths with wildcards, as field rules have them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Pointer;
use super::pointer::escape;

/// A JSON Pointer in which `*` stands for any one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Any,
    Key(String),
}

impl Pattern {
    /// The pattern, or the rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pointer = Pointer::parse(text)?;
        let step = |key: &String| if key == "*" { Step::Any } else { Step::Key(key.clone()) };
        Ok(Self(pointer.keys().iter().map(step).collect()))
    }

    /// How closely the pattern says where `path` is: its length, then how few of
    /// its steps are wildcards. None if the path neither is nor lies below it.
    pub fn matches(&self, path: &[String]) -> Option<(usize, usize)> {
        let fits = self.0.len() <= path.len()
            && self.0.iter().zip(path).all(|(step, key)| match step {
                Step::Any => true,
                Step::Key(name) => name == key,
            });
        let named = self.0.iter().filter(|step| **step != Step::Any).count();
        fits.then_some((self.0.len(), named))
    }

    /// Whether the pattern speaks of something below `path`.
    pub fn is_below(&self, path: &[String]) -> bool {
        self.0.len() > path.len()
            && self.0.iter().zip(path).all(|(step, key)| match step {
                Step::Any => true,
                Step::Key(name) => name == key,
            })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| match step {
            Step::Any => f.write_str("/*"),
            Step::Key(key) => write!(f, "/{}", escape(key)),
        })
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_is_at_and_below_them() {
        let path = |text: &str| Pointer::parse(text).unwrap().keys().to_vec();
        for (pattern, at, expected) in [
            ("/a", "/a", Some((1, 1))),
            ("/a", "/a/b/c", Some((1, 1))),
            ("/a/*", "/a/b", Some((2, 1))),
            ("/*/b", "/a/b", Some((2, 1))),
            ("/a/b", "/a", None),
            ("/a", "/b", None),
            ("/*", "/x", Some((1, 0))),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(&path(at)), expected, "{pattern}");
        }
        let pattern = Pattern::parse("/a/*/c").unwrap();
        assert!(pattern.is_below(&path("/a/x")) && !pattern.is_below(&path("/b")));
        assert!(!pattern.is_below(&path("/a/x/c")));
        assert_eq!(pattern.to_string(), "/a/*/c");
    }
}
