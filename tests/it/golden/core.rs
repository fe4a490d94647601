//! The tables against the pure decision.

use std::collections::HashMap;
use std::sync::Arc;

use syncline::domain::{
    CollectionName, Conflict, Content, DeviceId, Fingerprint, Known, Mutation, MutationId,
    Operation, Outcome, Policy, PolicySet, Record, RecordId, RecordKey, Request, Revision, Rules,
    Seen as Base, SetPolicy, SpaceState, UserId, Verdict,
};
use time::OffsetDateTime;

use super::{MEETINGS, Meeting, Seen, Table, operation, tables};

#[test]
fn the_decision_is_what_the_tables_say() {
    for table in tables() {
        let outcome = |policy: &Policy| MEETINGS.map(|meeting| meet(&table, policy, meeting));
        let outcomes: Vec<_> = table.rows.iter().map(|(_, policy)| outcome(policy)).collect();
        table.check(&outcomes);
    }
}

/// One space with one record.
struct World {
    state: SpaceState,
    key: RecordKey,
}

impl World {
    fn new(policy: Policy) -> Self {
        let collection = CollectionName::parse("task").unwrap();
        let mut policies = PolicySet::default();
        let set = SetPolicy { collection: collection.clone(), policy, version: 1 };
        policies.set(Arc::new(set));
        let rules = Rules { policies: Arc::new(policies), ..Rules::default() };
        let state = SpaceState::new(Known { records: Vec::new(), ..Known::default() }, rules);
        Self { state, key: RecordKey { collection, id: RecordId::parse("1").unwrap() } }
    }

    fn write(&mut self, device: &str, operation: Operation, base: i64, micros: i64) -> Outcome {
        let device = Some(DeviceId::parse(device).unwrap());
        let content = Content {
            key: self.key.clone(),
            operation,
            base: Some(Base::Revision(Revision::new(base).unwrap())),
            client_micros: Some(micros),
        };
        let fingerprint = Fingerprint::of(&content, device.as_ref(), None);
        let id = MutationId::parse(device.as_ref().unwrap().as_str()).unwrap();
        let mutation = Mutation { id, device_sequence: None, fingerprint, content: Ok(content) };
        let author = UserId::parse("alice").unwrap();
        let request = Request {
            author,
            actor: None,
            device,
            atomic: false,
            mutations: vec![mutation],
            collections: None,
        };
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let mut results = self.state.decide(&request, now).unwrap();
        assert!(self.state.lacks().is_empty(), "{:?}", self.state.lacks());
        results.pop().unwrap().outcome
    }

    fn record(&self) -> HashMap<RecordKey, Arc<Record>> {
        self.state.records().map(|record| (record.key.clone(), Arc::clone(record))).collect()
    }
}

fn meet(table: &Table, policy: &Policy, meeting: Meeting) -> String {
    let mut world = World::new(Policy { mode: meeting.mode(), ..policy.clone() });
    let [base_micros, server_micros, client_micros] = meeting.micros();
    let mut base = 0;
    if let Some(text) = &table.base {
        assert!(world.write("seed", operation(text), 0, base_micros).took_effect());
        base = 1;
    }
    let server = world.write("laptop", operation(&table.server), base, server_micros);
    assert!(server.took_effect() && server.conflict().is_none(), "{server:?}");
    let outcome = world.write("phone", operation(&table.client), base, client_micros);
    let record = Arc::clone(&world.record()[&world.key]);
    let seen = Seen {
        outcome: match &outcome {
            Outcome::Applied(..) => "applied",
            Outcome::Merged(..) => "merged",
            Outcome::Superseded(..) => "superseded",
            Outcome::Conflict(..) => "conflict",
            Outcome::Rejected(_) => "rejected",
        },
        document: record.document.as_ref().map(|it| it.as_str().to_owned()),
        lost: lost(outcome.conflict()),
        told: outcome.conflict().filter(|it| it.advisory).map(|it| match it.decision {
            Verdict::Client => "client",
            Verdict::Server => "server",
            Verdict::Merged => "merged",
            Verdict::Open => "open",
        }),
    };
    seen.show()
}

fn lost(conflict: Option<&Arc<Conflict>>) -> Vec<String> {
    conflict.iter().flat_map(|it| &it.lost).map(ToString::to_string).collect()
}
