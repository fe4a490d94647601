//! A conflict as an app sees it: three sides, and what may be decided about them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, space};
use crate::domain::{Pointer, RecordKey, remove_at};

/// Two writes of one record, neither of which knew the other, that wait for a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// Its name in its space.
    pub id: String,
    /// Of which record.
    pub collection: String,
    pub record: String,
    /// Where both sides changed the same value, as JSON Pointers.
    pub paths: Vec<String>,
    /// What the client's side had seen; None if there was nothing, or if that is not kept.
    pub base: Option<Value>,
    /// The side that was there, and is shown meanwhile.
    pub server: Side,
    /// The side that came.
    pub client: Side,
    /// The record's revision when this was read, which is what [`Space::resolve`] decides about:
    /// later than `server` has it if the record was written since. 0 if the record is not here.
    ///
    /// [`Space::resolve`]: super::Space::resolve
    #[serde(skip)]
    pub revision: i64,
}

/// One side of a conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// None = a deletion, or not here: see [`Conflict::has_documents`].
    pub document: Option<Value>,
    pub deleted: bool,
    pub author: String,
    pub device: String,
    /// The revision of the write; 0 for a client's side.
    pub revision: i64,
}

/// What is to become of a conflict's record.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// The client's side: the one that came.
    KeepClient,
    /// The server's side: the record as it is.
    KeepServer,
    /// This document.
    Document(Value),
}

impl Conflict {
    /// Whether both sides are here. Documents that are too large to be sent along are on the server
    /// only (`GetConflict`): what is None then is no deletion, and the sides are not the same.
    pub fn has_documents(&self) -> bool {
        [&self.server, &self.client].iter().all(|side| side.deleted || side.document.is_some())
    }

    /// The same without what must not be written down.
    pub(super) fn without(mut self, sensitive: &[Pointer]) -> Self {
        let documents = [&mut self.base, &mut self.server.document, &mut self.client.document];
        let objects = documents.into_iter().flatten().filter_map(Value::as_object_mut);
        for fields in objects {
            sensitive.iter().for_each(|path| remove_at(fields, path.keys()));
        }
        self
    }

    pub(super) fn key(&self) -> Result<RecordKey, Error> {
        space::key(&self.collection, &self.record)
    }

    /// As it is kept.
    pub(super) fn stored(&self) -> String {
        // Plain values with text for keys.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_is_told_from_a_document_that_is_elsewhere() {
        let has = |server: &str, client: &str| {
            let side =
                |told: &str| format!(r#"{{{told}, "author": "a", "device": "", "revision": 1}}"#);
            let text = format!(
                r#"{{"id": "c", "collection": "n", "record": "1", "paths": [], "base": null,
                    "server": {}, "client": {}}}"#,
                side(server),
                side(client),
            );
            serde_json::from_str::<Conflict>(&text).unwrap().has_documents()
        };
        let (here, gone) =
            (r#""document": {}, "deleted": false"#, r#""document": null, "deleted": true"#);
        let elsewhere = r#""document": null, "deleted": false"#;
        assert!(has(here, here) && has(here, gone));
        assert!(!has(here, elsewhere) && !has(elsewhere, gone));
    }
}
