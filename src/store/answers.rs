//! First answers of mutations: found in the log where a change stands for them,
//! else kept in a table of their own.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;

use super::Error;
use super::row::{self, change_columns};
use crate::domain::{
    Answer, Fingerprint, MutationId, Outcome, Rejection, RejectionReason, Revision, SpaceId,
    Violation, Writes,
};

const LOAD: &str = concat!(
    "select w.space_id, w.mutation_id, f.fingerprint, 1::smallint, null::jsonb, ",
    change_columns!("f"),
    " from unnest($1::uuid[], $2::text[]) w (space_id, mutation_id)
      join changes f on f.space_id = w.space_id and f.mutation_id = w.mutation_id
      union all
      select w.space_id, w.mutation_id, a.fingerprint, a.outcome, a.rejection, ",
    change_columns!("c"),
    " from unnest($1::uuid[], $2::text[]) w (space_id, mutation_id)
      join answers a on a.space_id = w.space_id and a.mutation_id = w.mutation_id
      left join changes c on c.space_id = a.space_id and c.revision = a.record_revision"
);

const INSERT: &str = "insert into answers (space_id, mutation_id, fingerprint, outcome,
         record_revision, rejection, answered_at)
     select *, $7::timestamptz from unnest($1::uuid[], $2::text[], $3::bytea[], $4::smallint[],
         $5::bigint[], $6::jsonb[])";

pub(super) async fn load(
    connection: &mut PgConnection,
    wanted: &[(SpaceId, MutationId)],
) -> Result<Vec<(SpaceId, MutationId, Answer)>, Error> {
    let spaces: Vec<_> = wanted.iter().map(|(space, _)| space.0).collect();
    let ids: Vec<_> = wanted.iter().map(|(_, id)| id.as_str()).collect();
    let rows = sqlx::query(LOAD).bind(spaces).bind(ids).fetch_all(connection).await?;
    rows.iter().map(answer).collect()
}

fn answer(row: &PgRow) -> Result<(SpaceId, MutationId, Answer), Error> {
    let fingerprint: &[u8] = row.try_get(2)?;
    let fingerprint = fingerprint.try_into().map(Fingerprint);
    let outcome = match row.try_get::<i16, _>(3)? {
        1 => Outcome::Applied(row::revision(row, 5)?),
        2 => Outcome::Conflict(row::record(row::change(row, 5)?, Revision::ZERO)),
        3 => Outcome::Rejected(rejection_from_sql(&row.try_get(4)?)?),
        other => return Err(Error::Corrupt(format!("outcome {other}"))),
    };
    let fingerprint = fingerprint.map_err(|_short| Error::Corrupt("fingerprint".into()))?;
    let id = MutationId::from_stored(row.try_get(1)?);
    Ok((SpaceId(row.try_get(0)?), id, Answer { fingerprint, outcome }))
}

pub(super) async fn insert(
    connection: &mut PgConnection,
    decided: &[(SpaceId, Revision, Writes)],
    now: OffsetDateTime,
) -> Result<(), Error> {
    let (mut spaces, mut ids, mut fingerprints) = (Vec::new(), Vec::new(), Vec::new());
    let (mut outcomes, mut revisions, mut rejections) = (Vec::new(), Vec::new(), Vec::new());
    for (space, _, writes) in decided {
        for (id, answer) in &writes.answers {
            let (outcome, revision, rejection) = match &answer.outcome {
                // A change stands for it.
                Outcome::Applied(_) => continue,
                Outcome::Conflict(record) => (2_i16, Some(record.revision.get()), None),
                Outcome::Rejected(rejection) => (3, None, Some(rejection_to_sql(rejection))),
            };
            spaces.push(space.0);
            ids.push(id.as_str());
            fingerprints.push(answer.fingerprint.0.as_slice());
            outcomes.push(outcome);
            revisions.push(revision);
            rejections.push(rejection);
        }
    }
    sqlx::query(INSERT)
        .bind(spaces)
        .bind(ids)
        .bind(fingerprints)
        .bind(outcomes)
        .bind(revisions)
        .bind(rejections)
        .bind(now)
        .execute(connection)
        .await?;
    Ok(())
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
    // U+0000 may stand in a field's name that is at fault; jsonb cannot hold it.
    let text = |text: &str| text.replace('\0', "\u{fffd}");
    let violations = rejection.violations.iter();
    let violations = violations.map(|it| [text(&it.field), text(&it.description)]);
    serde_json::json!({
        "reason": reason.map(|(_, name)| name),
        "message": text(&rejection.message),
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
