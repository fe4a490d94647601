//! Bad inputs, row by row: what is broken below gRPC, in its framing, in the
//! token and in the request. Each row says what it expects, no row may meet
//! UNKNOWN, and after each the server still answers a good call.

mod access;
mod conflicts;
mod flood;
mod framing;
mod names;
mod payloads;
mod requests;
mod tenants;
mod tokens;

use crate::support::{Client, Database, TestServer, put};

pub use tokens::{expired_token, with};

/// A server that has to survive the rows.
struct House {
    database: Database,
    server: TestServer,
    alice: Client,
    good_calls: std::sync::atomic::AtomicU64,
}

impl House {
    async fn new() -> Self {
        let database = Database::create().await;
        let server = TestServer::start(&database).await;
        let alice = server.client("alice").await;
        Self { database, server, alice, good_calls: 0.into() }
    }

    /// Compares, and makes sure that others are served as before.
    async fn check(&self, row: &str, seen: &str, expected: &str) {
        assert!(!seen.contains("Unknown"), "row {row}: {seen}");
        assert_eq!(seen, expected, "row {row}");
        self.survives(row).await;
    }

    /// A good call by somebody else, on a connection of their own.
    async fn survives(&self, row: &str) {
        let n = self.good_calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        let witness = self.server.client("witness").await;
        let result = witness.mutate(put(&format!("good{n}"), "1", "{}")).await;
        let result = result.unwrap_or_else(|status| panic!("after row {row}: {status:?}"));
        assert_eq!(u64::try_from(result.revision).unwrap(), n, "after row {row}");
    }

    /// Nothing that alice sent has had an effect.
    async fn unchanged(&self, row: &str) {
        assert_eq!(self.alice.head().await, 0, "row {row} took effect");
    }

    async fn end(self) {
        self.server.stop().await;
        drop(self.database);
    }
}
