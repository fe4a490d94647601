//! Shared spaces, their members, and the audit log.

use super::{App, Error};
use crate::domain::{
    Access, AuditAction, AuditEntry, Caller, Membership, SERVER_CHAIN, Space, SpaceId, UserId,
};
use crate::store::{AuditQuery, Member, MemberOutcome, SharedSpace, StoredEntry};

impl App {
    /// Creates a shared space whose first admin is the caller. The same again is the same
    /// space. Cancel safe.
    pub async fn create_space(
        &self,
        caller: &Caller,
        space: Space,
        title: String,
        // Its id is not that of the request, and may be another space's.
        chosen: bool,
    ) -> Result<SharedSpace, Error> {
        let user = caller.user.clone();
        let entry = AuditEntry::new(AuditAction::SpaceCreated, caller.audited());
        let entry = entry.with("space", space.name()).with("title", title.as_str());
        let (store, now, of) = (self.store.clone(), self.clock.now_to_store(), space.clone());
        let created = self
            .detached(async move { store.create_space(&of, &title, (&user, &entry), now).await });
        let new = created.await?.ok_or(Error::TooManyMembers)?;
        if chosen && !new {
            return Err(Error::SpaceExists);
        }
        self.access_changed(space.id, &caller.user);
        self.shared_space(caller, space).await
    }

    /// A shared space, as the caller sees it.
    pub async fn shared_space(&self, caller: &Caller, space: Space) -> Result<SharedSpace, Error> {
        let (store, user) = (self.store.clone(), caller.user.clone());
        let found = self.detached(async move { store.shared_space(&space, &user).await });
        found.await?.ok_or(Error::SpaceNotFound)
    }

    /// A page of the spaces of which the caller is a member, or of all shared ones; and
    /// whether there is more.
    pub async fn shared_spaces(
        &self,
        caller: &Caller,
        all: bool,
        after: Option<SpaceId>,
        entries_max: usize,
    ) -> Result<(Vec<SharedSpace>, bool), Error> {
        let (store, user) = (self.store.clone(), caller.user.clone());
        self.detached(async move { store.shared_spaces(&user, all, after, entries_max).await })
            .await
    }

    /// Calls a shared space otherwise.
    pub async fn rename_space(
        &self,
        caller: &Caller,
        access: Access,
        title: String,
    ) -> Result<SharedSpace, Error> {
        let space = shared(access)?;
        let entry = AuditEntry::new(AuditAction::SpaceRenamed, caller.audited());
        let entry = entry.with("title", title.as_str());
        let (store, now, id) = (self.store.clone(), self.clock.now_to_store(), space.id);
        let renamed =
            self.detached(async move { store.rename_space(id, &title, &entry, now).await });
        if !renamed.await? {
            return Err(Error::SpaceNotFound);
        }
        self.shared_space(caller, space).await
    }

    /// A page of a space's members, by their names; and whether there is more.
    pub async fn members(
        &self,
        access: Access,
        after: String,
        entries_max: usize,
    ) -> Result<(Vec<Member>, bool), Error> {
        let (store, space) = (self.store.clone(), shared(access)?.id);
        self.detached(async move { store.members(space, &after, entries_max).await }).await
    }

    /// Makes somebody a member of a shared space like this, or, with None, no longer one.
    /// This replica knows at once, others within seconds. Cancel safe.
    pub async fn set_member(
        &self,
        caller: &Caller,
        access: Access,
        user: UserId,
        membership: Option<Membership>,
    ) -> Result<(), Error> {
        let space = shared(access)?.id;
        let entry = member_entry(caller, &user, membership.as_ref());
        let (store, now, by) = (self.store.clone(), self.clock.now_to_store(), caller.user.clone());
        let of = user.clone();
        let outcome = self.detached(async move {
            store.set_member(space, (&of, membership.as_ref()), (&by, &entry), now).await
        });
        match outcome.await? {
            MemberOutcome::Done => self.access_changed(space, &user),
            MemberOutcome::Nothing => {}
            MemberOutcome::Gone => return Err(Error::SpaceNotFound),
            MemberOutcome::LastAdmin => return Err(Error::LastAdmin),
            MemberOutcome::TooMany => return Err(Error::TooManyMembers),
        }
        Ok(())
    }

    /// A page of the audit log of a space, or of the server as a whole, the latest first;
    /// and whether there is more.
    pub async fn audit(
        &self,
        space: Option<Space>,
        query: AuditQuery,
    ) -> Result<(Vec<StoredEntry>, bool), Error> {
        let (store, chain) = (self.store.clone(), space.map_or(SERVER_CHAIN, |space| space.id));
        self.detached(async move { store.audit(chain, &query).await }).await
    }

    /// That a caller acts for another.
    pub fn note_acting(&self, caller: &Caller) {
        self.noted.acted(caller);
    }
}

/// The space, if it may have members.
fn shared(access: Access) -> Result<Space, Error> {
    if access.space.is_shared() { Ok(access.space) } else { Err(Error::PrivateSpace) }
}

fn member_entry(caller: &Caller, user: &UserId, membership: Option<&Membership>) -> AuditEntry {
    let by = caller.audited();
    let Some(Membership { right, collections }) = membership else {
        return AuditEntry::new(AuditAction::MemberRemoved, by).about(user.clone());
    };
    let entry = AuditEntry::new(AuditAction::MemberSet, by).about(user.clone());
    let entry = entry.with("role", role_name(*right));
    match collections {
        None => entry,
        Some(some) => {
            let names: Vec<_> = some.iter().map(|name| name.as_str()).collect();
            entry.with("collections", names)
        }
    }
}

/// A role as it is called.
fn role_name(right: crate::domain::Right) -> &'static str {
    use crate::domain::Right;
    match right {
        Right::Read => "reader",
        Right::Write => "writer",
        Right::Admin => "admin",
    }
}
