//! What a client has of a space, and the digest that it finds by itself.

use std::collections::BTreeMap;

use syncline::domain::{CollectionName, Document, RecordId, RecordKey, Tally};
use syncline::rpc::proto::{
    Change, ChangeAction, Cursor, GetRecordRequest, Record, SnapshotFrame, SnapshotResponse,
    SpaceDigest,
};

use crate::support::{Client, text};

/// Living records by collection and id, each with its revision and JSON text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Copy {
    pub(super) records: BTreeMap<(String, String), (i64, String)>,
    pub(super) cursor: Option<Cursor>,
}

impl Copy {
    pub(super) fn revision(&self) -> i64 {
        self.cursor.as_ref().map_or(0, |cursor| cursor.revision)
    }

    /// Takes a response of a snapshot in; whether it was the last.
    pub(super) fn load(&mut self, response: SnapshotResponse) -> bool {
        let SnapshotResponse { records, cursor, last, next_token } = response;
        assert_eq!(next_token.is_empty(), last);
        assert!(self.cursor.is_none() || self.cursor == cursor, "a snapshot is at one revision");
        self.cursor = cursor;
        for record in records {
            assert!(record.revision <= self.revision(), "a record of later");
            let (key, value) = entry(&record);
            let after = self.records.last_key_value().is_none_or(|(last, _)| *last < key);
            assert!(after, "{key:?} comes too late, or twice");
            self.records.insert(key, value);
        }
        last
    }

    /// The same of a frame of a stream.
    pub(super) fn show(&mut self, frame: SnapshotFrame) {
        let SnapshotFrame { records, revision, last, next_token, .. } = frame;
        let epoch = self.cursor.clone().unwrap().epoch;
        let cursor = Some(Cursor { epoch, revision });
        self.cursor.clone_from(&cursor);
        self.load(SnapshotResponse { records, cursor, last, next_token });
    }

    /// Takes changes in that end at this cursor.
    pub(super) fn apply(&mut self, changes: &[Change], cursor: Option<Cursor>) {
        for change in changes {
            assert!(change.revision > self.revision(), "a change that was known");
            let key = change.key.clone().unwrap();
            let key = (key.collection, key.id);
            // It may have come from a later snapshot.
            if self.records.get(&key).is_some_and(|(known, _)| *known >= change.revision) {
                continue;
            }
            if change.action() == ChangeAction::Deleted {
                self.records.remove(&key);
            } else {
                self.records
                    .insert(key, (change.revision, text(change.document.as_ref().unwrap())));
            }
        }
        self.cursor = cursor;
    }

    /// The digest of some collections, or of all, is what the server tells.
    pub(super) fn check(&self, told: &SpaceDigest) {
        assert_eq!(told.revision, self.revision());
        assert_eq!(self.differing(told), Vec::<String>::new());
    }

    /// The collections whose digest is another one; all together under no name.
    pub(super) fn differing(&self, told: &SpaceDigest) -> Vec<String> {
        let (mut total, mut own) = (Tally::default(), BTreeMap::<_, Tally>::new());
        for ((collection, id), (_, json)) in &self.records {
            let document = Document::from_json(json.as_bytes()).unwrap();
            let key = RecordKey {
                collection: CollectionName::parse(collection).unwrap(),
                id: RecordId::parse(id).unwrap(),
            };
            for tally in [&mut total, own.entry(collection.as_str()).or_default()] {
                tally.add(&key, Some(&document));
            }
        }
        let same = |tally: &Tally, records: i64, digest: &[u8]| {
            (tally.records, tally.digest.to_bytes().as_slice()) == (records, digest)
        };
        let mut differing = Vec::new();
        for it in &told.collections {
            let own = own.remove(it.collection.as_str()).unwrap_or_default();
            if !same(&own, it.records, &it.digest) {
                differing.push(it.collection.clone());
            }
        }
        differing.extend(own.into_keys().map(str::to_owned));
        if differing.is_empty() && !same(&total, told.records, &told.digest) {
            differing.push(String::new());
        }
        differing
    }

    /// Against what the server has now, record by record.
    pub(super) async fn check_records(&self, client: &Client) {
        for ((collection, id), (revision, json)) in &self.records {
            let key =
                syncline::rpc::proto::RecordKey { collection: collection.clone(), id: id.clone() };
            let request =
                GetRecordRequest { key: Some(key), document_form: 2, ..Default::default() };
            let record = client.stub.clone().get_record(request).await.unwrap().into_inner();
            let (_, found) = entry(&record.record.unwrap());
            assert_eq!(found, (*revision, json.clone()), "{collection}/{id}");
        }
    }
}

fn entry(record: &Record) -> ((String, String), (i64, String)) {
    let key = record.key.clone().unwrap();
    ((key.collection, key.id), (record.revision, text(record.document.as_ref().unwrap())))
}
