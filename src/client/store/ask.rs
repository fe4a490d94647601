//! How streams ask the file. Each question is a task of its own: whoever asks may be polled no
//! longer, as a stream that nobody reads, and must not keep one of the few connections then.

use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::{Error, Store};

pub(super) type Question = Query<'static, Sqlite, SqliteArguments>;

impl Store {
    /// All rows.
    pub(super) async fn all(&self, question: Question) -> Result<Vec<SqliteRow>, Error> {
        let readers = self.readers.clone();
        let asked = async move { question.fetch_all(&readers).await };
        let answer = self.tasks.spawn("question to the local file", asked).await;
        Ok(answer.map_err(|error| Error::Failed(error.to_string()))??)
    }

    /// The row that there is, if any.
    pub(super) async fn first(&self, question: Question) -> Result<Option<SqliteRow>, Error> {
        Ok(self.all(question).await?.into_iter().next())
    }
}
