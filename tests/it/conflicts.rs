//! Conflicts through the service: how they are found, logged, told, resolved and
//! forgotten.

mod causality;
mod model;
mod resolving;
mod schema;
mod told;

use syncline::rpc::proto::resolve_conflict_request::Resolution;
use syncline::rpc::proto::{
    Conflict, ConflictState, DocumentForm, GetConflictRequest, GetConflictResponse,
    ListConflictsRequest, Mutation, MutationResult, Policy, ResolveConflictRequest,
    ResolveConflictResponse, Strategy,
};
use tonic::Status;

use crate::support::{Client, House};

impl House {
    /// With this policy for tasks.
    async fn with(policy: Policy) -> Self {
        let house = Self::new().await;
        house.alice.set_policy(policy).await.unwrap();
        house
    }
}

/// A policy of tasks.
fn tasks(strategy: Strategy, fallback: Strategy) -> Policy {
    Policy {
        collection: "task".into(),
        strategy: strategy.into(),
        fallback: fallback.into(),
        ..Policy::default()
    }
}

fn based(mutation: Mutation, base: i64) -> Mutation {
    Mutation { base: Some(base), ..mutation }
}

/// Writes of three devices to task 1, of which the last did not know the second:
/// the last one's answer.
async fn meet(client: &Client, first: &str, second: &str, third: &str) -> MutationResult {
    use crate::support::put;
    let write = |device: &'static str, text: &str, base| {
        client.mutate_from(device, based(put(&format!("{device}-1"), "1", text), base))
    };
    let base = write("seed", first, 0).await.unwrap().revision;
    write("laptop", second, base).await.unwrap();
    write("phone", third, base).await.unwrap()
}

async fn list(client: &Client, request: ListConflictsRequest) -> (Vec<Conflict>, String) {
    let request = ListConflictsRequest { document_form: DocumentForm::Json.into(), ..request };
    let page = client.conflicts.clone().list_conflicts(request).await.unwrap().into_inner();
    (page.conflicts, page.next_page_token)
}

async fn open(client: &Client) -> Vec<Conflict> {
    let state = ConflictState::Open.into();
    list(client, ListConflictsRequest { state, ..Default::default() }).await.0
}

async fn get(client: &Client, id: &str) -> Result<GetConflictResponse, Status> {
    let request = GetConflictRequest {
        conflict_id: id.into(),
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    };
    Ok(client.conflicts.clone().get_conflict(request).await?.into_inner())
}

async fn resolve(
    client: &Client,
    mutation: &str,
    conflict: &str,
    seen_revision: i64,
    resolution: Resolution,
) -> Result<ResolveConflictResponse, Status> {
    let request = ResolveConflictRequest {
        device: "desk".into(),
        mutation_id: mutation.into(),
        conflict_id: conflict.into(),
        seen_revision,
        resolution: Some(resolution),
        document_form: DocumentForm::Json.into(),
        ..Default::default()
    };
    Ok(client.conflicts.clone().resolve_conflict(request).await?.into_inner())
}
