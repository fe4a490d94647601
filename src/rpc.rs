//! The wire: gRPC in, domain types onwards. The server's only place that knows tonic and
//! prost; `from_proto` and `to_proto` convert, `status` turns errors into
//! statuses.

#[cfg(feature = "server")]
mod acting;
#[cfg(feature = "server")]
mod answers;
#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
mod caller;
#[cfg(feature = "server")]
mod check;
#[cfg(feature = "server")]
mod codec;
#[cfg(feature = "server")]
mod conflict_service;
#[cfg(feature = "server")]
pub mod encoded;
#[cfg(feature = "server")]
mod exchange;
#[cfg(feature = "server")]
mod frame_watch;
#[cfg(feature = "server")]
mod frames;
#[cfg(feature = "server")]
mod from_proto;
#[cfg(feature = "server")]
pub mod health;
#[cfg(feature = "server")]
mod incoming;
#[cfg(feature = "server")]
mod intake;
#[cfg(feature = "server")]
mod lending;
#[cfg(feature = "server")]
mod linger;
#[cfg(feature = "server")]
mod live;
#[cfg(feature = "server")]
mod outbox;
#[cfg(feature = "server")]
mod outer;
#[cfg(feature = "server")]
mod page;
#[cfg(feature = "server")]
mod policy_service;
pub mod proto;
#[cfg(feature = "server")]
mod queue_service;
#[cfg(feature = "server")]
mod rates;
#[cfg(feature = "server")]
mod replace;
mod rules;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod service;
#[cfg(feature = "server")]
mod session;
#[cfg(feature = "server")]
mod snapshot;
#[cfg(feature = "server")]
mod space_service;
#[cfg(feature = "server")]
mod status;
#[cfg(feature = "server")]
mod subscription;
#[cfg(feature = "server")]
mod subscriptions;
#[cfg(feature = "server")]
mod tls;
#[cfg(feature = "server")]
mod to_proto;
#[cfg(feature = "server")]
mod token;
#[cfg(feature = "server")]
mod web;
#[cfg(feature = "server")]
mod whole_space;

pub use rules::parse_policy;

#[cfg(feature = "server")]
pub use queue_service::parse_mutation;
#[cfg(feature = "server")]
pub use server::{Parts, serve};
#[cfg(feature = "server")]
pub use tls::{Tls, TlsError, TlsFiles};
