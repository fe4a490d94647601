//! First answers of mutations: found in the log where a change stands for them,
//! else kept in a table of their own.

use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Decided, Error, conflicts, row};
use crate::domain::{Answer, Fingerprint, Outcome, Record, Rejection, RejectionReason, Violation};

/// An answer from the columns fingerprint, outcome, rejection and conflict,
/// beginning at `first`, and then the change that it speaks of.
pub(super) fn answer(row: &PgRow, first: usize) -> Result<Answer, Error> {
    let fingerprint: &[u8] = row.try_get(first)?;
    let fingerprint = fingerprint.try_into().map(Fingerprint);
    let change = || Ok::<_, Error>(Arc::new(row::change(row, first + 4)?));
    // An answer tells what there was at first.
    let record = || Ok::<_, Error>(Arc::new(Record { change: change()?, open_conflicts: 0 }));
    let conflict: Option<Json<conflicts::Row<'_>>> = row.try_get(first + 3)?;
    let conflict = conflict.map(|Json(row)| row.into_conflict()).transpose()?;
    let conflict = conflict.map(|conflict| Arc::new(conflict.as_found()));
    let outcome = match row.try_get::<i16, _>(first + 1)? {
        1 => {
            let change = change()?;
            match &change.settlement {
                Some(settlement) if settlement.merged => Outcome::Merged(record()?, conflict),
                _ => Outcome::Applied(change.revision, conflict),
            }
        }
        2 => Outcome::Conflict(record()?, conflict),
        3 => Outcome::Rejected(rejection_from_sql(&row.try_get(first + 2)?)?),
        4 => Outcome::Superseded(record()?, conflict),
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
                    Outcome::Applied(..) | Outcome::Merged(..) => continue,
                    Outcome::Conflict(record, _) => (2, Some(record.revision.get()), None),
                    Outcome::Rejected(rejection) => (3, None, Some(rejection_to_sql(rejection))),
                    Outcome::Superseded(record, _) => (4, Some(record.revision.get()), None),
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
const REASONS: [(RejectionReason, &str); 10] = [
    (RejectionReason::Invalid, "invalid"),
    (RejectionReason::AlreadyExists, "already_exists"),
    (RejectionReason::NotFound, "not_found"),
    (RejectionReason::BatchAborted, "batch_aborted"),
    (RejectionReason::SequenceUsed, "sequence_used"),
    (RejectionReason::Schema, "schema"),
    (RejectionReason::ConflictClosed, "conflict_closed"),
    (RejectionReason::RecordChanged, "record_changed"),
    (RejectionReason::RecordGone, "record_gone"),
    (RejectionReason::NotGranted, "not_granted"),
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
