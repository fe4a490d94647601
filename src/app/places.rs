//! Places: of what only so many can have going on, each user has one at a time, so that
//! none takes those of all others.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::domain::UserId;

/// Each user's place.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<HashMap<UserId, Weak<Semaphore>>>);

impl Places {
    /// The place of a user, known as long as anybody holds or awaits it.
    pub(super) fn of(&self, user: &UserId) -> Arc<Semaphore> {
        let mut places = self.0.lock();
        places.retain(|_, place| place.strong_count() > 0);
        if let Some(place) = places.get(user).and_then(Weak::upgrade) {
            return place;
        }
        let place = Arc::new(Semaphore::new(1));
        places.insert(user.clone(), Arc::downgrade(&place));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_one_place_and_no_more() {
        let places = Places::default();
        let place_of = |user: &str| places.of(&UserId::parse(user).unwrap()).try_acquire_owned();
        let alices = place_of("alice").unwrap();
        assert!(place_of("alice").is_err());
        let bobs = place_of("bob").unwrap();
        drop(alices);
        assert!(place_of("alice").is_ok());
        drop(bobs);
        drop(places.of(&UserId::parse("carol").unwrap()));
        assert!(place_of("carol").is_ok());
        assert_eq!(places.0.lock().len(), 1, "who has gone is forgotten");
    }
}
