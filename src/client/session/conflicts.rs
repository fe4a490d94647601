//! Conflicts that wait for a decision: those that are told of, and, because a stream tells only
//! what comes after its beginning and calls tell only what they met, all that are open.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::calls::{Ended, fault};
use super::{Session, local};
use crate::client::engine::{Fault, Mode, SpaceNo};
use crate::client::remote::Remote;
use crate::client::store::{NewConflict, StoreError};
use crate::client::wire;
use crate::rpc::proto;

/// Without a stream: what others met shows in no change.
const EVERY: Duration = Duration::from_secs(600);
/// With one, nothing is missed.
const DAY: Duration = Duration::from_secs(86_400);
/// After they could not be read.
const AGAIN: Duration = Duration::from_secs(60);

/// Whether all of a space are known.
#[derive(Debug, Default)]
pub(super) enum Conflicts {
    #[default]
    Due,
    /// They are being read; what was heard since that began counts more.
    Reading {
        heard: Vec<NewConflict>,
        /// They have to be read once more.
        again: bool,
    },
    /// Until then.
    Known(Instant),
}

impl Conflicts {
    /// What is being read will not come.
    pub(super) fn unread(&mut self) {
        if matches!(self, Self::Reading { .. }) {
            *self = Self::Due;
        }
    }

    fn is_due(&self) -> bool {
        match self {
            Self::Due => true,
            Self::Reading { .. } => false,
            Self::Known(until) => *until <= Instant::now(),
        }
    }
}

impl Session {
    /// Keeps conflicts that were told of, and forgets those that are decided.
    pub(super) async fn keep_conflicts(
        &mut self,
        space: SpaceNo,
        told: &[&proto::Conflict],
        cursor: Option<String>,
    ) -> Result<(), StoreError> {
        let news: Vec<_> = told.iter().filter_map(|it| self.new_conflict(it)).collect();
        if let Some(named) = self.spaces.get_mut(&space)
            && let Conflicts::Reading { heard, .. } = &mut named.conflicts
        {
            heard.extend(news.iter().cloned());
        }
        if news.is_empty() && cursor.is_none() {
            return Ok(());
        }
        self.store.keep_conflicts(local(space), news, cursor).await
    }

    /// A conflict as it is kept: without what must not be written down.
    fn new_conflict(&self, it: &proto::Conflict) -> Option<NewConflict> {
        let key = wire::conflict_key(it).ok()?;
        let conflict = wire::conflict(it).ok()?;
        let sensitive = self.store.vault().fields(&key.collection);
        let body = conflict.map(|conflict| conflict.without(sensitive).stored());
        Some(NewConflict { id: it.id.clone(), key, body })
    }

    /// What was known may not be all.
    pub(super) fn forget_conflicts(&mut self, space: SpaceNo) {
        match self.spaces.get_mut(&space).map(|named| &mut named.conflicts) {
            Some(Conflicts::Reading { again, .. }) => *again = true,
            Some(conflicts) => *conflicts = Conflicts::Due,
            None => {}
        }
    }

    /// Reads all that are open, if that is due.
    pub(super) fn read_conflicts(&mut self, space: SpaceNo) {
        let named = self.spaces.get_mut(&space).filter(|it| it.conflicts.is_due());
        let (Some(named), Some(link)) = (named, &self.link) else { return };
        named.conflicts = Conflicts::Reading { heard: Vec::new(), again: false };
        let (remote, name) = (link.remote.clone(), named.name.clone());
        self.calls.spawn(async move {
            let conflicts = open_conflicts(&remote, &name).await;
            Ended::Conflicts { space, conflicts }
        });
    }

    /// All that are open were read: they take the place of those that are here.
    pub(super) async fn conflicts_read(
        &mut self,
        space: SpaceNo,
        conflicts: Result<Vec<proto::Conflict>, Fault>,
    ) -> Result<(), StoreError> {
        let Some(named) = self.spaces.get_mut(&space) else { return Ok(()) };
        let read = std::mem::take(&mut named.conflicts);
        let Conflicts::Reading { heard, again } = read else { return Ok(()) };
        let conflicts = match conflicts {
            Ok(conflicts) => conflicts,
            Err(fault) => {
                debug!(%fault, "conflicts cannot be read; those that are known stay");
                named.conflicts = Conflicts::Known(Instant::now() + AGAIN);
                return Ok(());
            }
        };
        let scope = named.scope.clone();
        let read = conflicts.iter().filter_map(|it| self.new_conflict(it)).chain(heard);
        let all: BTreeMap<_, _> = read
            .filter(|it| scope.has_collection(&it.key.collection))
            .map(|it| (it.id.clone(), it))
            .collect();
        let open: Vec<_> = all.into_values().filter(|it| it.body.is_some()).collect();
        let kept = self.store.conflicts(local(space)).await?;
        let kept = kept.iter().map(|(body, _)| body);
        if !open.iter().filter_map(|it| it.body.as_ref()).eq(kept) {
            self.store.replace_conflicts(local(space), open).await?;
        }
        if again {
            self.read_conflicts(space);
        } else if let Some(named) = self.spaces.get_mut(&space) {
            // A stream tells what comes from here on.
            let until = if matches!(self.mode, Mode::Live) { DAY } else { EVERY };
            named.conflicts = Conflicts::Known(Instant::now() + until);
        }
        Ok(())
    }
}

async fn open_conflicts(remote: &Remote, space: &str) -> Result<Vec<proto::Conflict>, Fault> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let asked = proto::ListConflictsRequest {
            space: space.to_owned(),
            state: proto::ConflictState::Open.into(),
            page_size: 1_000,
            page_token,
            document_form: wire::FORM,
            ..Default::default()
        };
        let page = remote.conflicts().list_conflicts(asked).await.map_err(fault)?.into_inner();
        found.extend(page.conflicts);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}
