//! The offline-first client against a real server: what an app sees, offline and online.

mod basics;
mod device;
#[cfg(test)]
mod model;

pub use device::Device;
