//! What was: the history of a record, a record at a revision, and the way back from
//! a deletion.

mod at;
mod bad;
mod concurrent;
mod plans;
mod steps;
mod told;
mod undelete;

use prost::Message;
use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::{
    Change, ChangesSinceRequest, DeleteOperation, DocumentForm, GetRecordRequest,
    ListRecordHistoryRequest, ListRecordHistoryResponse, Mutation, MutationResult, PatchOperation,
    Record, RecordStep, UndeleteRecordRequest,
};
use tonic::Status;

use crate::support::{Client, House, json, key, mutation};

fn delete(id: &str, task: &str) -> Mutation {
    mutation(id, task, Operation::Delete(DeleteOperation {}))
}

fn patch(id: &str, task: &str, set: &str, unset: &[&str]) -> Mutation {
    let unset = unset.iter().map(|path| (*path).to_owned()).collect();
    let patch = PatchOperation { set: json(set), unset, ..Default::default() };
    mutation(id, task, Operation::Patch(patch))
}

fn based(mutation: Mutation, base: i64) -> Mutation {
    Mutation { base: Some(base), ..mutation }
}

/// The first page of a task's history.
fn of(task: &str) -> ListRecordHistoryRequest {
    ListRecordHistoryRequest {
        key: Some(key(task)),
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    }
}

async fn page(
    client: &Client,
    request: ListRecordHistoryRequest,
) -> Result<ListRecordHistoryResponse, Status> {
    let page = client.spaces.clone().list_record_history(request).await?.into_inner();
    assert!(page.encoded_len() <= 3 << 20, "{} bytes", page.encoded_len());
    assert!(!page.truncated || page.next_page_token.is_empty(), "only the last one is truncated");
    Ok(page)
}

/// All pages from a request on: their steps, how many they are, and whether the last
/// one is truncated.
async fn pages(client: &Client, request: ListRecordHistoryRequest) -> (Vec<RecordStep>, u64, bool) {
    let (mut steps, mut count, mut page_token) = (Vec::new(), 0, request.page_token.clone());
    loop {
        let page = page(client, ListRecordHistoryRequest { page_token, ..request.clone() });
        let page = page.await.unwrap();
        steps.extend(page.steps);
        count += 1;
        if page.next_page_token.is_empty() {
            return (steps, count, page.truncated);
        }
        page_token = page.next_page_token;
    }
}

/// The same as the log tells it, the latest first.
async fn logged(client: &Client, task: &str) -> Vec<Change> {
    let (mut changes, mut cursor) = (Vec::new(), None);
    loop {
        let request = ChangesSinceRequest {
            cursor,
            keys: vec![key(task)],
            every_step: true,
            document_form: DocumentForm::Json.into(),
            ..Default::default()
        };
        let page = client.stub.clone().changes_since(request).await.unwrap().into_inner();
        changes.extend(page.changes);
        cursor = page.cursor;
        if !page.has_more {
            changes.reverse();
            return changes;
        }
    }
}

/// A task as it was at a revision; 0 = now.
async fn task_at(client: &Client, task: &str, revision: i64) -> Result<Record, Status> {
    let request = GetRecordRequest {
        key: Some(key(task)),
        document_form: DocumentForm::Json.into(),
        revision,
        ..Default::default()
    };
    Ok(client.stub.clone().get_record(request).await?.into_inner().record.unwrap())
}

/// Brings a task back with the document of a revision; 0 = before it was deleted.
async fn undelete(
    client: &Client,
    mutation: &str,
    task: &str,
    revision: i64,
) -> Result<MutationResult, Status> {
    let request = UndeleteRecordRequest {
        mutation_id: mutation.into(),
        key: Some(key(task)),
        revision,
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    };
    Ok(client.spaces.clone().undelete_record(request).await?.into_inner().result.unwrap())
}
