//! Documents and values from the wire.

use prost_types::value::Kind;
use serde_json::{Number, Value};

use super::{Violations, one};
use crate::domain::{Document, DocumentFault, JsonObject};
use crate::rpc::proto;

/// A document that must be there.
pub(super) fn document(
    wire: Option<&proto::Document>,
    field: &str,
) -> Result<Document, Violations> {
    let parsed = match wire.and_then(|document| document.form.as_ref()) {
        None => return Err(one(field, "must be given, as `fields` or as `json`")),
        Some(proto::document::Form::Json(text)) => Document::from_json(text),
        Some(proto::document::Form::Fields(fields)) => {
            object(fields, &mut Vec::new()).and_then(Document::from_fields)
        }
    };
    parsed.map_err(|fault| one(field, fault.to_string()))
}

fn object(wire: &prost_types::Struct, path: &mut Vec<String>) -> Result<JsonObject, DocumentFault> {
    let field = |(key, wire): (&String, &prost_types::Value)| {
        path.push(key.clone());
        let value = value(wire, path)?;
        path.pop();
        Ok((key.clone(), value))
    };
    wire.fields.iter().map(field).collect()
}

fn value(wire: &prost_types::Value, path: &mut Vec<String>) -> Result<Value, DocumentFault> {
    Ok(match &wire.kind {
        Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(bool)) => Value::Bool(*bool),
        Some(Kind::NumberValue(number)) => match Number::from_f64(*number) {
            Some(number) => Value::Number(number),
            None => return Err(DocumentFault::at(path, "is not a finite number")),
        },
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::StructValue(fields)) => Value::Object(object(fields, path)?),
        Some(Kind::ListValue(list)) => {
            let item = |(index, wire): (usize, &prost_types::Value)| {
                path.push(index.to_string());
                let value = value(wire, path)?;
                path.pop();
                Ok(value)
            };
            Value::Array(list.values.iter().enumerate().map(item).collect::<Result<_, _>>()?)
        }
        None => return Err(DocumentFault::at(path, "has no value")),
    })
}

/// A list of values.
pub(super) fn values(wire: &proto::Values, field: &str) -> Result<Vec<Value>, Violations> {
    // As a field of a document, a list is held against the rules of documents.
    let field_of = |list: Value| {
        let fields = [("values".to_owned(), list)].into_iter().collect();
        Document::from_fields(fields).map_err(|fault| one(field, fault.to_string()))
    };
    let list = match &wire.form {
        None => return Err(one(field, "must be given, as `list` or as `json`")),
        Some(proto::values::Form::List(list)) => {
            let kind = Some(Kind::ListValue(list.clone()));
            let list = value(&prost_types::Value { kind }, &mut Vec::new());
            list.map_err(|fault| one(field, fault.to_string())).and_then(field_of)?
        }
        Some(proto::values::Form::Json(text)) => {
            let text = [b"{\"values\":", text.as_ref(), b"}"].concat();
            Document::from_json(&text).map_err(|fault| one(field, fault.to_string()))?
        }
    };
    match list.fields().remove("values") {
        Some(Value::Array(list)) => Ok(list),
        _ => Err(one(field, "must be a list")),
    }
}
