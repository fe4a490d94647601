//! Questions about the records of a collection: what fits, in which order, how many. Owns
//! what may be asked; must not know how it is answered.

use serde_json::Value;

use super::Error;
use crate::domain::{CollectionName, Pointer};

/// Which records of a collection.
///
/// ```
/// use syncline::client::Query;
///
/// let open = Query::all("task").eq("/done", false).order_by("/due").limit(20);
/// let late = Query::all("task").lt("/due", "2026-12-01").contains("/tags", "home");
/// # let _ = (open, late);
/// ```
#[derive(Clone, Debug)]
pub struct Query {
    pub(super) collection: Result<CollectionName, String>,
    conditions: Vec<Result<Condition, String>>,
    order: Vec<Result<Order, String>>,
    pub(super) limit: Option<u32>,
    pub(super) offset: u32,
}

/// One condition on documents.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    pub(super) path: Pointer,
    pub(super) compare: Compare,
    pub(super) value: Value,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    Exists,
}

impl Compare {
    pub(super) fn operator(self) -> &'static str {
        match self {
            Self::Equal | Self::Contains | Self::Exists => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// One part of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) path: Pointer,
    pub(super) descending: bool,
}

/// A question without faults.
pub(super) struct Asked {
    pub(super) collection: CollectionName,
    pub(super) conditions: Vec<Condition>,
    pub(super) order: Vec<Order>,
}

impl Query {
    /// All records of a collection, by id.
    pub fn all(collection: &str) -> Self {
        Self {
            collection: CollectionName::parse(collection),
            conditions: Vec::new(),
            order: Vec::new(),
            limit: None,
            offset: 0,
        }
    }

    /// Those whose value at a path (a JSON Pointer) is this one.
    #[must_use]
    pub fn eq(self, path: &str, value: impl Into<Value>) -> Self {
        self.with(path, Compare::Equal, value.into())
    }

    /// Those whose value is another one, or not there.
    #[must_use]
    pub fn ne(self, path: &str, value: impl Into<Value>) -> Self {
        self.with(path, Compare::NotEqual, value.into())
    }

    /// Those whose value is a smaller number, or an earlier text.
    #[must_use]
    pub fn lt(self, path: &str, value: impl Into<Value>) -> Self {
        self.with(path, Compare::Less, value.into())
    }

    /// Those whose value is not greater.
    #[must_use]
    pub fn le(self, path: &str, value: impl Into<Value>) -> Self {
        self.with(path, Compare::LessOrEqual, value.into())
    }

    /// Those whose value is a greater number, or a later text.
    #[must_use]
    pub fn gt(self, path: &str, value: impl Into<Value>) -> Self {
        self.with(path, Compare::Greater, value.into())
    }

    /// Those whose value is not smaller.
    #[must_use]
    pub fn ge(self, path: &str, value: impl Into<Value>) -> Self {
        self.with(path, Compare::GreaterOrEqual, value.into())
    }

    /// Those whose list has this value in it.
    #[must_use]
    pub fn contains(self, path: &str, value: impl Into<Value>) -> Self {
        self.with(path, Compare::Contains, value.into())
    }

    /// Those that have any value there, even null.
    #[must_use]
    pub fn exists(self, path: &str) -> Self {
        self.with(path, Compare::Exists, Value::Null)
    }

    /// Sorted by the value at a path, after what was said before.
    #[must_use]
    pub fn order_by(self, path: &str) -> Self {
        self.ordered(path, false)
    }

    /// The same, the greatest first.
    #[must_use]
    pub fn order_by_desc(self, path: &str) -> Self {
        self.ordered(path, true)
    }

    /// At most so many.
    #[must_use]
    pub fn limit(self, limit: u32) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Without the first so many.
    #[must_use]
    pub fn offset(self, offset: u32) -> Self {
        Self { offset, ..self }
    }

    fn with(mut self, path: &str, compare: Compare, value: Value) -> Self {
        let condition = |path| Condition { path, compare, value };
        self.conditions.push(pointer(path).map(condition));
        self
    }

    fn ordered(mut self, path: &str, descending: bool) -> Self {
        self.order.push(pointer(path).map(|path| Order { path, descending }));
        self
    }

    /// The question, or the first thing that is wrong with it.
    pub(super) fn asked(&self) -> Result<Asked, Error> {
        let collection = self.collection.clone();
        let collection = collection.map_err(|rule| Error::invalid(format!("collection {rule}")))?;
        let conditions = self.conditions.iter().cloned().collect::<Result<_, _>>();
        let order = self.order.iter().cloned().collect::<Result<_, _>>();
        Ok(Asked {
            collection,
            conditions: conditions.map_err(Error::invalid)?,
            order: order.map_err(Error::invalid)?,
        })
    }
}

/// SQLite cannot name every key.
fn pointer(path: &str) -> Result<Pointer, String> {
    let parsed = Pointer::parse(path).map_err(|rule| format!("path {path:?} {rule}"))?;
    let odd = |key: &String| key.contains(['"', '\\']) || key.chars().any(char::is_control);
    if parsed.keys().iter().any(odd) {
        return Err(format!(
            "path {path:?} has a key with a quote or a backslash: read all, and choose"
        ));
    }
    Ok(parsed)
}
