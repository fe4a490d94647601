//! The calls, one by one, over a real socket: what each answers, and what it
//! leaves behind.

mod base;
mod batch;
mod changes;
mod documents;
mod echo;
mod list;
mod mutate;
mod replay;
mod sequence;
mod status;
mod together;
mod waiting;

use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::{
    BatchMutateRequest, CreateOperation, DeleteOperation, DocumentForm, MutateRequest, Mutation,
    MutationResult, PatchOperation,
};
use tonic::Status;

use crate::support::{Client, Database, TestServer, describe, json, mutation, show};

/// A server on a database of its own.
struct House {
    database: Database,
    server: TestServer,
}

impl House {
    async fn new() -> Self {
        let database = Database::create().await;
        let server = TestServer::start(&database).await;
        Self { database, server }
    }

    async fn alice(&self) -> Client {
        self.server.client("alice").await
    }

    async fn end(self) {
        self.server.stop().await;
    }
}

/// Sends one mutation of a device; empty = of none.
async fn send(client: &Client, device: &str, mutation: Mutation) -> Result<MutationResult, Status> {
    let request = MutateRequest {
        device: device.into(),
        mutation: Some(mutation),
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    };
    Ok(client.stub.clone().mutate(request).await?.into_inner().result.unwrap())
}

/// Sends a batch of a device; empty = of none.
async fn send_batch(
    client: &Client,
    device: &str,
    atomic: bool,
    mutations: Vec<Mutation>,
) -> Result<Vec<MutationResult>, Status> {
    let request = BatchMutateRequest {
        device: device.into(),
        mutations,
        atomic,
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    };
    Ok(client.stub.clone().batch_mutate(request).await?.into_inner().results)
}

/// The answer to one mutation, or the status, as a line.
fn line(answer: &Result<MutationResult, Status>) -> String {
    match answer {
        Ok(result) => show(result),
        Err(status) => describe(status),
    }
}

/// The answers to a batch, or the status, as lines.
fn lines(answer: &Result<Vec<MutationResult>, Status>) -> Vec<String> {
    match answer {
        Ok(results) => results.iter().map(show).collect(),
        Err(status) => vec![describe(status)],
    }
}

fn create(id: &str, task: &str, text: &str) -> Mutation {
    mutation(id, task, Operation::Create(CreateOperation { document: json(text) }))
}

fn patch(id: &str, task: &str, set: &str, unset: &[&str]) -> Mutation {
    let unset = unset.iter().map(|path| (*path).to_owned()).collect();
    let set = (!set.is_empty()).then(|| json(set)).flatten();
    mutation(id, task, Operation::Patch(PatchOperation { set, unset, transforms: Vec::new() }))
}

fn delete(id: &str, task: &str) -> Mutation {
    mutation(id, task, Operation::Delete(DeleteOperation {}))
}

fn based(mut mutation: Mutation, base: i64) -> Mutation {
    mutation.base = Some(base);
    mutation
}

fn sequenced(mut mutation: Mutation, sequence: i64) -> Mutation {
    mutation.device_sequence = Some(sequence);
    mutation
}
