//! What clients saw, and what the log says: every run of a fault test ends with
//! the two held against each other.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::{PgConnection, Row};
use tokio::time::Instant;

use super::{Database, signed};

/// A write that was acknowledged.
#[derive(Clone, Debug)]
pub struct Ack {
    pub mutation: String,
    pub revision: i64,
    pub replayed: bool,
    pub began: Instant,
    pub ended: Instant,
}

/// A line of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    pub revision: i64,
    pub collection: String,
    pub id: String,
    pub document: Option<String>,
    pub previous: i64,
    pub device: Option<String>,
    pub mutation: String,
    /// The last revision of its atomic batch; 0 if there is none.
    pub batch_end: i64,
}

impl Line {
    pub fn key(&self) -> (&str, &str) {
        (&self.collection, &self.id)
    }
}

/// The log of one space, read from the tables.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub lines: Vec<Line>,
    pub head: i64,
    /// Revision and document of every record.
    pub records: BTreeMap<(String, String), (i64, Option<String>)>,
}

impl Log {
    /// Of a user's own space.
    pub async fn read(connection: &mut PgConnection, user: &str) -> Self {
        Self::read_from(connection, user, "changes").await
    }

    /// The same of a log that is not all in one table.
    pub async fn read_from(connection: &mut PgConnection, user: &str, changes: &str) -> Self {
        let name = format!("users/{user}");
        let head: i64 = sqlx::query_scalar("select head from spaces where name = $1")
            .bind(&name)
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        let sql = format!(
            "select c.revision, c.collection, c.id, c.document, c.previous_revision, c.device,
                 c.mutation_id, coalesce(c.batch_end, 0)
             from {changes} c join spaces s on s.id = c.space_id
             where s.name = $1 order by c.revision"
        );
        let lines = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&name);
        let lines = lines.fetch_all(&mut *connection).await.unwrap();
        let line = |row: &sqlx::postgres::PgRow| Line {
            revision: row.get(0),
            collection: row.get(1),
            id: row.get(2),
            document: row.get(3),
            previous: row.get(4),
            device: row.get(5),
            mutation: row.get(6),
            batch_end: row.get(7),
        };
        let records = sqlx::query(
            "select l.collection, l.id, l.revision, c.document,
                 l.deleted = (c.document is null)
                 and c.document::jsonb is not distinct from r.document
             from latest l join spaces s on s.id = l.space_id
             left join changes c on c.space_id = l.space_id and c.revision = l.revision
             left join records r on r.space_id = l.space_id and r.collection = l.collection
                 and r.id = l.id
             where s.name = $1",
        )
        .bind(&name)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
        let record = |row: &sqlx::postgres::PgRow| {
            assert!(row.get::<Option<bool>, _>(4) == Some(true), "a record is not its change");
            ((row.get(0), row.get(1)), (row.get(2), row.get(3)))
        };
        Self {
            lines: lines.iter().map(line).collect(),
            head,
            records: records.iter().map(record).collect(),
        }
    }

    /// The log after a run, with everything checked that can be.
    pub async fn checked(database: &Database, user: &str, acks: &[Ack]) -> Self {
        let log = Self::read(&mut database.connect().await, user).await;
        log.check().unwrap();
        log.check_acks(acks).unwrap();
        check_real_time(acks).unwrap();
        log
    }

    /// Revisions are exactly 1..=head, an id takes effect once, each change
    /// names the one before it, and the records are what the log adds up to.
    pub fn check(&self) -> Result<(), String> {
        let mut last: HashMap<(&str, &str), &Line> = HashMap::new();
        let mut effects = HashSet::new();
        for (line, expected) in self.lines.iter().zip(1..) {
            let previous = last.insert(line.key(), line).map_or(0, |line| line.revision);
            if line.revision != expected {
                return Err(format!("a gap in the log: {} for {expected}", line.revision));
            }
            if !effects.insert(&line.mutation) {
                return Err(format!("{} took effect twice", line.mutation));
            }
            if line.previous != previous {
                return Err(format!("{} follows {}, not {previous}", line.mutation, line.previous));
            }
        }
        if signed(self.lines.len()) != self.head {
            return Err(format!("{} lines, but the head is {}", self.lines.len(), self.head));
        }
        let state: BTreeMap<_, _> = last
            .into_values()
            .map(|line| {
                let key = (line.collection.clone(), line.id.clone());
                (key, (line.revision, line.document.clone()))
            })
            .collect();
        (state == self.records)
            .then_some(())
            .ok_or_else(|| "the records are not what the log says".into())
    }

    /// All that was acknowledged is there, at the revision that was told.
    pub fn check_acks(&self, acks: &[Ack]) -> Result<(), String> {
        for ack in acks {
            let line = usize::try_from(ack.revision - 1).ok().and_then(|at| self.lines.get(at));
            let line = line.ok_or_else(|| format!("{} is lost", ack.mutation))?;
            if line.mutation != ack.mutation {
                return Err(format!("{} was told the revision of {}", ack.mutation, line.mutation));
            }
        }
        Ok(())
    }
}

/// Whatever was answered before something else began has the smaller revision.
pub fn check_real_time(acks: &[Ack]) -> Result<(), String> {
    let mut by_begin: Vec<_> = acks.iter().collect();
    let mut by_end = by_begin.clone();
    by_begin.sort_by_key(|ack| ack.began);
    by_end.sort_by_key(|ack| ack.ended);
    let (mut ended, mut highest) = (by_end.into_iter().peekable(), 0);
    for ack in by_begin.into_iter().filter(|ack| !ack.replayed) {
        while let Some(before) = ended.next_if(|before| before.ended < ack.began) {
            highest = highest.max(before.revision);
        }
        if ack.revision <= highest {
            return Err(format!("{} was put before the past", ack.mutation));
        }
    }
    Ok(())
}
