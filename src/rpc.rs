//! The wire: gRPC in, domain types onwards. The server's only place that knows tonic and
//! prost; `from_proto` and `to_proto` convert, `status` turns errors into
//! statuses.

mod acting;
mod answers;
pub mod auth;
mod caller;
mod check;
mod codec;
mod conflict_service;
pub mod encoded;
mod exchange;
mod frame_watch;
mod frames;
mod from_proto;
pub mod health;
mod incoming;
mod intake;
mod lending;
mod linger;
mod live;
mod outbox;
mod outer;
mod page;
mod policy_service;
pub mod proto;
mod queue_service;
mod rates;
mod replace;
mod server;
mod service;
mod session;
mod snapshot;
mod space_service;
mod status;
mod subscription;
mod subscriptions;
mod tls;
mod to_proto;
mod token;
mod web;
mod whole_space;

pub use queue_service::parse_mutation;
pub use server::{Parts, serve};
pub use tls::{Tls, TlsError, TlsFiles};
