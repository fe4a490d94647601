//! Scripts of single rules, and a simulation of everything together.

mod chaos;
mod checks;
mod driver;
mod server;
mod simulation;
mod store;
mod wire;
mod world;
