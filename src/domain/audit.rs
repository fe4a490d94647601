//! What was done to whom: entries that hang together, so that nobody can change, add or
//! take one out afterwards without its being seen. What an entry says is bound by its
//! hash alone, so that it can be erased while the chain holds.

use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{SpaceId, UserId};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuditAction {
    SpaceCreated,
    SpaceRenamed,
    MemberSet,
    MemberRemoved,
    PolicySet,
    PolicyDeleted,
    SpaceReplaced,
    SpaceImported,
    SpaceExported,
    UserExported,
    SpaceErased,
    UserErased,
    AccessRefused,
    ActedFor,
}

impl AuditAction {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::SpaceCreated,
        Self::SpaceRenamed,
        Self::MemberSet,
        Self::MemberRemoved,
        Self::PolicySet,
        Self::PolicyDeleted,
        Self::SpaceReplaced,
        Self::SpaceImported,
        Self::SpaceExported,
        Self::UserExported,
        Self::SpaceErased,
        Self::UserErased,
        Self::AccessRefused,
        Self::ActedFor,
    ];

    /// Its name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpaceCreated => "space_created",
            Self::SpaceRenamed => "space_renamed",
            Self::MemberSet => "member_set",
            Self::MemberRemoved => "member_removed",
            Self::PolicySet => "policy_set",
            Self::PolicyDeleted => "policy_deleted",
            Self::SpaceReplaced => "space_replaced",
            Self::SpaceImported => "space_imported",
            Self::SpaceExported => "space_exported",
            Self::UserExported => "user_exported",
            Self::SpaceErased => "space_erased",
            Self::UserErased => "user_erased",
            Self::AccessRefused => "access_refused",
            Self::ActedFor => "acted_for",
        }
    }

    /// The action of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == name)
    }
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The chain of what concerns no space, or one that is gone.
pub const SERVER_CHAIN: SpaceId = SpaceId(uuid::Uuid::nil());

/// What is to be noted.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    pub action: AuditAction,
    pub by: Actor,
    /// Whom it concerns, if anybody but the actor.
    pub subject: Option<UserId>,
    /// What else there is to say.
    pub more: Map<String, Value>,
}

/// Who did it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// None = the server itself.
    pub user: Option<UserId>,
    /// In whose name, if that is another.
    pub acted_for: Option<UserId>,
}

impl AuditEntry {
    /// Something that a user did.
    pub fn new(action: AuditAction, by: Actor) -> Self {
        Self { action, by, subject: None, more: Map::new() }
    }

    /// The same, concerning somebody.
    #[must_use]
    pub fn about(self, user: UserId) -> Self {
        Self { subject: Some(user), ..self }
    }

    /// The same, with something more to say.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// All that may be erased, as text; `nonce` keeps its hash from telling what it was.
    pub fn details(&self, nonce: &str) -> String {
        let user = |user: &Option<UserId>| {
            user.as_ref().map_or(Value::Null, |user| Value::from(user.as_str()))
        };
        let mut details = Map::new();
        details.insert("actor".into(), user(&self.by.user));
        details.insert("acted_for".into(), user(&self.by.acted_for));
        details.insert("subject".into(), user(&self.subject));
        details.insert("more".into(), Value::Object(self.more.clone()));
        details.insert("nonce".into(), nonce.into());
        Value::Object(details).to_string()
    }
}

/// A hash of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link(pub [u8; 32]);

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What binds the details of an entry.
pub fn commitment(details: &str) -> Link {
    Link(Sha256::digest(details.as_bytes()).into())
}

/// The link of an entry, which binds all before it. None of its parts can be taken for
/// another: all but the action, which comes last, have one size.
pub fn link(
    chain: SpaceId,
    before: Link,
    number: i64,
    micros: i64,
    action: &str,
    commitment: Link,
) -> Link {
    let mut hash = Sha256::new();
    hash.update(chain.0.as_bytes());
    hash.update(before.0);
    hash.update(number.to_be_bytes());
    hash.update(micros.to_be_bytes());
    hash.update(commitment.0);
    hash.update(action.as_bytes());
    Link(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_has_a_name_of_its_own() {
        for action in AuditAction::ALL {
            assert_eq!(AuditAction::parse(action.as_str()), Some(action));
        }
        assert_eq!(AuditAction::parse("anything"), None);
    }

    #[test]
    fn a_link_binds_whatever_its_entry_says() {
        let user = UserId::parse("alice").unwrap();
        let by = Actor { user: Some(user.clone()), acted_for: None };
        let entry = AuditEntry::new(AuditAction::MemberSet, by).about(user).with("role", "reader");
        let bound = commitment(&entry.details("n"));
        let of = |chain, before, number, micros, action, commitment| {
            link(SpaceId(uuid::Uuid::from_u128(chain)), before, number, micros, action, commitment)
        };
        let first = of(1, Link::default(), 1, 7, "member_set", bound);
        assert_eq!(first, of(1, Link::default(), 1, 7, "member_set", bound));
        for other in [
            of(2, Link::default(), 1, 7, "member_set", bound),
            of(1, bound, 1, 7, "member_set", bound),
            of(1, Link::default(), 2, 7, "member_set", bound),
            of(1, Link::default(), 1, 8, "member_set", bound),
            of(1, Link::default(), 1, 7, "member_removed", bound),
            of(1, Link::default(), 1, 7, "member_set", commitment(&entry.details("m"))),
            of(
                1,
                Link::default(),
                1,
                7,
                "member_set",
                commitment(&entry.with("x", 1).details("n")),
            ),
        ] {
            assert_ne!(other, first);
        }
    }
}
