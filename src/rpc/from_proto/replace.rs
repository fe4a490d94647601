//! What a space is to be replaced by.

use super::document::document;
use super::subscription::token_name;
use super::{Violations, device, done, key, note};
use crate::app::Replacement;
use crate::domain::{
    Caller, Document, Fingerprint, MutationId, RecordKey, Revision, Space, limits,
};
use crate::rpc::proto;

/// Who replaces what, under which condition.
pub(in crate::rpc) fn replacement(
    wire: &proto::ReplaceAllBegin,
    space: Space,
    caller: &Caller,
) -> Result<Replacement, Violations> {
    let mut broken = Vec::new();
    let device = device(&wire.device).map_err(|it| broken.extend(it)).ok();
    let id = token_name(&wire.id, limits::REPLACEMENT_ID_BYTES_MAX)
        .and_then(|id| MutationId::parse(&id));
    let id = note(&mut broken, "begin.id", id);
    let seen = match wire.seen_revision {
        None => Ok(None),
        Some(seen) => Revision::new(seen).map(Some).ok_or_else(|| "must not be negative".into()),
    };
    let seen = note(&mut broken, "begin.seen_revision", seen);
    let parsed = device.zip(id).zip(seen).map(|((device, id), seen)| {
        let Caller { user: author, actor, .. } = caller.clone();
        let fingerprint = Fingerprint::of_replacement(&author, device.as_ref(), seen);
        Replacement { space, author, actor, device, id, seen, fingerprint, imports: false }
    });
    done(parsed, broken)
}

/// Some records, of which so many came before.
pub(in crate::rpc) fn new_records(
    wire: &[proto::NewRecord],
    before: usize,
) -> Result<Vec<(RecordKey, Document)>, Violations> {
    let mut broken = Vec::new();
    let mut records = Vec::with_capacity(wire.len());
    for (number, it) in (before..).zip(wire) {
        let field = format!("records[{number}]");
        let key = key(it.key.as_ref(), &format!("{field}.key"));
        let document = document(it.document.as_ref(), &format!("{field}.document"));
        match (key, document) {
            (Ok(key), Ok(document)) => records.push((key, document)),
            (key, document) => {
                broken.extend(key.err().into_iter().flatten());
                broken.extend(document.err().into_iter().flatten());
            }
        }
        if broken.len() > limits::REJECTION_VIOLATIONS_MAX {
            break;
        }
    }
    done(Some(records), broken)
}
