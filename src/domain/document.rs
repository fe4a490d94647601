//! The document: a JSON object, checked once and kept as canonical text
//! (RFC 8785, except that 64-bit integers keep all their digits).

use std::fmt;
use std::sync::Arc;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use super::limits;
use super::pointer::escape;

/// A parsed document.
pub type JsonObject = Map<String, Value>;

/// A valid document. Cheap to clone; equal text means equal content.
#[derive(Clone, PartialEq, Eq)]
pub struct Document(Arc<str>);

/// The form in which a reader wants documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DocumentForm {
    /// Fields with typed values, as in a protobuf Struct.
    #[default]
    Struct,
    /// Canonical JSON text.
    Json,
}

/// Why something is not a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentFault {
    /// JSON Pointer to the value at fault; empty = the whole.
    pub path: String,
    /// The rule it breaks.
    pub rule: String,
}

impl fmt::Display for DocumentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.rule)
        } else {
            write!(f, "at {}: {}", self.path, self.rule)
        }
    }
}

impl Document {
    /// From UTF-8 JSON text.
    pub fn from_json(text: &[u8]) -> Result<Self, DocumentFault> {
        // Before parsing, so that the cost of refusing is bounded. White space
        // may make a valid document larger than its canonical form.
        if text.len() > 2 * limits::DOCUMENT_BYTES_MAX {
            return Err(too_large(text.len()));
        }
        let mut at = Vec::new();
        let mut parser = serde_json::Deserializer::from_slice(text);
        let value = Strict { path: &mut at }
            .deserialize(&mut parser)
            .and_then(|value| parser.end().map(|()| value))
            .map_err(|error| DocumentFault::at(&at, format!("is not valid JSON: {error}")))?;
        match value {
            Value::Object(fields) => Self::from_fields(fields),
            _ => Err(DocumentFault { path: String::new(), rule: "must be a JSON object".into() }),
        }
    }

    /// From a parsed object.
    pub fn from_fields(fields: JsonObject) -> Result<Self, DocumentFault> {
        let mut value = Value::Object(fields);
        Checker::default().check(&mut value, &mut Vec::new())?;
        let text = canonical(&value);
        if text.len() > limits::DOCUMENT_BYTES_MAX {
            return Err(too_large(text.len()));
        }
        Ok(Self(text.into()))
    }

    /// From text that [`Document::as_str`] gave earlier, such as a stored row.
    pub fn from_canonical(text: String) -> Self {
        Self(text.into())
    }

    /// The canonical JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// SHA-256 of the canonical text.
    pub fn checksum(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// The fields. Empty for text that is not an object, which no constructor
    /// but a damaged row can give.
    pub fn fields(&self) -> JsonObject {
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// The same as a value.
    pub fn value(&self) -> Value {
        Value::Object(self.fields())
    }
}

/// Documents are the users' own: they do not belong in logs.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} bytes)", self.0.len())
    }
}

fn too_large(bytes: usize) -> DocumentFault {
    let max = limits::DOCUMENT_BYTES_MAX;
    DocumentFault { path: String::new(), rule: format!("has {bytes} bytes; at most {max}") }
}

/// Checks what JSON allows but we do not, and gives each number one form.
#[derive(Default)]
struct Checker {
    values: usize,
    /// Of the path to where it is.
    path_bytes: usize,
    /// Of all paths so far.
    paths_bytes: usize,
}

impl Checker {
    fn check(&mut self, value: &mut Value, path: &mut Vec<String>) -> Result<(), DocumentFault> {
        self.values += 1;
        if self.values > limits::DOCUMENT_VALUES_MAX {
            let max = limits::DOCUMENT_VALUES_MAX;
            return Err(DocumentFault {
                path: String::new(),
                rule: format!("has more than {max} values"),
            });
        }
        self.paths_bytes += self.path_bytes;
        if self.paths_bytes > limits::DOCUMENT_PATHS_BYTES_MAX {
            let mib = limits::DOCUMENT_PATHS_BYTES_MAX >> 20;
            return Err(DocumentFault {
                path: String::new(),
                rule: format!("has paths of more than {mib} MiB together; use shorter keys"),
            });
        }
        let nested = matches!(value, Value::Object(_) | Value::Array(_));
        if nested && path.len() >= limits::DOCUMENT_DEPTH_MAX {
            let max = limits::DOCUMENT_DEPTH_MAX;
            return Err(DocumentFault::at(path, format!("is deeper than {max} levels")));
        }
        match value {
            Value::Null | Value::Bool(_) => Ok(()),
            Value::Number(number) => {
                normalise(number);
                Ok(())
            }
            Value::String(text) => no_nul(text, path),
            Value::Array(items) => items.iter_mut().enumerate().try_for_each(|(index, item)| {
                self.within(index.to_string(), path, |this, path| this.check(item, path))
            }),
            Value::Object(fields) => fields.iter_mut().try_for_each(|(key, item)| {
                self.within(key.clone(), path, |this, path| {
                    no_nul(key, path)?;
                    let max = limits::DOCUMENT_KEY_BYTES_MAX;
                    if key.len() > max {
                        let rule = format!("has a key of {} bytes; at most {max}", key.len());
                        return Err(DocumentFault::at(path, rule));
                    }
                    this.check(item, path)
                })
            }),
        }
    }

    fn within<T>(
        &mut self,
        key: String,
        path: &mut Vec<String>,
        inner: impl FnOnce(&mut Self, &mut Vec<String>) -> T,
    ) -> T {
        let bytes = key.len() + 1;
        self.path_bytes += bytes;
        path.push(key);
        let result = inner(self, path);
        path.pop();
        self.path_bytes -= bytes;
        result
    }
}

fn no_nul(text: &str, path: &[String]) -> Result<(), DocumentFault> {
    if text.contains('\0') {
        return Err(DocumentFault::at(
            path,
            "contains the character U+0000, which cannot be stored",
        ));
    }
    Ok(())
}

impl DocumentFault {
    /// A broken rule at the value that these keys lead to.
    pub fn at(path: &[String], rule: impl Into<String>) -> Self {
        let path = path.iter().map(|key| format!("/{}", escape(key))).collect();
        Self { path, rule: rule.into() }
    }
}

/// Doubles that are integers become integers: 1.0, 1 and a Struct's 1 are equal.
#[expect(clippy::cast_possible_truncation, reason = "checked to be an integer below 2^53")]
pub(super) fn normalise(number: &mut Number) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Some(double) = number.as_f64().filter(|_| number.is_f64())
        && double.fract() == 0.0
        && double.abs() <= EXACT
    {
        *number = Number::from(double as i64);
    }
}

/// The canonical text of one value: equal text means equal content.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(&mut text, value);
    text
}

pub(super) fn write_canonical(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => match number.as_f64() {
            Some(double) if number.is_f64() => {
                out.push_str(ryu_js::Buffer::new().format_finite(double));
            }
            _ => out.push_str(&number.to_string()),
        },
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            let mut separator = '[';
            for item in items {
                out.push(separator);
                write_canonical(out, item);
                separator = ',';
            }
            out.push_str(if items.is_empty() { "[]" } else { "]" });
        }
        Value::Object(fields) => write_object(out, fields),
    }
}

fn write_object(out: &mut String, fields: &JsonObject) {
    let mut sorted: Vec<_> = fields.iter().collect();
    // The map sorts by bytes, RFC 8785 by UTF-16 units: they differ beyond ASCII.
    if !fields.keys().all(|key| key.is_ascii()) {
        sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    }
    let mut separator = '{';
    for (key, item) in sorted {
        out.push(separator);
        write_string(out, key);
        out.push(':');
        write_canonical(out, item);
        separator = ',';
    }
    out.push_str(if fields.is_empty() { "{}" } else { "}" });
}

/// The escapes of RFC 8785: the short ones where they exist, else `\u00xx`.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (index, byte) in text.bytes().enumerate() {
        let escaped = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x09 => "\\t",
            0x0a => "\\n",
            0x0c => "\\f",
            0x0d => "\\r",
            0x00..=0x1f => "",
            _ => continue,
        };
        out.push_str(text.get(plain..index).unwrap_or_default());
        if escaped.is_empty() {
            out.push_str(&format!("\\u{byte:04x}"));
        } else {
            out.push_str(escaped);
        }
        plain = index + 1;
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}

/// Parses JSON, but refuses a key that occurs twice, and stops at the depth
/// limit. On an error `path` says where.
struct Strict<'p> {
    path: &'p mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        self.path.push("0".into());
        while let Some(item) = items.next_element_seed(Strict { path: self.path })? {
            list.push(item);
            if let Some(last) = self.path.last_mut() {
                *last = list.len().to_string();
            }
        }
        self.path.pop();
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.path.push(key.clone());
            if self.path.len() > limits::DOCUMENT_DEPTH_MAX + 1 {
                let max = limits::DOCUMENT_DEPTH_MAX;
                return Err(de::Error::custom(format_args!("deeper than {max} levels")));
            }
            // Before its value is read: the error tells the place of the key.
            let Entry::Vacant(place) = fields.entry(key) else {
                return Err(de::Error::custom("this key occurs twice"));
            };
            place.insert(entries.next_value_seed(Strict { path: self.path })?);
            self.path.pop();
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests;
