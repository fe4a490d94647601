//! `syncline get`, `ls` and `rm`: single records, and pages of them.

use serde_json::json;
use uuid::Uuid;

use super::ends::{First, is_hopeless};
use super::output::{Columns, Output, Style, escaped, note, safe, shortened};
use super::{PAGE_SIZE_MAX, Session, failed, incomplete, put, shown};
use crate::client::remote::time;
use crate::config::{GetConfig, LsConfig, RmConfig};
use crate::exit::{Exit, Failure};
use crate::rpc::proto::mutation::Operation;
use crate::rpc::proto::{
    CollectionDigest, DeleteOperation, DocumentForm, GetRecordRequest, GetStatusRequest,
    ListRecordsRequest, Mutation, Record, RecordKey,
};

/// As much of a document as fits beside the rest on a terminal.
pub(super) const DOCUMENT_CHARS_MAX: usize = 60;

pub(super) async fn get(session: &Session, config: GetConfig) -> Result<(), Failure> {
    let key = RecordKey { collection: config.collection, id: config.id };
    let name = shown::key(Some(&key));
    let request = GetRecordRequest {
        space: session.space(),
        key: Some(key),
        document_form: DocumentForm::Json.into(),
        revision: config.revision.unwrap_or_default(),
    };
    let answer = session.remote.sync().get_record(request).await;
    let answer = answer.map_err(|status| failed(format!("cannot read {name}"), status))?;
    let record = answer.into_inner().record.ok_or_else(incomplete)?;
    if session.json() {
        return session.out.say_json(&shown::record(&record));
    }
    let written = shown::when(time(record.update_time.as_ref()));
    let who = shown::who(&record.author, &record.device);
    note(&format!("{name}  revision {}  by {who}  {written}", record.revision));
    if record.open_conflicts > 0 {
        note(&format!(
            "open conflicts: {}; `syncline conflicts` lists them",
            record.open_conflicts
        ));
    }
    session.out.say(&escaped(&format!("{:#}", shown::value(record.document.as_ref()))))
}

pub(super) async fn ls(session: &Session, config: LsConfig) -> Result<(), Failure> {
    match config.collection {
        Some(collection) => records(session, collection, config.limit).await,
        None => collections(session, config.limit.unwrap_or(usize::MAX)).await,
    }
}

async fn collections(session: &Session, limit: usize) -> Result<(), Failure> {
    let request = GetStatusRequest { digest: true, ..Default::default() };
    let status = session.status("cannot list the collections", request).await?;
    let digest = status.digest.ok_or_else(incomplete)?;
    let living: Vec<CollectionDigest> =
        digest.collections.into_iter().filter(|it| it.records > 0).take(limit).collect();
    if session.json() {
        return living.iter().try_for_each(|it| {
            let value = json!({"collection": it.collection, "records": it.records});
            session.out.say_json(&value)
        });
    }
    let row = |it: &CollectionDigest| vec![safe(&it.collection), it.records.to_string()];
    let rows: Vec<_> = living.iter().map(row).collect();
    table(session.out, &["COLLECTION", "RECORDS"], &rows, &mut Columns::default(), true)
}

/// Prints rows; what the columns are called only where a person looks.
pub(super) fn table(
    out: Output,
    head: &[&str],
    rows: &[Vec<String>],
    columns: &mut Columns,
    is_first: bool,
) -> Result<(), Failure> {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    if is_first && out.is_terminal && !rows.is_empty() {
        columns.fit(std::slice::from_ref(&head));
        columns.fit(rows);
        out.say(&out.paint(Style::Faint, &columns.line(&head)))?;
    }
    columns.fit(rows);
    rows.iter().try_for_each(|row| out.say(&columns.line(row)))
}

async fn records(
    session: &Session,
    collection: String,
    limit: Option<usize>,
) -> Result<(), Failure> {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut page_token = String::new();
    let mut columns = Columns::default();
    let mut is_first = true;
    while left > 0 {
        let page_size = left.min(PAGE_SIZE_MAX);
        let request = ListRecordsRequest {
            space: session.space(),
            collection: collection.clone(),
            page_size: i32::try_from(page_size).unwrap_or_default(),
            page_token,
            document_form: DocumentForm::Json.into(),
        };
        let answer = session.remote.sync().list_records(request).await;
        let what = || format!("cannot list {}", safe(&collection));
        let page = answer.map_err(|status| failed(what(), status))?.into_inner();
        left = left.saturating_sub(page.records.len());
        if session.json() {
            let mut values = page.records.iter().map(shown::record);
            values.try_for_each(|value| session.out.say_json(&value))?;
        } else {
            let rows: Vec<_> = page.records.iter().map(|it| row(session, it)).collect();
            let head = ["ID", "REVISION", "WRITTEN", "BY", "DOCUMENT"];
            table(session.out, &head, &rows, &mut columns, is_first)?;
        }
        is_first = false;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(())
}

fn row(session: &Session, record: &Record) -> Vec<String> {
    let document = shown::compact(record.document.as_ref());
    vec![
        record.key.as_ref().map(|key| safe(&key.id)).unwrap_or_default(),
        record.revision.to_string(),
        shown::when(time(record.update_time.as_ref())),
        shown::who(&record.author, &record.device),
        match session.out.is_terminal {
            true => shortened(&document, DOCUMENT_CHARS_MAX),
            false => document,
        },
    ]
}

/// One after the other, so that what was said of each is true; the others are tried as well, unless
/// nobody would answer them either.
pub(super) async fn rm(session: &Session, config: RmConfig) -> Result<Exit, Failure> {
    let mut first = First::new(session.json());
    for id in config.ids {
        let key = RecordKey { collection: config.collection.clone(), id };
        let name = shown::key(Some(&key));
        let mutation = Mutation {
            id: Uuid::now_v7().to_string(),
            key: Some(key.clone()),
            operation: Some(Operation::Delete(DeleteOperation {})),
            ..Default::default()
        };
        let ended = match put::mutate(session, mutation).await {
            Ok(result) => {
                put::print_result(session, &result, &key)?;
                put::end(&result, &format!("the deletion of {name}"))
            }
            Err(failure) => Err(failure),
        };
        let is_hopeless = ended.as_ref().is_err_and(is_hopeless);
        first.add(ended);
        if is_hopeless {
            break;
        }
    }
    first.end()
}
