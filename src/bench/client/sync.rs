//! What a client sends and loads, beside callers of the service that keep no state, or keep it
//! in a plain table.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Folder, Loaded, open, raw};
use crate::bench::Bench;
use crate::bench::report::Expected;
use crate::bench::target::{Stub, document, put};
use crate::bench::whole;
use crate::client::{Client, Options};
use crate::rpc::proto::document::Form;
use crate::rpc::proto::{
    BatchMutateRequest, DocumentForm, MutationOutcome, Record, SnapshotRequest,
};

/// However slow the machine is.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// Mutations of one call, as many as there may be.
const BATCH: u64 = 1_000;
/// Who fills the queue at the same time.
const FILLERS: u64 = 256;

/// A client with a server.
async fn synced(bench: &Bench, file: &std::path::Path, user: &str) -> anyhow::Result<Client> {
    let options = Options::new(file, user).server(bench.target.uri());
    let client = Client::open(options.token(bench.target.token_of(user)?)).await?;
    client.own().await?;
    client.synced(PATIENCE).await?;
    Ok(client)
}

/// All records of a user into an empty file; that file.
pub(super) async fn first_load(
    bench: &mut Bench,
    folder: &Folder,
    round: u32,
    records: u64,
) -> anyhow::Result<Loaded> {
    // One for the whole run: it takes a while to fill.
    let user = format!("{}-client", bench.target.run());
    let mut stub = bench.target.stub_of(&user).await?;
    if round == 1 {
        whole::replace(&mut stub, records, 0).await?;
    }
    let file = folder.file("loaded.db");
    let began = Instant::now();
    let client = synced(bench, &file, &user).await?;
    let ours = whole::once(records, began)?;
    client.close().await;

    let began = Instant::now();
    let loaded = bare_load(&mut stub, folder).await?;
    let bare = whole::once(loaded, began)?;
    anyhow::ensure!(loaded == records, "{loaded} records");

    let name = format!("first load of {records} records");
    let ours = bench.report.figure(&name, "records", &ours);
    let figure = "baseline: Snapshot into a plain table of SQLite";
    let bare = bench.report.figure(figure, "records", &bare);
    let ratio = format!("{name} / Snapshot into a plain table");
    bench.report.ratio(ratio, Expected::Nothing, ours, bare);
    Ok(Loaded { file, user, records })
}

/// The same by who keeps nothing but documents.
async fn bare_load(stub: &mut Stub, folder: &Folder) -> anyhow::Result<u64> {
    let mut db = raw::writer(&folder.file("bare-load.db")).await?;
    let form = DocumentForm::Json.into();
    let request = SnapshotRequest { document_form: form, ..Default::default() };
    let mut snapshot = stub.snapshot(request).await?.into_inner();
    let mut loaded = 0;
    while let Some(page) = snapshot.message().await? {
        let rows: anyhow::Result<Vec<_>> = page.records.into_iter().map(row).collect();
        let rows = rows?;
        loaded += rows.len() as u64;
        raw::insert(&mut db, &rows).await?;
    }
    Ok(loaded)
}

fn row(record: Record) -> anyhow::Result<(String, String)> {
    let id = record.key.unwrap_or_default().id;
    match record.document.and_then(|document| document.form) {
        Some(Form::Json(json)) => Ok((id, String::from_utf8(json.to_vec())?)),
        _ => anyhow::bail!("a record without a document"),
    }
}

/// So many edits that were queued without a server, from its coming until nothing waits.
pub(super) async fn drain(bench: &mut Bench, folder: &Folder, edits: u64) -> anyhow::Result<()> {
    let run = bench.target.run().to_owned();
    let user = format!("{run}-drain-{}", Uuid::new_v4().simple());
    let file = folder.file("drain.db");
    fill(&file, &user, edits).await?;
    let began = Instant::now();
    let client = synced(bench, &file, &user).await?;
    let ours = whole::once(edits, began)?;
    client.close().await;

    let user = format!("{run}-batch-{}", Uuid::new_v4().simple());
    let mut stub = bench.target.stub_of(&user).await?;
    let began = Instant::now();
    for first in (0..edits).step_by(usize::try_from(BATCH)?) {
        let numbers = first..(first + BATCH).min(edits);
        let count = numbers.end - numbers.start;
        let mutations = numbers.map(|number| put(Loaded::id(number), number)).collect();
        let request = BatchMutateRequest { mutations, ..Default::default() };
        let results = stub.batch_mutate(request).await?.into_inner().results;
        let applied = results.iter().filter(|it| it.outcome() == MutationOutcome::Applied);
        anyhow::ensure!(applied.count() as u64 == count, "not all were applied");
    }
    let bare = whole::once(edits, began)?;

    let name = format!("drain of {edits} queued edits");
    let ours = bench.report.figure(&name, "edits", &ours);
    let figure = format!("baseline: BatchMutate of {BATCH}, 1 client");
    let bare = bench.report.figure(figure, "writes", &bare);
    bench.report.ratio(format!("{name} / BatchMutate"), Expected::Nothing, ours, bare);
    Ok(())
}

/// Queues edits in a file without a server.
async fn fill(file: &std::path::Path, user: &str, edits: u64) -> anyhow::Result<()> {
    let (client, space) = open(file, user).await?;
    let mut fillers = JoinSet::new();
    for filler in 0..FILLERS {
        let space = space.clone();
        fillers.spawn(async move {
            let step = usize::try_from(FILLERS)?;
            for number in (filler..edits).step_by(step) {
                let fields: serde_json::Value = serde_json::from_str(&document(number))?;
                space.put("task", &Loaded::id(number), fields).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filled) = fillers.join_next().await {
        filled??;
    }
    client.close().await;
    Ok(())
}
