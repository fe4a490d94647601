//! First answers of mutations: found in the log where a change stands for them,
//! else kept in a table of their own.

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{Decided, Error, row};
use crate::domain::{
    Answer, Change, Fingerprint, Outcome, Rejection, RejectionReason, Revision, Violation,
};

/// An answer from the columns fingerprint, outcome and rejection, beginning at
/// `first`, and the change that it speaks of.
pub(super) fn answer(
    row: &PgRow,
    first: usize,
    change: impl FnOnce() -> Result<Change, Error>,
) -> Result<Answer, Error> {
    let fingerprint: &[u8] = row.try_get(first)?;
    let fingerprint = fingerprint.try_into().map(Fingerprint);
    let outcome = match row.try_get::<i16, _>(first + 1)? {
        1 => Outcome::Applied(change()?.revision),
        2 => Outcome::Conflict(row::record(change()?, Revision::ZERO)),
        3 => Outcome::Rejected(rejection_from_sql(&row.try_get(first + 2)?)?),
        other => return Err(Error::Corrupt(format!("outcome {other}"))),
    };
    let fingerprint = fingerprint.map_err(|_short| Error::Corrupt("fingerprint".into()))?;
    Ok(Answer { fingerprint, outcome })
}

/// The answers of a group that no change stands for, column by column.
#[derive(Default)]
pub(super) struct Rows<'d> {
    pub(super) space_id: Vec<Uuid>,
    pub(super) mutation_id: Vec<&'d str>,
    pub(super) fingerprint: Vec<&'d [u8]>,
    pub(super) outcome: Vec<i16>,
    pub(super) record_revision: Vec<Option<i64>>,
    pub(super) rejection: Vec<Option<serde_json::Value>>,
}

impl<'d> Rows<'d> {
    pub(super) fn of(decided: &'d [Decided]) -> Self {
        let mut rows = Self::default();
        for Decided { space, writes, .. } in decided {
            for (id, answer) in &writes.answers {
                let (outcome, revision, rejection) = match &answer.outcome {
                    // A change stands for it.
                    Outcome::Applied(_) => continue,
                    Outcome::Conflict(record) => (2, Some(record.revision.get()), None),
                    Outcome::Rejected(rejection) => (3, None, Some(rejection_to_sql(rejection))),
                };
                rows.space_id.push(space.0);
                rows.mutation_id.push(id.as_str());
                rows.fingerprint.push(&answer.fingerprint.0);
                rows.outcome.push(outcome);
                rows.record_revision.push(revision);
                rows.rejection.push(rejection);
            }
        }
        rows
    }
}

/// Names of the reasons as they are stored.
const REASONS: [(RejectionReason, &str); 5] = [
    (RejectionReason::Invalid, "invalid"),
    (RejectionReason::AlreadyExists, "already_exists"),
    (RejectionReason::NotFound, "not_found"),
    (RejectionReason::BatchAborted, "batch_aborted"),
    (RejectionReason::SequenceUsed, "sequence_used"),
];

fn rejection_to_sql(rejection: &Rejection) -> serde_json::Value {
    let reason = REASONS.iter().find(|(reason, _)| *reason == rejection.reason);
    let violations = rejection.violations.iter();
    let violations = violations.map(|it| [&it.field, &it.description]);
    serde_json::json!({
        "reason": reason.map(|(_, name)| name),
        "message": rejection.message,
        "violations": violations.collect::<Vec<_>>(),
    })
}

fn rejection_from_sql(stored: &serde_json::Value) -> Result<Rejection, Error> {
    #[derive(serde::Deserialize)]
    struct Stored {
        reason: String,
        message: String,
        violations: Vec<(String, String)>,
    }
    let corrupt = || Error::Corrupt("rejection".into());
    let stored: Stored = serde::Deserialize::deserialize(stored).map_err(|_unread| corrupt())?;
    let (reason, _) =
        REASONS.iter().find(|(_, name)| *name == stored.reason).ok_or_else(corrupt)?;
    let violations = stored.violations.into_iter();
    Ok(Rejection {
        reason: *reason,
        message: stored.message,
        violations: violations.map(|(field, rule)| Violation::new(field, rule)).collect(),
    })
}
