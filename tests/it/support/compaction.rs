//! Compaction, as a test does it: the floor rises, and of the changes up to it only
//! each record's last one stays. What is taken out of the log is kept beside it, so
//! that everything can still be held against what was.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::watch;
use tokio::time::timeout;

use super::history::{Ack, Log, check_real_time};
use super::{Database, Random};

/// The log and what was taken out of it.
const WHOLE: &str = "(select * from changes union all select * from compacted)";

const RAISE: &str = "update spaces s set floor = $1 where s.name = 'users/alice' and floor < $1";
/// What a later change of the same record up to the floor has replaced, unless an answer speaks
/// of it.
const TAKE_OUT: &str = "with gone as (
        delete from changes c using spaces s
        where s.name = 'users/alice' and c.space_id = s.id and c.revision in (
            select l.previous_revision from changes l
            where l.space_id = s.id and l.revision > $1 and l.revision <= $2
        ) and not exists (
            select from answers a where a.space_id = s.id and a.record_revision = c.revision
        ) returning c.*
    ) insert into compacted select * from gone";

/// A hand on alice's log.
#[derive(Debug)]
pub struct Compaction {
    connection: PgConnection,
    pub floor: i64,
    /// How many changes it has taken out.
    pub taken_out: u64,
}

impl Compaction {
    pub async fn prepare(database: &Database) -> Self {
        let mut connection = database.connect().await;
        let sql = "create table compacted as select * from changes where false";
        connection.execute(sql).await.unwrap();
        Self { connection, floor: 0, taken_out: 0 }
    }

    /// Raises the floor to so many revisions below the head, unless it is there.
    pub async fn raise(&mut self, below_head: i64) {
        let mut transaction = self.connection.begin().await.unwrap();
        let sql = "select head from spaces where name = 'users/alice' for update";
        let head: Option<i64> =
            sqlx::query_scalar(sql).fetch_optional(&mut *transaction).await.unwrap();
        let floor = head.unwrap_or(0) - below_head;
        if floor <= self.floor {
            transaction.rollback().await.unwrap();
            return;
        }
        sqlx::query(RAISE).bind(floor).execute(&mut *transaction).await.unwrap();
        let gone = sqlx::query(TAKE_OUT).bind(self.floor).bind(floor);
        self.taken_out += gone.execute(&mut *transaction).await.unwrap().rows_affected();
        transaction.commit().await.unwrap();
        self.floor = floor;
    }

    /// Raises it all the time, to somewhere within so many revisions of the head, until
    /// told to stop; never, without them.
    pub async fn go_on(
        mut self,
        mut random: Random,
        within: Option<u64>,
        mut stop: watch::Receiver<bool>,
    ) -> Self {
        while !*stop.borrow_and_update() {
            if let Some(within) = within {
                self.raise(random.below(within).cast_signed()).await;
            }
            // Its pace, not a wait for anything.
            let stopped = timeout(Duration::from_millis(100), stop.changed()).await;
            if let Ok(Err(_nobody_left_to_stop_it)) = stopped {
                break;
            }
        }
        self
    }

    /// The log as if nothing had been taken out, with everything checked.
    pub async fn checked(mut self, acks: &[Ack]) -> Log {
        let log = Log::read_from(&mut self.connection, "alice", WHOLE).await;
        log.check().unwrap();
        log.check_acks(acks).unwrap();
        check_real_time(acks).unwrap();
        log
    }
}
