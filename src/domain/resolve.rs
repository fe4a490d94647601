//! What a policy makes of two sides: pure and total. The server decides with
//! it, an offline client may, and a preview does.

mod sides;
mod told;

use time::OffsetDateTime;

use super::merge::Claims;
use super::{
    Base, Conflict, Document, Operation, Pointer, Policy, Relation, Side, Strategy, Version,
    Violation,
};
use sides::Sides;

/// Two writes of one record, neither of which knew the other.
#[derive(Clone, Debug)]
pub struct Concurrency<'a> {
    /// The document as the client had seen it.
    pub base: &'a Base,
    /// The same with what the client's own earlier writes made of it.
    pub view: &'a Base,
    /// What was written after the base, oldest first; the last one left the
    /// record as it is. Never empty.
    pub steps: &'a [Step],
    /// The client's side.
    pub operation: &'a Operation,
    /// The version that the client's side claims.
    pub claimed: &'a Version,
    /// What the steps claim that the client had not seen. Without a base that is
    /// all that is there.
    pub(in crate::domain) claims: &'a Claims,
    pub now: OffsetDateTime,
}

/// A write after the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The client wrote it, or had seen it: it is none of the server's side.
    pub seen: bool,
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
    /// The client's side: its operation on its view. None = a deletion.
    pub client: Option<Document>,
    pub result: Resolved,
}

/// What becomes of the record. `claims` are the paths that the client's side set,
/// also those that it found set alike; None = the difference shows them, or they
/// are too many to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// The client's side; None = it is deleted.
    Client { document: Option<Document>, claims: Option<Vec<Pointer>> },
    /// Something of both.
    Merged { document: Document, claims: Option<Vec<Pointer>> },
    /// It stays.
    Server,
    /// It stays until somebody decides.
    Open,
    /// What it would become is not a document, or breaks a transform.
    Invalid(Vec<Violation>),
}

/// Decides between the sides.
pub fn resolve(policy: &Policy, sides: &Concurrency<'_>) -> Resolution {
    match Sides::of(policy, sides) {
        Ok(sides) => sides.resolve(),
        Err(invalid) => invalid,
    }
}

/// The client's side is taken as if it had known the other, whatever else was
/// written; what would be decided otherwise is not asked.
pub fn accept(sides: &Concurrency<'_>) -> Resolution {
    let policy = Policy { strategy: Strategy::ClientWins, ..Policy::default() };
    match Sides::of(&policy, sides) {
        Ok(sides) => sides.accept(),
        Err(invalid) => invalid,
    }
}

/// What a policy makes of a conflict of the log, whose sides count as one write each.
pub fn resolve_logged(policy: &Policy, conflict: &Conflict, now: OffsetDateTime) -> Resolution {
    let Side { document, version, .. } = &conflict.server;
    let claimed = Version { micros: conflict.server_claimed_micros, ..version.clone() };
    resolve_two(policy, &conflict.base, (document.as_ref(), &claimed), &conflict.client, now)
}

/// What a policy makes of a record as it is and another side.
pub(super) fn resolve_two(
    policy: &Policy,
    base: &Base,
    (document, version): (Option<&Document>, &Version),
    client: &Side,
    now: OffsetDateTime,
) -> Resolution {
    let operation = match &client.document {
        Some(document) => Operation::Put(document.clone()),
        None => Operation::Delete,
    };
    let (document, claimed) = (document.cloned(), version.clone());
    let steps = [Step { seen: false, claimed, document, paths: None }];
    let (view, operation, claimed) = (base, &operation, &client.version);
    let (steps, claims) = (&steps[..], &Claims::of(policy, base.document(), &steps));
    resolve(policy, &Concurrency { base, view, steps, operation, claimed, claims, now })
}
