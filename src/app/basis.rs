//! What a group is decided on: what is cached, what is read, and what is taken
//! for granted until the write shows whether it holds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::cache::Cache;
use super::committer::Job;
use crate::domain::{Content, Known, Operation, OwnDevice, Rules, Seen, SpaceId, SpaceState};
use crate::store::{Found, Loaded, SpaceHead, Standing, Wanted};

/// What is known of one space.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    pub(super) standing: Standing,
    /// How many records looked new, were not cached, and are new indeed; None if
    /// one of them was there.
    pub(super) news: Option<u32>,
    known: Known,
}

impl Basis {
    fn at(standing: Standing) -> Self {
        let SpaceHead { head, floor, conflicts, .. } = standing.at;
        let usage = standing.usage;
        let known = Known { head, floor, conflicts, usage, ..Known::default() };
        Self { standing, news: Some(0), known }
    }

    /// The state that decisions begin with.
    pub(super) fn state(&self, rules: &Rules) -> SpaceState {
        SpaceState::new(self.known.clone(), rules.clone())
    }
}

/// Whether these jobs may be decided without reading anything: all that they
/// name is cached or can be expected to be new.
pub(super) fn is_known(cache: &Cache, jobs: &[Job]) -> bool {
    jobs.iter().all(|job| {
        let space = job.space.id;
        let record_known = |content: &Content| {
            (looks_new(content) && cache.expects_new(space))
                || cache.record(space, &content.key).is_some()
        };
        let mutations = &job.request.mutations;
        cache.standing(space).is_some()
            && mutations.iter().all(|it| it.content.as_ref().is_ok_and(record_known))
            && sequenced(job).is_none_or(|device| cache.sequence(space, &device).is_some())
    })
}

/// Whether something that the job names is cached.
pub(super) fn relies_on(cache: &Cache, job: &Job) -> bool {
    let space = job.space.id;
    let mut contents = job.request.mutations.iter().filter_map(|it| it.content.as_ref().ok());
    contents.any(|content| cache.record(space, &content.key).is_some())
        || sequenced(job).is_some_and(|device| cache.sequence(space, &device).is_some())
}

/// Whether the client seems to write the record for the first time.
fn looks_new(content: &Content) -> bool {
    matches!(content.operation, Operation::Create(_) | Operation::Put(_))
        && content.base.as_ref().is_none_or(Seen::is_nothing)
}

/// The device whose sequence the job moves.
fn sequenced(job: &Job) -> Option<OwnDevice> {
    let moves = job.request.mutations.iter().any(|it| it.device_sequence.is_some());
    moves.then(|| job.request.own_device()).flatten()
}

/// What the decisions need and the cache may not have. Whether the cache holds
/// shows only with the head, so a record is asked for unless it is cached at
/// whatever head; in the rare case that it was the wrong one, all is read anew.
pub(super) fn wanted<'j>(cache: &Cache, jobs: &'j [Job]) -> Wanted<'j> {
    let mut wanted = Wanted::default();
    let (mut keys, mut devices) = (HashSet::new(), HashSet::new());
    for job in jobs {
        let space = job.space.id;
        for mutation in &job.request.mutations {
            let key = mutation.content.as_ref().ok().map(|content| &content.key);
            let key = key.filter(|key| keys.insert((space, *key)));
            let key = key.filter(|key| cache.record(space, key).is_none());
            wanted.mutations.push((space, &mutation.id, key));
        }
        if let Some(device) = sequenced(job)
            && cache.sequence(space, &device).is_none()
            && devices.insert((space, device.clone()))
        {
            wanted.sequences.push((space, device));
        }
    }
    wanted
}

/// What stands in for reading: the spaces are where they were.
pub(super) fn assumed(cache: &Cache, jobs: &[Job]) -> Loaded {
    let standing = |job: &Job| Some((job.space.id, cache.standing(job.space.id)?));
    Loaded { standings: jobs.iter().filter_map(standing).collect(), ..Loaded::default() }
}

/// What is known of each space of the group. None if one of them does not exist
/// yet.
pub(super) fn bases(
    cache: &Cache,
    jobs: &[Job],
    loaded: Loaded,
) -> Option<HashMap<SpaceId, Basis>> {
    let Loaded { standings, records, answers, sequences } = loaded;
    let standings = standings.into_iter();
    let mut bases: HashMap<_, _> =
        standings.map(|(space, standing)| (space, Basis::at(standing))).collect();
    let mut found = HashSet::new();
    for (space, record) in records {
        found.insert((space, record.key.clone()));
        bases.get_mut(&space)?.known.records.push(record);
    }
    for (space, id, answer) in answers {
        bases.get_mut(&space)?.known.answers.insert(id, answer);
    }
    for (space, device, sequence) in sequences {
        bases.get_mut(&space)?.known.sequences.insert(device, sequence);
    }
    for job in jobs {
        let space = job.space.id;
        let basis = bases.get_mut(&space)?;
        for content in job.request.mutations.iter().filter_map(|it| it.content.as_ref().ok()) {
            if let Some(record) = cache.record(space, &content.key) {
                basis.known.records.push(Arc::clone(record));
            } else if looks_new(content) {
                let is_new = found.is_empty() || !found.contains(&(space, content.key.clone()));
                basis.news = basis.news.filter(|_| is_new).map(|count| count + 1);
            }
        }
        if let Some(device) = sequenced(job)
            && let Some(sequence) = cache.sequence(space, &device)
        {
            basis.known.sequences.insert(device, sequence);
        }
    }
    Some(bases)
}

/// Adds what decisions turned out to need.
pub(super) fn extend(bases: &mut HashMap<SpaceId, Basis>, found: Found) {
    for (wanted, past) in found.pasts {
        if let Some(basis) = bases.get_mut(&wanted.space) {
            let log = basis.known.pasts.entry(wanted.key).or_default();
            let device = wanted.way.device.clone();
            log.extend(wanted.way, past.base, past.changes);
            if let Some((device, view)) = device.zip(past.view) {
                log.note_view(device, view);
            }
        }
    }
    for (space, key, open) in found.open {
        if let Some(basis) = bases.get_mut(&space) {
            basis.known.open.insert(key, open);
        }
    }
    for (space, id, conflict) in found.named {
        if let Some(basis) = bases.get_mut(&space) {
            basis.known.named.insert(id, conflict.map(Arc::new));
        }
    }
}

/// Adds answers that were found in the log.
pub(super) fn extend_answers(bases: &mut HashMap<SpaceId, Basis>, loaded: Loaded) {
    for (space, id, answer) in loaded.answers {
        if let Some(basis) = bases.get_mut(&space) {
            basis.known.answers.insert(id, answer);
        }
    }
}
