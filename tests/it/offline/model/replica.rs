//! A replica, and the way on which phones come to it.

use std::net::SocketAddr;

use crate::support::stutter::Stutter;
use crate::support::{Client, Database, Random, TestServer};

#[derive(Debug)]
pub struct Replica {
    server: TestServer,
    stutter: Option<Stutter>,
}

impl Replica {
    /// With a seed, answers come twice and late.
    pub async fn start(database: &Database, stutters: Option<u64>) -> Self {
        let server: TestServer = TestServer::start(database).await;
        let stutter = match stutters {
            Some(seed) => Some(Stutter::start(server.address(), Random(seed)).await),
            None => None,
        };
        Self { server, stutter }
    }

    /// Where phones find it.
    pub fn address(&self) -> SocketAddr {
        self.stutter.as_ref().map_or_else(|| self.server.address(), Stutter::address)
    }

    pub async fn client(&self, user: &str) -> Client {
        self.server.client(user).await
    }

    pub async fn admin(&self, user: &str) -> Client {
        self.server.admin(user).await
    }

    /// It ends; how many calls, and messages of streams, were there twice.
    pub async fn stop(self) -> (u64, u64) {
        self.server.stop().await;
        self.stutter.as_ref().map_or((0, 0), Stutter::doubled)
    }
}
