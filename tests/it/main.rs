//! All integration tests, in one binary: real PostgreSQL, real servers on port
//! 0, real sockets.

#![expect(unreachable_pub, reason = "helpers are public among the modules of this binary")]

#[cfg(test)]
mod access;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod bad_inputs;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod checker;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod conflicts;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod granted;
#[cfg(test)]
mod health;
#[cfg(test)]
mod history;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod migration;
#[cfg(test)]
mod network;
#[cfg(test)]
mod offline;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod rpc;
#[cfg(test)]
mod seams;
#[cfg(test)]
mod storm;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod transcript;
#[cfg(test)]
mod wakeups;
#[cfg(test)]
mod web;
#[cfg(test)]
mod whole;
#[cfg(test)]
mod whole_space;
#[cfg(test)]
mod without_token;
