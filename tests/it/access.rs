//! Who may do what: shared spaces and their members, grants of tokens, acting for others,
//! and how soon a change of all that is felt.

mod acting;
mod devices;
mod live;
mod random;
mod requests;
mod roles;
mod spaces;
mod worlds;

use std::time::Duration;

use syncline::clock::Clock;
use syncline::rpc::proto::{
    self, BatchMutateRequest, CreateSpaceRequest, Mutation, MutationResult, RemoveMemberRequest,
    Role, SetMemberRequest,
};
use tonic::Status;

use crate::support::{Client, Database, TestServer, mint_granted};

/// A server and a shared space of alice's.
pub struct Team {
    pub database: Database,
    pub server: TestServer,
    pub alice: Client,
    pub space: String,
}

impl Team {
    pub async fn new() -> Self {
        let database = Database::create().await;
        let server = TestServer::start(&database).await;
        let alice = server.client("alice").await;
        let space = create(&alice, "team").await.unwrap().space;
        Self { database, server, alice, space }
    }

    /// A client of somebody with these grants.
    pub async fn granted(&self, user: &str, grants: &[&str]) -> Client {
        granted(&self.server, user, grants).await
    }

    pub async fn set(&self, user: &str, role: Role, collections: &[&str]) {
        set(&self.alice, &self.space, (user, role, collections)).await.unwrap();
    }

    pub async fn remove(&self, user: &str) {
        remove(&self.alice, &self.space, user).await.unwrap();
    }

    pub async fn end(self) {
        self.server.stop().await;
        drop(self.database);
    }
}

async fn granted(server: &TestServer, user: &str, grants: &[&str]) -> Client {
    let token = mint_granted(user, grants, Duration::from_hours(1), &Clock::system());
    Client::connect(server.address(), &token).await
}

/// A shared space of the caller's.
pub async fn create(client: &Client, request_id: &str) -> Result<proto::Space, Status> {
    let title = format!("The {request_id}");
    let request = CreateSpaceRequest { request_id: request_id.into(), title, ..Default::default() };
    Ok(client.spaces.clone().create_space(request).await?.into_inner().space.unwrap())
}

/// Lets somebody in, with this role.
pub async fn set(
    client: &Client,
    space: &str,
    (user, role, collections): (&str, Role, &[&str]),
) -> Result<(), Status> {
    let collections = collections.iter().map(|name| (*name).to_owned()).collect();
    let (space, user) = (space.to_owned(), user.to_owned());
    let request = SetMemberRequest { space, user, role: role.into(), collections };
    client.spaces.clone().set_member(request).await.map(drop)
}

/// Shows somebody out.
pub async fn remove(client: &Client, space: &str, user: &str) -> Result<(), Status> {
    let request = RemoveMemberRequest { space: space.to_owned(), user: user.to_owned() };
    client.spaces.clone().remove_member(request).await.map(drop)
}

/// Writes to a space.
async fn write(
    client: &Client,
    space: &str,
    mutations: Vec<Mutation>,
) -> Result<Vec<MutationResult>, Status> {
    let request = BatchMutateRequest { space: space.into(), mutations, ..Default::default() };
    Ok(client.stub.clone().batch_mutate(request).await?.into_inner().results)
}

/// A put of any collection.
fn put_in(collection: &str, id: &str, record: &str, text: &str) -> Mutation {
    let key = proto::RecordKey { collection: collection.into(), id: record.into() };
    Mutation { key: Some(key), ..crate::support::put(id, record, text) }
}
