//! JSON Schemas that documents must satisfy.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Document, Violation};

/// A schema that has been compiled.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Schema {
    text: Arc<str>,
}

impl Schema {
    /// The schema, or why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.into() })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What breaks the schema.
    pub fn check(&self, _document: &Document) -> Vec<Violation> {
        Vec::new()
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

impl TryFrom<String> for Schema {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Schema> for String {
    fn from(schema: Schema) -> Self {
        schema.as_str().to_owned()
    }
}
