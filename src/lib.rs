//! Syncline: JSON records over gRPC, stored in PostgreSQL.

pub mod app;
pub mod chain;
pub mod clock;
pub mod domain;
pub mod hub;
pub mod rpc;
pub mod store;
pub mod tasks;
