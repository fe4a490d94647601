//! What apps wish of whoever syncs: said twice it counts once, and nothing of it is lost. Owns
//! how wishes look in the file, by which other processes pass theirs on.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::number;
use crate::client::engine::Trigger;

/// What an app wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client) enum Wish {
    /// The spaces that are wanted have changed.
    Spaces,
    Trigger(Trigger),
}

/// Wishes that wait. There are few, because each is there once.
#[derive(Debug, Default)]
pub(in crate::client) struct Wishes {
    waiting: Mutex<Vec<Wish>>,
    bell: Notify,
}

impl Wishes {
    pub(in crate::client) fn add(&self, wish: Wish) {
        let mut waiting = self.waiting.lock();
        // The last of the same counts: there may be a network, and none, and one again.
        waiting.retain(|it| *it != wish);
        waiting.push(wish);
        self.bell.notify_one();
    }

    pub(in crate::client) fn take(&self) -> Vec<Wish> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Waits until there may be some. Cancel safe.
    pub(super) async fn added(&self) {
        self.bell.notified().await;
    }
}

const NAMES: [(&str, Trigger); 5] = [
    ("network", Trigger::Network),
    ("offline", Trigger::Offline),
    ("foreground", Trigger::Foreground),
    ("periodic", Trigger::Periodic),
    ("demand", Trigger::Demand),
];

impl Wish {
    /// As it is passed on; None if whoever syncs sees in the file what it is about.
    pub(in crate::client) fn stored(self) -> Option<String> {
        match self {
            Self::Spaces | Self::Trigger(Trigger::Changed { .. }) => None,
            Self::Trigger(Trigger::Hint { space }) => Some(format!("hint {space}")),
            Self::Trigger(trigger) => {
                let found = NAMES.iter().find(|(_, it)| *it == trigger);
                found.map(|(name, _)| (*name).to_owned())
            }
        }
    }

    /// As it was passed on; None if it is one of a newer program.
    pub(in crate::client) fn parse(stored: &str) -> Option<Self> {
        let named = NAMES.iter().find(|(name, _)| *name == stored).map(|(_, trigger)| *trigger);
        let hint = || {
            let space = stored.strip_prefix("hint ")?.parse().ok()?;
            Some(Trigger::Hint { space: number(space) })
        };
        named.or_else(hint).map(Self::Trigger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::engine::SpaceNo;

    #[test]
    fn a_wish_waits_once_and_the_last_counts() {
        let wishes = Wishes::default();
        let changed = |space| Wish::Trigger(Trigger::Changed { space: SpaceNo(space) });
        (0..1_000).for_each(|it| wishes.add(changed(it % 3)));
        wishes.add(Wish::Spaces);
        for trigger in [Trigger::Network, Trigger::Offline, Trigger::Network] {
            wishes.add(Wish::Trigger(trigger));
        }
        let [.., offline, network] = wishes.take()[..] else { panic!("some are lost") };
        assert_eq!(offline, Wish::Trigger(Trigger::Offline));
        assert_eq!(network, Wish::Trigger(Trigger::Network));
        assert_eq!(wishes.take(), []);
    }

    #[test]
    fn what_is_passed_on_arrives_as_it_was() {
        let hint = Wish::Trigger(Trigger::Hint { space: SpaceNo(7) });
        for wish in NAMES.map(|(_, trigger)| Wish::Trigger(trigger)).into_iter().chain([hint]) {
            assert_eq!(wish.stored().as_deref().and_then(Wish::parse), Some(wish));
        }
        assert_eq!((Wish::Spaces.stored(), Wish::parse("another")), (None, None));
    }
}
