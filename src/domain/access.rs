//! Who may do what in which space: the one place that says so.

use std::sync::Arc;

use super::{Space, UserId};

/// What a caller wants to do in a space. Each right includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    Read,
    Write,
}

/// A space that a caller may enter beside their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSpace {
    pub space: Space,
    /// As far as this.
    pub right: Right,
}

/// Who asks, and where they may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user: UserId,
    pub open: Arc<[OpenSpace]>,
}

/// Why a caller may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// They may not even know whether there is such a space.
    Unseen,
    /// They may see it, but not do this.
    NotGranted(Right),
}

impl Caller {
    /// Somebody with no space but their own.
    pub fn of(user: UserId) -> Self {
        Self { user, open: Arc::new([]) }
    }

    /// The space of a name, if the caller may do this in it; empty = their own.
    pub fn space(&self, name: &str, right: Right) -> Result<Space, Denied> {
        let own = Space::private(&self.user);
        if name.is_empty() || name == own.name() {
            return Ok(own);
        }
        let named = self.open.iter().filter(|open| open.space.name() == name);
        let best = named.max_by_key(|open| open.right).ok_or(Denied::Unseen)?;
        if best.right >= right { Ok(best.space.clone()) } else { Err(Denied::NotGranted(right)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_enters_their_own_space_and_those_that_are_open() {
        let open = |name, right| OpenSpace { space: Space::named(name).unwrap(), right };
        let caller = Caller {
            open: Arc::new([
                open("users/bob", Right::Read),
                open("users/carol", Right::Read),
                open("users/carol", Right::Write),
            ]),
            ..Caller::of(UserId::parse("alice").unwrap())
        };
        let denied = |name, right| caller.space(name, right).err();
        for (name, right, expected) in [
            ("", Right::Write, None),
            ("users/alice", Right::Write, None),
            ("users/bob", Right::Read, None),
            ("users/bob", Right::Write, Some(Denied::NotGranted(Right::Write))),
            ("users/carol", Right::Write, None),
            ("users/dave", Right::Read, Some(Denied::Unseen)),
            ("users/dave", Right::Write, Some(Denied::Unseen)),
            ("Users/bob", Right::Read, Some(Denied::Unseen)),
            ("users/bob/", Right::Read, Some(Denied::Unseen)),
        ] {
            assert_eq!(denied(name, right), expected, "{name} {right:?}");
        }
        let bob = Space::private(&UserId::parse("bob").unwrap());
        assert_eq!(caller.space("users/bob", Right::Read), Ok(bob));
    }
}
