//! Unary durable writes of 64 clients, over many spaces and in one.

use super::Bench;
use super::baseline::{Single, SingleRows, create_tables, drop_tables};
use super::empty::EmptyServer;
use super::load::{Work, closed_loop};
use super::report::Expected;
use super::target::{Stub, connect, put};
use crate::rpc::proto::sync_service_client::SyncServiceClient;
use crate::rpc::proto::{MutateRequest, MutationOutcome};

pub(super) const CLIENTS: usize = 64;

/// A client that writes records, one by one: new ones, or some again and again.
pub(super) struct Writer {
    stub: Stub,
    name: String,
    number: u64,
    again: Option<u64>,
}

impl Writer {
    pub(super) fn new(stub: Stub, name: usize) -> Self {
        // Every round writes records of its own.
        let name = format!("{name}-{}", uuid::Uuid::new_v4().simple());
        Self { stub, name, number: 0, again: None }
    }

    /// The same of so many records.
    pub(super) fn again(self, records: u64) -> Self {
        Self { again: Some(records), ..self }
    }

    /// Clients with a space each, or all of one user.
    pub(super) async fn clients(
        bench: &Bench,
        count: usize,
        one_space: bool,
    ) -> anyhow::Result<Vec<Self>> {
        let mut clients = Vec::new();
        for name in 0..count {
            let user = if one_space { 1_000_000 } else { name };
            clients.push(Self::new(bench.target.stub(user).await?, name));
        }
        Ok(clients)
    }
}

impl Work for Writer {
    async fn work(&mut self) -> anyhow::Result<u64> {
        self.number += 1;
        let record = self.again.map_or(self.number, |records| self.number % records);
        let mutation = put(format!("{}-{record}", self.name), self.number);
        let request = MutateRequest { mutation: Some(mutation), ..Default::default() };
        let answer = self.stub.mutate(request).await?.into_inner().result.unwrap_or_default();
        anyhow::ensure!(answer.outcome() == MutationOutcome::Applied, "not applied: {answer:?}");
        Ok(1)
    }
}

/// A client of the empty server.
struct EmptyCaller {
    stub: SyncServiceClient<tonic::transport::Channel>,
    number: u64,
}

impl Work for EmptyCaller {
    async fn work(&mut self) -> anyhow::Result<u64> {
        self.number += 1;
        let mutation = put(format!("e-{}", self.number), self.number);
        self.stub.mutate(MutateRequest { mutation: Some(mutation), ..Default::default() }).await?;
        Ok(1)
    }
}

pub(super) async fn round(bench: &mut Bench) -> anyhow::Result<()> {
    let seconds = bench.plan.seconds;
    let url = bench.target.database()?.to_owned();
    create_tables(&url).await?;

    let empty_server = EmptyServer::start().await?;
    let mut callers = Vec::new();
    for _ in 0..CLIENTS {
        let stub = SyncServiceClient::new(connect(&empty_server.uri).await?);
        callers.push(EmptyCaller { stub, number: 0 });
    }
    let empty = closed_loop(callers, seconds).await?;
    drop(empty_server);
    let many = closed_loop(Writer::clients(bench, CLIENTS, false).await?, seconds).await?;
    let hot = closed_loop(Writer::clients(bench, CLIENTS, true).await?, seconds).await?;
    let mut singles = Vec::new();
    for how in [Single::Transaction, Single::Statement] {
        for one_space in [false, true] {
            let clients = SingleRows::clients(&url, CLIENTS, how, one_space).await?;
            singles.push(closed_loop(clients, seconds).await?);
        }
    }
    drop_tables(&url).await?;

    let report = &mut bench.report;
    let empty = report.figure("empty tonic call, 64 clients", "calls", &empty);
    let many = report.figure("Mutate, 64 clients, a space each", "writes", &many);
    let hot = report.figure("Mutate, 64 clients, one space", "writes", &hot);
    report.ratio("Mutate / empty tonic call", Expected::AtLeast(0.4), many, empty);
    let names = [
        ("baseline: transactions, a space each", "Mutate / transactions, a space each", 1.5),
        ("baseline: transactions, one space", "Mutate / transactions, one space", 5.0),
        ("baseline: statements, a space each", "Mutate / statements, a space each", 1.5),
        ("baseline: statements, one space", "Mutate / statements, one space", 5.0),
    ];
    for ((figure, ratio, expected), (index, single)) in
        names.into_iter().zip(singles.iter().enumerate())
    {
        let single = report.figure(figure, "writes", single);
        let ours = if index % 2 == 0 { many } else { hot };
        report.ratio(ratio, Expected::AtLeast(expected), ours, single);
    }
    Ok(())
}
