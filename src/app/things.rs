//! Things that come up again and again, counted for each user who does them, and due to be
//! told at times.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Actor, AuditAction, AuditEntry, SERVER_CHAIN, Space, SpaceId, UserId};

/// The same is not told again before.
const AGAIN: Duration = Duration::from_secs(60);
/// Different things that are counted at a time; more are only counted as such.
const THINGS_MAX: usize = 10_000;

/// Something that may come up again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// They lacked a right, or whatever else.
    Refused { acted_for: Option<UserId>, chain: SpaceId, space: String, wanted: String },
    /// They acted for somebody.
    Acted(UserId),
    /// More than are told one by one.
    Others,
}

impl What {
    fn concerns(&self, user: &UserId) -> bool {
        match self {
            Self::Refused { acted_for, chain, wanted, .. } => {
                acted_for.as_ref() == Some(user)
                    || *chain == Space::private(user).id
                    || wanted.strip_prefix("act_for:") == Some(user.as_str())
            }
            Self::Acted(acted_for) => acted_for == user,
            Self::Others => false,
        }
    }
}

/// What is to be told now.
#[derive(Debug, PartialEq)]
pub(super) struct Due {
    action: AuditAction,
    /// None where it is only known how often.
    of: Option<(UserId, What)>,
    times: u64,
}

#[derive(Debug, Default)]
struct Count {
    /// How often since it was last told.
    times: u64,
    told_at: Option<Instant>,
}

impl Count {
    fn rests(&self, now: Instant) -> bool {
        self.told_at.is_some_and(|at| now.duration_since(at) < AGAIN)
    }
}

/// What has come up, of one kind.
#[derive(Debug)]
pub(super) struct Things {
    action: AuditAction,
    /// Of one user; more are counted together.
    each_max: usize,
    of_users: HashMap<UserId, HashMap<What, Count>>,
    total: usize,
    left_out: u64,
}

impl Things {
    pub(super) fn new(action: AuditAction, each_max: usize) -> Self {
        Self { action, each_max, of_users: HashMap::new(), total: 0, left_out: 0 }
    }

    /// A user did something so often.
    pub(super) fn note(&mut self, user: &UserId, what: What, times: u64) {
        let of_user = self.of_users.get(user);
        let known = |what: &What| of_user.is_some_and(|things| things.contains_key(what));
        let full = of_user.is_some_and(|things| things.len() >= self.each_max);
        let too_many = full && !known(&what);
        let what = if too_many { What::Others } else { what };
        let new = !known(&what);
        if new && self.total >= THINGS_MAX {
            self.left_out += times;
            return;
        }
        self.total += usize::from(new);
        let things = self.of_users.entry(user.clone()).or_default();
        things.entry(what).or_default().times += times;
    }

    /// What is to be told now, or all that there is.
    pub(super) fn due(&mut self, all: bool, now: Instant) -> Vec<Due> {
        let (action, mut due) = (self.action, Vec::new());
        self.retain(|user, what, count| {
            if count.times > 0 && (all || !count.rests(now)) {
                let of = Some((user.clone(), what.clone()));
                due.push(Due { action, of, times: count.times });
                *count = Count { times: 0, told_at: Some(now) };
            }
            count.times > 0 || count.rests(now)
        });
        let times = std::mem::take(&mut self.left_out);
        if times > 0 {
            due.push(Due { action, of: None, times });
        }
        due
    }

    /// It could not be told: it is due at once.
    pub(super) fn put_back(&mut self, it: Due) {
        let Some((user, what)) = it.of else {
            self.left_out += it.times;
            return;
        };
        self.note(&user, what.clone(), it.times);
        if let Some(count) = self.of_users.get_mut(&user).and_then(|it| it.get_mut(&what)) {
            count.told_at = None;
        }
    }

    /// Forgets what would name a user.
    pub(super) fn forget(&mut self, user: &UserId) {
        self.retain(|of, what, _count| of != user && !what.concerns(user));
    }

    fn retain(&mut self, mut keep: impl FnMut(&UserId, &What, &mut Count) -> bool) {
        self.of_users.retain(|user, things| {
            things.retain(|what, count| keep(user, what, count));
            !things.is_empty()
        });
        self.total = self.of_users.values().map(HashMap::len).sum();
    }
}

impl Due {
    /// As it is noted, and in whose chain.
    pub(super) fn entry(&self) -> (SpaceId, AuditEntry) {
        let entry = |user: Option<&UserId>, acted_for: Option<&UserId>| {
            let by = Actor { user: user.cloned(), acted_for: acted_for.cloned() };
            AuditEntry::new(self.action, by)
        };
        match &self.of {
            Some((user, What::Refused { acted_for, chain, space, wanted })) => {
                let entry = entry(Some(user), acted_for.as_ref()).with("times", self.times);
                (*chain, entry.with("space", space.as_str()).with("wanted", wanted.as_str()))
            }
            Some((user, What::Acted(acted_for))) => {
                let entry = entry(Some(user), Some(acted_for));
                (SERVER_CHAIN, entry.with("times", self.times))
            }
            Some((user, What::Others)) => {
                (SERVER_CHAIN, entry(Some(user), None).with("left_out", self.times))
            }
            None => (SERVER_CHAIN, entry(None, None).with("left_out", self.times)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn acted(name: &str) -> What {
        What::Acted(user(name))
    }

    fn times(due: &[Due], of: Option<&(UserId, What)>) -> u64 {
        due.iter().filter(|it| it.of.as_ref() == of).map(|it| it.times).sum()
    }

    #[test]
    fn one_user_can_hide_nobody_elses_things() {
        let mut things = Things::new(AuditAction::ActedFor, 3);
        for number in 0..20_000 {
            things.note(&user("mallory"), acted(&format!("u{number}")), 1);
        }
        things.note(&user("robot"), acted("bob"), 2);
        let now = Instant::now();
        let due = things.due(false, now);
        assert_eq!(times(&due, Some(&(user("mallory"), What::Others))), 20_000 - 3);
        assert_eq!(times(&due, Some(&(user("robot"), acted("bob")))), 2);
        assert_eq!(due.len(), 3 + 1 + 1);
        // The same waits for its time.
        things.note(&user("robot"), acted("bob"), 1);
        assert_eq!(things.due(false, now + AGAIN / 2), []);
        assert_eq!(things.due(false, now + AGAIN).len(), 1);
        assert_eq!(things.due(false, now + AGAIN * 3), []);
        assert_eq!((things.total, things.of_users.len()), (0, 0));
    }

    #[test]
    fn many_users_are_counted_at_least() {
        let mut things = Things::new(AuditAction::ActedFor, 3);
        for number in 0..THINGS_MAX + 5 {
            things.note(&user(&format!("u{number}")), acted("bob"), 1);
        }
        let due = things.due(false, Instant::now());
        assert_eq!((due.len(), times(&due, None)), (THINGS_MAX + 1, 5));
    }

    #[test]
    fn what_could_not_be_told_is_due_again() {
        let mut things = Things::new(AuditAction::ActedFor, 3);
        things.note(&user("robot"), acted("bob"), 2);
        let now = Instant::now();
        let mut due = things.due(false, now);
        things.note(&user("robot"), acted("bob"), 1);
        things.put_back(due.pop().unwrap());
        let due = things.due(false, now);
        assert_eq!(times(&due, Some(&(user("robot"), acted("bob")))), 3);
    }

    #[test]
    fn nothing_that_names_a_user_is_kept() {
        let mut things = Things::new(AuditAction::AccessRefused, 9);
        let refused = |acted_for: Option<&str>, space: &str, wanted: &str| What::Refused {
            acted_for: acted_for.map(user),
            chain: Space::named(space).map_or(SERVER_CHAIN, |space| space.id),
            space: space.into(),
            wanted: wanted.into(),
        };
        things.note(&user("bob"), refused(None, "spaces/a", "read"), 1);
        things.note(&user("robot"), refused(Some("bob"), "spaces/a", "read"), 1);
        things.note(&user("robot"), refused(None, "users/bob", "read"), 1);
        things.note(&user("robot"), refused(None, "", "act_for:bob"), 1);
        things.note(&user("robot"), refused(None, "users/bobby", "act_for:bobby"), 1);
        things.forget(&user("bob"));
        assert_eq!((things.total, things.due(true, Instant::now()).len()), (1, 1));
    }
}
