//! What a client asks for, and what it is answered.

use std::sync::Arc;

use super::{
    CollectionName, Conflict, DeviceId, Document, Fingerprint, MutationId, Pointer, Record,
    RecordKey, Revision, Seen, Sequence, Strategy, Transform, UserId, limits,
};

/// One call: mutations of one space, in order.
#[derive(Clone, Debug)]
pub struct Request {
    pub author: UserId,
    /// Who really sends it, if not the author.
    pub actor: Option<UserId>,
    pub device: Option<DeviceId>,
    /// All or none.
    pub atomic: bool,
    pub mutations: Vec<Mutation>,
    /// Only in these may it write; None = in all.
    pub collections: Option<Arc<[CollectionName]>>,
}

/// A device as one user has it. Each has sequences of their own, so that nobody can use up
/// those of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnDevice {
    pub user: UserId,
    pub device: DeviceId,
}

impl Request {
    /// The author's device.
    pub fn own_device(&self) -> Option<OwnDevice> {
        let (user, device) = (self.author.clone(), self.device.clone()?);
        Some(OwnDevice { user, device })
    }
}

/// One operation on one record, under a client-chosen id.
#[derive(Clone, Debug)]
pub struct Mutation {
    pub id: MutationId,
    pub device_sequence: Option<Sequence>,
    pub fingerprint: Fingerprint,
    /// Err: the content breaks a rule. The mutation still gets its answer.
    pub content: Result<Content, Rejection>,
}

impl Mutation {
    /// Its place in its device's queue; 0 if it has none.
    pub fn sequence(&self) -> i64 {
        self.device_sequence.map_or(0, Sequence::get)
    }
}

/// What a valid mutation asks for.
#[derive(Clone, Debug)]
pub struct Content {
    pub key: RecordKey,
    pub operation: Operation,
    /// What the client had seen; None = write unconditionally.
    pub base: Option<Seen>,
    /// When the user made the edit, in microseconds since 1970.
    pub client_micros: Option<i64>,
}

/// What to do with the record.
#[derive(Clone, Debug)]
pub enum Operation {
    Create(Document),
    Put(Document),
    Patch(Patch),
    Delete,
    Resolve(Resolve),
}

/// Resolves an open conflict of the record.
#[derive(Clone, Debug)]
pub struct Resolve {
    /// By its name.
    pub conflict: MutationId,
    /// The record's revision that the resolver saw.
    pub seen: Revision,
    pub choice: Choice,
}

/// What the record is to become.
#[derive(Clone, Debug)]
pub enum Choice {
    Client,
    Server,
    Document(Document),
    Strategy(Strategy),
}

/// Brings a deleted record back, by creating it anew.
#[derive(Clone, Debug)]
pub struct Undelete {
    pub key: RecordKey,
    /// With the document that it had at this revision of the space; None = before
    /// its last deletion.
    pub document_at: Option<Revision>,
}

/// Parts of a document to change.
#[derive(Clone, Debug)]
pub struct Patch {
    /// Merged recursively; an empty object sets nothing.
    pub set: Document,
    pub unset: Vec<Pointer>,
    /// Applied last, to whatever is there then.
    pub transforms: Vec<Transform>,
}

/// The answer to one mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutationResult {
    pub mutation_id: MutationId,
    pub outcome: Outcome,
    /// This is the stored first answer.
    pub replayed: bool,
}

/// What became of a mutation. If it was concurrent with another write, there is
/// a conflict, unless that is no longer kept, or was never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect at this revision.
    Applied(Revision, Option<Arc<Conflict>>),
    /// The record became this, something of both sides.
    Merged(Arc<Record>, Option<Arc<Conflict>>),
    /// The record stayed this; the policy says so.
    Superseded(Arc<Record>, Option<Arc<Conflict>>),
    /// The record stayed this until somebody decides.
    Conflict(Arc<Record>, Option<Arc<Conflict>>),
    /// It can never take effect as it is.
    Rejected(Rejection),
}

impl Outcome {
    /// Whether a change stands for it.
    pub fn took_effect(&self) -> bool {
        matches!(self, Self::Applied(..) | Self::Merged(..))
    }

    /// The conflict that it speaks of.
    pub fn conflict(&self) -> Option<&Arc<Conflict>> {
        match self {
            Self::Applied(_, conflict)
            | Self::Merged(_, conflict)
            | Self::Superseded(_, conflict)
            | Self::Conflict(_, conflict) => conflict.as_ref(),
            Self::Rejected(_) => None,
        }
    }
}

/// Why a mutation can never take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: RejectionReason,
    pub message: String,
    pub violations: Vec<Violation>,
}

impl Rejection {
    /// A rejection that no single field explains.
    pub fn new(reason: RejectionReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), violations: Vec::new() }
    }

    /// Content that breaks rules. Only the first few are kept, so that a batch
    /// of rejections fits into an answer.
    pub fn invalid(mut violations: Vec<Violation>) -> Self {
        violations.truncate(limits::REJECTION_VIOLATIONS_MAX);
        let message = "the mutation's content is invalid; see violations".into();
        Self { reason: RejectionReason::Invalid, message, violations }
    }

    /// A document that breaks the schema of its collection, at all these places.
    pub fn schema(violations: Vec<Violation>) -> Self {
        let message = "the document breaks the schema of its collection; see violations".into();
        Self { reason: RejectionReason::Schema, message, violations }
    }
}

/// Why, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectionReason {
    Invalid,
    AlreadyExists,
    NotFound,
    BatchAborted,
    SequenceUsed,
    Schema,
    ConflictClosed,
    RecordChanged,
    RecordGone,
    NotGranted,
}

/// One field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path in the request.
    pub field: String,
    /// The rule.
    pub description: String,
}

impl Violation {
    /// A violation, fit for answers, headers and storage: both texts may hold
    /// what a client sent.
    pub fn new(field: impl AsRef<str>, description: impl AsRef<str>) -> Self {
        Self {
            field: shorten(field.as_ref(), limits::VIOLATION_FIELD_BYTES_MAX),
            description: shorten(description.as_ref(), limits::VIOLATION_BYTES_MAX),
        }
    }
}

/// At most so many bytes, and nothing that could disturb a terminal or a log.
fn shorten(text: &str, bytes_max: usize) -> String {
    let mut short = String::with_capacity(text.len().min(bytes_max));
    for char in text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }) {
        if short.len() + char.len_utf8() + '…'.len_utf8() > bytes_max {
            short.push('…');
            break;
        }
        short.push(char);
    }
    short
}
