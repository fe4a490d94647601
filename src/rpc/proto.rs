//! The generated types. They do not leave `rpc`, except towards clients.

#![allow(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::use_self,
    unreachable_pub,
    missing_debug_implementations,
    reason = "generated"
)]

tonic::include_proto!("syncline.v1");

#[cfg(feature = "server")]
/// The server's side, with answers that are encoded already.
pub mod server {
    include!(concat!(env!("OUT_DIR"), "/server/syncline.v1.rs"));
}

/// The contract as reflection serves it, with its comments.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
