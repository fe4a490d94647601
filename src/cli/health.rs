//! `syncline health`: tells whether a server serves, for people and for
//! whatever watches a container.

use anyhow::Context;

use super::print;
use crate::config::HealthConfig;
use crate::exit::{Exit, Failure};
use crate::rpc::health::{self, Health};

pub(super) async fn run(config: HealthConfig) -> Result<Exit, Failure> {
    let target = config.target.to_string();
    let asked = health::check(config.target).await;
    let unknown = || format!("the health of {} is unknown", target.trim_end_matches('/'));
    let answer = asked.with_context(unknown)?;
    let (text, exit) = match answer {
        Health::Serving => ("serving\n", Exit::Success),
        Health::NotServing => ("not serving\n", Exit::Failure),
    };
    print(text)?;
    Ok(exit)
}
