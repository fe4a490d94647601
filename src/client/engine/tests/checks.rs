//! What must hold of every run of the simulation.

use std::time::Duration;

use super::server::{Access, Poison};
use super::world::{World, millis};
use crate::client::engine::{Action, LinkState, Mode, Parked, Phase, Report};

/// How often things were tried lately.
#[derive(Debug, Default)]
pub(super) struct Rates {
    connects: Vec<Duration>,
    sends: Vec<Duration>,
    triggers: Vec<Duration>,
}

/// What over all seeds has to happen, or nothing is said about it.
pub(super) const EXPECTED: [&str; 8] =
    ["link", "parked", "healing", "healed", "reset", "renumbered", "access", "store"];

/// A report, by what it is about.
pub(super) fn name(report: &Report) -> &'static str {
    match report {
        Report::LinkLost { .. } | Report::TokenRefused { .. } | Report::TokenFailed { .. } => {
            "link"
        }
        Report::Healing { .. } => "healing",
        Report::Healed { .. } => "healed",
        Report::HealingInVain { .. } => "in vain",
        Report::Reset { .. } => "reset",
        Report::Renumbered { .. } => "renumbered",
        Report::Parked { .. } => "parked",
        Report::AccessLost { .. } => "access",
        Report::FileIsBehind { .. } => "behind",
        Report::StoreFailed { .. } => "store",
    }
}

const WINDOW: Duration = millis(10_000);
/// At least half a second lies between two tries, and less only after a trigger or a token.
const CONNECTS_MAX: usize = 24;
/// Each batch is halved ten times at most, and each entry sent a few times.
const SENDS_MAX: usize = 90;

impl Rates {
    pub(super) fn trigger(&mut self, now: Duration) {
        self.triggers.push(now);
    }

    pub(super) fn count(&mut self, action: &Action, now: Duration) {
        let (times, max) = match action {
            Action::Connect { .. } | Action::FetchToken { .. } => {
                (&mut self.connects, CONNECTS_MAX)
            }
            Action::Take { .. } | Action::Exchange { .. } | Action::AskStatus { .. } => {
                (&mut self.sends, SENDS_MAX)
            }
            _ => return,
        };
        times.push(now);
        let since = now.saturating_sub(WINDOW);
        let lately = times.iter().rev().take_while(|time| **time >= since).count();
        let triggers = self.triggers.iter().rev().take_while(|time| **time >= since).count();
        assert!(lately <= max + triggers, "{lately} times within {WINDOW:?}: {action:?}");
    }
}

impl World {
    /// Whether everything is where it should be at last.
    pub(super) fn is_done(&self) -> bool {
        let fits = self.stores.iter().zip(&self.servers).all(|(store, server)| {
            store.wanted
                && store.entries.is_empty()
                && store.cursor == server.history.head
                && store.epoch == Some(server.epoch)
                // Without a stream digests are compared once an hour.
                && (store.wrong.is_empty() || self.mode != Mode::Live)
        });
        fits && {
            let state = self.engine.state();
            let live = state.spaces.iter().all(|it| it.phase == Phase::Live && it.waiting == 0);
            live && matches!(state.link, LinkState::Up { .. })
        }
    }

    /// Whatever was queued was applied once, or waits for somebody to decide.
    pub(super) fn check_entries(&self) {
        let mut total = 0;
        for (store, server) in self.stores.iter().zip(&self.servers) {
            assert_eq!(server.access, Access::Write);
            total += store.answered.len() as u64;
            for (entry, epoch) in &store.answered {
                // A restored server has forgotten what it had answered.
                let has = server.history.answers.contains_key(entry);
                assert!(has || *epoch != server.epoch, "{entry} was answered and not applied");
                assert!(!store.parked.contains_key(entry), "{entry} has ended twice");
            }
            for (entry, parked) in &store.parked {
                total += 1;
                let has = server.history.answers.contains_key(entry);
                let open = *parked != Parked::Front;
                assert!(open || !has, "{entry} was parked and applied");
                let reason = server.poison.contains_key(entry);
                let alone = *parked != Parked::All;
                assert!(!alone || reason, "{entry} was parked without a reason");
            }
            for (entry, poison) in &server.poison {
                let passed = store.answered.contains_key(entry);
                let passes = matches!(poison, Poison::Passing(_) | Poison::Mute);
                assert!(!passed || passes, "{entry} is poison");
            }
            let revisions: std::collections::BTreeSet<_> =
                server.history.answers.values().map(|(sequence, _)| sequence).collect();
            assert_eq!(revisions.len(), server.history.answers.len(), "a sequence was used twice");
        }
        assert_eq!(total, self.entries, "an entry was lost");
    }
}
