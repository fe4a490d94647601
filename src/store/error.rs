//! What can go wrong with the database, sorted by what a caller does about it.

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is away, or went away: the outcome of a write is unknown.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// It did not answer in time: the outcome of a write is unknown.
    #[error("{0} took too long")]
    TimedOut(&'static str),
    /// Others were in the way, and nothing happened: try again.
    #[error("the database is busy")]
    Busy(#[source] sqlx::Error),
    /// Something is not as it was known, and nothing happened: decide anew.
    #[error("the database is not as it was known")]
    Moved,
    /// A mutation took effect before, and nothing happened: find its answer.
    #[error("a mutation took effect before")]
    Repeated,
    /// A shared space is not there, or no longer.
    #[error("the space does not exist")]
    Gone,
    /// It refused a statement: the same statement will be refused again.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// A group wants to keep so much that it is not even sent.
    #[error("a group logs {bytes} bytes of documents")]
    TooMuch { bytes: usize },
    /// A row is not what this program writes.
    #[error("a stored row is damaged: {0}")]
    Corrupt(String),
    /// The address of the database cannot be understood.
    #[error("the database URL is not valid")]
    Url(#[source] sqlx::Error),
    /// The database must not be used as it is.
    #[error("{problem}")]
    Unfit { problem: String, hint: String },
    /// The schema could not be brought up to date.
    #[error("the database schema could not be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

impl Error {
    /// Whether trying again later may help.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::TimedOut(_) | Self::Busy(_) | Self::Moved | Self::Repeated
        )
    }

    /// What a failed write means: what is not as it was known shows as a division
    /// by zero, or as a row that is there already.
    pub(super) fn of_write(error: sqlx::Error) -> Self {
        let database = error.as_database_error();
        let code = database.and_then(sqlx::error::DatabaseError::code);
        let constraint = database.and_then(sqlx::error::DatabaseError::constraint);
        match (code.as_deref(), constraint) {
            (Some("23505"), Some("changes_by_mutation")) => Self::Repeated,
            (Some("22012" | "23505"), _) => Self::Moved,
            _ => error.into(),
        }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Unfit { hint, .. } => Some(hint),
            Self::Unavailable(_) | Self::TimedOut(_) => {
                Some("check that the server runs and that the database URL is right")
            }
            Self::Url(_) => Some("write it as postgres://user:password@host:5432/database"),
            Self::Moved
            | Self::Repeated
            | Self::Gone
            | Self::Busy(_)
            | Self::TooMuch { .. }
            | Self::Refused(_)
            | Self::Corrupt(_)
            | Self::Migrate(_) => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => match database.code().as_deref().unwrap_or("") {
                // Serialization failure, deadlock, lock and statement timeouts.
                "40001" | "40P01" | "55P03" | "57014" => Self::Busy(error),
                // Connection faults, shutdown, start-up, a session that was idle
                // in its transaction for too long, too many connections, and a
                // disk that is full: all may pass.
                code if code.starts_with("08")
                    || code.starts_with("57P")
                    || matches!(
                        code,
                        "25P03"
                            | "25P04"
                            | "53100"
                            | "53200"
                            | "53300"
                            | "25006"
                            | "28P01"
                            | "3D000"
                    ) =>
                {
                    Self::Unavailable(error)
                }
                _ => Self::Refused(error),
            },
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnIndexOutOfBounds { .. }
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            sqlx::Error::Configuration(_) => Self::Url(error),
            // The same arguments will not be encoded another time either.
            sqlx::Error::Encode(_) => Self::Refused(error),
            _ => Self::Unavailable(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_connections_are_not_taken_for_refusals() {
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(Error::from(sqlx::Error::Io(io)), Error::Unavailable(_)));
        assert!(matches!(Error::from(sqlx::Error::PoolTimedOut), Error::Unavailable(_)));
        assert!(Error::from(sqlx::Error::WorkerCrashed).is_retryable());
        assert!(!Error::from(sqlx::Error::ColumnNotFound("x".into())).is_retryable());
    }
}
