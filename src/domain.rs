//! The pure core: words, rules and the decision. No I/O, no clock, no
//! randomness, no async; it cannot fail except by value, and it knows nobody.

mod access;
mod audit;
mod change;
mod conflict;
mod cursor;
mod decide;
mod delta;
mod digest;
mod document;
mod event;
mod fields;
mod filter;
mod fingerprint;
mod history;
mod id;
#[cfg(test)]
pub(crate) mod laws;
pub mod limits;
mod merge;
mod mutation;
mod number;
mod past;
mod patch;
mod pattern;
mod pointer;
mod policy;
mod preview;
mod queued;
mod rates;
mod record_step;
mod resolve;
mod revision;
mod schema;
mod space;
mod transform;
mod version;

pub use access::{Access, Caller, Denied, Membership, OpenSpace, Right, Spaces};
pub use audit::{Actor, AuditAction, AuditEntry, Link, SERVER_CHAIN, commitment, link};
pub use change::{Change, ChangeAction, Record, Settlement};
pub use conflict::{
    Base, Closing, ClosingKind, Conflict, ConflictState, OpenConflict, Relation, Side, Verdict,
};
pub use cursor::{Cursor, CursorFault, Epoch};

pub use decide::{Asking, Decision, Knowing, NewState, decide};
pub use delta::Delta;
pub use digest::{CollectionTally, Digest, Tally};
pub use document::{Document, DocumentFault, DocumentForm, JsonObject, canonical};
pub use event::Event;
pub use fields::{merge_fields, put_at, remove_at, value_at};
pub use filter::{Echo, Filter, Scope, Sight};
pub use fingerprint::Fingerprint;
pub use history::{History, HistoryEntry, Seen};
pub use id::{CollectionName, DeviceId, MutationId, RecordId, RecordKey, Space, SpaceId, UserId};
pub use mutation::{
    Choice, Content, Mutation, MutationResult, Operation, Outcome, OwnDevice, Patch, Rejection,
    RejectionReason, Request, Resolve, Undelete, Violation,
};
pub use past::{PastLog, View, Way};
pub use pattern::Pattern;
pub use pointer::Pointer;
pub use policy::{
    DeleteRule, Fallback, FieldRule, FieldRuleKind, OTHERS, Policy, PolicyMode, PolicySet,
    Retention, SetPolicy, Strategy,
};
pub use preview::{Preview, PreviewedConflict, PreviewedWrite};
pub use queued::{QueueFault, QueueOutcome, QueueStanding, QueueState, Queued, QueuedBy};
pub use rates::{Quotas, Rate, Rates};
pub use record_step::RecordStep;
pub use resolve::{Concurrency, Resolution, Resolved, Step, accept, resolve, resolve_logged};
pub use revision::{Revision, Sequence};
pub use schema::Schema;
pub use space::{
    Answer, ClosedConflict, Known, Lack, LoggedConflict, Refusal, Rules, SpaceState, Usage, Writes,
};
pub use transform::{Transform, TransformKind, transform};
pub use version::{Parents, Version};
