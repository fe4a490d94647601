//! A record's way from what a writer had seen to what it is now.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Base, Change, DeviceId, Document, HistoryEntry, Revision, Seen, Step, limits};

/// What is known of a record's earlier changes.
#[derive(Clone, Debug, Default)]
pub struct PastLog {
    changes: BTreeMap<Revision, Arc<Change>>,
    /// Revisions from which on the log was read: the record's last change up to
    /// there, or None if it is no longer kept.
    bases: HashMap<Revision, Option<Arc<Change>>>,
    views: HashMap<DeviceId, View>,
}

/// What a device had made of the record when it last met another's write.
#[derive(Clone, Debug)]
pub struct View {
    /// What it met.
    pub met: HistoryEntry,
    /// None = it had deleted the record.
    pub document: Option<Document>,
}

/// What happened to a record after what a writer had seen.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) base: Base,
    /// The base with what the writer's own earlier writes made of it.
    pub(super) view: Base,
    /// The time of the base's version; 0 if there was none.
    pub(super) base_micros: i64,
    /// Oldest first; one that stands for all where they are too many.
    pub(super) steps: Vec<Step>,
}

impl PastLog {
    /// Takes in what was read from `from` on: the change that was the last one
    /// there, and those after it, unless they are too many.
    pub fn extend(
        &mut self,
        from: Revision,
        base: Option<Arc<Change>>,
        changes: impl IntoIterator<Item = Arc<Change>>,
    ) {
        self.bases.insert(from, base);
        for change in changes {
            self.changes.insert(change.revision, change);
        }
    }

    /// Takes in what a device had made of the record, later than what is known.
    pub fn note_view(&mut self, device: DeviceId, view: View) {
        self.views.insert(device, view);
    }

    /// Takes in changes that are at hand.
    pub(super) fn extend_known<'c>(&mut self, changes: impl Iterator<Item = &'c Arc<Change>>) {
        self.changes.extend(changes.map(|change| (change.revision, Arc::clone(change))));
    }

    /// The way to `current`. Err: the log has to be read from this revision on.
    pub(super) fn since(
        &self,
        current: &Arc<Change>,
        seen: &Seen,
        device: Option<&DeviceId>,
    ) -> Result<Past, Revision> {
        let floor = seen.floor(current.writers_but(device));
        let mut after = Vec::new();
        let mut at = current;
        let base = loop {
            if at.revision <= floor {
                break Some(at);
            }
            after.push(at);
            if at.previous_revision == Revision::ZERO {
                break None;
            }
            match self.changes.get(&at.previous_revision) {
                Some(before) => at = before,
                None => return self.cut_short(current, seen, device, floor),
            }
        };
        // Of what a vector has not covered, the oldest tells where the ways part.
        let foreign = |it: &&Arc<Change>| device.is_none() || it.device.as_ref() != device;
        let unseen = |it: &&Arc<Change>| foreign(it) && !seen.covers(&it.entry());
        let parts = after.iter().rposition(unseen).map_or(0, |index| index + 1);
        let base_micros = after.get(parts).copied().or(base).map_or(0, |it| it.micros);
        let base = after.get(parts).copied().or(base).and_then(|it| it.document.clone());
        let base = Base::Known(base);
        after.truncate(parts);
        // Of a way that is too long only the ends count, also if it is all known. A device's own
        // writes make it no longer: it may have queued a thousand.
        let others: Vec<_> = after.iter().filter(|it| unseen(it)).collect();
        let documents = others.iter().filter_map(|it| it.document.as_ref());
        let bytes: usize = documents.map(|document| document.as_str().len()).sum();
        if others.len() > limits::PAST_CHANGES_MAX || bytes > limits::PAST_BYTES_MAX {
            let steps = vec![Step { paths: None, ..step(current, false) }];
            return Ok(Past { view: self.view(seen, device, &base), base, base_micros, steps });
        }
        let steps = after.into_iter().rev().map(|it| step(it, !unseen(&it))).collect();
        Ok(Past { view: self.view(seen, device, &base), base, base_micros, steps })
    }

    /// The base with what the device's own writes made of it, as far as they met
    /// what it has not seen: those before are part of the base.
    fn view(&self, seen: &Seen, device: Option<&DeviceId>, base: &Base) -> Base {
        let view = device.and_then(|device| self.views.get(device));
        match view.filter(|view| !seen.covers(&view.met)) {
            Some(view) => Base::Known(view.document.clone()),
            None => base.clone(),
        }
    }

    /// The way of which only the ends are known.
    fn cut_short(
        &self,
        current: &Arc<Change>,
        seen: &Seen,
        device: Option<&DeviceId>,
        floor: Revision,
    ) -> Result<Past, Revision> {
        let found = self.bases.get(&floor).ok_or(floor)?;
        let base = match (seen, found) {
            (Seen::Revision(Revision::ZERO), _) => Base::Known(None),
            (Seen::Revision(_), Some(base)) => Base::Known(base.document.clone()),
            (Seen::Revision(_), None) | (Seen::Vector(_), _) => Base::Lost,
        };
        let base_micros = found.as_ref().map_or(0, |it| it.micros);
        // All of it counts as written by others.
        let step = Step { paths: None, ..step(current, false) };
        Ok(Past { view: self.view(seen, device, &base), base, base_micros, steps: vec![step] })
    }
}

fn step(change: &Arc<Change>, seen: bool) -> Step {
    Step {
        seen,
        claimed: change.claimed(),
        document: change.document.clone(),
        paths: change.settlement.as_ref().and_then(|it| it.claims.clone()),
    }
}
