//! The wire.
pub mod encoded;
pub mod proto;
