//! The decision about one mutation: pure and total. The server takes it for
//! a space at one head; an offline client may take it alone.

use super::{
    ChangeAction, Content, DeviceId, Document, Operation, Record, Rejection, RejectionReason,
    Violation,
};

/// What is to happen to the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This change; a document unless it deletes.
    Apply(ChangeAction, Option<Document>),
    /// Nothing: the record changed after what the client had seen.
    Conflict,
    /// Nothing, now or ever.
    Reject(Rejection),
}

/// Decides one mutation of one record.
pub fn decide(current: Option<&Record>, content: &Content, device: Option<&DeviceId>) -> Decision {
    if let (Some(base), Some(record)) = (content.base, current)
        && record.revision_not_by(device) > base
    {
        return Decision::Conflict;
    }
    let living = current.and_then(|record| record.document.as_ref());
    match (&content.operation, living) {
        (Operation::Create(_), Some(_)) => Decision::Reject(Rejection::new(
            RejectionReason::AlreadyExists,
            "the record already exists; use put or patch to change it",
        )),
        (Operation::Create(document) | Operation::Put(document), None) => {
            Decision::Apply(ChangeAction::Created, Some(document.clone()))
        }
        (Operation::Put(document), Some(_)) => {
            Decision::Apply(ChangeAction::Updated, Some(document.clone()))
        }
        (Operation::Patch(patch), Some(document)) => match patch.apply(document) {
            Ok(patched) => Decision::Apply(ChangeAction::Updated, Some(patched)),
            Err(fault) => Decision::Reject(Rejection::invalid(vec![Violation::new(
                "mutation.patch",
                format!("the patched document would be invalid: {fault}"),
            )])),
        },
        (Operation::Delete, Some(_)) => Decision::Apply(ChangeAction::Deleted, None),
        (Operation::Patch(_) | Operation::Delete, None) => Decision::Reject(missing(current)),
    }
}

fn missing(current: Option<&Record>) -> Rejection {
    let message = match current {
        None => "the record does not exist; use create or put to make it",
        Some(_tombstone) => "the record was deleted; use create or put to make it anew",
    };
    Rejection::new(RejectionReason::NotFound, message)
}
