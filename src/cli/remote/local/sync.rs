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
use crate::cli::remote::output::{note, safe};
use crate::cli::remote::progress;
use crate::client::{EntryState, Error, Link, Phase, Problem, SpaceStatus, Status, StoreError};
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
    /// Somebody has had enough meanwhile.
    stopped: bool,
}

/// How the syncing has ended.
enum Ended {
    Synced,
    /// There is no server that takes the token.
    Refused(Problem),
    Late,
    Stopped,
}

pub(super) async fn run(local: &Local) -> Result<Exit, Failure> {
    let taken = take_lines(local).await?;
    let ended = match (taken.stopped, local.syncs) {
        (true, _) => Ended::Stopped,
        (false, true) => follow(local).await?,
        (false, false) => Ended::Late,
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
        for line in io::stdin().lock().split(b'\n') {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    let mut stop = std::pin::pin!(asked_to_stop());
    let (mut group, mut number) = (Vec::new(), 0_u64);
    loop {
        // Cancel: lines that were not received were not told. Signals come first: they are heard
        // from before the first line.
        let count = tokio::select! {
            biased;
            stopped = &mut stop, if !taken.stopped => {
                stopped?;
                taken.stopped = true;
                // What was read is written, and then it is over.
                lines.close();
                continue;
            }
            count = lines.recv_many(&mut group, GROUP_MAX) => count,
        };
        if count == 0 {
            break;
        }
        let mut texts = Vec::new();
        for line in group.drain(..) {
            number += 1;
            texts.push((number, line.context("cannot read stdin")?));
        }
        texts.retain(|(_, text)| !text.trim_ascii().is_empty());
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
    text: &[u8],
) -> (u64, Result<String, Result<String, Error>>) {
    let text = std::str::from_utf8(text).map_err(|error| format!("it is no UTF-8: {error}"));
    let (line, what) = match text.and_then(lines::parse) {
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
            match local.json {
                true => local.out.say_json(&json!({"edit": id, "line": number}))?,
                false => local.out.say(&format!("{id}  line {number}"))?,
            }
            taken.edits.insert(id);
        }
        Err(Ok(why)) => {
            taken.refused += 1;
            match local.json {
                true => local.out.say_json(&json!({"line": number, "error": why}))?,
                false => note(&format!("line {number} is refused: {}", safe(&why))),
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
            Ok(ended) => ended,
            Err(_elapsed) => Ok(Ended::Late),
        },
    }
}

async fn synced(local: &Local) -> Result<Ended, Failure> {
    let mut statuses = local.client.watch_status();
    let mut bar: Option<(ProgressBar, u64)> = None;
    let (mut said, mut may_end) = (BTreeSet::new(), false);
    loop {
        let patience = if may_end { ELSEWHERE_FOR } else { Duration::MAX };
        let Ok(next) = timeout(patience, statuses.next()).await else {
            // Nothing has happened: another one has the file, and nothing waits.
            return Ok(Ended::Synced);
        };
        let status = next.unwrap_or_else(|| Err(StoreError::Closed.into()));
        let status = status.map_err(|error| failed("cannot read the local file", error))?;
        let pending: u64 = status.spaces.iter().map(|it| it.pending).sum();
        let (shown, most) = bar.get_or_insert_with(|| (progress::bar(pending, "sent"), pending));
        *most = pending.max(*most);
        shown.set_length(*most);
        shown.set_position(most.saturating_sub(pending));
        if is_done(&status) {
            shown.finish_and_clear();
            return Ok(Ended::Synced);
        }
        if let Some(it) = problem(&status) {
            if it.reason == "UNAUTHENTICATED" {
                shown.finish_and_clear();
                return Ok(Ended::Refused(it));
            }
            // It may come again with each attempt.
            if said.insert(it.what.clone()) {
                shown.suspend(|| note(&format!("{}; {}", safe(&it.what), safe(&it.advice))));
            }
        }
        may_end = status.link == Link::Elsewhere && pending == 0;
    }
}

fn problem(status: &Status) -> Option<Problem> {
    let of_spaces = || status.spaces.iter().find_map(|it| it.problem.clone());
    status.problem.clone().or_else(of_spaces)
}

/// Whether everything is here, and nothing waits, as far as that will ever be.
fn is_done(status: &Status) -> bool {
    status.spaces.iter().all(|it| it.is_synced() || is_over(it))
}

/// Whether waiting is in vain: it is halted, or may not be seen.
fn is_over(space: &SpaceStatus) -> bool {
    matches!(space.phase, Some(Phase::Halted(_) | Phase::NoAccess { .. }))
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
    let conflicts = counts.get("conflict").copied().unwrap_or_default();
    counts.insert("parked", parked);
    counts.insert("queued", pending);
    if local.json {
        local.out.say_json(&json!(counts))?;
    } else {
        let text: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
        note(&text.join("  "));
    }
    let refused = refused(taken.refused, parked, conflicts).or_else(|| {
        let over = status.spaces.iter().filter(|it| is_over(it)).find_map(|it| it.problem.clone());
        over.map(|it| Failure::new(Exit::Refused, anyhow!(it.what)).hint(it.advice))
    });
    let waits = match ended {
        Ended::Refused(problem) => {
            let error = anyhow!("{pending} edits wait: {}", problem.what);
            return Err(Failure::new(Exit::Token, error).hint(problem.advice.as_str()));
        }
        Ended::Synced => None,
        Ended::Late => {
            let why = problem(&status).map_or_else(|| "in time".to_owned(), |it| it.what);
            Some(anyhow!("{pending} edits wait; the server has not answered: {why}"))
        }
        Ended::Stopped => (pending > 0).then(|| anyhow!("stopped; {pending} edits wait")),
    };
    let waits = waits.filter(|_| local.syncs).map(|error| {
        Failure::new(Exit::Unreachable, error).hint("run it again: what waits is in the file")
    });
    refused.or(waits).map_or(Ok(Exit::Success), Err)
}

/// That something will not take effect by itself, if that is so.
fn refused(lines: u64, parked: u64, conflicts: u64) -> Option<Failure> {
    let refused = |error| Failure::new(Exit::Refused, error);
    if parked > 0 {
        let error = anyhow!("{parked} edits were refused, and set aside");
        return Some(refused(error).hint("`syncline parked` lists them"));
    }
    if lines > 0 {
        return Some(refused(anyhow!("{lines} lines were refused; the others are written")));
    }
    (conflicts > 0).then(|| {
        let error = anyhow!("{conflicts} edits met a conflict, and changed nothing");
        refused(error).hint("`syncline conflicts` lists them, `syncline resolve` decides them")
    })
}
