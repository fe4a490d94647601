//! The offline-first client against a real server: what an app sees, offline and online.

mod anew;
mod basics;
mod device;
mod files;
mod flight;
mod heard;
mod kill;
mod leads;
mod leave;
mod model;
mod partitions;
mod processes;
mod queue;
mod secrets;
mod sides;
mod status;
mod tokens;
mod triggers;

pub use device::Device;
pub use heard::Heard;
