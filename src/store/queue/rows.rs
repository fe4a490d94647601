//! Rows of the queue to domain types and back.

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::domain::{
    DeviceId, Fingerprint, MutationId, QueueFault, QueueOutcome, QueueStanding, QueueState, Queued,
    QueuedBy, Revision, UserId,
};
use crate::store::Error;

/// What [`queued`] reads.
macro_rules! columns {
    ($alias:literal) => {
        concat!(
            $alias,
            ".mutation_id, ",
            $alias,
            ".number, ",
            $alias,
            ".device, ",
            $alias,
            ".author, ",
            $alias,
            ".payload, ",
            $alias,
            ".fingerprint, ",
            $alias,
            ".state, ",
            $alias,
            ".attempts, ",
            $alias,
            ".outcome, ",
            $alias,
            ".revision, ",
            $alias,
            ".reason, ",
            $alias,
            ".message, ",
            $alias,
            ".enqueued_at, ",
            $alias,
            ".updated_at, ",
            $alias,
            ".due_at, ",
            $alias,
            ".actor, ",
            $alias,
            ".by_grant"
        )
    };
}
pub(super) use columns;

pub(super) fn queued(row: &PgRow) -> Result<Queued, Error> {
    let fingerprint = row.try_get::<&[u8], _>(5)?.try_into().map(Fingerprint);
    let fault = row.try_get::<Option<String>, _>(10)?.zip(row.try_get(11)?);
    let outcome: Option<i16> = row.try_get(8)?;
    Ok(Queued {
        mutation_id: MutationId::from_stored(row.try_get(0)?),
        number: row.try_get(1)?,
        device: DeviceId::from_stored(row.try_get(2)?),
        by: QueuedBy {
            author: UserId::from_stored(row.try_get(3)?),
            actor: row.try_get::<Option<&str>, _>(15)?.map(UserId::from_stored),
            by_grant: row.try_get(16)?,
        },
        payload: row.try_get(4)?,
        fingerprint: fingerprint.map_err(|_short| Error::Corrupt("fingerprint".into()))?,
        standing: QueueStanding {
            state: state_from_sql(row.try_get(6)?)?,
            attempts: row.try_get(7)?,
            due_at: row.try_get(14)?,
            outcome: outcome.map(outcome_from_sql).transpose()?,
            revision: row.try_get::<Option<i64>, _>(9)?.and_then(Revision::new),
            fault: fault.map(|(reason, message)| QueueFault { reason, message }),
        },
        enqueued_at: row.try_get(12)?,
        updated_at: row.try_get(13)?,
    })
}

const STATES: [(QueueState, i16); 5] = [
    (QueueState::Pending, 1),
    (QueueState::Applied, 2),
    (QueueState::Conflicted, 3),
    (QueueState::Failed, 4),
    (QueueState::Synced, 5),
];

pub(super) const OUTCOMES: [(QueueOutcome, i16); 5] = [
    (QueueOutcome::Applied, 1),
    (QueueOutcome::Conflict, 2),
    (QueueOutcome::Rejected, 3),
    (QueueOutcome::Superseded, 4),
    (QueueOutcome::Merged, 5),
];

pub(super) fn to_sql<T: PartialEq>(table: &[(T, i16)], value: &T) -> i16 {
    table.iter().find(|(it, _)| it == value).map_or(0, |(_, number)| *number)
}

fn from_sql<T: Copy>(table: &[(T, i16)], number: i16, what: &str) -> Result<T, Error> {
    let found = table.iter().find(|(_, it)| *it == number).map(|(value, _)| *value);
    found.ok_or_else(|| Error::Corrupt(format!("{what} {number}")))
}

pub(super) fn state_to_sql(state: QueueState) -> i16 {
    to_sql(&STATES, &state)
}

fn state_from_sql(number: i16) -> Result<QueueState, Error> {
    from_sql(&STATES, number, "queue state")
}

fn outcome_from_sql(number: i16) -> Result<QueueOutcome, Error> {
    from_sql(&OUTCOMES, number, "queue outcome")
}
