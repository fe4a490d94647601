//! Changes relative to what is there: they never conflict with each other.
//! Transforms of one kind give the same in any order.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use time::{OffsetDateTime, UtcOffset};

use super::document::{JsonObject, canonical, write_canonical};
use super::{DocumentFault, Pointer, Violation, number};

/// Changes one value relative to what it is. Stored, so names in it never change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transform {
    pub path: Pointer,
    pub kind: TransformKind,
}

/// What to do with the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransformKind {
    /// Each number is a JSON number.
    Increment(Number),
    Max(Number),
    Min(Number),
    AppendMissing(Vec<Value>),
    RemoveAll(Vec<Value>),
    ServerTime,
}

/// Applies transforms in their order; Err says which cannot be, and why.
pub fn transform(
    fields: &mut JsonObject,
    transforms: &[Transform],
    now: OffsetDateTime,
) -> Result<(), Violation> {
    transforms.iter().enumerate().try_for_each(|(index, transform)| {
        transform.apply(fields, now).map_err(|fault| {
            Violation::new(format!("mutation.patch.transforms[{index}]"), fault.to_string())
        })
    })
}

impl Transform {
    fn apply(&self, fields: &mut JsonObject, now: OffsetDateTime) -> Result<(), DocumentFault> {
        let creates = !matches!(self.kind, TransformKind::RemoveAll(_));
        let Some((last, parent)) = self.parent(fields, creates)? else { return Ok(()) };
        let fresh = match (&self.kind, parent.get_mut(last)) {
            (TransformKind::Increment(by), Some(Value::Number(there))) => {
                *there = number::add(there, by).ok_or_else(|| self.overflow(there, by))?;
                None
            }
            (TransformKind::Max(bound), Some(Value::Number(there))) => {
                bind(there, bound, Ordering::Greater);
                None
            }
            (TransformKind::Min(bound), Some(Value::Number(there))) => {
                bind(there, bound, Ordering::Less);
                None
            }
            (TransformKind::AppendMissing(values), Some(Value::Array(there))) => {
                append_missing(there, values);
                None
            }
            (TransformKind::RemoveAll(values), Some(Value::Array(there))) => {
                remove_all(there, values);
                None
            }
            // Whatever is there: the time is not relative to it.
            (TransformKind::ServerTime, _) => Some(Value::String(server_time(now))),
            (kind, None) => kind.on_nothing(),
            (kind, Some(other)) => {
                let (name, needs) = kind.needs();
                let rule = format!("holds {}, and {name} needs {needs}", name_of(other));
                return Err(DocumentFault::at(self.path.keys(), rule));
            }
        };
        if let Some(fresh) = fresh {
            parent.insert(last.clone(), fresh);
        }
        Ok(())
    }

    /// The object that holds the value, and its key there. None if there is no
    /// such object and none is to be made.
    fn parent<'p, 'f>(
        &'p self,
        fields: &'f mut JsonObject,
        creates: bool,
    ) -> Result<Option<(&'p String, &'f mut JsonObject)>, DocumentFault> {
        let Some((last, way)) = self.path.keys().split_last() else { return Ok(None) };
        let mut object = fields;
        for (depth, key) in way.iter().enumerate() {
            if !creates && !object.contains_key(key) {
                return Ok(None);
            }
            object = match object.entry(key).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(inner) => inner,
                other => {
                    let way = way.get(..=depth).unwrap_or(way);
                    let there = name_of(other);
                    let rule = format!("holds {there}, and {} needs an object there", self.path);
                    return Err(DocumentFault::at(way, rule));
                }
            };
        }
        Ok(Some((last, object)))
    }

    fn overflow(&self, there: &Number, by: &Number) -> DocumentFault {
        let rule = format!("holds {there}, and no number can hold that incremented by {by}");
        DocumentFault::at(self.path.keys(), rule)
    }
}

impl TransformKind {
    /// What it makes where there is nothing.
    fn on_nothing(&self) -> Option<Value> {
        match self {
            Self::Increment(number) | Self::Max(number) | Self::Min(number) => {
                Some(Value::Number(number.clone()))
            }
            Self::AppendMissing(values) => {
                let mut list = Vec::new();
                append_missing(&mut list, values);
                Some(Value::Array(list))
            }
            Self::RemoveAll(_) | Self::ServerTime => None,
        }
    }

    /// Its name, and the value that it can work on.
    fn needs(&self) -> (&'static str, &'static str) {
        match self {
            Self::Increment(_) => ("increment", "a number"),
            Self::Max(_) => ("max", "a number"),
            Self::Min(_) => ("min", "a number"),
            Self::AppendMissing(_) => ("append_missing", "a list"),
            Self::RemoveAll(_) => ("remove_all", "a list"),
            Self::ServerTime => ("server_time", "nothing"),
        }
    }
}

/// Takes the bound where it is `beyond` what is there. Of an integer and a
/// double of one value the integer stays, so that the order does not matter.
fn bind(there: &mut Number, bound: &Number, beyond: Ordering) {
    let order = number::compare(bound, there);
    if order == beyond || (order == Ordering::Equal && there.is_f64()) {
        *there = bound.clone();
    }
}

fn append_missing(list: &mut Vec<Value>, values: &[Value]) {
    let mut missing: HashSet<String> = values.iter().map(canonical).collect();
    let mut text = String::new();
    for item in &*list {
        text.clear();
        write_canonical(&mut text, item);
        missing.remove(&text);
    }
    list.extend(values.iter().filter(|value| missing.remove(&canonical(value))).cloned());
}

fn remove_all(list: &mut Vec<Value>, values: &[Value]) {
    let gone: HashSet<String> = values.iter().map(canonical).collect();
    let mut text = String::new();
    list.retain(|item| {
        text.clear();
        write_canonical(&mut text, item);
        !gone.contains(&text)
    });
}

/// RFC 3339 with microseconds, always of one length, so that texts sort by time.
fn server_time(now: OffsetDateTime) -> String {
    let utc = now.to_offset(UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        utc.year(),
        u8::from(utc.month()),
        utc.day(),
        utc.hour(),
        utc.minute(),
        utc.second(),
        utc.microsecond()
    )
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
