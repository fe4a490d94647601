//! One group of requests: load, decide, write, commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use time::OffsetDateTime;

use super::cache::Cache;
use super::committer::{Job, Verdict, Verdicts};
use crate::domain::{Change, MutationResult, Outcome, Revision, Space, SpaceId, SpaceState};
use crate::store::{Decided, Error, Loaded, SpaceHead, Wanted, Writer};

/// A group that is durable.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) verdicts: Verdicts,
    pub(super) commits: Vec<Commit>,
    /// Where the spaces were before.
    pub(super) heads: Vec<(SpaceId, Revision)>,
}

/// What happened to one space.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) space: SpaceId,
    pub(super) after: Revision,
    pub(super) head: Revision,
    pub(super) changes: Vec<Arc<Change>>,
}

/// Whether a group may be decided without locking its spaces first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Write only if nobody wrote in between; two round trips.
    Optimistic,
    /// Lock, and keep others waiting.
    Locked,
}

/// Decides the jobs' requests in order, and makes the decisions durable.
/// `Moved` says that it must be done anew, under locks. `decided` gets the
/// verdicts before the commit, whose outcome may stay unknown. Not cancel safe:
/// dropped, it must take the writer with it.
pub(super) async fn decide(
    writer: &mut Writer,
    mode: Mode,
    cache: &mut Cache,
    jobs: &[Job],
    now: OffsetDateTime,
    decided: &mut Option<Verdicts>,
) -> Result<Committed, Error> {
    let plan = match mode {
        Mode::Optimistic => {
            let loaded = writer.load(&wanted(cache, jobs)).await?;
            let plan = Plan::new(cache, jobs, loaded, now)?;
            // An answer that no change stands for leaves no trace in the log, and
            // a refused request none at all: those are decided under locks, with
            // all earlier answers at hand.
            if !plan.verdicts.iter().all(all_applied_or_replayed) {
                return Err(Error::Moved);
            }
            if !plan.decided.iter().all(Decided::is_empty) {
                *decided = Some(plan.verdicts.clone());
                writer.write(&plan.decided, now).await?;
            }
            plan
        }
        Mode::Locked => {
            let mut locked = writer.lock(&spaces(jobs)).await?;
            let wanted = Wanted { answers_in_log: true, ..wanted(cache, jobs) };
            let loaded = locked.load(&wanted).await?;
            let plan = Plan::new(cache, jobs, loaded, now)?;
            locked.write(&plan.decided, now).await?;
            *decided = Some(plan.verdicts.clone());
            locked.commit().await?;
            plan
        }
    };
    Ok(plan.committed(cache))
}

fn all_applied_or_replayed(verdict: &Verdict) -> bool {
    let fine = |it: &MutationResult| it.replayed || matches!(it.outcome, Outcome::Applied(_));
    verdict.as_ref().is_ok_and(|results| results.iter().all(fine))
}

/// A group's decisions, before they are durable.
struct Plan {
    heads: HashMap<SpaceId, SpaceHead>,
    states: HashMap<SpaceId, SpaceState>,
    verdicts: Verdicts,
    /// In the order of the spaces' ids, in which they are locked.
    decided: Vec<Decided>,
}

impl Plan {
    fn new(
        cache: &Cache,
        jobs: &[Job],
        mut loaded: Loaded,
        now: OffsetDateTime,
    ) -> Result<Self, Error> {
        let heads = std::mem::take(&mut loaded.heads);
        let answered = std::mem::take(&mut loaded.answered);
        let mut states = states(cache, &heads, loaded, jobs)?;
        let verdicts = jobs
            .iter()
            .map(|job| match states.get_mut(&job.space.id) {
                Some(state) => state.decide(&job.request, now),
                None => Ok(Vec::new()),
            })
            .collect();
        let decided = |(space, state): (&SpaceId, &SpaceState)| Decided {
            space: *space,
            before: heads.get(space).map_or(Revision::ZERO, |before| before.head),
            head: state.head(),
            answered: answered.get(space).copied().unwrap_or_default(),
            writes: state.writes(),
        };
        let mut decided: Vec<_> = states.iter().map(decided).collect();
        decided.sort_by_key(|it| it.space);
        Ok(Self { heads, states, verdicts, decided })
    }

    fn committed(self, cache: &mut Cache) -> Committed {
        for (space, state) in &self.states {
            if let Some(before) = self.heads.get(space) {
                cache.keep(*space, before, state.head(), state.records());
            }
        }
        let commits = self.decided.into_iter().filter(Decided::moves_head).map(|it| Commit {
            space: it.space,
            after: it.before,
            head: it.head,
            changes: it.writes.changes.into_iter().map(|(change, _)| change).collect(),
        });
        Committed {
            verdicts: self.verdicts,
            commits: commits.collect(),
            heads: self.heads.iter().map(|(space, before)| (*space, before.head)).collect(),
        }
    }
}

/// The spaces of a group, in the order in which they are locked and born.
fn spaces(jobs: &[Job]) -> Vec<Space> {
    let mut seen = HashSet::new();
    let spaces = jobs.iter().map(|job| &job.space);
    let mut spaces: Vec<_> = spaces.filter(|space| seen.insert(space.id)).cloned().collect();
    spaces.sort_by_key(|space| space.id);
    spaces
}

/// What the decisions need and the cache may not have. Whether the cache holds
/// shows only with the head, so a record is asked for unless it is cached at
/// whatever head; in the rare case that it was the wrong one, the group is
/// decided anew.
fn wanted<'j>(cache: &Cache, jobs: &'j [Job]) -> Wanted<'j> {
    let mut wanted = Wanted::default();
    let (mut keys, mut devices) = (HashSet::new(), HashSet::new());
    for job in jobs {
        let space = job.space.id;
        for mutation in &job.request.mutations {
            let key = mutation.content.as_ref().ok().map(|content| &content.key);
            let key = key.filter(|key| keys.insert((space, *key)));
            let key = key.filter(|key| cache.get(space, key).is_none());
            wanted.mutations.push((space, &mutation.id, key));
        }
        let sequenced = job.request.mutations.iter().any(|it| it.device_sequence.is_some());
        if let Some(device) = job.request.device.as_ref().filter(|_| sequenced)
            && devices.insert((space, device))
        {
            wanted.sequences.push((space, device));
        }
    }
    wanted
}

/// The states of the group's spaces: what was loaded, and what is cached. A
/// space that does not exist yet, or whose cache does not hold, needs the group
/// to be decided anew.
fn states(
    cache: &Cache,
    heads: &HashMap<SpaceId, SpaceHead>,
    loaded: Loaded,
    jobs: &[Job],
) -> Result<HashMap<SpaceId, SpaceState>, Error> {
    let mut records: HashMap<_, Vec<_>> = HashMap::new();
    for (space, record) in loaded.records {
        records.entry(space).or_default().push(record);
    }
    let mut answers: HashMap<_, HashMap<_, _>> = HashMap::new();
    for (space, id, answer) in loaded.answers {
        answers.entry(space).or_default().insert(id, answer);
    }
    let mut sequences: HashMap<_, HashMap<_, _>> = HashMap::new();
    for (space, device, sequence) in loaded.sequences {
        sequences.entry(space).or_default().insert(device, sequence);
    }
    for job in jobs {
        let space = job.space.id;
        let head = heads.get(&space).ok_or(Error::Moved)?;
        for content in job.request.mutations.iter().filter_map(|it| it.content.as_ref().ok()) {
            if let Some(record) = cache.get(space, &content.key) {
                if !cache.holds(space, head) {
                    return Err(Error::Moved);
                }
                records.entry(space).or_default().push(Arc::clone(record));
            }
        }
    }
    let state = |(space, head): (&SpaceId, &SpaceHead)| {
        let state = SpaceState::new(
            head.head,
            records.remove(space).unwrap_or_default(),
            answers.remove(space).unwrap_or_default(),
            sequences.remove(space).unwrap_or_default(),
        );
        (*space, state)
    };
    Ok(heads.iter().map(state).collect())
}
