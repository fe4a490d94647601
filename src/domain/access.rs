//! Who may do what in which space: the one place that says so.

use std::fmt;
use std::sync::Arc;

use super::{Actor, CollectionName, RecordKey, Scope, Space, UserId};

/// What a caller wants to do in a space, and what a member's role lets them do. Each
/// includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    Read,
    Write,
    /// To say who may enter, to see the audit log, to export and to erase.
    Admin,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        })
    }
}

/// Which spaces a grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spaces {
    All,
    One(Space),
}

/// Spaces that a token opens to its bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSpace {
    pub spaces: Spaces,
    /// As far as this.
    pub right: Right,
}

/// Who asks, and where their token lets them in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user: UserId,
    pub open: Arc<[OpenSpace]>,
    /// Who really asks, if not the user: somebody who may act for them.
    pub actor: Option<UserId>,
}

/// What a member of a space may do there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub right: Right,
    /// Only in these; None = in all.
    pub collections: Option<Arc<[CollectionName]>>,
}

/// Why a caller may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// They may not even know whether there is such a space.
    Unseen,
    /// They may see it, but not do this.
    NotGranted(Right),
    /// They may do it, but only in some collections, of which this is none.
    Collection(CollectionName),
    /// They may do it, but only in some collections, and this concerns all.
    WholeSpace,
}

/// What a caller may do in a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub space: Space,
    pub right: Right,
    /// Only in these; None = in all.
    pub collections: Option<Arc<[CollectionName]>>,
    /// By a grant of their token, or because it is theirs: no membership is needed.
    pub by_grant: bool,
}

impl Caller {
    /// Somebody with no space but their own.
    pub fn of(user: UserId) -> Self {
        Self { user, open: Arc::new([]), actor: None }
    }

    /// What the caller may do in a space of which they are a member like this, if they
    /// are one: at least what they want, or why not.
    pub fn access(
        &self,
        space: Space,
        membership: Option<&Membership>,
        wanted: Right,
    ) -> Result<Access, Denied> {
        let granted = self.granted(&space);
        let by_grant =
            |right| Access { space: space.clone(), right, collections: None, by_grant: true };
        match (granted, membership) {
            (Some(right), _) if right >= wanted => Ok(by_grant(right)),
            (_, Some(Membership { right, collections })) if *right >= wanted => {
                let collections = collections.clone();
                Ok(Access { space, right: *right, collections, by_grant: false })
            }
            (None, None) => Err(Denied::Unseen),
            _ => Err(Denied::NotGranted(wanted)),
        }
    }

    /// All that the caller may do in a space of which they are a member like this.
    pub fn reach(&self, space: &Space, membership: Option<&Membership>) -> Result<Access, Denied> {
        let access = |wanted| self.access(space.clone(), membership, wanted);
        let most = access(Right::Admin).or_else(|_denied| access(Right::Write));
        most.or_else(|_denied| access(Right::Read))
    }

    /// What the token alone lets them do there.
    pub fn granted(&self, space: &Space) -> Option<Right> {
        if space.is_of(&self.user) {
            return Some(Right::Admin);
        }
        let open = self.open.iter().filter(|open| match &open.spaces {
            Spaces::All => true,
            Spaces::One(one) => one == space,
        });
        open.map(|open| open.right).max()
    }

    /// Who really asks.
    pub fn really(&self) -> &UserId {
        self.actor.as_ref().unwrap_or(&self.user)
    }

    /// Who the audit log is to name.
    pub fn audited(&self) -> Actor {
        let user = Some(self.user.clone());
        match &self.actor {
            Some(actor) => Actor { user: Some(actor.clone()), acted_for: user },
            None => Actor { user, acted_for: None },
        }
    }

    /// Whether they may do this in every space.
    pub fn may_everywhere(&self, wanted: Right) -> bool {
        self.open.iter().any(|open| open.spaces == Spaces::All && open.right >= wanted)
    }
}

impl Access {
    /// Whether it extends to a collection.
    pub fn collection(&self, collection: &CollectionName) -> Result<(), Denied> {
        match &self.collections {
            Some(some) if !some.contains(collection) => Err(Denied::Collection(collection.clone())),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether it extends to all collections.
    pub fn whole(&self) -> Result<(), Denied> {
        if self.collections.is_some() { Err(Denied::WholeSpace) } else { Ok(()) }
    }

    /// A part of the space as far as it extends: what names nothing is narrowed to it.
    pub fn scope(&self, wanted: Scope) -> Result<Scope, Denied> {
        let Some(some) = &self.collections else { return Ok(wanted) };
        match &wanted {
            Scope::All => return Ok(Scope::Collections(some.to_vec())),
            Scope::Collections(names) => {
                names.iter().try_for_each(|name| self.collection(name))?;
            }
            Scope::Records(keys) => {
                let mut names = keys.iter().map(|RecordKey { collection, .. }| collection);
                names.try_for_each(|name| self.collection(name))?;
            }
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RecordId;

    fn space(name: &str) -> Space {
        Space::named(name).unwrap()
    }

    fn collections(names: &[&str]) -> Option<Arc<[CollectionName]>> {
        Some(names.iter().map(|name| CollectionName::parse(name).unwrap()).collect())
    }

    fn alice(open: &[(&str, Right)]) -> Caller {
        let open = open.iter().map(|(name, right)| OpenSpace {
            spaces: if *name == "*" { Spaces::All } else { Spaces::One(space(name)) },
            right: *right,
        });
        Caller { open: open.collect(), ..Caller::of(UserId::parse("alice").unwrap()) }
    }

    #[test]
    fn a_caller_enters_their_own_space_and_those_that_are_open() {
        let caller = alice(&[
            ("users/bob", Right::Read),
            ("users/carol", Right::Read),
            ("users/carol", Right::Write),
        ]);
        for (name, right, expected) in [
            ("users/alice", Right::Admin, None),
            ("users/bob", Right::Read, None),
            ("users/bob", Right::Write, Some(Denied::NotGranted(Right::Write))),
            ("users/carol", Right::Write, None),
            ("users/carol", Right::Admin, Some(Denied::NotGranted(Right::Admin))),
            ("users/dave", Right::Read, Some(Denied::Unseen)),
            ("users/dave", Right::Admin, Some(Denied::Unseen)),
            ("spaces/alice", Right::Read, Some(Denied::Unseen)),
        ] {
            let access = caller.access(space(name), None, right);
            assert_eq!(access.err(), expected, "{name} {right:?}");
        }
        assert!(!caller.may_everywhere(Right::Read));
        let service = alice(&[("*", Right::Write)]);
        assert!(service.may_everywhere(Right::Read) && !service.may_everywhere(Right::Admin));
        assert!(service.access(space("spaces/any"), None, Right::Write).is_ok());
    }

    #[test]
    fn of_grant_and_membership_whatever_suffices_counts() {
        let member = |right, collections| Membership { right, collections };
        let reader = member(Right::Read, None);
        let limited = member(Right::Write, collections(&["task"]));
        let team = || space("spaces/team");
        let nobody = alice(&[]);
        let access = nobody.access(team(), Some(&reader), Right::Read).unwrap();
        assert_eq!((access.right, access.collections, access.by_grant), (Right::Read, None, false));
        let denied = nobody.access(team(), Some(&reader), Right::Write);
        assert_eq!(denied, Err(Denied::NotGranted(Right::Write)));
        // Who may read all by their token writes only where their membership says.
        let both = alice(&[("spaces/team", Right::Read)]);
        let reads = both.access(team(), Some(&limited), Right::Read).unwrap();
        assert_eq!((reads.collections, reads.by_grant), (None, true));
        let writes = both.access(team(), Some(&limited), Right::Write).unwrap();
        assert_eq!(writes.collections, collections(&["task"]));
    }

    #[test]
    fn limited_access_narrows_what_is_asked_for() {
        let name = |name| CollectionName::parse(name).unwrap();
        let key = |collection, id| RecordKey {
            collection: name(collection),
            id: RecordId::parse(id).unwrap(),
        };
        let all = alice(&[]).access(space("users/alice"), None, Right::Read).unwrap();
        assert_eq!(all.scope(Scope::All), Ok(Scope::All));
        assert_eq!((all.collection(&name("any")), all.whole()), (Ok(()), Ok(())));
        let some = Access { collections: collections(&["task", "note"]), ..all };
        let narrowed = Scope::Collections(vec![name("task"), name("note")]);
        assert_eq!(some.scope(Scope::All), Ok(narrowed));
        let one = Scope::Collections(vec![name("note")]);
        assert_eq!(some.scope(one.clone()), Ok(one));
        let denied = Err(Denied::Collection(name("diary")));
        assert_eq!(some.scope(Scope::Collections(vec![name("note"), name("diary")])), denied);
        let records = Scope::Records([key("task", "1"), key("diary", "2")].into());
        assert_eq!(some.scope(records), denied);
        assert_eq!(some.whole(), Err(Denied::WholeSpace));
    }
}
