//! A record's way from what a writer had seen to what it is now.

mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::merge::Claims;
use super::{Base, Change, DeviceId, Policy, Revision, Seen, Step, limits};

pub use view::View;

/// Which part of a log has to be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// For whom.
    pub device: Option<DeviceId>,
    /// After this revision, with what there was then.
    pub from: Revision,
    /// With every document. Otherwise those are left out of what the device wrote
    /// itself that its view has already, and that no other write came upon.
    pub whole: bool,
}

/// What is known of a record's earlier changes.
#[derive(Clone, Debug, Default)]
pub struct PastLog {
    /// There is a log that can be read.
    pub(super) is_stored: bool,
    changes: BTreeMap<Revision, Arc<Change>>,
    /// For each way that was read, the record's last change before it, or None if
    /// that is no longer kept.
    bases: HashMap<Way, Option<Arc<Change>>>,
    views: HashMap<DeviceId, View>,
    /// All copies share it: a queue meets the same writes again and again.
    read: Arc<Mutex<Option<Read>>>,
}

/// What was read last of others' writes.
#[derive(Debug)]
struct Read {
    changes: Vec<Arc<Change>>,
    base: Option<Arc<Change>>,
    claims: Arc<Claims>,
}

/// What happened to a record after what a writer had seen.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) base: Base,
    /// The base with what the writer's own earlier writes made of it.
    pub(super) view: Base,
    /// The time of the last version that the writer knew; 0 if there was none.
    pub(super) known_micros: i64,
    /// Oldest first; one that stands for all where they are too many. Empty if
    /// there was nothing that the writer did not know.
    pub(super) steps: Vec<Step>,
    /// What they claim.
    pub(super) claims: Arc<Claims>,
}

impl Past {
    /// A way of which only the ends count: all of it was written by others.
    fn of_ends(
        policy: &Policy,
        current: &Arc<Change>,
        base: Base,
        view: Base,
        known_micros: i64,
    ) -> Self {
        let steps = vec![Step { paths: None, ..step(current, false) }];
        let claims = Arc::new(Claims::of(policy, base.document(), &steps));
        Self { base, view, known_micros, steps, claims }
    }

    /// The time of the last version that the writer did not know.
    pub(super) fn unseen_micros(&self) -> i64 {
        let unseen = self.steps.iter().filter(|step| !step.seen);
        unseen.map(|step| step.claimed.micros).max().unwrap_or(0)
    }
}

impl PastLog {
    /// Takes in what was read of a way: the change that was the last one before it,
    /// and those on it, unless they are too many.
    pub fn extend(
        &mut self,
        way: Way,
        base: Option<Arc<Change>>,
        changes: impl IntoIterator<Item = Arc<Change>>,
    ) {
        self.bases.insert(way, base);
        for change in changes {
            // Another way may have left its document out.
            if !change.is_left_out() || !self.changes.contains_key(&change.revision) {
                self.changes.insert(change.revision, change);
            }
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

    /// The way to `current`. Err: this has to be read.
    pub(super) fn since(
        &self,
        current: &Arc<Change>,
        seen: &Seen,
        device: Option<&DeviceId>,
        policy: &Policy,
    ) -> Result<Past, Way> {
        let floor = seen.floor(current.writers_but(device));
        let whole = matches!(seen, Seen::Vector(_));
        let way = Way { device: device.cloned(), from: floor, whole };
        let found = self.bases.get(&way);
        // Only the log knows what a device has met before.
        if device.is_some() && self.is_stored && found.is_none() {
            return Err(way);
        }
        let own = |it: &Arc<Change>| device.is_some() && it.device.as_ref() == device;
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
            // What was left out for another device, or on another way, is no document at all.
            let before = self.changes.get(&at.previous_revision);
            match before.filter(|it| !it.is_left_out() || (own(it) && !whole)) {
                Some(before) => at = before,
                None => {
                    let found = found.ok_or(way)?.as_ref();
                    return Ok(self.cut_short(current, seen, device, policy, found));
                }
            }
        };
        // Of what a vector has not covered, the oldest tells where the ways part.
        let unseen = |it: &Arc<Change>| !own(it) && !seen.covers(&it.entry());
        let parts = after.iter().rposition(|it| unseen(it)).map_or(0, |index| index + 1);
        let before = after.get(parts).copied().or(base);
        let base = Base::Known(before.and_then(|it| it.document.clone()));
        after.truncate(parts);
        let known = after.iter().filter(|it| !unseen(it)).map(|it| it.claimed().micros);
        let known_micros = known.chain(before.map(|it| it.micros)).max().unwrap_or(0);
        let view = self.view(seen, device, &base, &after);
        // Of a way that is too long only the ends count, also if it is all known. A device's own
        // writes make it no longer: it may have queued a thousand.
        let others: Vec<_> = after.iter().filter(|it| unseen(it)).collect();
        let documents = others.iter().filter_map(|it| it.document.as_ref());
        let bytes: usize = documents.map(|document| document.as_str().len()).sum();
        if others.len() > limits::PAST_CHANGES_MAX || bytes > limits::PAST_BYTES_MAX {
            return Ok(Past::of_ends(policy, current, base, view, known_micros));
        }
        let steps: Vec<_> = after.iter().rev().map(|it| step(it, !unseen(it))).collect();
        let claims = self.claims(before, &others, || Claims::of(policy, base.document(), &steps));
        Ok(Past { base, view, known_micros, steps, claims })
    }

    /// What these very changes claim, as it was read before, or is now.
    fn claims(
        &self,
        base: Option<&Arc<Change>>,
        changes: &[&&Arc<Change>],
        read: impl FnOnce() -> Claims,
    ) -> Arc<Claims> {
        let mut last = self.read.lock();
        // Not by their revisions: what a group has taken back had the same.
        let known = last.as_ref().filter(|last| {
            let known = last.changes.iter().map(Arc::as_ptr);
            last.base.as_ref().map(Arc::as_ptr) == base.map(Arc::as_ptr)
                && known.eq(changes.iter().map(|change| Arc::as_ptr(change)))
        });
        if let Some(known) = known {
            return Arc::clone(&known.claims);
        }
        let changes = changes.iter().map(|change| Arc::clone(change)).collect();
        let (base, claims) = (base.cloned(), Arc::new(read()));
        Arc::clone(&last.insert(Read { changes, base, claims }).claims)
    }

    /// The base with what the device's own writes made of it, as far as they met, or
    /// passed, what it has not seen: those before are part of the base.
    fn view(
        &self,
        seen: &Seen,
        device: Option<&DeviceId>,
        base: &Base,
        after: &[&Arc<Change>],
    ) -> Base {
        let Some(device) = device else { return base.clone() };
        let met = self.views.get(device).filter(|view| !seen.covers(&view.met));
        let (at, mut document) = match (met, base) {
            (Some(view), _) => (view.at, view.document.clone()),
            (None, Base::Known(document)) => (Revision::ZERO, document.clone()),
            (None, Base::Lost) => return Base::Lost,
        };
        let mut before = base.document();
        for change in after.iter().rev() {
            if change.device.as_ref() == Some(device) && change.revision > at {
                document = view::followed(document.as_ref(), before, change);
            }
            before = change.document.as_ref();
        }
        Base::Known(document)
    }

    /// The way of which only the ends are known.
    fn cut_short(
        &self,
        current: &Arc<Change>,
        seen: &Seen,
        device: Option<&DeviceId>,
        policy: &Policy,
        found: Option<&Arc<Change>>,
    ) -> Past {
        let base = match (seen, found) {
            (Seen::Revision(Revision::ZERO), _) => Base::Known(None),
            (Seen::Revision(_), Some(base)) => Base::Known(base.document.clone()),
            (Seen::Revision(_), None) | (Seen::Vector(_), _) => Base::Lost,
        };
        let known_micros = found.map_or(0, |it| it.micros);
        let view = self.view(seen, device, &base, &[]);
        Past::of_ends(policy, current, base, view, known_micros)
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
