//! The offline-first client.

mod backoff;
mod edit;
mod engine;
mod entry;
mod query;
pub mod remote;
mod replica;
mod store;

pub use edit::{Edit, Patch};
pub use entry::{EntryState, Trouble};
pub use query::Query;
pub use store::StoreError;

use crate::domain::Document;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    fn invalid(why: impl std::fmt::Display) -> Self {
        Self::Invalid(why.to_string())
    }
}

fn document(fields: serde_json::Value) -> Result<Document, Error> {
    match fields {
        serde_json::Value::Object(fields) => Document::from_fields(fields).map_err(Error::invalid),
        _ => Err(Error::invalid("must be a JSON object")),
    }
}
