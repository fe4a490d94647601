//! What nobody needs any more, in parts: whoever waits to write waits no longer for that.

use super::Error;
use super::steps::PART;
use super::writer::Transaction;

/// Edits that are done are kept for so long, in entries, for apps that ask what became of them.
const DONE_MAX: i64 = 1_000;
/// Deletions that watchers can still be told of, in transactions.
const MOVED_KEPT: i64 = 10_000;

impl Transaction<'_> {
    /// Takes away what nobody needs any more, a part of it; true if there is more.
    pub(super) async fn collect(&mut self) -> Result<bool, Error> {
        // Deletions of which all watchers have been told, and edits of which nobody asks any more.
        let records = self
            .delete(
                "DELETE FROM records WHERE rowid IN (SELECT r.rowid FROM spaces s CROSS JOIN \
                 records r INDEXED BY records_gone WHERE r.space = s.no AND r.shown IS NULL \
                 AND r.dirty = 0 AND r.staged IS NULL AND r.moved < s.moved - ?1 LIMIT ?2)",
                MOVED_KEPT,
            )
            .await?;
        if records > 0 {
            let sql = "UPDATE spaces SET collected = max(collected, moved - ?1)";
            sqlx::query(sql).bind(MOVED_KEPT).execute(&mut *self.db).await?;
        }
        let entries = self
            .delete(
                "DELETE FROM entries WHERE (space, number) IN (SELECT e.space, e.number \
                 FROM spaces s CROSS JOIN entries e WHERE e.space = s.no \
                 AND e.number <= min(s.last_entry - ?1, CASE s.pending + s.syncing \
                 WHEN 0 THEN s.last_entry ELSE s.front END) AND e.done = 1 LIMIT ?2)",
                DONE_MAX,
            )
            .await?;
        let gone: Option<i64> = sqlx::query_scalar(
            "SELECT no FROM spaces WHERE wanted = 0 AND pending + syncing + failed + answered = 0 \
             LIMIT 1",
        )
        .fetch_optional(&mut *self.db)
        .await?;
        let more = match gone {
            None => false,
            Some(no) => self.erase(no).await?,
        };
        let part = u64::try_from(PART).unwrap_or(0);
        Ok(more || records >= part || entries >= part)
    }

    /// Takes a space away with all that is here of it, in parts; true if there is more, or may
    /// be another one.
    async fn erase(&mut self, no: i64) -> Result<bool, Error> {
        let gone = [
            "DELETE FROM records WHERE rowid IN \
             (SELECT rowid FROM records WHERE space = ?1 LIMIT ?2)",
            "DELETE FROM entries WHERE space = ?1 AND number IN \
             (SELECT number FROM entries WHERE space = ?1 LIMIT ?2)",
        ];
        for sql in gone {
            if self.delete(sql, no).await? > 0 {
                return Ok(true);
            }
        }
        for sql in [
            "DELETE FROM tallies WHERE space = ?1",
            "DELETE FROM conflicts WHERE space = ?1",
            "DELETE FROM spaces WHERE no = ?1",
        ] {
            sqlx::query(sql).bind(no).execute(&mut *self.db).await?;
        }
        Ok(true)
    }

    /// Deletes a part of something; tells how many rows.
    async fn delete(&mut self, sql: &'static str, of: i64) -> Result<u64, Error> {
        let done = sqlx::query(sql).bind(of).bind(PART).execute(&mut *self.db).await?;
        Ok(done.rows_affected())
    }
}
