//! Conflicts of a space while a group is decided: what a stale write met, what is
//! logged, and what closes.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use super::{ClosedConflict, LoggedConflict, Slot, SpaceState};
use crate::domain::decide::Asking;
use crate::domain::{
    Closing, ClosingKind, Conflict, ConflictState, Content, OpenConflict, Operation, Outcome,
    PastLog, Record, Revision,
};

impl SpaceState {
    /// What is known of the record's past, with what this group did.
    pub(super) fn past(&self, content: &Content, slot: &Slot) -> PastLog {
        if content.base.is_none() {
            return PastLog::default();
        }
        let mut past = self.pasts.get(&content.key).cloned().unwrap_or_default();
        past.is_stored = slot.stored.is_some();
        past.extend_known(slot.stored.iter().map(|record| &record.change));
        let moved = slot.stored.as_ref().map(|it| it.revision)
            != slot.current.as_ref().map(|it| it.revision);
        let changes = self.changes.iter().map(|(change, _)| change);
        past.extend_known(changes.filter(|change| moved && change.key == content.key));
        let ours = self.conflicts.iter().map(|logged| &logged.conflict);
        for conflict in ours.filter(|conflict| conflict.key == content.key) {
            if let Some(device) = &conflict.client.device {
                past.note_view(device.clone(), conflict.view());
            }
        }
        past
    }

    /// The conflict that a resolution names: Some(None) if it is not open, None
    /// if that is not known.
    pub(super) fn named_by(&self, operation: &Operation) -> Option<Option<Arc<Conflict>>> {
        let Operation::Resolve(resolve) = operation else { return None };
        let id = &resolve.conflict;
        let mut ours = self.conflicts.iter().map(|logged| &logged.conflict);
        let found = match ours.find(|conflict| conflict.id == *id) {
            Some(conflict) => Some(Arc::clone(conflict)),
            None => self.named.get(id)?.clone(),
        };
        let closed = self.closed.iter().any(|closed| closed.id == *id);
        Some(found.filter(|conflict| !closed && conflict.state() == ConflictState::Open))
    }

    /// The record stays.
    pub(super) fn stay(
        &mut self,
        asking: &Asking<'_>,
        record: Arc<Record>,
        conflict: Conflict,
    ) -> Outcome {
        let conflict = self.log(asking, Conflict { revision: self.head, ..conflict });
        if conflict.state() != ConflictState::Open {
            return Outcome::Superseded(record, Some(conflict));
        }
        if let Some(slot) = self.records.get_mut(&record.key) {
            if let Some(open) = &mut slot.open {
                open.push(conflict.as_open());
            }
            let change = Arc::clone(&record.change);
            let open_conflicts = record.open_conflicts.saturating_add(1);
            slot.current = Some(Arc::new(Record { change, open_conflicts }));
        }
        Outcome::Conflict(record, Some(conflict))
    }

    pub(super) fn log(&mut self, asking: &Asking<'_>, conflict: Conflict) -> Arc<Conflict> {
        self.conflict_number += 1;
        let open = conflict.state() == ConflictState::Open;
        let expires_at = if open { None } else { expiry(asking) };
        let conflict = Arc::new(conflict);
        let (number, logged) = (self.conflict_number, Arc::clone(&conflict));
        self.conflicts.push(LoggedConflict { number, found: number, conflict: logged, expires_at });
        conflict
    }

    /// Closes the open conflicts that a change resolves, or whose sides it knew;
    /// how many.
    pub(super) fn close(
        &mut self,
        asking: &Asking<'_>,
        content: &Content,
        revision: Revision,
    ) -> i32 {
        let none = &mut Vec::new();
        let slot = self.records.get_mut(&content.key);
        let open = slot.and_then(|slot| slot.open.as_mut()).unwrap_or(none);
        let ended: Vec<_> = match &content.operation {
            Operation::Resolve(resolve) => {
                open.retain(|open| open.id != resolve.conflict);
                vec![resolve.conflict.clone()]
            }
            _ => {
                let knew = |open: &OpenConflict| {
                    let seen = content.base.as_ref();
                    seen.is_some_and(|seen| open.is_superseded(seen, asking.author, asking.device))
                };
                open.extract_if(.., |open| knew(open)).map(|open| open.id).collect()
            }
        };
        let closing = Closing {
            kind: ClosingKind::of(&content.operation),
            author: asking.author.clone(),
            device: asking.device.cloned(),
            mutation_id: asking.mutation.id.clone(),
            revision,
            at: asking.now,
        };
        let count = i32::try_from(ended.len()).unwrap_or(i32::MAX);
        for id in ended {
            self.conflict_number += 1;
            let (number, closing) = (self.conflict_number, closing.clone());
            self.closed.push(ClosedConflict { id, number, closing, expires_at: expiry(asking) });
        }
        count
    }
}

/// When what is closed now may be forgotten.
fn expiry(asking: &Asking<'_>) -> Option<OffsetDateTime> {
    let kept = asking.policy?.policy.conflict_retention_seconds?;
    asking.now.checked_add(Duration::seconds(i64::try_from(kept).ok()?))
}
