//! What has become of edits: waited for, a little, and told. Must not know which command asks.

use anyhow::anyhow;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Local, WAIT, failed};
use crate::cli::remote::ends::{self, First};
use crate::cli::remote::output::{Style, note, safe};
use crate::cli::remote::shown;
use crate::client::remote::Violation;
use crate::client::{EntryState, Link, Outcome, Problem, Trouble};
use crate::exit::{Exit, Failure};

/// An edit that was made, and of what.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) edit: String,
    pub(super) collection: String,
    pub(super) id: String,
}

/// Waits for what becomes of edits, prints it, and says how the program ends; `first` knows what has
/// failed before.
pub(super) async fn tell(
    local: &Local,
    asked: Vec<Asked>,
    mut first: First,
) -> Result<Exit, Failure> {
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
    let mut waits = false;
    for it in &asked {
        let outcome = local.space.outcome(&it.edit).await;
        let outcome = outcome.map_err(|error| failed("cannot read the local file", error))?;
        match local.json {
            true => local.out.say_json(&json(it, outcome.as_ref()))?,
            false => local.out.say(&line(local, it, outcome.as_ref()))?,
        }
        waits |= outcome.as_ref().is_some_and(|it| it.state.is_open());
        first.add(end(it, outcome.as_ref()));
    }
    if let Some(problem) = problem.or(problem_now(local).await).filter(|_| waits) {
        note(&format!("it is sent later: {}; {}", safe(&problem.what), safe(&problem.advice)));
    }
    first.end()
}

async fn problem_now(local: &Local) -> Option<Problem> {
    local.client.status().await.ok().and_then(|status| status.problem)
}

/// Waits until it is plain that the server does not answer now, unless somebody has said how
/// long to wait for it.
async fn trouble(local: &Local) -> Option<Problem> {
    let mut statuses = local.client.watch_status();
    while let Some(Ok(status)) = statuses.next().await {
        if local.wait.is_none() && status.link == Link::Offline && status.problem.is_some() {
            return status.problem;
        }
    }
    // Without more news there is only the wait.
    std::future::pending().await
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
pub(super) fn rejection(trouble: &Trouble) -> Value {
    ends::rejection_json(&trouble.reason, &trouble.message, &violations(trouble))
}

/// Fields that break a rule.
pub(super) fn violations(trouble: &Trouble) -> Vec<Violation> {
    let violation = |(field, rule): &(String, String)| Violation {
        field: field.clone(),
        description: rule.clone(),
    };
    trouble.violations.iter().map(violation).collect()
}

fn line(local: &Local, it: &Asked, outcome: Option<&Outcome>) -> String {
    let state = outcome.map(|it| it.state);
    let style = match state {
        Some(EntryState::Applied) => Style::Good,
        Some(EntryState::Failed | EntryState::Conflict) => Style::Bad,
        _ => Style::Careful,
    };
    let key = safe(&format!("{}/{}", it.collection, it.id));
    let reason = outcome.and_then(|it| it.trouble.as_ref()).map(|it| it.reason.as_str());
    let revision = outcome.map_or(0, |it| it.revision);
    shown::outcome_line(local.out, (word(state), style), &key, reason, revision)
}

fn end(it: &Asked, outcome: Option<&Outcome>) -> Result<Exit, Failure> {
    let Some(outcome) = outcome else { return Ok(Exit::Success) };
    let key = safe(&format!("{}/{}", it.collection, it.id));
    match outcome.state {
        EntryState::Failed => {
            let trouble = outcome.trouble.clone().unwrap_or_default();
            let what = format!("the edit of {key} was rejected, and set aside");
            let violations = violations(&trouble);
            let failure = ends::rejected(what, &trouble.reason, &trouble.message, violations);
            Err(failure.hint(format!("syncline retry {0}, or syncline discard {0}", outcome.id)))
        }
        EntryState::Conflict => {
            let error = anyhow!("the edit of {key} met a conflict, and changed nothing");
            let hint = "`syncline conflicts` lists it, `syncline resolve` decides it";
            Err(Failure::new(Exit::Refused, error).hint(hint))
        }
        EntryState::Merged => {
            ends::note_merged();
            Ok(Exit::Success)
        }
        EntryState::Superseded => {
            ends::note_superseded();
            Ok(Exit::Success)
        }
        EntryState::Pending | EntryState::Syncing | EntryState::Applied => Ok(Exit::Success),
    }
}
