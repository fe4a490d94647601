//! Random devices that write offline, come back to one of two replicas, and send
//! again what they are not sure of. At rest all of them have what the server has,
//! and a ledger accounts for every edit that was acknowledged: it is there, or was
//! overwritten by somebody who knew it, or stands in the log of conflicts, with the
//! policy that decided.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};
use syncline::rpc::proto::document::Form;
use syncline::rpc::proto::field_transform::Transform;
use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::{
    BatchMutateRequest, Change, ChangesSinceRequest, Conflict, ConflictDecision, Cursor,
    DeleteOperation, Document, DocumentForm, FieldTransform, ListConflictsRequest,
    ListRecordsRequest, Mutation, MutationOutcome, MutationResult, Number, PatchOperation, Policy,
    PutOperation, RecordKey, Strategy, number,
};

use super::list;
use crate::support::{Client, Database, Random, TestServer, json, scale, seed, wait_for};

/// Each collection has a policy of its own.
const COLLECTIONS: [(&str, Strategy, Strategy); 8] = [
    ("last", Strategy::LastWriteWins, Strategy::Unspecified),
    ("first", Strategy::FirstWriteWins, Strategy::Unspecified),
    ("client", Strategy::ClientWins, Strategy::Unspecified),
    ("merge", Strategy::Merge, Strategy::LastWriteWins),
    ("careful", Strategy::Merge, Strategy::Manual),
    ("additive", Strategy::Additive, Strategy::ServerWins),
    ("manual", Strategy::Manual, Strategy::Unspecified),
    ("auto", Strategy::Auto, Strategy::Unspecified),
];
const RECORDS: u64 = 2;
const FIELDS: [&str; 3] = ["a", "b", "c"];

type Key = (String, String);
type Fields = Map<String, Value>;

/// An edit that a device has sent: a value that occurs nowhere else, or a deletion.
#[derive(Clone, Debug)]
struct Edit {
    mutation: String,
    key: Key,
    value: Option<(String, Value)>,
    /// What the device had seen of the record.
    base: i64,
    device: String,
}

struct Device {
    name: String,
    client: Client,
    cursor: Option<Cursor>,
    /// As the server has it: the revision and the document.
    known: HashMap<Key, (i64, Option<Fields>)>,
    /// As the device has it: with what it has queued.
    local: HashMap<Key, Option<Fields>>,
    queue: Vec<Mutation>,
    sequence: i64,
}

impl Device {
    fn edit(&mut self, random: &mut Random, ledger: &mut Vec<Edit>) {
        let (collection, ..) = COLLECTIONS[usize::try_from(random.below(8)).unwrap()];
        let key = (collection.to_owned(), random.below(RECORDS).to_string());
        let view = self.local.get(&key).cloned().flatten();
        self.sequence += 1;
        let id = format!("{}-{}", self.name, self.sequence);
        let field = FIELDS[usize::try_from(random.below(3)).unwrap()];
        let mut fields = view.clone().unwrap_or_default();
        let (operation, value) = match random.below(12) {
            0 if view.is_some() => (Operation::Delete(DeleteOperation {}), None),
            // A counter of its own, so that it can be told from all others.
            1 | 2 if view.is_some() => (counted(&id), Some((id.clone(), 1.into()))),
            kind => {
                let value = Value::from(id.clone());
                fields.insert(field.to_owned(), value.clone());
                let operation = if view.is_some() && kind < 8 {
                    let set = json(&format!(r#"{{"{field}":{value}}}"#));
                    Operation::Patch(PatchOperation { set, ..PatchOperation::default() })
                } else {
                    let document = json(&Value::Object(fields.clone()).to_string());
                    Operation::Put(PutOperation { document })
                };
                (operation, Some((field.to_owned(), value)))
            }
        };
        fields.extend(value.clone());
        let base = self.known.get(&key).map_or(0, |(revision, _)| *revision);
        self.local.insert(key.clone(), value.is_some().then_some(fields));
        self.queue.push(Mutation {
            id: id.clone(),
            key: Some(RecordKey { collection: key.0.clone(), id: key.1.clone() }),
            operation: Some(operation),
            base: Some(base),
            device_sequence: Some(self.sequence),
            ..Mutation::default()
        });
        ledger.push(Edit { mutation: id, key, value, base, device: self.name.clone() });
    }

    /// Sends the queue, and perhaps once more, as if the answer had been lost.
    async fn push(&mut self, random: &mut Random, results: &mut HashMap<String, MutationResult>) {
        let mutations = std::mem::take(&mut self.queue);
        if mutations.is_empty() {
            return;
        }
        let sends = 1 + random.below(2);
        for _ in 0..sends {
            let request = BatchMutateRequest {
                device: self.name.clone(),
                mutations: mutations.clone(),
                document_form: DocumentForm::Json.into(),
                ..BatchMutateRequest::default()
            };
            let answer = self.client.stub.clone().batch_mutate(request).await.unwrap();
            for result in answer.into_inner().results {
                let first =
                    results.entry(result.mutation_id.clone()).or_insert_with(|| result.clone());
                let replayed = MutationResult { replayed: first.replayed, ..result };
                // An answer to a batch may leave documents out where they are many.
                assert_eq!((replayed.outcome, replayed.revision), (first.outcome, first.revision));
            }
        }
    }

    /// Reads what is new, and begins again from that.
    async fn pull(&mut self) {
        loop {
            let request = ChangesSinceRequest {
                cursor: self.cursor.clone(),
                document_form: DocumentForm::Json.into(),
                ..ChangesSinceRequest::default()
            };
            let page = self.client.stub.clone().changes_since(request).await.unwrap().into_inner();
            for change in page.changes {
                let (key, fields) = (key_of(&change), fields(change.document.as_ref()));
                self.known.insert(key, (change.revision, fields));
            }
            self.cursor = page.cursor;
            if !page.has_more {
                break;
            }
        }
        let seen =
            |(key, (_, fields)): (&Key, &(i64, Option<Fields>))| (key.clone(), fields.clone());
        self.local = self.known.iter().map(seen).collect();
    }
}

fn key_of(change: &Change) -> Key {
    let key = change.key.as_ref().unwrap();
    (key.collection.clone(), key.id.clone())
}

fn fields(document: Option<&Document>) -> Option<Fields> {
    match document?.form.as_ref().unwrap() {
        Form::Json(text) => Some(serde_json::from_slice(text).unwrap()),
        Form::Fields(_) => panic!("asked for JSON"),
    }
}

fn holds(fields: Option<&Fields>, (field, value): &(String, Value)) -> bool {
    fields.and_then(|fields| fields.get(field)) == Some(value)
}

/// Counts one up.
fn counted(field: &str) -> Operation {
    let one = Number { value: Some(number::Value::Integer(1)) };
    let path = format!("/{field}");
    let transform = FieldTransform { path, transform: Some(Transform::Increment(one)) };
    Operation::Patch(PatchOperation { transforms: vec![transform], ..PatchOperation::default() })
}

/// Whether the first write of a record stays beside a second that did not know it.
async fn hold_there(client: &Client) -> Option<()> {
    let key = RecordKey { collection: "first".into(), id: uuid::Uuid::new_v4().to_string() };
    let write = |device: &'static str| {
        let put = PutOperation { document: json(&format!(r#"{{"{device}":1}}"#)) };
        let mutation = Mutation {
            id: format!("{device}-{}", key.id),
            key: Some(key.clone()),
            operation: Some(Operation::Put(put)),
            base: Some(0),
            ..Mutation::default()
        };
        client.mutate_from(device, mutation)
    };
    write("desk").await.unwrap();
    (write("phone").await.unwrap().outcome() == MutationOutcome::Superseded).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_edit_is_accounted_for() {
    let database = Database::create().await;
    let servers = [TestServer::start(&database).await, TestServer::start(&database).await];
    let admin = servers[0].admin("alice").await;
    for (collection, strategy, fallback) in COLLECTIONS {
        let policy = Policy {
            collection: collection.into(),
            strategy: strategy.into(),
            fallback: fallback.into(),
            ..Policy::default()
        };
        admin.set_policy(policy).await.unwrap();
    }
    // Also where they were not set.
    let there = servers[1].client("alice").await;
    wait_for("the policies on the other replica", async || hold_there(&there).await).await;

    let mut random = Random(seed());
    let mut devices = Vec::new();
    for number in 0..5 {
        devices.push(Device {
            name: format!("device{number}"),
            client: servers[number % 2].client("alice").await,
            cursor: None,
            known: HashMap::new(),
            local: HashMap::new(),
            queue: Vec::new(),
            sequence: 0,
        });
    }
    let (mut ledger, mut results) = (Vec::new(), HashMap::new());
    for _ in 0..400 * scale() {
        let turn = usize::try_from(random.below(5)).unwrap();
        let device = &mut devices[turn];
        match random.below(10) {
            0..7 => device.edit(&mut random, &mut ledger),
            7 => {
                // Comes back somewhere else.
                let server = usize::try_from(random.below(2)).unwrap();
                device.client = servers[server].client("alice").await;
            }
            _ => {
                device.push(&mut random, &mut results).await;
                device.pull().await;
            }
        }
    }
    for device in &mut devices {
        device.push(&mut random, &mut results).await;
    }
    for device in &mut devices {
        device.pull().await;
    }
    let world = World::read(&admin).await;
    for device in &devices {
        let mut theirs: BTreeMap<_, _> = device.local.clone().into_iter().collect();
        theirs.retain(|_, fields| fields.is_some());
        let theirs: BTreeMap<_, _> =
            theirs.into_iter().map(|(key, fields)| (key, fields.unwrap())).collect();
        assert_eq!(theirs, world.records, "{} has what the server has", device.name);
    }
    let edits: HashMap<_, _> = ledger.iter().map(|it| (it.mutation.as_str(), it)).collect();
    let account = |edit: &Edit| world.account(edit, &results[&edit.mutation], &edits);
    let kinds: BTreeSet<_> = ledger.iter().map(account).collect();
    let all =
        ["there", "overwritten knowingly", "lost in a conflict", "superseded", "open", "gone"];
    println!("{} edits: {kinds:?}", ledger.len());
    assert!(all[..5].iter().all(|kind| kinds.contains(kind)), "too tame: {kinds:?}");
    for server in servers {
        server.stop().await;
    }
}

/// All that the server has.
struct World {
    records: BTreeMap<Key, Fields>,
    /// Every step, by record.
    log: HashMap<Key, Vec<Change>>,
    conflicts: HashMap<String, Conflict>,
}

impl World {
    async fn read(client: &Client) -> Self {
        let (mut log, mut cursor) = (HashMap::<Key, Vec<Change>>::new(), None);
        loop {
            let request = ChangesSinceRequest {
                cursor,
                every_step: true,
                document_form: DocumentForm::Json.into(),
                ..ChangesSinceRequest::default()
            };
            let page = client.stub.clone().changes_since(request).await.unwrap().into_inner();
            for change in page.changes {
                log.entry(key_of(&change)).or_default().push(change);
            }
            cursor = page.cursor;
            if !page.has_more {
                break;
            }
        }
        let mut records = BTreeMap::new();
        for (collection, ..) in COLLECTIONS {
            let request = ListRecordsRequest {
                collection: collection.into(),
                page_size: 1_000,
                document_form: DocumentForm::Json.into(),
                ..ListRecordsRequest::default()
            };
            let page = client.stub.clone().list_records(request).await.unwrap().into_inner();
            for record in page.records {
                let key = record.key.unwrap();
                records.insert((key.collection, key.id), fields(record.document.as_ref()).unwrap());
            }
        }
        let (mut conflicts, mut page_token) = (HashMap::new(), String::new());
        loop {
            let request =
                ListConflictsRequest { page_token, page_size: 1_000, ..Default::default() };
            let (page, next) = list(client, request).await;
            conflicts.extend(page.into_iter().map(|it| (it.id.clone(), it)));
            if next.is_empty() {
                break;
            }
            page_token = next;
        }
        Self { records, log, conflicts }
    }

    /// Where an edit is, or how it went; panics if nobody can tell.
    fn account(
        &self,
        edit: &Edit,
        result: &MutationResult,
        edits: &HashMap<&str, &Edit>,
    ) -> &'static str {
        let conflict = self.conflicts.get(&edit.mutation);
        match result.outcome() {
            MutationOutcome::Rejected => return "rejected",
            MutationOutcome::Superseded | MutationOutcome::Conflict => {
                let conflict = conflict.unwrap_or_else(|| panic!("not in the log: {edit:?}"));
                check_side(edit, conflict);
                let open = result.outcome() == MutationOutcome::Conflict;
                assert_eq!(conflict.decision() == ConflictDecision::Open, open, "{conflict:?}");
                return if open { "open" } else { "superseded" };
            }
            MutationOutcome::Applied | MutationOutcome::Merged => {}
            MutationOutcome::Unspecified => panic!("never sent"),
        }
        let log = &self.log[&edit.key];
        let place = log.iter().position(|it| it.mutation_id == edit.mutation);
        let place = place.unwrap_or_else(|| panic!("acknowledged, and not in the log: {edit:?}"));
        let Some(value) = &edit.value else { return "gone" };
        let there = |change: &Change| holds(fields(change.document.as_ref()).as_ref(), value);
        if !there(&log[place]) {
            // Merged, but this value of it lost at once.
            let conflict = conflict.unwrap_or_else(|| panic!("lost in silence: {edit:?}"));
            check_side(edit, conflict);
            assert!(conflict.lost_paths.iter().any(|it| *it == format!("/{}", value.0)));
            return "lost in a conflict";
        }
        let Some(end) = log[place..].iter().find(|change| !there(change)) else {
            return "there";
        };
        // Whoever queued both knew the first, and meant to end it.
        let by = edits[end.mutation_id.as_str()];
        let meant = by.value.as_ref().is_none_or(|(field, _)| *field == value.0);
        let knew = by.base >= log[place].revision || (by.device == edit.device && meant);
        match self.conflicts.get(&end.mutation_id) {
            _ if knew => "overwritten knowingly",
            None => panic!("{edit:?} was ended by {by:?}, in silence"),
            Some(_) if by.device == edit.device => {
                panic!("{edit:?} was ended by {by:?} of its own queue")
            }
            Some(ended_by) => {
                let server = fields(ended_by.server.as_ref().unwrap().document.as_ref());
                assert!(holds(server.as_ref(), value), "{edit:?} is not in {ended_by:?}");
                "lost in a conflict"
            }
        }
    }
}

/// The client's side in the log is what the device had made of the record.
fn check_side(edit: &Edit, conflict: &Conflict) {
    let client = conflict.client.as_ref().unwrap();
    assert_eq!(client.device, edit.device);
    match &edit.value {
        None => assert!(client.deleted, "{conflict:?}"),
        Some(value) => {
            assert!(holds(fields(client.document.as_ref()).as_ref(), value), "{conflict:?}");
        }
    }
}
