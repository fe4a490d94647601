//! PostgreSQL: the only place that knows SQL. Reads run on a pool, each as one
//! statement; writes run on connections that committers own.
//!
//! Futures of this module must not be dropped while they run: sqlx may return a
//! connection to its pool inside an open transaction then. Callers run them on
//! tasks of their own (`App::detached`, the committers, the feeder).

mod acks;
mod answers;
mod audit;
mod compaction;
mod conflicts;
mod connect;
mod digests;
mod erase;
mod error;
mod export;
mod fitness;
mod heads;
mod load;
mod members;
mod migrate;
mod notify;
mod pages;
mod past;
mod policies;
mod preview;
mod queue;
mod replace;
mod row;
mod scope;
mod snapshot;
mod steps;
mod verify;
mod write;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

pub use acks::Acknowledged;
pub use audit::{AuditQuery, Noter, StoredEntry};
pub use compaction::{Candidate, Compactor, FIRST_SPACE, LogSpans, Rise, Tombstone};
pub use conflicts::{ConflictPlace, ConflictQuery, ConflictsPage, MovedQuery};
pub use connect::Settings;
pub use digests::Tallies;
pub use erase::Erased;
pub use error::Error;
pub use export::{ExportPlace, Section};
pub use fitness::Fitness;
pub use heads::{DeviceStanding, SpaceHead, SpaceStatus};
pub use load::{Found, Loaded, Standing, Wanted};
pub use members::{AccessChange, Member, MemberOutcome, Seat, SharedSpace, user_key};
pub use notify::{Heard, Listener, Notifier};
pub use pages::{ChangesPage, ChangesQuery, RecordsPage};
pub use past::{FoundPast, WantedPast};
pub use policies::{Condition, NewPolicy, SetOutcome, StoredPolicies, StoredPolicy};
pub use queue::{Enqueued, Held, Lane, NewQueued, QueueCounts, QueueQuery};
pub use replace::{Difference, Replaced};
pub use snapshot::{SnapshotPage, SnapshotPlace, SnapshotQuery};
pub use steps::{StepsPage, StepsQuery};
pub use verify::{Mismatch, Verified};
pub use write::{Decided, Locked, Source, Writer};

/// The database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    reads: PgPool,
    connect: PgConnectOptions,
}
