//! What has become of edits: waited for, a little, and told. Must not know which command asks.

use std::time::Duration;

use anyhow::anyhow;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Local, WAIT, failed};
use crate::cli::remote::output::{Style, note, safe, say};
use crate::client::{EntryState, Link, Outcome, Problem};
use crate::exit::{Exit, Failure};

/// An edit that was made, and of what.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) edit: String,
    pub(super) collection: String,
    pub(super) id: String,
}

/// Waits for what becomes of edits, prints it, and says how the program ends.
pub(super) async fn tell(local: &Local, asked: Vec<Asked>) -> Result<Exit, Failure> {
    let mut problem = None;
    if local.syncs {
        let settled = async {
            for it in &asked {
                // What fails is read again below.
                local.space.settled(&it.edit).await.ok();
            }
        };
        // Cancel: both only read.
        tokio::select! {
            _ = timeout(local.wait.unwrap_or(WAIT), settled) => {}
            why = trouble(local) => problem = why,
        }
    }
    let mut first = Ok(Exit::Success);
    let mut waits = false;
    for it in &asked {
        let outcome = local.space.outcome(&it.edit).await;
        let outcome = outcome.map_err(|error| failed("cannot read the local file", error))?;
        let line = match local.json {
            true => json(it, outcome.as_ref()).to_string(),
            false => line(local, it, outcome.as_ref()),
        };
        say(&line)?;
        waits |= outcome.as_ref().is_some_and(|it| it.state.is_open());
        match (&first, end(it, outcome.as_ref())) {
            (Ok(_), ended) => first = ended,
            (Err(_), Err(failure)) => _ = failure.report(),
            (Err(_), Ok(_)) => {}
        }
    }
    if let Some(problem) = problem.or(problem_now(local).await).filter(|_| waits) {
        note(&format!("it is sent later: {}; {}", safe(&problem.what), safe(&problem.advice)));
    }
    first
}

async fn problem_now(local: &Local) -> Option<Problem> {
    local.client.status().await.ok().and_then(|status| status.problem)
}

/// Waits until it is plain that the server does not answer now, unless somebody has said how
/// long to wait for it.
async fn trouble(local: &Local) -> Option<Problem> {
    let mut statuses = Box::pin(local.client.watch_status());
    while let Some(Ok(status)) = statuses.next().await {
        if local.wait.is_none() && status.link == Link::Offline && status.problem.is_some() {
            return status.problem;
        }
    }
    // Without more news there is only the wait.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    None
}

/// As it is called to people and programs.
pub(super) fn word(state: Option<EntryState>) -> &'static str {
    match state {
        Some(EntryState::Pending | EntryState::Syncing) => "queued",
        Some(EntryState::Failed) => "rejected",
        Some(state) => state.as_str(),
        None => "unknown",
    }
}

fn json(it: &Asked, outcome: Option<&Outcome>) -> Value {
    let mut value = json!({
        "outcome": word(outcome.map(|it| it.state)),
        "collection": it.collection,
        "id": it.id,
        "edit": it.edit,
    });
    let (Some(outcome), Some(object)) = (outcome, value.as_object_mut()) else { return value };
    if outcome.revision > 0 {
        object.insert("revision".into(), outcome.revision.into());
    }
    if let Some(trouble) = &outcome.trouble {
        object.insert("rejection".into(), rejection(trouble));
    }
    value
}

/// Why an edit was refused, for programs.
pub(super) fn rejection(trouble: &crate::client::Trouble) -> Value {
    let violation = |(field, rule): &(String, String)| json!({"field": field, "description": rule});
    let violations: Vec<Value> = trouble.violations.iter().map(violation).collect();
    let mut value = json!({"reason": trouble.reason, "message": trouble.message});
    if let (false, Some(object)) = (violations.is_empty(), value.as_object_mut()) {
        object.insert("violations".into(), violations.into());
    }
    value
}

fn line(local: &Local, it: &Asked, outcome: Option<&Outcome>) -> String {
    let state = outcome.map(|it| it.state);
    let style = match state {
        Some(EntryState::Applied) => Style::Good,
        Some(EntryState::Failed | EntryState::Conflict) => Style::Bad,
        _ => Style::Careful,
    };
    let key = safe(&format!("{}/{}", it.collection, it.id));
    let mut line = format!("{}  {key}", local.out.paint(style, word(state)));
    match outcome {
        Some(Outcome { trouble: Some(trouble), .. }) => {
            line.push_str(&format!("  {}", safe(&trouble.reason)));
        }
        Some(outcome) if outcome.revision > 0 => {
            line.push_str(&format!("  revision {}", outcome.revision));
        }
        _ => {}
    }
    line
}

fn end(it: &Asked, outcome: Option<&Outcome>) -> Result<Exit, Failure> {
    let Some(outcome) = outcome else { return Ok(Exit::Success) };
    let key = safe(&format!("{}/{}", it.collection, it.id));
    match outcome.state {
        EntryState::Failed => {
            let trouble = outcome.trouble.clone().unwrap_or_default();
            let why = anyhow!("{} ({})", safe(&trouble.message), safe(&trouble.reason));
            let error = why.context(format!("the edit of {key} was rejected, and set aside"));
            let hint = format!("syncline retry {0}, or syncline discard {0}", outcome.id);
            Err(Failure::new(Exit::Refused, error).hint(hint))
        }
        EntryState::Conflict => {
            let error = anyhow!("the edit of {key} met a conflict, and changed nothing");
            let hint = "`syncline conflicts` lists it, `syncline resolve` decides it";
            Err(Failure::new(Exit::Refused, error).hint(hint))
        }
        EntryState::Merged => {
            note("another device had written meanwhile; the record is now something of both");
            Ok(Exit::Success)
        }
        EntryState::Superseded => {
            note("another device had written meanwhile, and its policy kept that; yours is logged");
            Ok(Exit::Success)
        }
        EntryState::Pending | EntryState::Syncing | EntryState::Applied => Ok(Exit::Success),
    }
}
