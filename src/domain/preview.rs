//! What a policy would have done: pure. Its mode does not matter here.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{
    Change, Conflict, Document, MutationId, Pointer, Policy, RecordKey, Resolved, Revision,
    Verdict, Violation, limits, resolve_logged,
};

/// What a policy would have done with conflicts and writes.
#[derive(Clone, Debug)]
pub struct Preview {
    policy: Policy,
    now: OffsetDateTime,
    pub conflicts: usize,
    pub applied: usize,
    pub merged: usize,
    pub superseded: usize,
    pub opened: usize,
    pub rejected: usize,
    /// Conflicts that would have ended otherwise; the first of those that came.
    pub changed: Vec<PreviewedConflict>,
    pub writes: usize,
    pub invalid_writes: usize,
    /// Writes that break the schema; the first of those that came.
    pub invalid: Vec<PreviewedWrite>,
}

/// A conflict that would have ended otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewedConflict {
    pub id: MutationId,
    pub key: RecordKey,
    /// How it was decided.
    pub decision: Verdict,
    /// How it would have been; None = the write would have been rejected.
    pub preview: Option<Verdict>,
    /// Where the record would have lost what a side had written.
    pub lost: Vec<Pointer>,
}

/// A write that the schema would have refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewedWrite {
    pub revision: Revision,
    pub key: RecordKey,
    pub violations: Vec<Violation>,
}

impl Preview {
    /// Nothing so far.
    pub fn new(policy: Policy, now: OffsetDateTime) -> Self {
        Self {
            policy,
            now,
            conflicts: 0,
            applied: 0,
            merged: 0,
            superseded: 0,
            opened: 0,
            rejected: 0,
            changed: Vec::new(),
            writes: 0,
            invalid_writes: 0,
            invalid: Vec::new(),
        }
    }

    /// Tries a conflict, from which the record had come out with a document of this
    /// checksum; None if that is not known.
    pub fn conflict(&mut self, conflict: &Conflict, became: Option<[u8; 32]>) {
        let resolution = resolve_logged(&self.policy, conflict, self.now);
        let lost = resolution.lost;
        let (document, verdict) = match resolution.result {
            Resolved::Client { document, .. } => (document, Some(Verdict::Client)),
            Resolved::Merged { document, .. } => (Some(document), Some(Verdict::Merged)),
            Resolved::Server => (None, Some(Verdict::Server)),
            Resolved::Open => (None, Some(Verdict::Open)),
            Resolved::Invalid(_) => (None, None),
        };
        let verdict = verdict.filter(|_| self.violations(document.as_ref()).is_empty());
        self.conflicts += 1;
        *match verdict {
            Some(Verdict::Client) => &mut self.applied,
            Some(Verdict::Merged) => &mut self.merged,
            Some(Verdict::Server) => &mut self.superseded,
            Some(Verdict::Open) => &mut self.opened,
            None => &mut self.rejected,
        } += 1;
        // In advisory mode the write was accepted, whatever was told.
        let decision = if conflict.advisory { Verdict::Client } else { conflict.decision };
        let merged = document.filter(|_| decision == Verdict::Merged);
        let differs = verdict != Some(decision)
            || merged.zip(became).is_some_and(|(document, became)| document.checksum() != became);
        if differs && self.changed.len() < limits::PREVIEW_ENTRIES_MAX {
            let (id, key) = (conflict.id.clone(), conflict.key.clone());
            self.changed.push(PreviewedConflict { id, key, decision, preview: verdict, lost });
        }
    }

    /// Holds a write against the schema.
    pub fn write(&mut self, change: &Arc<Change>) {
        self.writes += 1;
        let mut violations = self.violations(change.document.as_ref());
        if !violations.is_empty() {
            self.invalid_writes += 1;
            if self.invalid.len() < limits::PREVIEW_ENTRIES_MAX {
                let (revision, key) = (change.revision, change.key.clone());
                violations.truncate(limits::REJECTION_VIOLATIONS_MAX);
                self.invalid.push(PreviewedWrite { revision, key, violations });
            }
        }
    }

    fn violations(&self, document: Option<&Document>) -> Vec<Violation> {
        let schema = self.policy.schema.as_ref();
        schema.zip(document).map_or_else(Vec::new, |(schema, document)| schema.check(document))
    }
}
