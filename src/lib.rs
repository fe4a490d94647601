//! Syncline: JSON records over gRPC, stored in PostgreSQL.
//!
//! In reading order: `domain` decides, `store` keeps, `hub` tells, `app` does
//! what callers ask for, `rpc` is the wire, `server` puts them together; `client`
//! is the other side, which works without a network. ARCHITECTURE.md has the map
//! and the walkthroughs. The feature `server` has the service, `client` the library
//! for apps, `cli` the program.

pub mod domain;

#[cfg(feature = "server")]
pub mod store;

#[cfg(feature = "server")]
pub mod hub;

#[cfg(feature = "server")]
pub mod app;

#[cfg(feature = "server")]
pub mod auth;
pub mod rpc;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "server")]
pub mod postgres;
#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "cli")]
pub mod bench;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod exit;
#[cfg(feature = "server")]
pub mod logging;

mod failpoint;

#[cfg(feature = "server")]
pub mod bell;
pub mod chain;
pub mod clock;
#[cfg(feature = "server")]
pub mod metrics;
pub mod tasks;
