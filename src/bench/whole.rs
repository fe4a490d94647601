//! Whole states: a space is replaced, loaded and caught up with beside what PostgreSQL
//! does with the same rows; and what compaction and digests take from writers.

mod cost;
mod reading;

use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;
use uuid::Uuid;

use super::Bench;
use super::load::{Measured, latencies};
use super::report::Expected;
use super::target::{Stub, document};
use crate::domain::{Space, UserId};
use crate::rpc::proto::document::Form;
use crate::rpc::proto::replace_all_request::Part;
use crate::rpc::proto::{
    Document, NewRecord, RecordKey, ReplaceAllBegin, ReplaceAllEnd, ReplaceAllRecords,
    ReplaceAllRequest,
};

/// Records that are replaced, and changes that are caught up with.
const RECORDS: u64 = 100_000;
/// Records in one message.
const PART: u64 = 1_000;

pub(super) async fn round(bench: &mut Bench, round: u32) -> anyhow::Result<()> {
    let user = format!("whole-{}", Uuid::new_v4().simple());
    let mut stub = bench.target.stub_of(&user).await?;
    let replaced = replace(&mut stub, RECORDS, 0).await?;
    let again = replace(&mut stub, RECORDS, 0).await?;
    let all_new = replace(&mut stub, RECORDS, 1).await?;
    let url = bench.target.database()?.to_owned();
    let copied = reading::copy_in(&url, RECORDS).await?;
    let report = &mut bench.report;
    let copied = report.figure("baseline: COPY FROM STDIN into a table, 100,000", "rows", &copied);
    for (name, measured) in [
        ("ReplaceAll of 100,000 new records", &replaced),
        ("ReplaceAll of the same 100,000", &again),
        ("ReplaceAll of 100,000, each with another document", &all_new),
    ] {
        let rate = report.figure(name, "records", measured);
        report.ratio(format!("{name} / COPY FROM STDIN"), Expected::Nothing, rate, copied);
    }
    reading::catch_up(bench, &mut stub, &space(&user)?).await?;
    reading::first_load(bench, round).await?;
    cost::of_digests(bench).await?;
    cost::of_compaction(bench).await
}

/// The space of a user.
fn space(user: &str) -> anyhow::Result<Uuid> {
    Ok(Space::private(&UserId::parse(user).map_err(anyhow::Error::msg)?).id.0)
}

/// Replaces the user's space by so many records, whose documents have these numbers.
pub(super) async fn replace(stub: &mut Stub, records: u64, from: u64) -> anyhow::Result<Measured> {
    let id = Uuid::new_v4().to_string();
    let begin = Part::Begin(ReplaceAllBegin { id, ..Default::default() });
    let parts = (0..records.div_ceil(PART)).map(move |part| {
        let numbers = part * PART..((part + 1) * PART).min(records);
        let record = |number: u64| {
            let json = Form::Json(document(from + number).into());
            let id = format!("{number:07}");
            NewRecord {
                key: Some(RecordKey { collection: "task".into(), id }),
                document: Some(Document { form: Some(json) }),
            }
        };
        Part::Records(ReplaceAllRecords { records: numbers.map(record).collect() })
    });
    let end = Part::End(ReplaceAllEnd { records: i64::try_from(records)? });
    let parts = std::iter::once(begin).chain(parts).chain([end]);
    let parts = parts.map(|part| ReplaceAllRequest { part: Some(part) });
    let began = Instant::now();
    let answer = stub.replace_all(tokio_stream::iter(parts)).await?.into_inner();
    let living = answer.created + answer.updated + answer.unchanged;
    anyhow::ensure!(u64::try_from(living)? == records, "not replaced: {answer:?}");
    once(records, began)
}

/// What took from then until now.
pub(super) fn once(operations: u64, began: Instant) -> anyhow::Result<Measured> {
    let elapsed: Duration = began.elapsed();
    let latency: Histogram<u64> = latencies()?;
    Ok(Measured { operations, elapsed, latency, cpu: None })
}
