//! Where an issuer's tokens say who the user is, on which device, and what they may: each issuer
//! has its own names for that. Must not know what the claims mean.

use serde_json::{Map, Value};

const NAME_SIZE_MAX_BYTES: usize = 256;

/// The names of the claims that are the issuer's choice.
#[derive(Clone, Debug)]
pub struct ClaimNames {
    /// The user.
    pub user: ClaimName,
    /// The device that the token is bound to, if it is.
    pub device: ClaimName,
    /// What the bearer may do.
    pub grants: ClaimName,
}

impl Default for ClaimNames {
    fn default() -> Self {
        let name = |name: &str| ClaimName { name: name.into(), below: None };
        Self { user: name("sub"), device: name("device"), grants: name("grants") }
    }
}

/// A claim: by its name, or by the way to it, as a JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimName {
    name: Box<str>,
    /// The rest of the pointer.
    below: Option<Box<str>>,
}

impl ClaimName {
    /// A name, or a pointer such as `/realm_access/roles`, or why it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !(1..=NAME_SIZE_MAX_BYTES).contains(&text.len()) {
            return Err(format!("must have 1 to {NAME_SIZE_MAX_BYTES} bytes"));
        }
        let Some(pointer) = text.strip_prefix('/') else {
            return Ok(Self { name: text.into(), below: None });
        };
        let escapes = pointer.split('~').skip(1);
        if escapes.into_iter().any(|rest| !rest.starts_with(['0', '1'])) {
            return Err("in a pointer `~` is written ~0 and `/` within a name ~1".to_owned());
        }
        let (name, below) = match pointer.split_once('/') {
            Some((name, _)) => (name, pointer.get(name.len()..).map(Box::from)),
            None => (pointer, None),
        };
        Ok(Self { name: name.replace("~1", "/").replace("~0", "~").into(), below })
    }

    /// The claim, if it is there.
    pub(super) fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let value = claims.get(&*self.name)?;
        match &self.below {
            Some(below) => value.pointer(below),
            None => Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_by_name_or_on_the_way() {
        let claims = json!({
            "sub": "s", "https://a.b/user": "u", "": {"": "e"}, "a~/b": 1,
            "realm_access": {"roles": ["x"], "": 2},
        });
        let Value::Object(claims) = claims else { panic!("an object") };
        let find = |name: &str| ClaimName::parse(name).unwrap().find(&claims).cloned();
        assert_eq!(find("sub"), Some(json!("s")));
        assert_eq!(find("/sub"), Some(json!("s")));
        assert_eq!(find("https://a.b/user"), Some(json!("u")), "a name may hold slashes");
        assert_eq!(find("/https:~1~1a.b~1user"), Some(json!("u")));
        assert_eq!(find("/a~0~1b"), Some(json!(1)));
        assert_eq!(find("/realm_access/roles"), Some(json!(["x"])));
        assert_eq!(find("/realm_access/roles/0"), Some(json!("x")));
        assert_eq!(find("/realm_access/"), Some(json!(2)));
        assert_eq!(find("//"), Some(json!("e")));
        for absent in ["realm_access/roles", "/realm_access/other", "/sub/x", "/x/y", "x"] {
            assert_eq!(find(absent), None, "{absent}");
        }
        for wrong in ["", "/a~", "/a~2", "/~/b", &"x".repeat(257)] {
            assert!(ClaimName::parse(wrong).is_err(), "{wrong}");
        }
    }
}
