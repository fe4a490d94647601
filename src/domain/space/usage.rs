//! What a space holds, as quotas count it: records that live, and their documents.

use std::collections::HashMap;
use std::ops::{Add, AddAssign, Sub};

use super::{Refusal, SpaceState};
use crate::domain::{Choice, Document, Operation, Record, RecordKey, Request, Resolve, limits};

/// Records and bytes. Also how far that moves, and how much there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub records: i64,
    pub bytes: i64,
}

impl Usage {
    /// What one record takes.
    pub fn of(record: &Record) -> Self {
        record.document.as_ref().map(Self::of_document).unwrap_or_default()
    }

    /// What a living record with this document takes.
    pub fn of_document(document: &Document) -> Self {
        Self::living(document.as_str().len())
    }

    fn living(bytes: usize) -> Self {
        Self { records: 1, bytes: i64::try_from(bytes).unwrap_or(i64::MAX) }
    }

    /// Whether a quota does not allow it. Where it is 0, it allows whatever there is.
    pub fn exceeds(self, quota: Self) -> bool {
        let over = |used, most| most > 0 && used > most;
        over(self.records, quota.records) || over(self.bytes, quota.bytes)
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            records: self.records.saturating_add(more.records),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, less: Self) -> Self {
        Self {
            records: self.records.saturating_sub(less.records),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        *self = *self + more;
    }
}

impl SpaceState {
    /// Refuses what would make the space hold more than it may. What makes it smaller, or
    /// is on its way already, passes.
    pub(super) fn admit_growth(&self, request: &Request) -> Result<(), Refusal> {
        let quota = self.rules.quota;
        if quota == Usage::default() {
            return Ok(());
        }
        let growth = self.growth(request);
        let used = self.usage + growth;
        let grows = growth.records > 0 || growth.bytes > 0;
        if grows && used.exceeds(quota) {
            return Err(Refusal::OverQuota { used: self.usage, quota });
        }
        Ok(())
    }

    /// At most what the request adds to the space: a patch may set what is there already.
    fn growth(&self, request: &Request) -> Usage {
        let mut sizes: HashMap<&RecordKey, (Usage, Usage)> = HashMap::new();
        let new = request.mutations.iter().filter(|it| !self.answers.contains_key(&it.id));
        for content in new.filter_map(|it| it.content.as_ref().ok()) {
            let (_, after) = sizes.entry(&content.key).or_insert_with(|| {
                let current = self.records.get(&content.key).and_then(|it| it.current.as_ref());
                let current = current.map(|record| Usage::of(record)).unwrap_or_default();
                (current, current)
            });
            match &content.operation {
                Operation::Create(document)
                | Operation::Put(document)
                | Operation::Resolve(Resolve { choice: Choice::Document(document), .. }) => {
                    *after = Usage::living(document.as_str().len());
                }
                Operation::Patch(patch) => {
                    let set = i64::try_from(patch.set.as_str().len()).unwrap_or(i64::MAX);
                    let most = i64::try_from(limits::DOCUMENT_BYTES_MAX).unwrap_or(i64::MAX);
                    *after = Usage { records: 1, bytes: after.bytes.saturating_add(set).min(most) };
                }
                Operation::Delete => *after = Usage::default(),
                // One of two that were there, or something of both: it may end a conflict
                // also where the space is full.
                Operation::Resolve(_) => {}
            }
        }
        let growth = sizes.values().map(|(before, after)| *after - *before);
        growth.fold(Usage::default(), Add::add)
    }
}
