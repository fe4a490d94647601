//! The offline-first client against a real server: what an app sees, offline and online.

mod anew;
mod basics;
mod device;
mod files;
mod flight;
mod kill;
mod leads;
mod leave;
mod model;
mod partitions;
mod processes;
mod queue;
mod sides;

pub use device::Device;
