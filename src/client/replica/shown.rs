//! What is shown of a record: the server's state with the queued edits on top, decided by the
//! same function as on the server, so that what is shown now is what the server will most
//! likely say.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{Held, Local, Replica};
use crate::client::entry::{Entry, Kept};
use crate::domain::{
    Asking, Change, ChangeAction, Decision, DeviceId, Document, History, HistoryEntry, Knowing,
    Mutation, MutationId, Parents, PastLog, Record, RecordKey, Rejection, Revision, UserId, Way,
    decide,
};

impl Replica {
    /// Finds anew what is shown of a record.
    pub(super) fn show(&mut self, key: &RecordKey) {
        let entries: Vec<_> = self.entries_of(key).filter(|it| it.is_shown()).collect();
        let local = self.records.get(key).cloned().unwrap_or_default();
        let (shown, dirty) = (self.on_top(local.server.as_ref(), &entries), !entries.is_empty());
        if shown != local.shown || dirty != local.dirty {
            // That nothing of it waits any more is news to who watches, too.
            self.touched.shown.insert(key.clone());
            self.touched.records.insert(key.clone());
            self.records.insert(key.clone(), Local { shown, dirty, ..local });
        }
    }

    /// The server's state with these edits on top.
    fn on_top(&self, server: Option<&Held>, entries: &[&Entry]) -> Option<Document> {
        let mut stack = Stack::new(server.map(|held| held.record.clone()));
        for entry in entries {
            // What is refused or loses is not shown: the server will say so as well.
            let _outcome = self.lay(&mut stack, entry);
        }
        stack.current.and_then(|record| record.document.clone())
    }

    /// Lays one edit on top.
    pub(super) fn lay(&self, stack: &mut Stack, entry: &Entry) -> Result<(), Rejection> {
        let mutation = entry.mutation();
        let Ok(content) = &mutation.content else { return Ok(()) };
        let identity = &self.identity;
        let asking = Asking {
            author: &identity.user,
            actor: None,
            device: Some(&identity.device),
            mutation: &mutation,
            policy: identity.policies.of(&entry.key.collection).map(AsRef::as_ref),
            now: from_micros(entry.client_micros),
            skew_micros: 0,
        };
        let (past, current) = (stack.past(entry, &identity.device), stack.met(entry));
        let knowing = Knowing {
            current: current.as_ref(),
            past: &past,
            conflict: None,
            floor: Revision::ZERO,
        };
        match decide(content, &asking, &knowing) {
            Decision::Change(state) => {
                stack.put(&asking, &mutation, state.action, state.document, state.micros);
                Ok(())
            }
            Decision::Reject(rejection) => Err(rejection),
            Decision::Stay(_) | Decision::NeedsPast(_) | Decision::NeedsConflict => Ok(()),
        }
    }

    /// The record as it is shown, with what stands on top of the server's state.
    pub(super) fn stack(&self, key: &RecordKey) -> Stack {
        let server = self.records.get(key).and_then(|local| local.server.as_ref());
        let mut stack = Stack::new(server.map(|held| held.record.clone()));
        for entry in self.entries_of(key).filter(|it| it.is_shown()) {
            let _outcome = self.lay(&mut stack, entry);
        }
        stack
    }
}

/// A record while edits are laid on top of it.
pub(super) struct Stack {
    pub(super) current: Option<Record>,
    /// As the server has it.
    server: Option<Record>,
}

impl Stack {
    pub(super) fn new(server: Option<Record>) -> Self {
        Self { current: server.clone(), server }
    }

    /// What is known of the record's past, as the edit needs it: what it was based on, and
    /// that all since then was one step.
    fn past(&self, entry: &Entry, device: &DeviceId) -> PastLog {
        let mut log = PastLog::default();
        let Some((server, kept)) = self.server.as_ref().zip(entry.kept.as_ref()) else {
            return log;
        };
        let base = before(server, kept).map(|revision| {
            Arc::new(Change {
                revision,
                // Nothing is known of what was before it.
                previous_revision: Revision::ZERO,
                document: kept.document.clone(),
                action: action(kept.document.as_ref()),
                ..Change::clone(&server.change)
            })
        });
        let way = Way { device: Some(device.clone()), from: entry.base, whole: false };
        log.extend(way, base.clone(), base.into_iter().chain([since(server, kept)]));
        log
    }

    /// The record that the edit meets, as the step after what it was based on.
    fn met(&self, entry: &Entry) -> Option<Record> {
        let current = self.current.as_ref()?;
        match (&entry.kept, &self.server) {
            (Some(kept), Some(server)) if server.revision == current.revision => {
                Some(Record { change: since(server, kept), open_conflicts: 0 })
            }
            _ => Some(current.clone()),
        }
    }

    /// Makes the edit's effect the record's state.
    fn put(
        &mut self,
        asking: &Asking<'_>,
        mutation: &Mutation,
        action: ChangeAction,
        document: Option<Document>,
        micros: i64,
    ) {
        let Ok(content) = &mutation.content else { return };
        let before = self.current.take();
        let own = |record: &Record| record.device.as_ref() == asking.device;
        let others = match &before {
            None => Revision::ZERO,
            Some(record) if own(record) => record.foreign_revision(),
            Some(record) => record.revision.max(record.foreign_revision()),
        };
        // It has no revision yet; one above the server's stands for it.
        let server = self.server.as_ref().map_or(Revision::ZERO, |it| it.revision);
        let change = Change {
            revision: server.next(),
            key: content.key.clone(),
            action,
            document,
            previous_revision: server,
            author: asking.author.clone(),
            actor: None,
            device: asking.device.cloned(),
            sequence: mutation.sequence(),
            mutation_id: mutation.id.clone(),
            committed_at: asking.now,
            micros,
            parents: Parents::default(),
            others: others_up_to(others),
            settlement: None,
            batch_end: Revision::ZERO,
        };
        self.current = Some(Record { change: Arc::new(change), open_conflicts: 0 });
    }
}

/// Of what an edit was based on, if there was anything. Revisions of another history may be later
/// than all of this one: they say nothing.
fn before(server: &Record, kept: &Kept) -> Option<Revision> {
    (kept.revision > Revision::ZERO && kept.revision < server.revision).then_some(kept.revision)
}

/// The server's record as the one step after another state of it.
fn since(server: &Record, kept: &Kept) -> Arc<Change> {
    let previous_revision = before(server, kept).unwrap_or(Revision::ZERO);
    Arc::new(Change { previous_revision, ..Change::clone(&server.change) })
}

fn action(document: Option<&Document>) -> ChangeAction {
    match document {
        Some(_) => ChangeAction::Updated,
        None => ChangeAction::Deleted,
    }
}

/// The history of a record of which only the last write of another device counts.
pub(in crate::client) fn others_up_to(revision: Revision) -> History {
    let entry = HistoryEntry { device: None, sequence: 0, revision };
    History::new((revision > Revision::ZERO).then_some(entry).into_iter().collect())
}

pub(in crate::client) fn from_micros(micros: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A record as the wire tells of it, with as much of its past as counts here.
pub(in crate::client) struct Told {
    pub(in crate::client) key: RecordKey,
    pub(in crate::client) revision: Revision,
    pub(in crate::client) document: Option<Document>,
    pub(in crate::client) author: UserId,
    pub(in crate::client) device: Option<DeviceId>,
    pub(in crate::client) sequence: i64,
    /// The time of its version.
    pub(in crate::client) micros: i64,
    /// The last revision that another device than its own gave it.
    pub(in crate::client) foreign: Revision,
    pub(in crate::client) committed_at: OffsetDateTime,
}

impl Told {
    pub(in crate::client) fn record(self) -> Record {
        let change = Change {
            revision: self.revision,
            action: action(self.document.as_ref()),
            key: self.key,
            document: self.document,
            previous_revision: Revision::ZERO,
            author: self.author,
            actor: None,
            device: self.device,
            sequence: self.sequence,
            mutation_id: MutationId::from_stored(""),
            committed_at: self.committed_at,
            micros: self.micros,
            parents: Parents::default(),
            others: others_up_to(self.foreign),
            settlement: None,
            batch_end: Revision::ZERO,
        };
        Record { change: Arc::new(change), open_conflicts: 0 }
    }
}
