//! An edit enters the queue, or joins the one before it; what the app does with edits that
//! were put aside.

use super::settle::OUTCOME_UNKNOWN;
use super::{Replica, Touch};
use crate::client::edit::{Edit, Patch};
use crate::client::entry::{Entry, EntryState, Trouble};
use crate::domain::{
    Delta, Document, MutationId, Pointer, RecordKey, Rejection, RejectionReason, Revision,
    Strategy, put_at, value_at,
};

/// Why an edit does not enter the queue, or is not changed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::client) enum Refused {
    /// It could never take effect.
    Hopeless(Rejection),
    /// There is no such entry, or it is not one that was put aside.
    NotFailed,
    /// It may have been sent already.
    BeingSent,
    /// It may have taken effect, and would do so twice.
    Decided,
}

/// An edit that was put aside goes out again: as it is, unless the app gives another one.
#[derive(Clone, Debug, Default)]
pub(in crate::client) struct Again {
    pub(in crate::client) edit: Option<Edit>,
    /// The same edit in the form of this version of the app.
    pub(in crate::client) cast: Option<Edit>,
}

/// What an entry of an older version of the app becomes.
#[derive(Clone, Debug)]
pub(in crate::client) struct Upcast {
    pub(in crate::client) before: Entry,
    pub(in crate::client) edit: Result<Edit, Trouble>,
    pub(in crate::client) schema_version: i64,
}

impl Replica {
    /// Queues an edit under `id`, unless it joins the one before; tells the id of the entry
    /// that has it now.
    pub(in crate::client) fn enqueue(
        &mut self,
        id: MutationId,
        key: &RecordKey,
        edit: Edit,
        now_micros: i64,
        schema_version: i64,
    ) -> Result<MutationId, Refused> {
        let entry = self.new_entry(id, key.clone(), edit, now_micros, schema_version);
        self.admit(&entry)?;
        let joined = self.join(&entry);
        let id = joined.unwrap_or_else(|| {
            let id = entry.id.clone();
            self.add_entry(entry);
            id
        });
        self.show(key);
        Ok(id)
    }

    /// An entry at the end of the queue.
    fn new_entry(
        &self,
        id: MutationId,
        key: RecordKey,
        edit: Edit,
        now_micros: i64,
        schema_version: i64,
    ) -> Entry {
        let server = self.records.get(&key).and_then(|local| local.server.as_ref());
        // Whatever is shown is complete up to there: also that a record is not there.
        let seen = server.map_or(Revision::ZERO, super::Held::revision);
        Entry {
            number: self.place.last_entry + 1,
            id,
            key,
            edit,
            base: seen.max(self.place.complete),
            kept: None,
            client_micros: now_micros,
            schema_version,
            sequence: None,
            state: EntryState::Pending,
            revision: Revision::ZERO,
            done: false,
            sent: None,
            incomplete: false,
            trouble: None,
        }
    }

    /// Refuses at once what the server would refuse whatever happens: as far as this file
    /// knows all of the space.
    fn admit(&self, entry: &Entry) -> Result<(), Refused> {
        let mut stack = self.stack(&entry.key);
        let outcome = self.lay(&mut stack, entry);
        match outcome {
            Err(rejection) if self.is_known(&entry.key) || is_about_content(&rejection) => {
                Err(Refused::Hopeless(rejection))
            }
            Err(_) | Ok(()) => Ok(()),
        }
    }

    /// Whether all that there is of a record's collection is here.
    fn is_known(&self, key: &RecordKey) -> bool {
        self.place.loaded.as_ref().is_some_and(|loaded| loaded.has(key))
    }

    /// Joins the last entry of the queue, if that is of the same record, nobody knows of it yet,
    /// and the two are one.
    fn join(&mut self, entry: &Entry) -> Option<MutationId> {
        let last = self.entries.values().next_back()?;
        let fits = last.number == self.place.last_entry
            && last.key == entry.key
            && last.state == EntryState::Pending
            && last.schema_version == entry.schema_version
            && last.sent.is_none()
            && !last.incomplete
            // Somebody else's write came between.
            && last.kept.is_none();
        let policy = self.identity.policies.of(&entry.key.collection);
        let told_apart = match policy.map(|set| set.policy.strategy).unwrap_or_default() {
            // The first may win where the last does not.
            Strategy::HighestVersionWins => true,
            // Of each put what it changes is merged.
            Strategy::Merge | Strategy::Additive => matches!(entry.edit, Edit::Put(_)),
            _ => false,
        };
        let fits = fits && !told_apart;
        let edit = fits.then(|| last.edit.then(&entry.edit)).flatten()?;
        let (number, id) = (last.number, last.id.clone());
        self.with_entry(number, Touch::Edited, |last| {
            last.edit = edit;
            last.client_micros = entry.client_micros;
        });
        Some(id)
    }

    /// An edit that leaves hidden fields as they are on the server where it does not name them: a
    /// whole document becomes a patch of what is shown, unless there is nothing to patch.
    pub(in crate::client) fn without_loss(
        &self,
        key: &RecordKey,
        edit: Edit,
        hidden: &[Pointer],
    ) -> Edit {
        let document = match edit {
            Edit::Put(document) if !hidden.is_empty() => document,
            edit => return edit,
        };
        let shown = self.records.get(key).and_then(|local| local.shown.as_ref());
        match shown.and_then(|shown| Delta::whole(shown, &document)) {
            None => Edit::Put(document),
            Some(Delta { mut unset, set }) => {
                unset.retain(|path| !hidden.contains(path));
                Edit::Patch(Patch { set, unset, transforms: Vec::new() })
            }
        }
    }

    /// A whole document with those hidden values of the record that it does not name; None if
    /// they are not known here.
    pub(in crate::client) fn with_hidden(
        &self,
        key: &RecordKey,
        document: &Document,
        hidden: &[Pointer],
    ) -> Option<Document> {
        let server = self.records.get(key).and_then(|local| local.server.as_ref());
        let Some(before) = server.and_then(|it| it.record.document.as_ref()) else {
            return Some(document.clone());
        };
        // The checksum is of all of it.
        if server.and_then(|it| it.checksum) != Some(before.checksum()) {
            return None;
        }
        let (before, mut fields) = (before.fields(), document.fields());
        for path in hidden.iter().map(Pointer::keys) {
            let value = value_at(&before, path).filter(|_| value_at(&fields, path).is_none());
            if let Some(value) = value {
                put_at(&mut fields, path, value.clone());
            }
        }
        Document::from_fields(fields).ok()
    }

    /// Queues an edit anew that was put aside, perhaps another one in its place, behind all
    /// that was queued since.
    pub(in crate::client) fn retry(
        &mut self,
        number: i64,
        id: MutationId,
        Again { edit, cast }: Again,
        now_micros: i64,
        schema_version: i64,
    ) -> Result<MutationId, Refused> {
        let failed = self.entries.get(&number).filter(|it| it.state == EntryState::Failed);
        let failed = failed.ok_or(Refused::NotFailed)?.clone();
        let reason = failed.trouble.as_ref().map(|trouble| trouble.reason.as_str());
        if edit.is_none() && reason == Some(OUTCOME_UNKNOWN) {
            return Err(Refused::Decided);
        }
        let incomplete = edit.is_none() && failed.incomplete;
        // One that may have taken effect must not do so twice.
        let (id, sent, time, version) = match (&edit, failed.sent) {
            (None, Some(sent)) => {
                (failed.id.clone(), Some(sent), failed.client_micros, failed.schema_version)
            }
            (None, None) => {
                let version = cast.as_ref().map_or(failed.schema_version, |_| schema_version);
                (id, None, failed.client_micros, version)
            }
            (Some(_), _) => (id, None, now_micros, schema_version),
        };
        let key = failed.key.clone();
        let edit = edit.or(cast).unwrap_or(failed.edit);
        let entry = Entry { incomplete, sent, ..self.new_entry(id, key, edit, time, version) };
        self.admit(&entry)?;
        self.remove_entry(number);
        let (id, key) = (entry.id.clone(), entry.key.clone());
        self.add_entry(entry);
        self.show(&key);
        Ok(id)
    }

    /// Entries of an older version of the app become those of this, or are put aside: unless
    /// they are others by now, or have gone out.
    pub(in crate::client) fn upcast(&mut self, casts: Vec<Upcast>) {
        for Upcast { before, edit, schema_version } in casts {
            let number = before.number;
            let is_same = |it: &&Entry| {
                let may_change = matches!(it.state, EntryState::Pending | EntryState::Failed);
                let is_decided = it.trouble.as_ref().is_some_and(|it| it.reason == OUTCOME_UNKNOWN);
                may_change && !is_decided && it.sent.is_none() && it.edit == before.edit
            };
            if self.entries.get(&number).filter(is_same).is_none() {
                continue;
            }
            match edit {
                Err(trouble) => self.fail(number, trouble),
                Ok(edit) => {
                    self.with_entry(number, Touch::Edited, |entry| {
                        entry.edit = edit;
                        entry.schema_version = schema_version;
                    });
                    self.show(&before.key);
                }
            }
        }
    }

    /// Takes an entry out of the queue that the server has not got.
    pub(in crate::client) fn discard(&mut self, number: i64) -> Result<(), Refused> {
        let entry = self.entries.get(&number).ok_or(Refused::NotFailed)?;
        match entry.state {
            EntryState::Syncing => return Err(Refused::BeingSent),
            EntryState::Pending | EntryState::Failed => {}
            EntryState::Applied
            | EntryState::Merged
            | EntryState::Superseded
            | EntryState::Conflict => return Err(Refused::NotFailed),
        }
        let key = entry.key.clone();
        self.remove_entry(number);
        self.show(&key);
        Ok(())
    }

    /// Puts all entries aside that wait.
    pub(in crate::client) fn fail_all(&mut self, trouble: &Trouble) -> usize {
        let open: Vec<_> =
            self.entries.values().filter(|it| it.state.is_open()).map(|it| it.number).collect();
        for number in &open {
            self.fail(*number, trouble.clone());
        }
        open.len()
    }
}

/// Whether no other record could make it better.
fn is_about_content(rejection: &Rejection) -> bool {
    match rejection.reason {
        RejectionReason::Invalid => true,
        RejectionReason::Schema
        | RejectionReason::AlreadyExists
        | RejectionReason::NotFound
        | RejectionReason::BatchAborted
        | RejectionReason::SequenceUsed
        | RejectionReason::ConflictClosed
        | RejectionReason::RecordChanged
        | RejectionReason::RecordGone
        | RejectionReason::NotGranted => false,
    }
}
