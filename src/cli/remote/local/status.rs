//! `status` of a local file: the link, the spaces, what waits, and what to do about what is wrong.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Local, failed};
use crate::cli::remote::output::safe;
use crate::client::{Link, Phase, Problem, SpaceStatus, Status};
use crate::exit::Failure;

/// For the link to come up, or not to.
const LINK_WITHIN: Duration = Duration::from_secs(2);

pub(super) async fn run(local: &Local) -> Result<(), Failure> {
    if local.syncs {
        let settled = async {
            let mut statuses = local.client.watch_status();
            while let Some(Ok(status)) = statuses.next().await {
                if status.link == Link::Online || status.problem.is_some() {
                    break;
                }
            }
        };
        // Late is no failure: it is told as it is.
        timeout(local.wait.unwrap_or(LINK_WITHIN), settled).await.ok();
    }
    let status = local.client.status().await;
    let status = status.map_err(|error| failed("cannot read the local file", error))?;
    let device = local.client.device();
    if local.json {
        let mut value = as_json(&status);
        if let Some(object) = value.as_object_mut() {
            object.insert("device".into(), device.into());
        }
        return local.out.say_json(&value);
    }
    let mut rows = vec![("link", link(status.link).to_owned()), ("device", safe(&device))];
    rows.extend(problem_rows(status.problem.as_ref()));
    for space in &status.spaces {
        rows.push(("space", safe(&space.name)));
        rows.push(("phase", phase(space).to_owned()));
        rows.push(("up to", format!("{} of {}", space.up_to, space.head)));
        rows.push(("pending", space.pending.to_string()));
        rows.push(("parked", space.parked.to_string()));
        rows.push(("conflicts", space.conflicts.to_string()));
        rows.extend(problem_rows(space.problem.as_ref()));
    }
    local.out.say_facts(rows)
}

fn problem_rows(problem: Option<&Problem>) -> Vec<(&'static str, String)> {
    let rows = |it: &Problem| vec![("problem", safe(&it.what)), ("advice", safe(&it.advice))];
    problem.map(rows).unwrap_or_default()
}

pub(super) fn link(link: Link) -> &'static str {
    match link {
        Link::None => "none",
        Link::Elsewhere => "elsewhere",
        Link::Offline => "offline",
        Link::Connecting => "connecting",
        Link::Online => "online",
    }
}

fn phase(space: &SpaceStatus) -> &'static str {
    match &space.phase {
        None => "-",
        Some(Phase::Waiting { .. }) => "waiting",
        Some(Phase::Status) => "status",
        Some(Phase::Settling) => "settling",
        Some(Phase::Loading { healing: false }) => "loading",
        Some(Phase::Loading { healing: true }) => "healing",
        Some(Phase::CatchingUp { .. }) => "catching up",
        Some(Phase::Live) => "live",
        Some(Phase::NoAccess { .. }) => "no access",
        Some(Phase::Halted(_)) => "halted",
        Some(Phase::Broken { .. }) => "broken",
    }
}

/// The status for programs.
pub(super) fn as_json(status: &Status) -> Value {
    let problem = |it: &Option<Problem>| {
        it.as_ref().map(|it| json!({"reason": it.reason, "what": it.what, "advice": it.advice}))
    };
    let space = |it: &SpaceStatus| {
        json!({
            "space": it.name,
            "phase": phase(it),
            "progress": it.progress,
            "up_to": it.up_to,
            "head": it.head,
            "lag": it.lag(),
            "pending": it.pending,
            "parked": it.parked,
            "conflicts": it.conflicts,
            "problem": problem(&it.problem),
        })
    };
    let spaces: Vec<Value> = status.spaces.iter().map(space).collect();
    json!({"link": link(status.link), "problem": problem(&status.problem), "spaces": spaces})
}
