//! The time of day, as a value that is handed in: owns the only call of the system clock, so that
//! tests and simulations decide what time it is. Knows nothing of what the time is used for.
//! Intervals and timers are `tokio::time`'s matter, not this module's.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::time::Instant;

/// A clock; copies of a manual one show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Mutex<OffsetDateTime>>),
    Fast(Arc<Fast>),
}

#[derive(Debug)]
struct Fast {
    start: OffsetDateTime,
    factor: u32,
    began: Instant,
}

impl Clock {
    /// The machine's own clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` and moves only with [`Clock::advance`].
    pub fn manual(start: OffsetDateTime) -> Self {
        Self(Source::Manual(Arc::new(Mutex::new(start))))
    }

    /// A clock that shows `start` now, and runs this many times as fast as time.
    pub fn fast(start: OffsetDateTime, factor: u32) -> Self {
        Self(Source::Fast(Arc::new(Fast { start, factor: factor.max(1), began: Instant::now() })))
    }

    /// How long a span of this clock takes.
    pub fn span(&self, shown: Duration) -> Duration {
        match &self.0 {
            Source::System | Source::Manual(_) => shown,
            Source::Fast(fast) => shown / fast.factor,
        }
    }

    /// Moves a manual clock and all its copies forward; the system's clock cannot be moved.
    pub fn advance(&self, by: Duration) {
        match &self.0 {
            Source::System | Source::Fast(_) => unreachable!("only a manual clock can be moved"),
            Source::Manual(now) => *now.lock() += by,
        }
    }

    /// The current time, in UTC.
    pub fn now(&self) -> OffsetDateTime {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "the program's one look at the clock")]
            Source::System => OffsetDateTime::from(std::time::SystemTime::now()),
            Source::Manual(now) => *now.lock(),
            Source::Fast(fast) => fast.start + fast.began.elapsed() * fast.factor,
        }
    }

    /// The current time as exactly as PostgreSQL keeps it: what is told of it now is what is told
    /// later.
    pub fn now_to_store(&self) -> OffsetDateTime {
        let now = self.now();
        now.replace_microsecond(now.microsecond()).unwrap_or(now)
    }

    /// The current time as tokens count it: whole seconds since 1970.
    pub fn unix_seconds(&self) -> i64 {
        self.now().unix_timestamp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_with_its_copies_and_only_when_told() {
        let clock = Clock::manual(OffsetDateTime::UNIX_EPOCH);
        let copy = clock.clone();
        assert_eq!(copy.unix_seconds(), 0);
        clock.advance(Duration::from_millis(1_500));
        assert_eq!(copy.unix_seconds(), 1);
        assert_eq!(copy.now() - OffsetDateTime::UNIX_EPOCH, time::Duration::milliseconds(1_500));
    }

    #[test]
    fn a_fast_clock_runs_ahead() {
        let began = Instant::now();
        let clock = Clock::fast(OffsetDateTime::UNIX_EPOCH, 1_000_000);
        while clock.unix_seconds() < 1_000 {
            std::thread::yield_now();
        }
        assert!(began.elapsed() >= Duration::from_millis(1));
        assert_eq!(clock.span(Duration::from_secs(1_000)), Duration::from_millis(1));
        assert_eq!(Clock::system().span(Duration::from_secs(7)), Duration::from_secs(7));
    }

    #[test]
    fn the_system_clock_shows_a_time_after_this_was_written() {
        assert!(Clock::system().unix_seconds() > 1_767_225_600);
    }
}
