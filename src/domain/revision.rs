//! Counters of a space and of a device. The only arithmetic on them is here.

use std::fmt;

/// A space's counter: rises by one with every change. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(i64);

impl Revision {
    /// Before the first change.
    pub const ZERO: Self = Self(0);

    /// Above all others.
    pub const MAX: Self = Self(i64::MAX);

    /// None if negative.
    pub const fn new(value: i64) -> Option<Self> {
        if value < 0 { None } else { Some(Self(value)) }
    }

    /// As the wire and SQL carry it.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The one after. Saturates after 2^63 changes.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// How many revisions lie in (`earlier`, `self`].
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0).unsigned_abs()
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mutation's place in its device's queue: 1, 2, 3 and so on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(i64);

impl Sequence {
    /// Before the first mutation.
    pub const ZERO: Self = Self(0);

    /// None unless positive.
    pub const fn new(value: i64) -> Option<Self> {
        if value < 1 { None } else { Some(Self(value)) }
    }

    /// As the wire and SQL carry it.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The one after.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The one before; before the first there is none other.
    pub const fn before(self) -> Self {
        if self.0 > 0 { Self(self.0 - 1) } else { Self::ZERO }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
