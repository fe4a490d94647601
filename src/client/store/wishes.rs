//! Wishes that one process leaves in the file for another.

use super::Error;
use super::writer::Transaction;

impl Transaction<'_> {
    pub(super) async fn pass_on(&mut self, wishes: &[String]) -> Result<(), Error> {
        for wish in wishes {
            // The last of the same counts.
            sqlx::query("INSERT OR REPLACE INTO wishes (wish) VALUES (?1)")
                .bind(wish)
                .execute(&mut *self.db)
                .await?;
        }
        Ok(())
    }

    pub(super) async fn take_wishes(&mut self) -> Result<Vec<String>, Error> {
        let sql = "SELECT wish FROM wishes ORDER BY no";
        let wishes = sqlx::query_scalar(sql).fetch_all(&mut *self.db).await?;
        sqlx::query("DELETE FROM wishes").execute(&mut *self.db).await?;
        Ok(wishes)
    }
}
