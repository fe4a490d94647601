//! Names of things. Parsing is validation: whoever holds one of these types
//! holds a valid name, so nothing behind the boundary checks again.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use unicode_normalization::is_nfc;
use uuid::Uuid;

use super::limits;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name, or the rule that it breaks.
            pub fn parse(text: &str) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(text).map(|()| Self(text.into()))
            }

            /// A name that was valid when it was stored.
            pub fn from_stored(text: &str) -> Self {
                Self(text.into())
            }

            /// As the wire and SQL carry it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// An entity type inside a space.
    CollectionName,
    |text| unicode_name(text, limits::COLLECTION_BYTES_MAX)
);
name_type!(
    /// A record's name within its collection.
    RecordId,
    |text| unicode_name(text, limits::RECORD_ID_BYTES_MAX)
);
name_type!(
    /// A user, as the token's `sub` names them.
    UserId,
    |text| unicode_name(text, limits::USER_ID_BYTES_MAX)
);
name_type!(
    /// A mutation's idempotency key.
    MutationId,
    |text| ascii_name(text, limits::MUTATION_ID_BYTES_MAX)
);
name_type!(
    /// A client installation.
    DeviceId,
    |text| ascii_name(text, limits::DEVICE_ID_BYTES_MAX)
);

/// Unicode in one normal form: two spellings of one name cannot both exist.
fn unicode_name(text: &str, bytes_max: usize) -> Result<(), String> {
    length(text, bytes_max)?;
    if text.chars().any(char::is_control) {
        return Err("must not contain control characters".into());
    }
    if !is_nfc(text) {
        return Err("must be Unicode in normal form C (NFC)".into());
    }
    Ok(())
}

fn ascii_name(text: &str, bytes_max: usize) -> Result<(), String> {
    length(text, bytes_max)?;
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("must consist of visible ASCII characters".into());
    }
    Ok(())
}

fn length(text: &str, bytes_max: usize) -> Result<(), String> {
    match text.len() {
        0 => Err("must not be empty".into()),
        bytes if bytes > bytes_max => Err(format!("has {bytes} bytes; at most {bytes_max}")),
        _ => Ok(()),
    }
}

/// Which record inside a space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    pub collection: CollectionName,
    pub id: RecordId,
}

/// A space's key in every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub Uuid);

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The unit of isolation and of ordering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    pub id: SpaceId,
    name: Arc<str>,
}

/// What names of private and of shared spaces begin with.
const PRIVATE: &str = "users/";
const SHARED: &str = "spaces/";

/// The rule that the id of a shared space breaks.
fn shared_name(id: &str) -> Result<(), String> {
    length(id, limits::SPACE_ID_BYTES_MAX)?;
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if id.bytes().all(fits) { Ok(()) } else { Err("must consist of a-z, 0-9, - and _".into()) }
}

fn hashed(text: &[u8]) -> Uuid {
    let digest = Sha256::digest(text);
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl Space {
    /// The user's own space. Its id follows from its name, so that no replica
    /// has to ask for it.
    pub fn private(user: &UserId) -> Self {
        Self::of(format!("{PRIVATE}{user}").into())
    }

    /// The shared space that a user makes with a request of this id: the same request
    /// makes the same one, and nobody can learn by it what others have made.
    pub fn made_by(user: &UserId, request_id: &str) -> Self {
        let id = hashed(format!("{user}\n{request_id}").as_bytes());
        Self::of(format!("{SHARED}{}", id.simple()).into())
    }

    /// The space of a name, or the rule that the name breaks.
    pub fn named(name: &str) -> Result<Self, String> {
        match (name.strip_prefix(PRIVATE), name.strip_prefix(SHARED)) {
            (Some(user), _) => UserId::parse(user).map(|user| Self::private(&user)),
            (_, Some(id)) => shared_name(id).map(|()| Self::of(name.into())),
            (None, None) => Err("must be users/<name> or spaces/<id>".into()),
        }
    }

    /// A space that was there when it was stored.
    pub fn from_stored(id: SpaceId, name: &str) -> Self {
        Self { id, name: name.into() }
    }

    fn of(name: Arc<str>) -> Self {
        Self { id: SpaceId(hashed(name.as_bytes())), name }
    }

    /// Whether members may enter it, and not only one user.
    pub fn is_shared(&self) -> bool {
        self.name.starts_with(SHARED)
    }

    /// Whether it is this user's own.
    pub fn is_of(&self, user: &UserId) -> bool {
        self.name.strip_prefix(PRIVATE) == Some(user.as_str())
    }

    /// As the wire shows it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules() {
        let long = "x".repeat(129);
        for (text, ok) in [
            ("task", true),
            ("Aufgaben für morgen", true),
            ("'; drop table records; --", true),
            ("", false),
            ("a\u{0}b", false),
            ("a\nb", false),
            ("e\u{301}", false), // NFD
            ("\u{e9}", true),    // NFC
            (long.as_str(), false),
        ] {
            assert_eq!(CollectionName::parse(text).is_ok(), ok, "{text:?}");
        }
        for (text, ok) in
            [("0190-aa", true), ("a b", false), ("é", false), ("", false), (long.as_str(), false)]
        {
            assert_eq!(MutationId::parse(text).is_ok(), ok, "{text:?}");
        }
    }

    #[test]
    fn private_spaces_are_stable_and_distinct() {
        let space = |user| Space::private(&UserId::parse(user).unwrap());
        assert_eq!(space("alice"), space("alice"));
        assert_ne!(space("alice").id, space("alice2").id);
        assert_eq!(space("alice").name(), "users/alice");
        assert_eq!(Space::named("users/alice"), Ok(space("alice")));
        for name in ["", "alice", "users/", "users/a\nb", "teams/alice", "spaces/", "spaces/A"] {
            assert!(Space::named(name).is_err(), "{name:?}");
        }
        let alice = UserId::parse("alice").unwrap();
        assert!(space("alice").is_of(&alice) && !space("alice2").is_of(&alice));
        assert!(!space("alice").is_shared() && Space::named("spaces/alice").unwrap().is_shared());
        let made = Space::made_by(&alice, "1");
        assert_eq!(Space::named(made.name()), Ok(made.clone()));
        assert_ne!(Space::made_by(&UserId::parse("bob").unwrap(), "1"), made);
        assert_ne!(Space::made_by(&alice, "2"), made);
        // Stored in every table: a change of this value would orphan all data.
        assert_eq!(space("alice").id.to_string(), "60aa4bbe-595c-8915-a7ac-3d17e16e9d1f");
    }
}
