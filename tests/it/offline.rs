//! The offline-first client against a real server: what an app sees, offline and online.

mod basics;
mod device;
#[cfg(test)]
mod flight;
#[cfg(test)]
mod model;
#[cfg(test)]
mod partitions;

pub use device::Device;
