//! Whatever the tables say twice, computed anew and compared: each space as of one
//! instant, page by page, in a transaction that only reads.

mod audit;

use std::collections::BTreeMap;
use std::fmt;

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::{Error, Store, digests, row};
use crate::domain::{CollectionName, Document, RecordKey, SERVER_CHAIN, Tally, Usage};

/// What was looked at without finding a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub spaces: i64,
    pub records: i64,
    pub changes: i64,
    /// Entries of audit logs.
    pub audited: i64,
}

/// The first difference that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub space: String,
    /// Where, and what is there instead of what.
    pub what: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.space, self.what)
    }
}

/// Why it ends before the end.
enum Ended {
    Differs(String),
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

const ROWS_MAX: i64 = 1_000;

const SPACES: &str = "select id, name from spaces
     where id > $1 and ($2::text is null or name = $2) order by id limit $3";

const RECORDS: &str = "select l.collection, l.id, l.revision, l.deleted, l.bytes,
         l.open_conflicts, c.collection, c.id, c.action, c.document, k.count
     from latest l
     left join changes c on c.space_id = l.space_id and c.revision = l.revision
     left join lateral (
         select count(*)::integer as count from conflicts k
         where k.space_id = l.space_id and k.collection = l.collection and k.id = l.id
             and k.state = 1
     ) k on true
     where l.space_id = $1 and (l.collection, l.id) > ($2, $3)
     order by l.collection, l.id limit $4";

const CHANGES: &str = "select c.revision, c.collection, c.id, c.previous_revision, l.revision,
         p.collection, p.id
     from changes c
     left join lateral (
         select * from latest l
         where l.space_id = c.space_id and (l.collection, l.id) >= (c.collection, c.id)
         order by l.collection, l.id limit 1
     ) l on l.collection = c.collection and l.id = c.id
     left join changes p on p.space_id = c.space_id and p.revision = c.previous_revision
     where c.space_id = $1 and c.revision > $2
     order by c.revision limit $3";

impl Store {
    /// Looks at all spaces, or at one. Others go on writing. Not cancel safe.
    pub async fn verify(&self, space: Option<&str>) -> Result<Result<Verified, Mismatch>, Error> {
        let mut connection = self.connection().await?;
        // It may take its time, but not within one statement.
        let sql = "set idle_in_transaction_session_timeout = 0";
        sqlx::query(sql).execute(&mut connection).await?;
        let mut verified = Verified::default();
        let mut after = Uuid::nil();
        loop {
            let spaces = sqlx::query(SPACES).bind(after).bind(space).bind(ROWS_MAX);
            let spaces = spaces.fetch_all(&mut connection).await?;
            let Some(last) = spaces.last() else { break };
            after = last.try_get(0)?;
            for found in &spaces {
                let (id, name) = (found.try_get(0)?, found.try_get::<String, _>(1)?);
                match verify_space(&mut connection, id, &mut verified).await {
                    Ok(()) => verified.spaces += 1,
                    Err(Ended::Differs(what)) => {
                        return Ok(Err(Mismatch { space: name, what }));
                    }
                    Err(Ended::Failed(error)) => return Err(error),
                }
            }
        }
        if space.is_none() {
            match audit::verify_chain(&mut connection, SERVER_CHAIN.0, &mut verified).await {
                Ok(()) => {}
                Err(Ended::Differs(what)) => {
                    return Ok(Err(Mismatch { space: "the server".into(), what }));
                }
                Err(Ended::Failed(error)) => return Err(error),
            }
        }
        connection.close().await?;
        Ok(Ok(verified))
    }
}

async fn verify_space(
    connection: &mut PgConnection,
    space: Uuid,
    verified: &mut Verified,
) -> Result<(), Ended> {
    let begin = "begin transaction isolation level repeatable read read only";
    let mut transaction = connection.begin_with(begin).await?;
    const SPACE: &str = "select head, floor, records, bytes from spaces where id = $1";
    let sql = sqlx::query(SPACE).bind(space);
    let Some(at) = sql.fetch_optional(&mut *transaction).await? else { return Ok(()) };
    let (head, floor): (i64, i64) = (at.try_get(0)?, at.try_get(1)?);
    let said = Usage { records: at.try_get(2)?, bytes: at.try_get(3)? };
    if floor > head {
        return differs(format!("the floor is {floor}, above the head {head}"));
    }
    let (tallies, held) = verify_records(&mut transaction, space, head, verified).await?;
    if said != held {
        return differs(format!(
            "says that it holds {} records with {} bytes; it holds {} with {}",
            said.records, said.bytes, held.records, held.bytes
        ));
    }
    verify_tallies(&mut transaction, space, tallies).await?;
    verify_log(&mut transaction, space, (floor, head), verified).await?;
    audit::verify_chain(&mut transaction, space, verified).await?;
    transaction.rollback().await?;
    Ok(())
}

fn differs<T>(what: String) -> Result<T, Ended> {
    Err(Ended::Differs(what))
}

type Tallies = BTreeMap<CollectionName, Tally>;

async fn verify_records(
    connection: &mut PgConnection,
    space: Uuid,
    head: i64,
    verified: &mut Verified,
) -> Result<(Tallies, Usage), Ended> {
    let (mut tallies, mut held) = (Tallies::new(), Usage::default());
    let mut after = (String::new(), String::new());
    loop {
        let query = sqlx::query(RECORDS).bind(space).bind(&after.0).bind(&after.1).bind(ROWS_MAX);
        let rows = query.fetch_all(&mut *connection).await?;
        let Some(last) = rows.last() else { return Ok((tallies, held)) };
        after = (last.try_get(0)?, last.try_get(1)?);
        for row in &rows {
            let key = row::key(row, 0)?;
            let document = match verify_record(row, head)? {
                Ok(document) => document,
                Err(what) => {
                    return differs(format!("record {}/{}: {what}", key.collection, key.id));
                }
            };
            verified.records += 1;
            let tally = tallies.entry(key.collection.clone()).or_default();
            tally.add(&key, document.as_ref());
            if let Some(document) = &document {
                held += Usage::of_document(document);
            }
        }
    }
}

/// The document of a record, or how its row in `latest` and its change differ.
fn verify_record(row: &PgRow, head: i64) -> Result<Result<Option<Document>, String>, Error> {
    let revision: i64 = row.try_get(2)?;
    let (deleted, bytes): (bool, i32) = (row.try_get(3)?, row.try_get(4)?);
    if revision > head {
        return Ok(Err(format!("is at revision {revision}, above the head {head}")));
    }
    let Some(collection) = row.try_get::<Option<&str>, _>(6)? else {
        return Ok(Err(format!("its change, revision {revision}, is not there")));
    };
    let own = (row.try_get::<&str, _>(0)?, row.try_get::<&str, _>(1)?);
    if (collection, row.try_get::<&str, _>(7)?) != own {
        return Ok(Err(format!("its revision {revision} is a change of {collection}")));
    }
    let text: Option<String> = row.try_get(9)?;
    if deleted != text.is_none() || deleted != (row.try_get::<i16, _>(8)? == 3) {
        return Ok(Err(format!("says deleted = {deleted}, and its change does not")));
    }
    let length = text.as_ref().map_or(0, String::len);
    if i32::try_from(length).ok() != Some(bytes) {
        return Ok(Err(format!("says that it has {bytes} bytes; it has {length}")));
    }
    let (open, found): (i32, i32) = (row.try_get(5)?, row.try_get(10)?);
    if open != found {
        return Ok(Err(format!("says that {open} conflicts are open; {found} are")));
    }
    let document = text.as_ref().map(|text| Document::from_json(text.as_bytes()));
    Ok(match document.transpose() {
        Ok(document) if document.as_ref().map(Document::as_str) == text.as_deref() => Ok(document),
        Ok(_) => Err("its document is not canonical JSON".to_owned()),
        Err(fault) => Err(format!("its document is not one: {fault}")),
    })
}

async fn verify_tallies(
    connection: &mut PgConnection,
    space: Uuid,
    mut found: Tallies,
) -> Result<(), Ended> {
    const DIGESTS: &str = "select collection, records, digest::text from digests
         where space_id = $1 order by collection";
    for row in &sqlx::query(DIGESTS).bind(space).fetch_all(connection).await? {
        let collection = CollectionName::from_stored(row.try_get(0)?);
        let said = digests::tally(row, 1)?;
        let found = found.remove(&collection).unwrap_or_default();
        if said != found {
            let [said, found] = [said, found].map(|it| format!("{} ({})", it.digest, it.records));
            return differs(format!("collection {collection}: the digest is {said}, not {found}"));
        }
    }
    match found.into_iter().find(|(_, tally)| *tally != Tally::default()) {
        Some((collection, _)) => differs(format!("collection {collection} has no digest")),
        None => Ok(()),
    }
}

async fn verify_log(
    connection: &mut PgConnection,
    space: Uuid,
    (floor, head): (i64, i64),
    verified: &mut Verified,
) -> Result<(), Ended> {
    let mut last = 0;
    // Above the floor whatever was replaced has its follower.
    let (mut replaced, mut followers) = (0, 0);
    loop {
        let rows = sqlx::query(CHANGES).bind(space).bind(last).bind(ROWS_MAX);
        let rows = rows.fetch_all(&mut *connection).await?;
        if rows.is_empty() {
            break;
        }
        for row in &rows {
            let revision: i64 = row.try_get(0)?;
            // Below the floor there are gaps.
            if revision > floor && revision != last.max(floor) + 1 {
                return differs(format!("revision {} is missing", last.max(floor) + 1));
            }
            let key = row::key(row, 1)?;
            if let Some(what) = verify_change(row, revision, floor, &key)? {
                return differs(format!(
                    "revision {revision}, {}/{}: {what}",
                    key.collection, key.id
                ));
            }
            let latest: Option<i64> = row.try_get(4)?;
            replaced += i64::from(revision > floor && latest != Some(revision));
            followers += i64::from(row.try_get::<i64, _>(3)? > floor);
            verified.changes += 1;
            last = revision;
        }
    }
    if last.max(floor) != head {
        return differs(format!("the last revision is {last}, and the head {head}"));
    }
    if replaced != followers {
        let what = "changes above the floor were replaced";
        return differs(format!("{replaced} {what}, and {followers} say that they did"));
    }
    Ok(())
}

/// What is wrong with a change beside its neighbours.
fn verify_change(
    row: &PgRow,
    revision: i64,
    floor: i64,
    key: &RecordKey,
) -> Result<Option<String>, Error> {
    let (previous, latest): (i64, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
    if latest.is_none_or(|latest| latest < revision) && (latest.is_some() || revision > floor) {
        let latest = latest.map_or_else(|| "none".to_owned(), |latest| latest.to_string());
        return Ok(Some(format!("the record's last revision is said to be {latest}")));
    }
    if previous >= revision || previous < 0 {
        return Ok(Some(format!("says that it follows revision {previous}")));
    }
    let before = row.try_get::<Option<&str>, _>(5)?.map(|_| row::key(row, 5)).transpose()?;
    match before {
        Some(before) if before != *key => {
            Ok(Some(format!("says that it follows revision {previous}, of another record")))
        }
        None if previous > floor => {
            Ok(Some(format!("follows revision {previous}, which is not there")))
        }
        Some(_) | None => Ok(None),
    }
}
