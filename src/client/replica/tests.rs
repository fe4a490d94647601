//! One file and a server that decides with the same rules: whatever comes in whatever order,
//! what is shown ends as what the server has, and nothing counts twice.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::client::backoff::Random;
use crate::client::edit::{Edit, Patch};
use crate::domain::{
    Change, Cursor, Echo, Filter, MutationId, Outcome, Policy, RecordId, Request, Rules, SetPolicy,
    Sight, SpaceState, Strategy,
};

mod history;
mod joined;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const STRATEGIES: [Strategy; 9] = [
    Strategy::LastWriteWins,
    Strategy::FirstWriteWins,
    Strategy::HighestVersionWins,
    Strategy::ServerWins,
    Strategy::ClientWins,
    Strategy::Merge,
    Strategy::Additive,
    Strategy::Manual,
    Strategy::Auto,
];

fn identity(device: &str, policies: Arc<PolicySet>) -> Arc<Identity> {
    let (user, device) = (UserId::parse("alice").unwrap(), DeviceId::parse(device).unwrap());
    Arc::new(Identity { user, device, policies })
}

fn key(id: &str) -> RecordKey {
    let collection = CollectionName::parse("task").unwrap();
    RecordKey { collection, id: RecordId::parse(id).unwrap() }
}

fn document(value: &Value) -> Document {
    Document::from_json(value.to_string().as_bytes()).unwrap()
}

fn policies(strategy: Strategy) -> Arc<PolicySet> {
    let mut set = PolicySet::default();
    let collection = CollectionName::parse("task").unwrap();
    let version_field = (strategy == Strategy::HighestVersionWins)
        .then(|| crate::domain::Pointer::parse("/n").unwrap());
    let policy = Policy { strategy, version_field, ..Policy::default() };
    set.set(Arc::new(SetPolicy { collection, policy, version: 1 }));
    Arc::new(set)
}

/// A server with one space, in memory.
struct Server {
    state: SpaceState,
    epoch: Epoch,
}

impl Server {
    fn new(policies: &Arc<PolicySet>) -> Self {
        let rules = Rules { policies: Arc::clone(policies), ..Rules::default() };
        let state = SpaceState::new(crate::domain::Known::default(), rules);
        Self { state, epoch: Epoch(uuid::Uuid::nil()) }
    }

    fn decide(&mut self, device: &DeviceId, entries: &[Entry]) -> Vec<Answer> {
        let request = Request {
            author: UserId::parse("alice").unwrap(),
            actor: None,
            device: Some(device.clone()),
            atomic: false,
            mutations: entries.iter().map(fingerprinted).collect(),
            collections: None,
        };
        let results = self.state.decide(&request, NOW).expect("sequences without a gap");
        assert_eq!(self.state.lacks(), []);
        let held = |record: &Arc<Record>| Some(Self::held(record));
        let answer = |result: crate::domain::MutationResult| Answer {
            id: result.mutation_id,
            kind: match result.outcome {
                Outcome::Applied(at, _) => AnswerKind::Applied(at),
                Outcome::Merged(record, _) => AnswerKind::Merged(record.revision, held(&record)),
                Outcome::Superseded(record, _) => AnswerKind::Superseded(held(&record)),
                Outcome::Conflict(record, _) => AnswerKind::Conflict(held(&record)),
                Outcome::Rejected(rejection) => {
                    AnswerKind::Rejected(Trouble::new("REJECTED", rejection.message))
                }
            },
        };
        results.into_iter().map(answer).collect()
    }

    fn held(record: &Arc<Record>) -> Held {
        let checksum = record.document.as_ref().map(Document::checksum);
        Held { record: Record::clone(record), checksum }
    }

    /// All records that have changed since, as a page of a catch-up for a device.
    fn since(&self, cursor: Revision, device: &DeviceId) -> Range {
        let reader = Some((UserId::parse("alice").unwrap(), device.clone()));
        let filter = Filter { scope: Scope::All, reader, echo: Echo::Mark };
        let mut changed: Vec<_> =
            self.state.records().filter(|record| record.revision > cursor).collect();
        changed.sort_by_key(|record| record.revision);
        let change = |record: &Arc<Record>| {
            let sight = filter.sight_coalesced(&record.change, Some(cursor));
            let marked = sight == Sight::Marked && record.document.is_some();
            let mut held = Self::held(record);
            if marked {
                let without = Change { document: None, ..Change::clone(&held.record.change) };
                held.record.change = Arc::new(without);
            }
            SeenChange { held, marked }
        };
        let changes = changed.into_iter().map(change).collect();
        Range { changes, after: cursor, up_to: self.state.head(), partial: false }
    }

    fn all(&self) -> Vec<Held> {
        let living = self.state.records().filter(|record| record.document.is_some());
        living.map(Self::held).collect()
    }

    fn cursor(&self) -> Cursor {
        Cursor { epoch: Some(self.epoch), revision: self.state.head() }
    }
}

/// A mutation as the server tells it from others.
fn fingerprinted(entry: &Entry) -> crate::domain::Mutation {
    let mutation = entry.mutation();
    let content = mutation.content.as_ref().unwrap();
    let device = DeviceId::parse("any").unwrap();
    let fingerprint =
        crate::domain::Fingerprint::of(content, Some(&device), mutation.device_sequence);
    crate::domain::Mutation { fingerprint, ..mutation }
}

/// A device with all of its file in memory.
struct Device {
    replica: Replica,
    name: DeviceId,
    edits: usize,
}

impl Device {
    fn new(name: &str, policies: &Arc<PolicySet>) -> Self {
        let identity = identity(name, Arc::clone(policies));
        let place = Place::new(Space::private(&identity.user), Scope::All);
        let name = identity.device.clone();
        Self { replica: Replica::new(identity, place, [], []), name, edits: 0 }
    }

    fn edit(&mut self, id: &str, edit: Edit) -> Result<MutationId, Refused> {
        self.edits += 1;
        let name = MutationId::parse(&format!("{}-{}", self.name, self.edits)).unwrap();
        let time = i64::try_from(self.edits).unwrap();
        self.replica.enqueue(name, &key(id), edit, time, 0)
    }

    fn push(&mut self, server: &mut Server, entries_max: usize) {
        let batch = self.replica.take(entries_max, 1 << 20);
        if !batch.is_empty() {
            let answers = server.decide(&self.name, &batch);
            self.replica.settle(&answers);
        }
    }

    fn pull(&mut self, server: &Server) {
        let range = server.since(self.replica.place.cursor, &self.name);
        let mut fetched = BTreeMap::new();
        if let Err(Lacking::Documents(keys)) = self.replica.absorb(&range, &fetched) {
            for key in keys {
                let record = server.state.records().find(|it| it.key == key).unwrap();
                fetched.insert(key, Server::held(record));
            }
            self.replica.absorb(&range, &fetched).unwrap();
        }
    }

    fn load(&mut self, server: &Server, whole: bool) {
        self.replica.begin_load(Scope::All, whole, server.cursor());
        self.replica.load_page(&server.all(), "");
        let keys: Vec<_> = self.replica.records().map(|(key, _)| key.clone()).collect();
        self.replica.take_over(&keys);
        self.replica.finish_load();
    }

    fn shown(&self) -> BTreeMap<RecordKey, Document> {
        let shown = self
            .replica
            .records()
            .filter_map(|(key, local)| local.shown.clone().map(|document| (key.clone(), document)));
        shown.collect()
    }
}

fn increment(by: i64) -> Edit {
    Edit::Patch(Patch::new().increment("/n", by).unwrap())
}

fn put(value: &Value) -> Edit {
    Edit::Put(document(value))
}

#[test]
fn an_own_change_comes_back_without_its_document_and_is_only_no_longer_pending() {
    let policies = policies(Strategy::Merge);
    let (mut server, mut device) = (Server::new(&policies), Device::new("phone", &policies));
    device.load(&server, true);
    device.edit("1", put(&json!({"n": 1}))).unwrap();
    device.edit("1", increment(2)).unwrap();
    device.replica.take_touched();
    device.push(&mut server, 10);
    assert_eq!(device.replica.take_touched().shown, BTreeSet::new());
    device.pull(&server);
    // Which watchers are told.
    assert_eq!(device.replica.take_touched().shown, BTreeSet::from([key("1")]));
    assert_eq!(device.shown()[&key("1")].as_str(), r#"{"n":3}"#);
    let local = device.replica.record(&key("1")).unwrap();
    assert!(!local.dirty && device.replica.entries().all(|it| it.done), "{local:?}");
}

#[test]
fn an_entry_that_went_out_stays_as_it_is_until_it_is_answered() {
    let policies = policies(Strategy::Merge);
    let (server, mut device) = (Server::new(&policies), Device::new("phone", &policies));
    device.load(&server, true);
    device.edit("1", put(&json!({"n": 1}))).unwrap();
    let first = device.replica.take(10, 1 << 20);
    device.edit("1", increment(2)).unwrap();
    device.edit("2", put(&json!({}))).unwrap();
    let again = device.replica.take(10, 1 << 20);
    assert_eq!(first[0], again[0]);
    let sequences: Vec<_> = again.iter().map(|it| it.sequence.unwrap().get()).collect();
    assert_eq!(sequences, [1, 2, 3]);
    // The first can never be sent: those behind it begin where it did.
    device.replica.fail_front(&Trouble::new("VALIDATION_ERROR", "no"), false);
    let rest = device.replica.take(10, 1 << 20);
    let sequences: Vec<_> = rest.iter().map(|it| it.sequence.unwrap().get()).collect();
    assert_eq!(sequences, [1, 2]);
    assert_eq!(device.shown().len(), 1);
}

#[test]
fn what_was_sent_under_other_numbers_is_recalled() {
    let policies = policies(Strategy::Merge);
    let (mut server, mut device) = (Server::new(&policies), Device::new("phone", &policies));
    device.load(&server, true);
    device.edit("1", put(&json!({"n": 1}))).unwrap();
    let lost = device.replica.take(10, 1 << 20);
    // It takes effect, and nobody hears of it.
    server.decide(&device.name, &lost);
    device.replica.number_anew(Sequence::new(1).unwrap());
    let renumbered = device.replica.take(10, 1 << 20);
    assert_ne!(renumbered[0].sequence, lost[0].sequence);
    let recalled = device.replica.recalled().unwrap();
    assert_eq!((recalled.sequence, recalled.base), (lost[0].sequence, lost[0].base));
    let answers = server.decide(&device.name, &[recalled]);
    let settled = device.replica.settle_recalled(&answers[0]);
    assert_eq!(settled.applied, 1);
    assert_eq!(device.replica.place.last_sequence.get(), 1);
}

#[test]
fn what_was_decided_nobody_knows_how_is_not_simply_sent_again() {
    let policies = policies(Strategy::Merge);
    let (server, mut device) = (Server::new(&policies), Device::new("phone", &policies));
    device.load(&server, true);
    device.edit("1", put(&json!({"n": 1}))).unwrap();
    let sent = device.replica.take(1, 1 << 20);
    let kind = AnswerKind::Rejected(Trouble::new("SEQUENCE_USED", "it was used"));
    device.replica.settle(&[Answer { id: sent[0].id.clone(), kind }]);
    let again = MutationId::parse("again").unwrap();
    let mut retry = |edit, cast| device.replica.retry(1, again.clone(), Again { edit, cast }, 0, 1);
    assert_eq!(retry(None, None), Err(Refused::Decided));
    // Nor in the form of another version of the app.
    assert_eq!(retry(None, Some(put(&json!({"n": 2})))), Err(Refused::Decided));
    assert!(retry(Some(put(&json!({"n": 2}))), None).is_ok());
}

/// Two devices, random edits, lost answers, snapshots in between.
fn run(seed: u64, strategy: Strategy) {
    let mut random = Random::new(seed);
    let mut below = |bound: u64| random.number() % bound;
    let policies = policies(strategy);
    let mut server = Server::new(&policies);
    let mut devices = ["phone", "laptop"].map(|name| Device::new(name, &policies));
    for device in &mut devices {
        device.load(&server, true);
    }
    devices[0].edit("sum", put(&json!({"n": 0}))).unwrap();
    for device in &mut devices {
        device.push(&mut server, 1);
        device.pull(&server);
    }
    let mut added = 0;
    for _ in 0..60 {
        let device = &mut devices[usize::try_from(below(2)).unwrap()];
        let id = ["1", "2"][usize::try_from(below(2)).unwrap()];
        let n = i64::try_from(below(9)).unwrap();
        match below(12) {
            0 => drop(device.edit(id, put(&json!({"a": n, "n": 0})))),
            1 => drop(device.edit(id, Edit::Patch(Patch::new().set("/a", n).unwrap()))),
            2 => drop(device.edit(id, Edit::Patch(Patch::new().set("/b", n).unwrap()))),
            3 => drop(device.edit(id, Edit::Delete)),
            4 | 5 => {
                device.edit("sum", increment(n)).unwrap();
                added += n;
            }
            6 => {
                // Sent, decided, and the answer is lost: it goes out again.
                let batch = device.replica.take(3, 1 << 20);
                if !batch.is_empty() {
                    server.decide(&device.name, &batch);
                }
            }
            7 | 8 => device.push(&mut server, 3),
            9 | 10 => {
                // Before it follows, what was sent is answered.
                device.push(&mut server, 100);
                device.pull(&server);
            }
            _ => {
                device.push(&mut server, 100);
                device.load(&server, true);
            }
        }
    }
    for _ in 0..3 {
        for device in &mut devices {
            device.push(&mut server, 1_000);
            device.pull(&server);
        }
    }
    let has: BTreeMap<_, _> = server
        .all()
        .into_iter()
        .filter_map(|held| Some((held.record.key.clone(), held.record.document.clone()?)))
        .collect();
    assert_eq!(has[&key("sum")].as_str(), format!("{{\"n\":{added}}}"), "seed {seed}");
    for device in &devices {
        assert_eq!(device.shown(), has, "seed {seed}, {strategy:?}, {}", device.name);
        let mut counts = Counts::default();
        device.replica.entries().for_each(|entry| counts.add(entry, 1));
        assert_eq!(device.replica.place.counts, counts, "seed {seed}, {strategy:?}");
        for entry in device.replica.entries() {
            assert!(entry.done || entry.state == EntryState::Failed, "seed {seed}: {entry:?}");
        }
    }
}

#[test]
fn devices_end_as_the_server_whatever_happens() {
    let number = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    let runs = 60 * number("SYNCLINE_TEST_SCALE").unwrap_or(1);
    let from = number("SYNCLINE_TEST_SEED").unwrap_or(0);
    for seed in from..from + runs {
        for strategy in STRATEGIES {
            run(seed, strategy);
        }
    }
}
