//! Catching up on a space from its beginning, in pages of 1,000.

use uuid::Uuid;

use super::Bench;
use super::baseline::{Pages, create_tables, drop_tables};
use super::load::{Work, closed_loop};
use super::report::Expected;
use super::target::{Stub, put};
use crate::domain::{Space, UserId};
use crate::rpc::proto::{BatchMutateRequest, ChangesSinceRequest, Cursor, DocumentForm};

/// Changes to catch up on.
const CHANGES: u64 = 50_000;
/// Clients of each side.
const CLIENTS: usize = 2;

struct Reader {
    stub: Stub,
    cursor: Option<Cursor>,
}

impl Work for Reader {
    async fn work(&mut self) -> anyhow::Result<u64> {
        let request = ChangesSinceRequest {
            cursor: self.cursor.clone(),
            page_size: 1_000,
            document_form: DocumentForm::Json.into(),
            ..Default::default()
        };
        let page = self.stub.changes_since(request).await?.into_inner();
        self.cursor = page.cursor.filter(|_| page.has_more);
        Ok(page.changes.len() as u64)
    }
}

pub(super) async fn round(bench: &mut Bench) -> anyhow::Result<()> {
    let url = bench.target.database()?.to_owned();
    let user = format!("catchup-{}", Uuid::new_v4().simple());
    fill(bench, &user).await?;

    let mut readers = Vec::new();
    for _ in 0..CLIENTS {
        readers.push(Reader { stub: bench.target.stub_of(&user).await?, cursor: None });
    }
    let ours = closed_loop(readers, bench.plan.seconds).await?;
    let space = Space::private(&UserId::parse(&user).map_err(anyhow::Error::msg)?);
    let same = Pages::same(&url, CLIENTS, space.id.0).await?;
    let same = closed_loop(same, bench.plan.seconds).await?;
    create_tables(&url).await?;
    let plain = Pages::plain(&url, CLIENTS, CHANGES).await?;
    let plain = closed_loop(plain, bench.plan.seconds).await?;
    drop_tables(&url).await?;

    let report = &mut bench.report;
    let ours = report.figure("ChangesSince, pages of 1,000", "changes", &ours);
    let same = report.figure("baseline: the same pages by SQL", "rows", &same);
    let plain = report.figure("baseline: pages of one table of documents", "rows", &plain);
    report.ratio("ChangesSince / the same pages by SQL", Expected::AtLeast(0.4), ours, same);
    report.ratio("ChangesSince / pages of one table", Expected::Nothing, ours, plain);
    Ok(())
}

async fn fill(bench: &Bench, user: &str) -> anyhow::Result<()> {
    let mut stub = bench.target.stub_of(user).await?;
    for batch in 0..CHANGES / 500 {
        let numbers = batch * 500..(batch + 1) * 500;
        let mutations = numbers.map(|it| put(format!("r-{it}"), it)).collect();
        stub.batch_mutate(BatchMutateRequest { mutations, ..Default::default() }).await?;
    }
    Ok(())
}
