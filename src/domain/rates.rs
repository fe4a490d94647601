//! How much a space may take, and how often somebody may call.

use std::num::NonZeroU32;

use super::Usage;

/// What a space may take; 0 = as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    pub usage: Usage,
    /// Subscriptions that follow it, on one server.
    pub subscriptions: usize,
}

/// So much in each second, and at most twice as much at once; None = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate(Option<NonZeroU32>);

impl Rate {
    /// So much in each second; 0 = no limit.
    pub fn per_second(count: u32) -> Self {
        Self(NonZeroU32::new(count))
    }

    /// How much in each second, if there is a limit.
    pub fn count(self) -> Option<NonZeroU32> {
        self.0
    }

    /// How much at once.
    pub fn burst(self) -> Option<NonZeroU32> {
        self.0.map(|count| count.saturating_mul(NonZeroU32::MIN.saturating_add(1)))
    }
}

/// How often somebody may call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// For each user.
    pub reads: Rate,
    pub writes: Rate,
    /// Streams and subscriptions that are opened.
    pub opens: Rate,
    /// Streams that are open, on one server; 0 = no limit.
    pub user_streams: usize,
    /// For each address.
    pub address_calls: Rate,
}
