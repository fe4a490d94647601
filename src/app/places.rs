//! Places for what only so many can have going on. Each user has one of them at a time, so
//! that none takes those of all others.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::UserId;

/// So many places.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    /// Of users who have a place or wait for one.
    of_users: Mutex<HashMap<UserId, Weak<Semaphore>>>,
}

/// A place, as long as it is kept.
#[derive(Debug)]
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _one_of_all: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(count: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(count)), of_users: Mutex::default() }
    }

    /// A place, if there is one for the user now.
    pub(super) fn try_take(&self, user: &UserId) -> Option<Place> {
        let own = self.of(user).try_acquire_owned().ok()?;
        let one_of_all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place { _own: own, _one_of_all: one_of_all })
    }

    /// Waits for a place; None never comes, because nobody closes them. Cancel safe.
    pub(super) async fn take(&self, user: &UserId) -> Option<Place> {
        let own = self.of(user).acquire_owned().await.ok()?;
        let one_of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place { _own: own, _one_of_all: one_of_all })
    }

    fn of(&self, user: &UserId) -> Arc<Semaphore> {
        let mut of_users = self.of_users.lock();
        of_users.retain(|_, own| own.strong_count() > 0);
        if let Some(own) = of_users.get(user).and_then(Weak::upgrade) {
            return own;
        }
        let own = Arc::new(Semaphore::new(1));
        of_users.insert(user.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_one_place_and_all_have_so_many() {
        let places = Places::new(2);
        let take = |user: &str| places.try_take(&UserId::parse(user).unwrap());
        let alices = take("alice").unwrap();
        assert!(take("alice").is_none());
        let bobs = take("bob").unwrap();
        assert!(take("carol").is_none());
        drop(alices);
        let carols = take("carol").unwrap();
        drop((bobs, carols));
        assert!(take("alice").is_some());
        assert_eq!(places.of_users.lock().len(), 1, "who has gone is forgotten");
    }
}
