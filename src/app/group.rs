//! One group of requests: learn what the decisions need, decide, write, commit.

use std::collections::{HashMap, HashSet};

use time::OffsetDateTime;

use super::basis::{self, Basis};
use super::cache::{Cache, Learned};
use super::committer::{Job, Verdict, Verdicts};
use crate::domain::{
    Lack, MutationResult, Revision, Rules, Space, SpaceId, SpaceState, Writes, limits,
};
use crate::hub::Arrival;
use crate::store::{self, Decided, Loaded, Source, SpaceHead, Standing, Wanted, Writer};

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
    pub(super) to: SpaceHead,
    pub(super) changes: Vec<Arrival>,
}

/// What is to be decided together.
#[derive(Debug)]
pub(super) struct Group<'j> {
    pub(super) jobs: &'j [Job],
    pub(super) rules: &'j Rules,
    pub(super) now: OffsetDateTime,
}

impl Group<'_> {
    fn bases(&self, cache: &Cache, loaded: Loaded) -> Result<HashMap<SpaceId, Basis>, Undecided> {
        // A space that does not exist yet is born when it is locked.
        basis::bases(cache, self.jobs, loaded).ok_or(Undecided::Again(Mode::Locked))
    }
}

/// What a group is decided on. Each next one costs more and takes less for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// What is cached, and the expectation that what is not is new; one round trip.
    Cached,
    /// What is read; two round trips.
    Read,
    /// What is read when the spaces are locked, which keeps others waiting.
    Locked,
}

/// Why a group was not decided.
#[derive(Debug)]
pub(super) enum Undecided {
    /// Nothing happened; it must be decided in this mode, a later one.
    Again(Mode),
    Failed(store::Error),
}

impl From<store::Error> for Undecided {
    fn from(error: store::Error) -> Self {
        Self::Failed(error)
    }
}

/// Decides the jobs' requests in order, and makes the decisions durable.
/// `decided` gets the verdicts before the commit, whose outcome may stay
/// unknown. Not cancel safe: dropped, it must take the writer with it.
pub(super) async fn decide(
    writer: &mut Writer,
    mode: Mode,
    cache: &mut Cache,
    group: &Group<'_>,
    decided: &mut Option<Verdicts>,
) -> Result<Committed, Undecided> {
    let jobs = group.jobs;
    match mode {
        Mode::Cached => {
            let bases = group.bases(cache, basis::assumed(cache, jobs))?;
            // What a stale base had seen stays as it was, wherever the space is by now.
            let plan = Draft::new(bases, group, mode).complete(writer).await?;
            // What was only assumed is read first, if it matters.
            if !plan.verdicts.iter().all(took_effect_or_replayed) {
                return Err(Undecided::Again(Mode::Read));
            }
            plan.write(writer, cache, group, decided).await
        }
        Mode::Read => {
            let mut loaded = writer.load(&basis::wanted(cache, jobs)).await?;
            if forget_stale(cache, jobs, &loaded) {
                // What was taken for cached is read now.
                loaded = writer.load(&basis::wanted(cache, jobs)).await?;
                if forget_stale(cache, jobs, &loaded) {
                    return Err(Undecided::Again(Mode::Locked));
                }
            }
            let mut draft = Draft::new(group.bases(cache, loaded)?, group, mode);
            let mut plan = draft.complete(writer).await?;
            if !plan.verdicts.iter().all(took_effect_or_replayed) {
                // What took effect before must not be answered otherwise now. For
                // what takes effect the log itself sees to that.
                let wanted = basis::wanted(cache, jobs);
                basis::extend_answers(&mut draft.bases, writer.applied(&wanted).await?);
                plan = draft.complete(writer).await?;
            }
            // A refused request leaves no trace at all that a write could check.
            if plan.verdicts.iter().any(Result::is_err) {
                return Err(Undecided::Again(Mode::Locked));
            }
            plan.write(writer, cache, group, decided).await
        }
        Mode::Locked => decide_locked(writer, cache, group, decided).await,
    }
}

/// The same under locks, where nobody can write in between.
async fn decide_locked(
    writer: &mut Writer,
    cache: &mut Cache,
    group: &Group<'_>,
    decided: &mut Option<Verdicts>,
) -> Result<Committed, Undecided> {
    let jobs = group.jobs;
    let mut locked = writer.lock(&spaces(jobs)).await?;
    let mut loaded = locked.load(&wanted_locked(cache, jobs)).await?;
    if forget_stale(cache, jobs, &loaded) {
        loaded = locked.load(&wanted_locked(cache, jobs)).await?;
    }
    let bases = group.bases(cache, loaded)?;
    let plan = Draft::new(bases, group, Mode::Locked).complete(&mut locked).await?;
    plan.fits()?;
    locked.write(&plan.decided, group.now).await.map_err(|error| match error {
        store::Error::Moved | store::Error::Repeated => {
            store::Error::Corrupt("a space that is not as it was read under its lock".into())
        }
        other => other,
    })?;
    *decided = Some(plan.verdicts.clone());
    locked.commit().await?;
    Ok(plan.committed(cache))
}

/// A group whose decisions may still lack something.
struct Draft<'g> {
    bases: HashMap<SpaceId, Basis>,
    group: &'g Group<'g>,
    mode: Mode,
    /// What was asked for, so that no decision can ask for ever.
    asked: HashSet<(SpaceId, Lack)>,
}

impl<'g> Draft<'g> {
    fn new(bases: HashMap<SpaceId, Basis>, group: &'g Group<'g>, mode: Mode) -> Self {
        Self { bases, group, mode, asked: HashSet::new() }
    }

    /// Decides, and reads what that turns out to need, until nothing is lacking.
    async fn complete(&mut self, source: &mut impl Source) -> Result<Plan, store::Error> {
        loop {
            let plan = Plan::new(&self.bases, self.group, self.mode);
            let lacks = plan.lacks();
            if lacks.is_empty() {
                return Ok(plan);
            }
            if let Some((_, lack)) = lacks.iter().find(|lack| !self.asked.insert((*lack).clone())) {
                let twice = format!("a decision asked twice for {lack:?}");
                return Err(store::Error::Corrupt(twice));
            }
            basis::extend(&mut self.bases, source.find(&lacks).await?);
        }
    }
}

/// With all earlier answers.
fn wanted_locked<'j>(cache: &Cache, jobs: &'j [Job]) -> Wanted<'j> {
    Wanted { answers_in_log: true, ..basis::wanted(cache, jobs) }
}

/// Forgets what is cached of spaces that are elsewhere by now; whether some of it
/// was taken for known, so that it has to be read.
fn forget_stale(cache: &mut Cache, jobs: &[Job], loaded: &Loaded) -> bool {
    let mut relied_on = false;
    for (space, standing) in &loaded.standings {
        if !cache.holds(*space, standing) {
            let mut jobs = jobs.iter().filter(|job| job.space.id == *space);
            relied_on |= jobs.any(|job| basis::relies_on(cache, job));
            cache.forget(*space);
        }
    }
    relied_on
}

/// What a failed write means for the group: more is read the next time.
fn again(error: store::Error, mode: Mode) -> Undecided {
    match error {
        // Its answer is looked for under locks.
        store::Error::Repeated => Undecided::Again(Mode::Locked),
        store::Error::Moved if mode == Mode::Cached => Undecided::Again(Mode::Read),
        store::Error::Moved => Undecided::Again(Mode::Locked),
        other => Undecided::Failed(other),
    }
}

fn took_effect_or_replayed(verdict: &Verdict) -> bool {
    let fine = |it: &MutationResult| it.replayed || it.outcome.took_effect();
    verdict.as_ref().is_ok_and(|results| results.iter().all(fine))
}

/// A group's decisions, before they are durable.
struct Plan {
    mode: Mode,
    spaces: HashMap<SpaceId, PlannedSpace>,
    verdicts: Verdicts,
    /// In the order of the spaces' ids, in which they are locked.
    decided: Vec<Decided>,
}

struct PlannedSpace {
    before: Standing,
    news: Option<u32>,
    state: SpaceState,
}

impl Plan {
    fn new(bases: &HashMap<SpaceId, Basis>, group: &Group<'_>, mode: Mode) -> Self {
        let begin = |(id, basis): (&SpaceId, &Basis)| {
            let (before, news) = (basis.standing, basis.news);
            (*id, PlannedSpace { before, news, state: basis.state(group.rules) })
        };
        let mut spaces: HashMap<_, _> = bases.iter().map(begin).collect();
        let verdicts = group
            .jobs
            .iter()
            .map(|job| match spaces.get_mut(&job.space.id) {
                Some(space) => space.state.decide(&job.request, group.now),
                None => Ok(Vec::new()),
            })
            .collect();
        let decided = |(id, space): (&SpaceId, &PlannedSpace)| Decided {
            space: *id,
            before: space.before,
            head: space.state.head(),
            conflicts: space.state.conflict_number(),
            unread: mode == Mode::Cached,
            writes: space.state.writes(),
        };
        let mut decided: Vec<_> = spaces.iter().map(decided).collect();
        decided.sort_by_key(|it| it.space);
        Self { mode, spaces, verdicts, decided }
    }

    /// What is missing: then the plan is of no use.
    fn lacks(&self) -> Vec<(SpaceId, Lack)> {
        let lacks = |(id, space): (&SpaceId, &PlannedSpace)| {
            let id = *id;
            space.state.lacks().iter().map(move |lack| (id, lack.clone())).collect::<Vec<_>>()
        };
        self.spaces.iter().flat_map(lacks).collect()
    }

    /// Whether what is to be logged is not too much for one transaction.
    fn fits(&self) -> Result<(), store::Error> {
        let conflicts = self.decided.iter().flat_map(|it| &it.writes.conflicts);
        let bytes = conflicts.map(|it| it.conflict.document_bytes()).sum();
        if bytes > limits::GROUP_CONFLICT_BYTES_MAX {
            return Err(store::Error::TooMuch { bytes });
        }
        Ok(())
    }

    /// Writes without locks, if nothing has changed.
    async fn write(
        self,
        writer: &mut Writer,
        cache: &mut Cache,
        group: &Group<'_>,
        decided: &mut Option<Verdicts>,
    ) -> Result<Committed, Undecided> {
        if !self.decided.iter().all(Decided::is_empty) {
            // Perhaps it is there already, which is looked for under locks.
            self.fits().map_err(|_much| Undecided::Again(Mode::Locked))?;
            *decided = Some(self.verdicts.clone());
            let written = writer.write(&self.decided, group.now).await;
            written.map_err(|error| again(error, self.mode))?;
        }
        Ok(self.committed(cache))
    }

    fn committed(self, cache: &mut Cache) -> Committed {
        let heads = self.decided.iter().map(|it| (it.space, it.before.at.head)).collect();
        for decided in &self.decided {
            if let Some(PlannedSpace { before, news, state }) = self.spaces.get(&decided.space) {
                let (before, after, news) = (*before, decided.after(), *news);
                cache.keep(decided.space, &Learned { before, after, state, news });
            }
        }
        let moved = |it: &Decided| it.moves_head() || it.moves_conflicts();
        let commits = self.decided.into_iter().filter(moved).map(|it| Commit {
            space: it.space,
            after: it.before.at.head,
            to: it.after().at,
            changes: arrivals(it.writes),
        });
        Committed { verdicts: self.verdicts, commits: commits.collect(), heads }
    }
}

fn arrivals(writes: Writes) -> Vec<Arrival> {
    let changes = writes.changes.into_iter().map(|(change, _)| change);
    changes.zip(writes.before).map(|(change, before)| Arrival { change, before }).collect()
}

/// The spaces of a group, in the order in which they are locked and born.
fn spaces(jobs: &[Job]) -> Vec<Space> {
    let mut seen = HashSet::new();
    let spaces = jobs.iter().map(|job| &job.space);
    let mut spaces: Vec<_> = spaces.filter(|space| seen.insert(space.id)).cloned().collect();
    spaces.sort_by_key(|space| space.id);
    spaces
}
