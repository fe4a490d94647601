//! Whether a chain of the audit log is as it was written: every link is computed anew.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Ended, ROWS_MAX, Verified, differs};
use crate::domain::{AuditAction, Link, SERVER_CHAIN, SpaceId, commitment, link};
use crate::store::Error;
use crate::store::audit::{link_from_row, micros};

const ENTRIES: &str = "select a.number, a.at, a.action, a.actor, a.acted_for, a.subject, a.details,
         a.commitment, a.link, a.erased_in, e.action
     from audit a
     left join audit e on e.space_id = $4 and e.number = a.erased_in
     where a.space_id = $1 and a.number > $2 order by a.number limit $3";

/// Looks at the chain of a space, or of the server.
pub(super) async fn verify_chain(
    connection: &mut PgConnection,
    chain: Uuid,
    verified: &mut Verified,
) -> Result<(), Ended> {
    const END: &str = "select number, link from audit_ends where space_id = $1";
    let (mut number, mut before) = (0, Link::default());
    loop {
        let rows = sqlx::query(ENTRIES).bind(chain).bind(number).bind(ROWS_MAX);
        let rows = rows.bind(SERVER_CHAIN.0).fetch_all(&mut *connection).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            number += 1;
            if row.try_get::<i64, _>(0)? != number {
                return differs(format!("entry {number} of the audit log is missing"));
            }
            let bound = verify_entry(row)?;
            let bound = match bound {
                Ok(bound) => bound,
                Err(what) => return differs(format!("entry {number} of the audit log: {what}")),
            };
            let at: OffsetDateTime = row.try_get(1)?;
            let action = row.try_get::<&str, _>(2)?;
            before = link(SpaceId(chain), before, number, micros(at), action, bound);
            if link_from_row(row, 8)? != before {
                return differs(format!("entry {number} of the audit log does not fit its link"));
            }
            verified.audited += 1;
        }
    }
    let end = sqlx::query(END).bind(chain).fetch_optional(&mut *connection).await?;
    let end = end.map(|end| Ok::<_, Error>((end.try_get::<i64, _>(0)?, link_from_row(&end, 1)?)));
    let end = end.transpose()?.unwrap_or_default();
    if end != (number, before) {
        return differs(format!("the audit log should end at entry {}, not {number}", end.0));
    }
    Ok(())
}

/// What binds the details of an entry, or what is wrong with them.
fn verify_entry(row: &PgRow) -> Result<Result<Link, String>, Error> {
    let bound = link_from_row(row, 7)?;
    let Some(details) = row.try_get::<Option<&str>, _>(6)? else {
        let erasure = row.try_get::<Option<&str>, _>(10)?.and_then(AuditAction::parse);
        let erased = matches!(erasure, Some(AuditAction::SpaceErased | AuditAction::UserErased));
        let told = ["actor", "acted_for", "subject"];
        let left = told.iter().zip(3..).find_map(|(name, column)| {
            row.try_get::<Option<&str>, _>(column).ok().flatten().map(|_| name)
        });
        return Ok(match (erased, left) {
            (false, _) => Err("its details are not there, and no erasure took them".into()),
            (true, Some(name)) => Err(format!("its details were erased, and not its {name}")),
            (true, None) => Ok(bound),
        });
    };
    if commitment(details) != bound {
        return Ok(Err("its details are not those that were written".into()));
    }
    let said: serde_json::Value = serde_json::from_str(details).unwrap_or_default();
    for (name, column) in [("actor", 3), ("acted_for", 4), ("subject", 5)] {
        if said.get(name).and_then(|it| it.as_str()) != row.try_get::<Option<&str>, _>(column)? {
            return Ok(Err(format!("its {name} is not the one in its details")));
        }
    }
    Ok(Ok(bound))
}
