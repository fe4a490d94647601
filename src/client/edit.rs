//! What an app asks for: one operation on one record, as it is queued and stored. Owns the
//! stored form and what two successive edits of a record are together; must not know of
//! queues, files or the wire. Pure.

use std::mem::discriminant;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::domain::{
    Document, JsonObject, Operation, Pointer, Transform, TransformKind, limits, put_at,
};

/// An operation on one record. Its serialised form is what the local file holds, so names in
/// it never change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Makes the record; rejected if it lives.
    Create(#[serde(with = "stored")] Document),
    /// Replaces the whole document, or makes the record.
    Put(#[serde(with = "stored")] Document),
    /// Changes parts of the document.
    Patch(Patch),
    /// Deletes the record.
    Delete,
}

/// Parts of a document to change: first what is removed, then what is set, then what is
/// relative to what is there.
///
/// ```
/// use syncline::client::Patch;
///
/// let patch = Patch::new()
///     .set("/title", "Milk")?
///     .unset("/note")?
///     .increment("/count", 2)?
///     .append("/tags", ["dairy"])?;
/// # Ok::<(), syncline::client::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Patch {
    /// Merged into the document, object by object.
    #[serde(with = "stored")]
    pub(super) set: Document,
    /// Paths to remove.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unset: Vec<Pointer>,
    /// Applied last, to whatever is there then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) transforms: Vec<Transform>,
}

/// Documents as JSON within the JSON of an edit; a damaged one is an error.
mod stored {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
    use serde_json::value::RawValue;

    use crate::domain::Document;

    pub(super) fn serialize<S: Serializer>(it: &Document, to: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(it.as_str().to_owned());
        raw.map_err(serde::ser::Error::custom)?.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Document, D::Error> {
        let raw = Box::<RawValue>::deserialize(from)?;
        Document::from_json(raw.get().as_bytes()).map_err(de::Error::custom)
    }
}

/// A document without fields.
pub(super) fn empty() -> Document {
    Document::from_canonical("{}".into())
}

impl Default for Patch {
    fn default() -> Self {
        Self { set: empty(), unset: Vec::new(), transforms: Vec::new() }
    }
}

impl Edit {
    /// A put of a document, which anything is that serialises as a JSON object.
    pub fn put(fields: impl Serialize) -> Result<Self, super::Error> {
        super::document(fields).map(Self::Put)
    }

    /// The name of the operation.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Put(_) => "put",
            Self::Patch(_) => "patch",
            Self::Delete => "delete",
        }
    }

    /// As the rules that decide know it.
    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Create(document) => Operation::Create(document.clone()),
            Self::Put(document) => Operation::Put(document.clone()),
            Self::Patch(patch) => Operation::Patch(patch.to_domain()),
            Self::Delete => Operation::Delete,
        }
    }

    /// Bytes that it takes on the wire, about.
    pub(super) fn size_bytes(&self) -> usize {
        /// Key, id, times and the like.
        const REST: usize = 256;
        REST + match self {
            Self::Create(document) | Self::Put(document) => document.as_str().len(),
            Self::Patch(patch) => {
                let unset = patch.unset.iter().map(|path| path.to_string().len() + 8);
                let transforms = patch.transforms.iter().map(|it| match &it.kind {
                    TransformKind::AppendMissing(values) | TransformKind::RemoveAll(values) => {
                        values.iter().map(|value| value.to_string().len()).sum::<usize>() + 64
                    }
                    _ => 128,
                });
                patch.set.as_str().len() + unset.sum::<usize>() + transforms.sum::<usize>()
            }
            Self::Delete => 0,
        }
    }

    /// The one edit that does what this and then `next` does, to whatever record and whatever
    /// others have written to it meanwhile; None if there is none, or if it could be told apart.
    pub(super) fn then(&self, next: &Self) -> Option<Self> {
        match (self, next) {
            (Self::Put(_), Self::Put(document)) => Some(Self::Put(document.clone())),
            (Self::Patch(before), Self::Patch(patch)) => before.then(patch).map(Self::Patch),
            // A put may lose to another's write where a patch after it does not. What follows a
            // creation that is refused would take effect on another's record. A deletion is not
            // told by what came before it, and what comes after it is anew.
            (Self::Create(_) | Self::Delete, _)
            | (Self::Put(_) | Self::Patch(_), Self::Create(_) | Self::Delete)
            | (Self::Put(_), Self::Patch(_))
            | (Self::Patch(_), Self::Put(_)) => None,
        }
    }
}

impl Patch {
    /// A patch that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Merges these fields into the document.
    pub fn merge(fields: impl Serialize) -> Result<Self, super::Error> {
        Ok(Self { set: super::document(fields)?, ..Self::default() })
    }

    /// The fields that it merges.
    pub fn fields(&self) -> Value {
        self.set.value()
    }

    /// The same with other fields.
    pub fn with_fields(&self, fields: impl Serialize) -> Result<Self, super::Error> {
        Ok(Self { set: super::document(fields)?, ..self.clone() })
    }

    /// The paths that it removes.
    pub fn removed(&self) -> Vec<String> {
        self.unset.iter().map(ToString::to_string).collect()
    }

    /// The paths that it changes relatively.
    pub fn changed(&self) -> Vec<String> {
        self.transforms.iter().map(|it| it.path.to_string()).collect()
    }

    /// Sets the value at a path, a JSON Pointer.
    pub fn set(self, path: &str, value: impl Into<Value>) -> Result<Self, super::Error> {
        let path = pointer(path)?;
        let mut fields = self.set.fields();
        put_at(&mut fields, path.keys(), value.into());
        let set = Document::from_fields(fields).map_err(super::Error::invalid)?;
        Ok(Self { set, ..self })
    }

    /// Removes the value at a path.
    pub fn unset(mut self, path: &str) -> Result<Self, super::Error> {
        self.unset.push(pointer(path)?);
        Ok(self)
    }

    /// Adds to a number; one that is missing counts as 0.
    pub fn increment(self, path: &str, by: impl Into<Value>) -> Result<Self, super::Error> {
        self.with(path, TransformKind::Increment(number(by)?))
    }

    /// Raises a number to at least this.
    pub fn at_least(self, path: &str, bound: impl Into<Value>) -> Result<Self, super::Error> {
        self.with(path, TransformKind::Max(number(bound)?))
    }

    /// Lowers a number to at most this.
    pub fn at_most(self, path: &str, bound: impl Into<Value>) -> Result<Self, super::Error> {
        self.with(path, TransformKind::Min(number(bound)?))
    }

    /// Appends values to a list that are not in it yet.
    pub fn append<V: Into<Value>>(
        self,
        path: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, super::Error> {
        let values = values.into_iter().map(Into::into).collect();
        self.with(path, TransformKind::AppendMissing(values))
    }

    /// Removes all occurrences of values from a list.
    pub fn remove<V: Into<Value>>(
        self,
        path: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, super::Error> {
        let values = values.into_iter().map(Into::into).collect();
        self.with(path, TransformKind::RemoveAll(values))
    }

    /// Sets the server's time, as text.
    pub fn server_time(self, path: &str) -> Result<Self, super::Error> {
        self.with(path, TransformKind::ServerTime)
    }

    fn with(mut self, path: &str, kind: TransformKind) -> Result<Self, super::Error> {
        self.transforms.push(Transform { path: pointer(path)?, kind });
        Ok(self)
    }

    fn to_domain(&self) -> crate::domain::Patch {
        let Self { set, unset, transforms } = self.clone();
        crate::domain::Patch { set, unset, transforms }
    }

    /// The one patch that does what both do, one after the other: only where the second sets
    /// what the first has set, all of that and nothing else. It is of a later time, may win
    /// where that loses, and lose where that wins.
    fn then(&self, next: &Self) -> Option<Self> {
        let same = sets_same(&self.set.fields(), &next.set.fields()) && self.unset == next.unset;
        // What is set or removed once more comes before what was relative to it.
        let is_relative = next.unset.is_empty() && next.set == empty();
        if !same || !(self.transforms.is_empty() || is_relative) {
            return None;
        }
        // One that is refused must not take the other with it.
        let alike = |one: &Transform, other: &Transform| {
            one.path == other.path && discriminant(&one.kind) == discriminant(&other.kind)
        };
        let mut transforms = self.transforms.clone();
        // Other changes between two sums would see something else.
        let sums = transforms.iter().all(|it| matches!(it.kind, TransformKind::Increment(_)));
        for it in &next.transforms {
            let own = transforms.iter_mut().find(|own| alike(own, it))?;
            match sum(&own.kind, &it.kind).filter(|_| sums) {
                Some(sum) => own.kind = sum,
                None => transforms.push(it.clone()),
            }
        }
        let fits = transforms.len() <= limits::PATCH_TRANSFORMS_MAX;
        fits.then(|| Self { set: next.set.clone(), unset: next.unset.clone(), transforms })
    }
}

/// Two relative changes of one number as one; None if they are better kept apart.
fn sum(one: &TransformKind, other: &TransformKind) -> Option<TransformKind> {
    match (one, other) {
        (TransformKind::Increment(one), TransformKind::Increment(other)) => {
            let sum = one.as_i64()?.checked_add(other.as_i64()?)?;
            Some(TransformKind::Increment(sum.into()))
        }
        _ => None,
    }
}

fn number(value: impl Into<Value>) -> Result<Number, super::Error> {
    match value.into() {
        Value::Number(number) => Ok(number),
        other => Err(super::Error::invalid(format!("{other} is no number"))),
    }
}

fn pointer(path: &str) -> Result<Pointer, super::Error> {
    Pointer::parse(path).map_err(|rule| super::Error::invalid(format!("path {path:?} {rule}")))
}

/// Whether both set values at the same paths.
fn sets_same(one: &JsonObject, other: &JsonObject) -> bool {
    let same = |(key, value): (&String, &Value)| match (value, other.get(key)) {
        (Value::Object(one), Some(Value::Object(other))) => sets_same(one, other),
        (Value::Object(_), _) | (_, Some(Value::Object(_)) | None) => false,
        (_, Some(_)) => true,
    };
    one.len() == other.len() && one.iter().all(same)
}

#[cfg(test)]
mod tests;
