//! The pure core: words, rules and the decision. No I/O, no clock, no
//! randomness, no async; it cannot fail except by value, and it knows nobody.

mod change;
mod cursor;
mod decide;
mod document;
mod filter;
mod fingerprint;
mod id;
pub mod limits;
mod mutation;
mod patch;
mod pointer;
mod revision;
mod space;

pub use change::{Change, ChangeAction, Record};
pub use cursor::{Cursor, CursorFault, Epoch};
pub use decide::{Decision, decide};
pub use document::{Document, DocumentFault, DocumentForm, JsonObject};
pub use filter::Filter;
pub use fingerprint::Fingerprint;
pub use id::{CollectionName, DeviceId, MutationId, RecordId, RecordKey, Space, SpaceId, UserId};
pub use mutation::{
    Content, Mutation, MutationResult, Operation, Outcome, Patch, Rejection, RejectionReason,
    Request, Violation,
};
pub use pointer::Pointer;
pub use revision::{Revision, Sequence};
pub use space::{Answer, Refusal, SpaceState, Writes};
