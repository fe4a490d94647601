//! A subscriber's memory, held against the log: what came is the log's, and what did
//! not come was replaced by a later change of the same record.

use std::collections::{BTreeMap, HashSet};

use super::{Seen, Sight};
use crate::support::history::{Line, Log};

impl Seen {
    /// Holds it against the log: what came is the log's, and what did not come
    /// was replaced by a later change of the same record.
    pub fn check(&self, log: &Log) -> Result<(), String> {
        self.earlier.iter().try_for_each(|it| it.compare(log, false))?;
        self.compare(log, false)
    }

    /// The same, of a subscriber that was live all the time since it had caught up: of
    /// what came then not even what was replaced is missing.
    pub fn check_every_step(&self, log: &Log) -> Result<(), String> {
        self.compare(log, true)
    }

    fn compare(&self, log: &Log, every_step: bool) -> Result<(), String> {
        self.check_snapshot(log)?;
        if self.cursor > log.head {
            return Err(format!("at {}, the head is {}", self.cursor, log.head));
        }
        let live_since = self.live_since.unwrap_or(0);
        // Only what was seen can stand for what was not, and what was seen without its
        // document only for the subscriber's own.
        let mut replaced = HashSet::new();
        let mut replaced_own = HashSet::new();
        for line in log.lines.iter().rev().take_while(|it| it.revision > self.began) {
            let key = line.key();
            if line.revision > self.cursor {
                replaced.insert(key);
                continue;
            }
            let sight = self.view.sight(line);
            let every_step = every_step && line.revision > live_since;
            let Some(change) = self.changes.get(&line.revision) else {
                let lost = match sight {
                    Sight::Not => false,
                    Sight::Marked => !replaced.contains(&key) && !replaced_own.contains(&key),
                    Sight::Whole => !replaced.contains(&key),
                };
                if lost || (every_step && sight != Sight::Not) {
                    return Err(format!("{} is lost", line.revision));
                }
                continue;
            };
            self.check_sight(log, line, sight, change.own, every_step)?;
            if change.own {
                replaced_own.insert(key)
            } else {
                replaced.insert(key)
            };
        }
        match self.changes.keys().next_back() {
            Some(last) if *last > self.cursor => Err(format!("{last} is beyond the cursor")),
            _ => self.check_shown(log),
        }
    }

    /// Whether a change that came is one that the view wants, and wants like this.
    fn check_sight(
        &self,
        log: &Log,
        line: &Line,
        sight: Sight,
        marked: bool,
        every_step: bool,
    ) -> Result<(), String> {
        let revision = line.revision;
        match (sight, marked) {
            (Sight::Whole, false) | (Sight::Marked, true) => Ok(()),
            (Sight::Not | Sight::Marked, false)
                if self.view.has(line.key()) && self.first.contains(&revision) =>
            {
                Ok(())
            }
            (Sight::Whole | Sight::Not, true) => Err(format!("{revision} is marked as own")),
            (Sight::Not, false) if !self.view.has(line.key()) => {
                Err(format!("{revision} was filtered out"))
            }
            // An own change is sent where it hides what another device did.
            (Sight::Not, false) if every_step || !self.may_hide(log, line) => {
                Err(format!("{revision} was filtered out"))
            }
            (Sight::Marked, false) if every_step || !self.may_hide(log, line) => {
                Err(format!("{revision} is not marked as own"))
            }
            (Sight::Not | Sight::Marked, false) => Ok(()),
        }
    }

    /// Whether an own change replaced one of another device that did not come, or
    /// one that, for all the server knows, did not.
    fn may_hide(&self, log: &Log, own: &Line) -> bool {
        let unknown = self.paged.contains(&own.revision);
        let earlier = log.lines.iter().filter(|it| it.revision < own.revision);
        let mut others = earlier.filter(|it| it.key() == own.key() && !self.view.is_own(it));
        others.any(|it| {
            let missing = it.revision > self.began && !self.changes.contains_key(&it.revision);
            unknown || missing
        })
    }

    /// The snapshot is the log, folded up to its revision; as far as it came, if it
    /// was interrupted.
    fn check_snapshot(&self, log: &Log) -> Result<(), String> {
        let Some(at) = self.snapshot_at else { return Ok(()) };
        let mut state = BTreeMap::new();
        for line in log.lines.iter().filter(|line| line.revision <= at) {
            let key = (line.collection.clone(), line.id.clone());
            state.insert(key, (line.revision, line.document.clone()));
        }
        let last = self.snapshot.keys().next_back();
        let came = |key: &_| self.cursor > 0 || last.is_some_and(|last| key <= last);
        let wanted = |(collection, id): &(String, String)| self.view.has((collection, id));
        state.retain(|key, (_, document)| document.is_some() && wanted(key) && came(key));
        (self.snapshot == state).then_some(()).ok_or_else(|| {
            let differs = state.iter().find(|(key, it)| self.snapshot.get(*key) != Some(it));
            let extra = self.snapshot.keys().find(|key| !state.contains_key(*key));
            format!("the snapshot at {at} is wrong: {differs:?} {extra:?}")
        })
    }
}
