//! A reader's part of a space, as parameters of a statement.

use crate::domain::{RecordKey, Scope};

/// Between the two names of a key: no name contains it.
const BETWEEN: char = '\u{1}';

/// None where it does not restrict.
pub(super) struct ScopeColumns<'s> {
    pub(super) collections: Option<Vec<&'s str>>,
    /// Collection and id of each key as one text.
    pub(super) keys: Option<Vec<String>>,
}

impl<'s> ScopeColumns<'s> {
    pub(super) fn of(scope: &'s Scope) -> Self {
        let none = Self { collections: None, keys: None };
        match scope {
            Scope::All => none,
            Scope::Collections(collections) => {
                let names = collections.iter().map(|it| it.as_str()).collect();
                Self { collections: Some(names), ..none }
            }
            Scope::Records(keys) => Self { keys: Some(keys.iter().map(joined).collect()), ..none },
        }
    }
}

fn joined(key: &RecordKey) -> String {
    format!("{}{BETWEEN}{}", key.collection, key.id)
}

/// Whether a row is in the scope of two parameters; without either, all are.
macro_rules! in_scope {
    ($row:literal, $collections:literal, $keys:literal) => {
        concat!(
            "(",
            $collections,
            "::text[] is null or ",
            $row,
            ".collection = any(",
            $collections,
            ")) and (",
            $keys,
            "::text[] is null or ",
            $row,
            ".collection || chr(1) || ",
            $row,
            ".id = any(",
            $keys,
            "))"
        )
    };
}
pub(super) use in_scope;
