//! How long to wait after a failure, and the small generator that spreads such waits, so that
//! many clients do not come back at once. Pure; must not know what failed, nor the time.

use std::time::Duration;

/// After the first failure in a row.
const FIRST: Duration = Duration::from_secs(1);
/// After many.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// From here on the waits would be longer than the longest.
const DOUBLINGS_MAX: u32 = 6;

/// A generator of numbers that are good enough to spread waits (SplitMix64): the same seed
/// gives the same numbers. Nothing secret may depend on it.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// A generator that begins there.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound; 0 if that is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.number().checked_rem(bound).unwrap_or_default()
    }

    /// Between half of a wait and all of it.
    pub(super) fn jittered(&mut self, wait: Duration) -> Duration {
        let half = wait / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(self.below(micros.saturating_add(1)))
    }
}

/// The wait after so many failures in a row, before it is jittered.
pub(super) fn full_wait(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => (FIRST * (1 << (failures - 1).min(DOUBLINGS_MAX))).min(LONGEST),
    }
}

/// Counts failures in a row of one thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// One more: how long to wait before it is tried again.
    pub(super) fn failed(&mut self, random: &mut Random) -> Duration {
        self.failures = self.failures.saturating_add(1);
        random.jittered(full_wait(self.failures))
    }

    /// It went well.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let full: Vec<u64> = (0..10).map(|it| full_wait(it).as_secs()).collect();
        assert_eq!(full, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(full_wait(u32::MAX), LONGEST);
    }

    #[test]
    fn each_wait_is_between_half_and_all_of_it() {
        let mut random = Random::new(7);
        for failures in 1..8 {
            let full = full_wait(failures);
            let waits: Vec<_> = (0..500).map(|_| random.jittered(full)).collect();
            assert!(waits.iter().all(|it| (full / 2..=full).contains(it)), "{failures}");
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(*most - *least > full / 3, "hardly spread: {least:?} to {most:?}");
        }
        assert_eq!(random.jittered(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_success_begins_anew() {
        let (mut backoff, mut random) = (Backoff::default(), Random::new(1));
        (0..9).for_each(|_| assert!(backoff.failed(&mut random) <= LONGEST));
        assert_eq!(backoff.failures(), 9);
        backoff.reset();
        assert!(backoff.failed(&mut random) <= FIRST);
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..5).map(|_| random.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(3), numbers(3));
        assert_ne!(numbers(3), numbers(4));
        assert_eq!(Random::new(3).below(0), 0);
    }
}
