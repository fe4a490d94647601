//! What most tests begin with.

use super::{Client, Database, TestServer};

/// A server on a database of its own, and alice, who may set policies.
pub struct House {
    pub database: Database,
    pub server: TestServer,
    pub alice: Client,
}

impl House {
    pub async fn new() -> Self {
        let database = Database::create().await;
        let server = TestServer::start(&database).await;
        let alice = server.admin("alice").await;
        Self { database, server, alice }
    }
}
