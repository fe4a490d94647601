//! `get` and `ls` on a local file: at once, whatever the server does.

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{Local, failed};
use crate::cli::remote::output::{Columns, escaped, note, safe, shortened};
use crate::cli::remote::records::{DOCUMENT_CHARS_MAX, table};
use crate::cli::remote::usage;
use crate::client::{Query, Record};
use crate::config::{GetConfig, LsConfig};
use crate::exit::{Exit, Failure};

/// Records that are read at once.
const PAGE: u32 = 1_000;

pub(super) async fn get(local: &Local, config: GetConfig) -> Result<(), Failure> {
    if config.revision.is_some() {
        return Err(usage("--revision is for a server; a local file has what is now"));
    }
    let name = safe(&format!("{}/{}", config.collection, config.id));
    let what = format!("cannot read {name}");
    let found = local.space.get(&config.collection, &config.id).await;
    let Some(record) = found.map_err(|error| failed(&what, error))? else {
        let error = anyhow!("it is not in the local file").context(what);
        return Err(Failure::new(Exit::NotFound, error));
    };
    if local.json {
        return local.out.say_json(&json(&record));
    }
    let pending = if record.pending { "  pending" } else { "" };
    note(&format!("{name}  revision {}{pending}", record.revision));
    local.out.say(&escaped(&format!("{:#}", record.value())))
}

/// A record for programs.
pub(super) fn json(record: &Record) -> Value {
    let mut value = json!({
        "collection": record.collection,
        "id": record.id,
        "revision": record.revision,
        "document": record.value(),
    });
    if let (true, Some(object)) = (record.pending, value.as_object_mut()) {
        object.insert("pending".into(), true.into());
    }
    value
}

pub(super) async fn ls(local: &Local, config: LsConfig) -> Result<(), Failure> {
    match config.collection {
        Some(collection) => records(local, &collection, config.limit).await,
        None => collections(local, config.limit.unwrap_or(usize::MAX)).await,
    }
}

async fn collections(local: &Local, limit: usize) -> Result<(), Failure> {
    let found = local.space.collections().await;
    let found = found.map_err(|error| failed("cannot list the collections", error))?;
    let found: Vec<_> = found.into_iter().take(limit).collect();
    if local.json {
        return found.iter().try_for_each(|(name, records)| {
            local.out.say_json(&json!({"collection": name, "records": records}))
        });
    }
    let rows: Vec<_> = found.iter().map(|(name, it)| vec![safe(name), it.to_string()]).collect();
    table(local.out, &["COLLECTION", "RECORDS"], &rows, &mut Columns::default(), true)
}

async fn records(local: &Local, collection: &str, limit: Option<usize>) -> Result<(), Failure> {
    let mut left = limit.unwrap_or(usize::MAX);
    let (mut offset, mut columns, mut is_first) = (0, Columns::default(), true);
    while left > 0 {
        let size = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let query = Query::all(collection).limit(size).offset(offset);
        let what = || format!("cannot list {}", safe(collection));
        let page = local.space.query(&query).await.map_err(|error| failed(what(), error))?;
        if local.json {
            page.iter().try_for_each(|it| local.out.say_json(&json(it)))?;
        } else {
            let rows: Vec<_> = page.iter().map(|it| row(local, it)).collect();
            let head = ["ID", "REVISION", "PENDING", "DOCUMENT"];
            table(local.out, &head, &rows, &mut columns, is_first)?;
        }
        is_first = false;
        left = left.saturating_sub(page.len());
        offset = offset.saturating_add(size);
        if page.len() < size as usize {
            break;
        }
    }
    Ok(())
}

fn row(local: &Local, record: &Record) -> Vec<String> {
    let document = safe(record.json());
    vec![
        safe(&record.id),
        record.revision.to_string(),
        if record.pending { "pending" } else { "-" }.to_owned(),
        match local.out.is_terminal {
            true => shortened(&document, DOCUMENT_CHARS_MAX),
            false => document,
        },
    ]
}
