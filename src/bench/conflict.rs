//! What conflicts cost: 64 clients with a space each update known records, under
//! an enforced merge policy. Every tenth write comes from another device; first it
//! knows what was written before, then it does not, and is merged.

use super::Bench;
use super::load::{Work, closed_loop};
use super::report::Expected;
use super::target::{Stub, document};
use crate::rpc::proto::policy_service_client::PolicyServiceClient;
use crate::rpc::proto::{
    BatchMutateRequest, Document, MutateRequest, Mutation, MutationOutcome, MutationResult, Policy,
    PutOperation, RecordKey, SetPolicyRequest, Strategy, document::Form, mutation::Operation,
};

const CLIENTS: usize = 64;
const RECORDS: usize = 50;
/// So many writes come from the other device, and may be late.
const LATE_ONE_IN: u64 = 10;
/// What both devices change together.
const COLLECTION: &str = "merged";

/// A record as its devices know it: its revision, and what each of them wrote.
#[derive(Clone, Copy, Default)]
struct Known {
    revision: i64,
    desk: u64,
    phone: u64,
}

/// A client that updates records, from two devices.
struct Updater {
    stub: Stub,
    /// Whether the other device's writes are late.
    late: bool,
    number: u64,
    last: usize,
    /// Each record before its last write, and after it.
    records: Vec<[Known; 2]>,
}

impl Updater {
    async fn clients(bench: &Bench, late: bool) -> anyhow::Result<Vec<Self>> {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let user = uuid::Uuid::new_v4().simple().to_string();
            let mut stub = bench.target.stub_of(&user).await?;
            let mutations = (0..RECORDS).map(|record| put(record, &Known::default())).collect();
            let request = BatchMutateRequest { mutations, ..BatchMutateRequest::default() };
            let results = stub.batch_mutate(request).await?.into_inner().results;
            let created =
                |it: &MutationResult| [Known { revision: it.revision, ..Known::default() }; 2];
            let records: Vec<_> = results.iter().map(created).collect();
            clients.push(Self { stub, late, number: 0, last: 0, records });
        }
        Ok(clients)
    }
}

impl Work for Updater {
    async fn work(&mut self) -> anyhow::Result<u64> {
        self.number += 1;
        let other = self.number.is_multiple_of(LATE_ONE_IN);
        if !other {
            self.last = (self.last + 1) % RECORDS;
        }
        let record = self.records.get(self.last).copied().unwrap_or_default();
        let [before, now] = record;
        let late = other && self.late;
        let seen = if late { before } else { now };
        let wrote = match other {
            true => Known { phone: self.number, ..seen },
            false => Known { desk: self.number, ..seen },
        };
        let device = if other { "phone" } else { "desk" };
        let request = MutateRequest {
            device: device.into(),
            mutation: Some(put(self.last, &wrote)),
            ..MutateRequest::default()
        };
        let answer = self.stub.mutate(request).await?.into_inner().result.unwrap_or_default();
        let expected = if late { MutationOutcome::Merged } else { MutationOutcome::Applied };
        anyhow::ensure!(answer.outcome() == expected, "not {expected:?}: {answer:?}");
        let merged = match other {
            true => Known { phone: self.number, ..now },
            false => Known { desk: self.number, ..now },
        };
        if let Some(record) = self.records.get_mut(self.last) {
            *record = [now, Known { revision: answer.revision, ..merged }];
        }
        Ok(1)
    }
}

fn put(record: usize, known: &Known) -> Mutation {
    let rest = document(known.desk);
    let json = format!(r#"{{"phone":{},{}"#, known.phone, rest.trim_start_matches('{'));
    let document = Some(Document { form: Some(Form::Json(json.into())) });
    Mutation {
        id: uuid::Uuid::new_v4().to_string(),
        key: Some(RecordKey { collection: COLLECTION.into(), id: record.to_string() }),
        operation: Some(Operation::Put(PutOperation { document })),
        base: Some(known.revision),
        ..Mutation::default()
    }
}

pub(super) async fn round(bench: &mut Bench) -> anyhow::Result<()> {
    let seconds = bench.plan.seconds;
    let policy = Policy {
        collection: COLLECTION.into(),
        strategy: Strategy::Merge.into(),
        ..Policy::default()
    };
    let connection = bench.target.connection_of("policies").await?;
    let request = SetPolicyRequest { policy: Some(policy), expected_version: None };
    PolicyServiceClient::new(connection).set_policy(request).await?;
    let free = closed_loop(Updater::clients(bench, false).await?, seconds).await?;
    let late = closed_loop(Updater::clients(bench, true).await?, seconds).await?;
    let report = &mut bench.report;
    let free = report.figure("updates under a merge policy, none concurrent", "writes", &free);
    let late = report.figure("the same, one in ten concurrent", "writes", &late);
    report.ratio("updates with / without conflicts", Expected::AtLeast(0.7), late, free);
    Ok(())
}
