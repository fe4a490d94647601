//! Lines of an export.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::subscription::token_name;
use super::{Violations, one};
use crate::app::EXPORT_FORMAT;
use crate::domain::{
    CollectionName, Document, Membership, MutationId, RecordId, RecordKey, Right, UserId, limits,
};

/// What a line says, as far as it is imported.
pub(in crate::rpc) enum ImportedLine {
    Record(RecordKey, Document),
    Member(UserId, Membership),
    /// How many lines came before it.
    End(u64),
    Other,
}

/// The id of an import.
pub(in crate::rpc) fn import_id(text: &str) -> Result<MutationId, Violations> {
    let id = token_name(text, limits::REPLACEMENT_ID_BYTES_MAX);
    id.and_then(|id| MutationId::parse(&id)).map_err(|rule| one("begin.id", rule))
}

#[derive(Deserialize)]
struct Typed<'l> {
    r#type: &'l str,
}

#[derive(Deserialize)]
struct Head {
    format: u64,
}

#[derive(Deserialize)]
struct RecordLine<'l> {
    collection: String,
    id: String,
    #[serde(borrow)]
    document: &'l RawValue,
}

#[derive(Deserialize)]
struct MemberLine {
    user: String,
    role: String,
    collections: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct EndLine {
    lines: u64,
}

/// Reads a line, or says what is wrong with it.
pub(in crate::rpc) fn imported_line(line: &str, first: bool) -> Result<ImportedLine, String> {
    let Typed { r#type: kind } = parsed(line)?;
    match (kind, first) {
        ("export", true) => match parsed::<Head>(line)?.format {
            EXPORT_FORMAT => Ok(ImportedLine::Other),
            other => Err(format!("is of format {other}, and this server reads {EXPORT_FORMAT}")),
        },
        (_, true) => Err("must be an `export` line".into()),
        ("export", false) => Err("is the beginning of another export".into()),
        ("record", _) => record(&parsed(line)?),
        ("member", _) => member(&parsed(line)?),
        ("end", _) => Ok(ImportedLine::End(parsed::<EndLine>(line)?.lines)),
        _ => Ok(ImportedLine::Other),
    }
}

fn parsed<'l, T: Deserialize<'l>>(line: &'l str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| format!("is not a line of an export: {error}"))
}

fn record(line: &RecordLine<'_>) -> Result<ImportedLine, String> {
    let collection = CollectionName::parse(&line.collection);
    let collection = collection.map_err(|rule| format!("collection {rule}"))?;
    let id = RecordId::parse(&line.id).map_err(|rule| format!("id {rule}"))?;
    let document = Document::from_json(line.document.get().as_bytes());
    let document = document.map_err(|fault| format!("document {fault}"))?;
    Ok(ImportedLine::Record(RecordKey { collection, id }, document))
}

fn member(line: &MemberLine) -> Result<ImportedLine, String> {
    let user = UserId::parse(&line.user).map_err(|rule| format!("user {rule}"))?;
    let right = match line.role.as_str() {
        "reader" => Right::Read,
        "writer" => Right::Write,
        "admin" => Right::Admin,
        other => return Err(format!("role {other} is none")),
    };
    let names = line.collections.as_deref();
    if names.is_some_and(|names| names.is_empty() || right == Right::Admin) {
        return Err("collections must be null for an admin, and some otherwise".into());
    }
    let names = names.unwrap_or_default();
    if names.len() > limits::MEMBER_COLLECTIONS_MAX {
        return Err(format!("collections are more than {}", limits::MEMBER_COLLECTIONS_MAX));
    }
    let names = names.iter().map(|name| CollectionName::parse(name));
    let names: BTreeSet<_> =
        names.collect::<Result<_, _>>().map_err(|rule| format!("collection {rule}"))?;
    let collections = (!names.is_empty()).then(|| names.into_iter().collect());
    Ok(ImportedLine::Member(user, Membership { right, collections }))
}
