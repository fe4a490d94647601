//! `syncline token`: prints a token, and nothing else, on stdout.

use super::print;
use crate::clock::Clock;
use crate::config::TokenConfig;
use crate::exit::{Exit, Failure};

pub(super) fn run(config: &TokenConfig) -> Result<(), Failure> {
    let now = Clock::system().unix_seconds();
    let token = config.signer.mint(&config.user, config.ttl, now);
    let token = token.map_err(|error| Failure::new(Exit::Usage, error))?;
    print(&format!("{token}\n"))
}
