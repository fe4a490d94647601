//! A snapshot comes in, page by page, and is shown as a whole at its end. The queue stays
//! on top of it: what it was based on is compared with the new state if the history is
//! another one.

use super::{Held, Kept, Loading, Local, Replica, Touch};
use crate::client::entry::{Entry, EntryState, Trouble};
use crate::domain::{Cursor, RecordKey, Revision, Scope};

impl Replica {
    /// A snapshot of `scope` begins, or goes on.
    pub(in crate::client) fn begin_load(&mut self, scope: Scope, whole: bool, at: Cursor) {
        let Some(epoch) = at.epoch else { return };
        self.place.generation += 1;
        self.place.loading = Some(Loading {
            scope,
            epoch,
            revision: at.revision,
            token: String::new(),
            generation: self.place.generation,
            whole,
        });
    }

    /// Takes a page in.
    pub(in crate::client) fn load_page(&mut self, page: &[Held], token: &str) {
        let Some(loading) = self.place.loading.as_mut() else { return };
        token.clone_into(&mut loading.token);
        let generation = loading.generation;
        // Nobody has seen anything yet: it is shown as it comes.
        let first = self.place.loaded.is_none() && generation == 1;
        for held in page {
            let key = held.record.key.clone();
            self.touched.records.insert(key.clone());
            self.records.entry(key.clone()).or_default().generation = generation;
            if first {
                self.hold(&key, held.clone());
                self.show(&key);
            } else if let Some(local) = self.records.get_mut(&key) {
                local.staged = Some(held.clone());
            }
        }
    }

    /// The records that the snapshot has not brought, or that it has changed, become what it
    /// says.
    pub(in crate::client) fn take_over(&mut self, keys: &[RecordKey]) {
        let Some(loading) = self.place.loading.clone() else { return };
        // Revisions of another history say nothing.
        let force = self.place.loaded.is_none();
        for key in keys {
            let Some(local) = self.records.get(key).cloned() else { continue };
            let (is_brought, staged) = (local.generation == loading.generation, &local.staged);
            let held = match (is_brought, staged, &local.server) {
                (true, Some(staged), Some(server)) if !force => {
                    // As new and different: what is here is wrong.
                    (staged.revision() >= server.revision()).then(|| staged.clone()).map(Some)
                }
                (true, Some(staged), _) => Some(Some(staged.clone())),
                (true, None, _) => None,
                (false, _, Some(server)) => {
                    (force || server.revision() <= loading.revision).then_some(None)
                }
                (false, _, None) => None,
            };
            let local = Local { staged: None, ..local };
            match held {
                Some(held) => {
                    let revision = held.as_ref().map_or(loading.revision, Held::revision);
                    self.replace(key, local, held);
                    self.cover(key, revision);
                }
                None => {
                    self.records.insert(key.clone(), local);
                    self.touched.records.insert(key.clone());
                }
            }
            self.show(key);
        }
    }

    /// The snapshot is all here, and shown.
    pub(in crate::client) fn finish_load(&mut self) {
        let Some(loading) = self.place.loading.take() else { return };
        let covered: Vec<_> = self
            .entries
            .values()
            .filter(|it| super::settle::is_answered(it.state) && !it.done)
            .filter(|it| it.revision <= loading.revision && loading.scope.has(&it.key))
            .map(|it| (it.number, it.key.clone()))
            .collect();
        let place = &mut self.place;
        let is_first = place.loaded.is_none();
        place.epoch = Some(loading.epoch);
        // Also of what it says is gone.
        place.newest = place.newest.max(loading.revision);
        if loading.whole || is_first {
            (place.cursor, place.complete) = (loading.revision, loading.revision);
            place.loaded = Some(loading.scope);
        } else {
            place.loaded = Some(both(place.loaded.take(), loading.scope));
        }
        for (number, key) in covered {
            self.finish(number);
            self.show(&key);
        }
    }

    /// What was to be made where nothing was seen is still based on that, as of now: the old
    /// base may be one of which deletions are no longer known.
    fn rebase_new(&mut self) {
        let complete = self.place.complete;
        let is_new = |it: &Entry| {
            let nothing = |local: &Local| local.server.is_none();
            it.state == EntryState::Pending
                && it.sent.is_none()
                && it.kept.is_none()
                && self.records.get(&it.key).is_none_or(nothing)
        };
        let new: Vec<_> =
            self.entries.values().filter(|it| is_new(it)).map(|it| it.number).collect();
        for number in new {
            self.with_entry(number, Touch::Moved, |entry| entry.base = complete);
        }
    }

    /// The queue goes on on a state that is whole and new.
    pub(in crate::client) fn go_on(&mut self) {
        if std::mem::take(&mut self.place.replaced) {
            self.rebase();
        } else {
            self.rebase_new();
        }
    }

    /// What waits was based on another history: it is based on this one, where the record is
    /// what it was; where it is not, its author has seen nothing of it, and the policy decides.
    fn rebase(&mut self) {
        let open: Vec<_> = self
            .entries
            .values()
            .filter(|it| it.state.is_open())
            .map(|it| (it.number, it.key.clone()))
            .collect();
        for (number, key) in open {
            let server = self.records.get(&key).and_then(|local| local.server.clone());
            let now = Kept {
                revision: server.as_ref().map_or(Revision::ZERO, Held::revision),
                document: server.as_ref().and_then(|it| it.record.document.clone()),
            };
            let before = self.entries.get(&number).and_then(|it| it.kept.clone());
            let before = before.map_or_else(|| now.document.clone(), |kept| kept.document);
            match (&before, &now.document) {
                (Some(_), None) => self.fail(number, gone()),
                (before, document) => {
                    let same = before == document;
                    let base = if same { self.place.complete } else { Revision::ZERO };
                    self.with_entry(number, Touch::Moved, |entry| {
                        entry.base = base;
                        entry.kept =
                            (!same).then_some(Kept { revision: Revision::ZERO, document: None });
                    });
                    self.show(&key);
                }
            }
        }
    }

    /// Forgets what the server had: the space may not be seen any more, or nobody wants it.
    /// Tells what was touched of these records.
    pub(in crate::client) fn forget(&mut self, keys: &[RecordKey]) {
        for key in keys {
            let Some(local) = self.records.get(key).cloned() else { continue };
            self.replace(key, Local { staged: None, ..local }, None);
            self.show(key);
        }
    }

    /// What was answered of records that are not wanted will not come back.
    pub(in crate::client) fn finish_unwanted(&mut self, kept: Option<&Scope>) {
        let unwanted = |it: &&Entry| {
            super::settle::is_answered(it.state)
                && !it.done
                && kept.is_none_or(|kept| !kept.has(&it.key))
        };
        let keys: Vec<_> =
            self.entries.values().filter(unwanted).map(|it| it.key.clone()).collect();
        for key in keys {
            self.finish_answered(&key);
            self.show(&key);
        }
    }

    /// Nothing of the space is here any more.
    pub(in crate::client) fn forgotten(&mut self) {
        let place = &mut self.place;
        place.loaded = None;
        place.loading = None;
        (place.cursor, place.complete) = (Revision::ZERO, Revision::ZERO);
        place.conflict_cursor = String::new();
        place.newest = Revision::ZERO;
    }
}

fn both(loaded: Option<Scope>, more: Scope) -> Scope {
    match (loaded, more) {
        (Some(Scope::Collections(mut loaded)), Scope::Collections(more)) => {
            loaded.extend(more.into_iter().filter(|it| !loaded.contains(it)).collect::<Vec<_>>());
            Scope::Collections(loaded)
        }
        (Some(Scope::All), _) | (_, Scope::All) => Scope::All,
        (_, more) => more,
    }
}

fn gone() -> Trouble {
    Trouble::new(
        "RECORD_GONE",
        "the space's history was replaced, and the record is not in the new one; retry to make \
         it anew with a whole document, or discard the edit",
    )
}
