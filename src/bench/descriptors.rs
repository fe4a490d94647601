//! How many connections this process can hold with both their ends.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// File descriptors for everything else, such as connections to PostgreSQL.
const OTHERS: usize = 1_000;
/// What a server accepts by default.
const CONNECTIONS_MAX: usize = 10_000;

/// Raises the limit as far as it may be raised, and says how many fit.
pub(super) fn connections_max() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1 };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    let limit = if raised.is_ok() { hard } else { soft };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    (limit.saturating_sub(OTHERS) / 2).clamp(1, CONNECTIONS_MAX)
}
