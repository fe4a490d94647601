//! `syncline sync`: edits from stdin into a local file, each told once it is on disk; then the file
//! is synced until nothing waits to be sent. Who is killed meanwhile starts it again: what was told
//! is in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, IsTerminal};
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures_util::StreamExt;
use futures_util::future::join_all;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::lines::{self, What};
use super::outcome::word;
use super::{Local, failed};
use crate::cli::asked_to_stop;
use crate::cli::remote::output::{note, safe, say};
use crate::cli::remote::progress;
use crate::client::{EntryState, Error, Link, Phase, Problem, Status};
use crate::exit::{Exit, Failure};

/// Edits that go into the file together. Few enough to be handed over in their order.
const GROUP_MAX: usize = 30;

/// Who has the file for so long is another process: it syncs, and tells no more than what waits.
const ELSEWHERE_FOR: Duration = Duration::from_millis(500);

/// What has come of the lines.
#[derive(Debug, Default)]
struct Taken {
    /// Edits by id: some are one, because nothing came between.
    edits: BTreeSet<String>,
    /// Lines that are no edits, or can never take effect.
    refused: u64,
}

/// How the syncing has ended.
enum Ended {
    Synced,
    Late,
    Stopped,
}

pub(super) async fn run(local: &Local) -> Result<Exit, Failure> {
    let taken = take_lines(local).await?;
    let ended = match local.syncs {
        true => follow(local).await?,
        false => Ended::Late,
    };
    finish(local, &taken, &ended).await
}

/// Makes each line of stdin durable, and tells it.
async fn take_lines(local: &Local) -> Result<Taken, Failure> {
    let mut taken = Taken::default();
    if io::stdin().is_terminal() {
        return Ok(taken);
    }
    let (sender, mut lines) = mpsc::channel(GROUP_MAX * 4);
    // Nobody waits for its end: at a pipe that stays open it would not come.
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    let mut stop = std::pin::pin!(asked_to_stop());
    let (mut group, mut number) = (Vec::new(), 0_u64);
    loop {
        // Cancel: lines that were not received were not told.
        let count = tokio::select! {
            count = lines.recv_many(&mut group, GROUP_MAX) => count,
            stopped = &mut stop => {
                stopped?;
                break;
            }
        };
        if count == 0 {
            break;
        }
        let mut texts = Vec::new();
        for line in group.drain(..) {
            number += 1;
            texts.push((number, line.context("cannot read stdin")?));
        }
        texts.retain(|(_, text)| !text.trim().is_empty());
        let edits = texts.iter().map(|(number, text)| edit(local, *number, text));
        for (number, edited) in join_all(edits).await {
            told(local, number, edited, &mut taken)?;
        }
    }
    Ok(taken)
}

/// One line, into the file. Err(Err(…)) says what is wrong with the file itself.
async fn edit(
    local: &Local,
    number: u64,
    text: &str,
) -> (u64, Result<String, Result<String, Error>>) {
    let (line, what) = match lines::parse(text) {
        Ok(parsed) => parsed,
        Err(why) => return (number, Err(Ok(why))),
    };
    let (space, collection, id) = (&local.space, &line.collection, &line.id);
    let edited = match what {
        What::Put(document) => space.put(collection, id, document).await,
        What::Create(document) => space.create(collection, id, document).await,
        What::Edit(edit) => space.edit(collection, id, edit).await,
    };
    let edited = edited.map_err(|error| match error {
        Error::Invalid(_) | Error::Hopeless(_) => Ok(error.to_string()),
        error => Err(error),
    });
    (number, edited)
}

fn told(
    local: &Local,
    number: u64,
    edited: Result<String, Result<String, Error>>,
    taken: &mut Taken,
) -> Result<(), Failure> {
    match edited {
        Ok(id) => {
            let line = match local.json {
                true => json!({"edit": id, "line": number}).to_string(),
                false => format!("{id}  line {number}"),
            };
            say(&line)?;
            taken.edits.insert(id);
        }
        Err(Ok(why)) => {
            taken.refused += 1;
            note(&format!("line {number} is refused: {}", safe(&why)));
            if local.json {
                say(&json!({"line": number, "error": why}).to_string())?;
            }
        }
        Err(Err(error)) => return Err(failed(format!("cannot write line {number}"), error)),
    }
    Ok(())
}

/// Syncs until nothing waits, the time is over, or somebody has enough.
async fn follow(local: &Local) -> Result<Ended, Failure> {
    let within = local.wait.unwrap_or(Duration::MAX);
    // Cancel: all of it only reads; the file is synced beside it.
    tokio::select! {
        stopped = asked_to_stop() => {
            stopped?;
            Ok(Ended::Stopped)
        }
        synced = timeout(within, synced(local)) => match synced {
            Ok(synced) => synced.map(|()| Ended::Synced),
            Err(_elapsed) => Ok(Ended::Late),
        },
    }
}

async fn synced(local: &Local) -> Result<(), Failure> {
    let mut statuses = Box::pin(local.client.watch_status());
    let mut bar: Option<(ProgressBar, u64)> = None;
    let (mut said, mut may_end) = (None, false);
    loop {
        let patience = if may_end { ELSEWHERE_FOR } else { Duration::MAX };
        let Ok(Some(status)) = timeout(patience, statuses.next()).await else {
            // Nothing has happened: another one has the file, and nothing waits.
            return Ok(());
        };
        let status = status.map_err(|error| failed("cannot read the local file", error))?;
        let pending: u64 = status.spaces.iter().map(|it| it.pending).sum();
        let (shown, most) = bar.get_or_insert_with(|| (progress::bar(pending, "sent"), pending));
        *most = pending.max(*most);
        shown.set_length(*most);
        shown.set_position(most.saturating_sub(pending));
        if is_done(&status) {
            shown.finish_and_clear();
            return Ok(());
        }
        let problem = problem(&status);
        if said != problem {
            if let Some(it) = &problem {
                note(&format!("{}; {}", safe(&it.what), safe(&it.advice)));
            }
            said = problem;
        }
        may_end = status.link == Link::Elsewhere && pending == 0;
    }
}

fn problem(status: &Status) -> Option<Problem> {
    let of_spaces = || status.spaces.iter().find_map(|it| it.problem.clone());
    status.problem.clone().or_else(of_spaces)
}

/// Whether everything is here, and nothing waits.
fn is_done(status: &Status) -> bool {
    let is_halted = |it: &crate::client::SpaceStatus| matches!(it.phase, Some(Phase::Halted(_)));
    status.spaces.iter().all(|it| it.is_synced() || is_halted(it))
}

/// Says what has become of everything.
async fn finish(local: &Local, taken: &Taken, ended: &Ended) -> Result<Exit, Failure> {
    let unreadable = |error| failed("cannot read the local file", error);
    let mut counts: BTreeMap<&str, u64> =
        ["applied", "merged", "superseded", "conflict"].map(|it| (it, 0)).into();
    for id in &taken.edits {
        let outcome = local.space.outcome(id).await.map_err(unreadable)?;
        let state = outcome.map(|it| it.state);
        // What waits and what was set aside is counted for the whole file.
        if !state.is_some_and(|it| it.is_open() || it == EntryState::Failed) {
            *counts.entry(word(state)).or_default() += 1;
        }
    }
    let status = local.client.status().await.map_err(unreadable)?;
    let pending: u64 = status.spaces.iter().map(|it| it.pending).sum();
    let parked: u64 = status.spaces.iter().map(|it| it.parked).sum();
    counts.insert("parked", parked);
    counts.insert("queued", pending);
    if local.json {
        say(&json!(counts).to_string())?;
    } else {
        let text: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        note(&text.join("  "));
    }
    let parked = (parked > 0).then(|| {
        let error = anyhow!("{parked} edits were refused, and set aside");
        Failure::new(Exit::Refused, error).hint("`syncline parked` lists them")
    });
    let refused = (taken.refused > 0).then(|| {
        let error = anyhow!("{} lines were refused; the others are written", taken.refused);
        Failure::new(Exit::Refused, error)
    });
    let halted = status.spaces.iter().find_map(|it| match it.phase {
        Some(Phase::Halted(_)) => it.problem.clone(),
        _ => None,
    });
    let halted = halted.map(|it| {
        Failure::new(Exit::Refused, anyhow!("{}", safe(&it.what))).hint(safe(&it.advice))
    });
    let late = (local.syncs && matches!(ended, Ended::Late)).then(|| {
        let why = problem(&status).map_or_else(|| "in time".to_owned(), |it| safe(&it.what));
        let error = anyhow!("{pending} edits wait; the server has not answered: {why}");
        Failure::new(Exit::Unreachable, error).hint("run it again: what waits is in the file")
    });
    parked.or(refused).or(halted).or(late).map_or(Ok(Exit::Success), Err)
}
