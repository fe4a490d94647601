//! One group of requests in one transaction: lock, load, decide, write, commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use time::OffsetDateTime;

use super::cache::Cache;
use super::committer::{Job, Verdicts};
use crate::domain::{Change, Revision, Space, SpaceId, SpaceState};
use crate::store::{Error, Group, Loaded, SpaceHead, Wanted, Writer};

/// A group that is durable.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) verdicts: Verdicts,
    pub(super) commits: Vec<Commit>,
    /// Where the spaces were when they were locked.
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

/// Decides the jobs' requests in order, and makes the decisions durable.
/// `decided` gets the verdicts before the commit, whose outcome may stay
/// unknown. Not cancel safe: dropped, it must take the writer with it.
pub(super) async fn decide(
    writer: &mut Writer,
    cache: &mut Cache,
    jobs: &[Job],
    now: OffsetDateTime,
    decided: &mut Option<Verdicts>,
) -> Result<Committed, Error> {
    let mut group = writer.begin(&spaces(jobs)).await?;
    let mut states = load(&mut group, cache, jobs).await?;
    let verdicts: Verdicts = jobs
        .iter()
        .map(|job| match states.get_mut(&job.space.id) {
            Some(state) => state.decide(&job.request, now),
            None => Ok(Vec::new()),
        })
        .collect();
    let writes: Vec<_> =
        states.iter().map(|(space, state)| (*space, state.head(), state.writes())).collect();
    group.write(&writes, now).await?;
    let heads = std::mem::take(&mut group.heads);
    *decided = Some(verdicts.clone());
    group.commit().await?;

    for (space, state) in &states {
        if let Some(before) = heads.get(space) {
            cache.keep(*space, before, state.head(), state.records());
        }
    }
    let after = |space| heads.get(&space).map_or(Revision::ZERO, |before: &SpaceHead| before.head);
    let commits = writes
        .into_iter()
        .filter(|(_, _, writes)| !writes.changes.is_empty())
        .map(|(space, head, writes)| Commit {
            space,
            after: after(space),
            head,
            changes: writes.changes.into_iter().map(|(change, _)| change).collect(),
        })
        .collect();
    let heads = heads.iter().map(|(space, before)| (*space, before.head)).collect();
    Ok(Committed { verdicts, commits, heads })
}

fn spaces(jobs: &[Job]) -> Vec<Space> {
    let mut seen = HashSet::new();
    let spaces = jobs.iter().map(|job| &job.space);
    spaces.filter(|space| seen.insert(space.id)).cloned().collect()
}

/// The states of the group's spaces, from the cache where it holds, else read
/// under the lock.
async fn load(
    group: &mut Group<'_>,
    cache: &Cache,
    jobs: &[Job],
) -> Result<HashMap<SpaceId, SpaceState>, Error> {
    let mut wanted = Wanted::default();
    let mut cached = Vec::new();
    let (mut seen_keys, mut seen_devices) = (HashSet::new(), HashSet::new());
    for job in jobs {
        let space = job.space.id;
        let known = group.heads.get(&space).and_then(|head| cache.records(space, head));
        for mutation in &job.request.mutations {
            wanted.answers.push((space, mutation.id.clone()));
            if let Ok(content) = &mutation.content
                && seen_keys.insert((space, &content.key))
            {
                match known.and_then(|records| records.get(&content.key)) {
                    Some(record) => cached.push((space, Arc::clone(record))),
                    None => wanted.records.push((space, content.key.clone())),
                }
            }
        }
        let sequenced = job.request.mutations.iter().any(|it| it.device_sequence.is_some());
        if let Some(device) = job.request.device.as_ref().filter(|_| sequenced)
            && seen_devices.insert((space, device))
        {
            wanted.sequences.push((space, device.clone()));
        }
    }
    let mut loaded = group.load(&wanted).await?;
    loaded.records.extend(cached);
    Ok(states(&group.heads, loaded))
}

fn states(heads: &HashMap<SpaceId, SpaceHead>, loaded: Loaded) -> HashMap<SpaceId, SpaceState> {
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
    let state = |(space, head): (&SpaceId, &SpaceHead)| {
        let state = SpaceState::new(
            head.head,
            records.remove(space).unwrap_or_default(),
            answers.remove(space).unwrap_or_default(),
            sequences.remove(space).unwrap_or_default(),
        );
        (*space, state)
    };
    heads.iter().map(state).collect()
}
