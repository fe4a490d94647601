//! Scripts of single rules, and a simulation of everything together.

mod chaos;
mod checks;
mod desk;
mod driver;
mod follows;
mod links;
mod places;
mod pushes;
mod server;
mod shares;
mod simulation;
mod store;
mod wire;
mod world;
