//! What was told, what the server has, and what the file has, held against each other at rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use syncline::client::{Client, Options, Query};
use syncline::domain::Version;
use syncline::rpc::proto::{self, Change};

use super::program::Program;
use super::script::{Does, Script};
use crate::support::text;

impl Script {
    /// Lets the program sync to its end, and checks everything that can be.
    pub async fn check(&mut self, program: &Program) {
        let run = program.sync(&[], None).await;
        run.ended_well();
        let status = program.values(&["status", "--offline"]).await.remove(0);
        assert_eq!(status["spaces"][0]["pending"], 0, "{status}");
        let device = status["device"].as_str().unwrap().to_owned();
        let log = log(program).await;
        let mut effects = HashMap::new();
        for change in &log {
            let twice = effects.insert(change.mutation_id.clone(), change);
            assert!(twice.is_none(), "{} took effect twice", change.mutation_id);
        }
        let parked: BTreeMap<String, Value> = program
            .values(&["parked"])
            .await
            .into_iter()
            .map(|it| (it["edit"].as_str().unwrap().to_owned(), it))
            .collect();
        // They have no change: the conflict log has them, with what they wrote.
        let conflicts = program.values(&["conflicts"]).await;
        let open: BTreeSet<_> = conflicts
            .iter()
            .map(|it| (it["id"].to_string(), it["mine"]["document"].to_string()))
            .collect();
        assert_eq!(open.len(), conflicts.len(), "a conflict is there twice: {conflicts:?}");
        for (number, id) in &self.told {
            let does = &self.edits[*number];
            let written = Self::document(*number).to_string();
            if *does == Does::Clashes && open.contains(&("\"taken\"".into(), written)) {
                assert!(!effects.contains_key(id) && !parked.contains_key(id));
                continue;
            }
            match parked.get(id) {
                None => {
                    let change = effects.get(id);
                    let change = change.unwrap_or_else(|| panic!("{does:?} ({id}) is lost"));
                    assert_eq!(change.device, device);
                }
                Some(it) => {
                    assert!(!effects.contains_key(id), "{does:?} was refused, and took effect");
                    let reason = it["rejection"]["reason"].as_str().unwrap();
                    let explained = match does {
                        Does::Clashes => reason == "ALREADY_EXISTS",
                        // What it deletes went with a death, and was not told.
                        Does::Deletes { by } => {
                            reason == "NOT_FOUND" && !self.told.contains_key(by)
                        }
                        _ => false,
                    };
                    assert!(explained, "{does:?}: {it}");
                }
            }
        }
        self.check_refused(&log);
        let without = parked.len() + conflicts.len();
        self.check_sequences(program, &device, &log, without).await;
        self.check_counters(program).await;
        Self::check_file(program).await;
    }

    /// What was refused at once was refused for a reason, and took no effect.
    fn check_refused(&self, log: &[Change]) {
        let written: Vec<_> = log.iter().filter_map(|it| it.document.as_ref().map(text)).collect();
        for number in &self.refused {
            let does = &self.edits[*number];
            assert!(!self.told.contains_key(number), "{does:?} was refused, and queued");
            let explained = match does {
                Does::Clashes => true,
                // What it deletes went with a death, and was not told.
                Does::Deletes { by } => !self.told.contains_key(by),
                Does::Counts { .. } | Does::Makes | Does::Shares => false,
            };
            assert!(explained, "{does:?} was refused");
            let mark = format!("\"mark-{number}-of-many\"");
            assert!(!written.iter().any(|it| it.contains(&mark)), "{does:?} took effect");
        }
    }

    /// Each is given once, and those that are missing are of what has no change.
    async fn check_sequences(
        &self,
        program: &Program,
        device: &str,
        log: &[Change],
        without: usize,
    ) {
        let own = log.iter().filter(|it| it.device == device);
        let sequences: Vec<i64> =
            own.map(|it| Version::parse(&it.version).unwrap().sequence).collect();
        let distinct: BTreeSet<_> = sequences.iter().copied().collect();
        assert_eq!(distinct.len(), sequences.len(), "a sequence was given twice: {sequences:?}");
        assert!(sequences.is_sorted(), "out of order: {sequences:?}");
        let request = proto::GetStatusRequest { device: device.into(), ..Default::default() };
        let status = program.client.stub.clone().get_status(request).await.unwrap().into_inner();
        let missing = (1..=status.device_sequence).filter(|it| !distinct.contains(it)).count();
        assert!(
            missing <= without,
            "{missing} of {sequences:?} are missing; {without} have no change"
        );
    }

    /// Each increment is in its counter once, or it was not told and is not there.
    async fn check_counters(&self, program: &Program) {
        let mut counters: HashMap<usize, i64> = HashMap::new();
        let told = |number: usize| self.told.contains_key(&number);
        for (number, does) in self.edits.iter().enumerate() {
            let Does::Counts { counter, bit } = does else { continue };
            let id = counter.to_string();
            if !counters.contains_key(counter) {
                let document = program.client.document("count", &id).await;
                counters.insert(*counter, document["n"].as_i64().unwrap());
            }
            let left = counters.get_mut(counter).unwrap();
            let times = (*left >> (2 * bit)) & 3;
            assert!(times <= 1, "edit {number} counts {times} times");
            assert!(times == 1 || !told(number), "edit {number} was told, and does not count");
            *left -= times << (2 * bit);
        }
        assert!(counters.values().all(|left| *left == 0), "more than all edits: {counters:?}");
    }

    /// The file shows what the server has, and each record is whole.
    pub async fn check_file(program: &Program) {
        // As a library, which is the same and starts at once.
        let options = Options::new(program.path("app.db"), &program.user);
        let client = Client::open(options).await.unwrap();
        let space = match program.space.as_str() {
            "" => client.own().await.unwrap(),
            name => client.space(name).await.unwrap(),
        };
        for collection in ["task", "count", "other"] {
            let shown = space.query(&Query::all(collection)).await.unwrap();
            let mut here = BTreeMap::new();
            for record in shown {
                assert!(!record.pending, "{record:?}");
                here.insert(record.id.clone(), (record.revision, record.value()));
            }
            let there = records(program, collection).await;
            assert_eq!(here, there, "{collection}");
            for (id, (_, document)) in here.iter().filter(|(id, _)| id.starts_with("own")) {
                let number: usize = id.trim_start_matches("own").parse().unwrap();
                assert_eq!(*document, Self::document(number));
            }
        }
        client.close().await;
    }
}

/// Every step of the space.
pub async fn log(program: &Program) -> Vec<Change> {
    let (mut changes, mut cursor) = (Vec::new(), None);
    loop {
        let request = proto::ChangesSinceRequest {
            space: program.space.clone(),
            cursor,
            page_size: 1_000,
            every_step: true,
            document_form: proto::DocumentForm::Json.into(),
            ..Default::default()
        };
        let answer = program.client.stub.clone().changes_since(request).await.unwrap();
        let page = answer.into_inner();
        changes.extend(page.changes);
        if !page.has_more {
            return changes;
        }
        cursor = page.cursor;
    }
}

/// The living records of a collection on the server, with revision and document.
async fn records(program: &Program, collection: &str) -> BTreeMap<String, (i64, Value)> {
    let (mut all, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let request = proto::ListRecordsRequest {
            space: program.space.clone(),
            collection: collection.into(),
            page_size: 1_000,
            page_token,
            document_form: proto::DocumentForm::Json.into(),
        };
        let answer = program.client.stub.clone().list_records(request).await.unwrap();
        let page = answer.into_inner();
        for record in page.records {
            let text = match record.document.unwrap().form.unwrap() {
                proto::document::Form::Json(text) => text,
                proto::document::Form::Fields(_) => panic!("asked for JSON"),
            };
            let document = serde_json::from_slice(&text).unwrap();
            all.insert(record.key.unwrap().id, (record.revision, document));
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}
