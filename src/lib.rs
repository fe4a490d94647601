//! Syncline: JSON records over gRPC, stored in PostgreSQL.
//!
//! In reading order: `domain` decides, `store` keeps, `hub` tells, `app` does
//! what callers ask for, `rpc` is the wire, `server` puts them together.
//! ARCHITECTURE.md has the map and three walkthroughs.

pub mod domain;

pub mod store;

pub mod hub;

pub mod app;

pub mod auth;
pub mod rpc;

pub mod postgres;
pub mod server;

pub mod client;

pub mod bench;
pub mod cli;
pub mod config;
pub mod exit;
pub mod logging;

mod failpoint;

pub mod bell;
pub mod chain;
pub mod clock;
pub mod metrics;
pub mod tasks;
