//! Batches of 100 mutations, of 8 clients.

use uuid::Uuid;

use super::Bench;
use super::baseline::{Groups, create_tables, drop_tables};
use super::load::{Work, closed_loop};
use super::report::Expected;
use super::target::{Stub, put};
use crate::rpc::proto::{BatchMutateRequest, MutationOutcome};

const CLIENTS: usize = 8;
const BATCH: u64 = 100;

struct Batcher {
    stub: Stub,
    name: String,
    number: u64,
}

impl Work for Batcher {
    async fn work(&mut self) -> anyhow::Result<u64> {
        let numbers = self.number + 1..=self.number + BATCH;
        self.number += BATCH;
        let mutations = numbers.map(|it| put(format!("{}-{it}", self.name), it)).collect();
        let request = BatchMutateRequest { mutations, ..Default::default() };
        let results = self.stub.batch_mutate(request).await?.into_inner().results;
        let applied = results.iter().filter(|it| it.outcome() == MutationOutcome::Applied).count();
        anyhow::ensure!(applied as u64 == BATCH, "only {applied} were applied");
        Ok(BATCH)
    }
}

pub(super) async fn round(bench: &mut Bench) -> anyhow::Result<()> {
    let seconds = bench.plan.seconds;
    let url = bench.target.database()?.to_owned();
    create_tables(&url).await?;

    let mut clients = Vec::new();
    for user in 0..CLIENTS {
        let name = Uuid::new_v4().simple().to_string();
        clients.push(Batcher { stub: bench.target.stub(user).await?, name, number: 0 });
    }
    let ours = closed_loop(clients, seconds).await?;
    let hundreds = closed_loop(Groups::clients(&url, CLIENTS, 100).await?, seconds).await?;
    let large = closed_loop(Groups::clients(&url, 4, 500).await?, seconds).await?;
    drop_tables(&url).await?;

    let report = &mut bench.report;
    let ours = report.figure("BatchMutate of 100, 8 clients", "writes", &ours);
    let hundreds =
        report.figure("baseline: UNNEST groups of 100, 8 connections", "rows", &hundreds);
    report.figure("baseline: UNNEST groups of 500, 4 connections", "rows", &large);
    let expected = Expected::AtLeast(0.45);
    report.ratio("BatchMutate / UNNEST groups of 100", expected, ours, hundreds);
    Ok(())
}
