//! What two bad subscribers do to the others of their space and to its writer: one
//! that never reads, and one that comes back after a long time, when the measured
//! time begins.

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;

use super::STEADY;
use super::crowd::{Crowd, Loaded, Shape, grouped};
use super::peer::{Peer, Side};
use super::user;
use crate::bench::Bench;
use crate::bench::load::Span;
use crate::bench::report::Expected;
use crate::bench::target::{Bearer, put};
use crate::rpc::proto::{BatchMutateRequest, Cursor, GetStatusRequest};

/// How far the late one is behind, for each of the others.
const BEHIND: usize = 200;
const BATCH: usize = 500;
/// What the one that never reads lets the server send: nearly nothing.
const WINDOW_BYTES: u32 = 1 << 10;
const EXPECTED: Expected = Expected::AtMost(1.2);

pub(super) async fn round(bench: &mut Bench, round: u32, subscribers: usize) -> anyhow::Result<()> {
    let user = user();
    let behind = subscribers * BEHIND;
    let cursor = fill(bench, &user, behind).await?;
    let uri = bench.target.uri().to_owned();
    let bearer = Bearer::new(&bench.target.token_of(&user)?)?;
    let peer = Peer { side: Side::Ours, uri, bearer, cursor: Some(cursor) };
    let shape = Shape::shared(subscribers);
    let mut crowd = Crowd::open(peer.clone(), shape).await?;
    let seconds = bench.plan.seconds;
    // Each twice, in both orders: what is rare needs time to be seen.
    let mut order = [true, false, false, true];
    if round.is_multiple_of(2) {
        order = order.map(|bad| !bad);
    }
    let (mut with, mut without) = (None, None);
    for bad in order {
        let (sum, loaded) = if bad {
            (&mut with, beside_bad(&mut crowd, &peer, seconds).await?)
        } else {
            (&mut without, crowd.load(STEADY, Span::of(seconds)).await?)
        };
        match sum {
            None => *sum = Some(loaded),
            Some(sum) => sum.add(&loaded)?,
        }
    }
    let (with, without) = with.zip(without).context("nothing was measured")?;
    crowd.close().await;

    let (report, shape, pace) = (&mut bench.report, shape.name(), STEADY.name());
    report.figure(format!("{shape} of a full space, {pace}"), "events", &without.delivered);
    report.figure(format!("its writer, {pace}"), "writes", &without.written);
    let bad = format!("beside one that never reads and one {} behind", grouped(behind));
    report.figure(format!("the same {bad}"), "events", &with.delivered);
    report.figure(format!("its writer {bad}"), "writes", &with.written);
    let p99 = |it: &crate::bench::load::Measured| it.micros_at(0.99);
    let (ours, others) = (p99(&with.delivered), p99(&without.delivered));
    report.ratio("p99 of events, with bad subscribers / without", EXPECTED, ours, others);
    let (ours, others) = (p99(&with.written), p99(&without.written));
    report.ratio("p99 of writes, with bad subscribers / without", EXPECTED, ours, others);
    Ok(())
}

/// Writes so many records; where the space is then.
async fn fill(bench: &Bench, user: &str, records: usize) -> anyhow::Result<Cursor> {
    let mut stub = bench.target.stub_of(user).await?;
    for from in (0..records).step_by(BATCH) {
        let numbers = from..records.min(from + BATCH);
        let mutations = numbers.map(|it| put(format!("old-{it}"), it as u64)).collect();
        stub.batch_mutate(BatchMutateRequest { mutations, ..Default::default() }).await?;
    }
    let status = stub.get_status(GetStatusRequest::default()).await?.into_inner();
    Ok(Cursor { epoch: status.epoch, revision: status.head })
}

async fn beside_bad(crowd: &mut Crowd, peer: &Peer, seconds: u64) -> anyhow::Result<Loaded> {
    let endpoint = Endpoint::from_shared(peer.uri.clone())?
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let connection = InterceptedService::new(endpoint.connect().await?, peer.bearer.clone());
    let unread = peer.follow(connection, 1).await?;
    let span = Span::of(seconds);
    let mut late = JoinSet::new();
    late.spawn(come_back(Peer { cursor: None, ..peer.clone() }, span));
    let loaded = crowd.load(STEADY, span).await?;
    if let Some(ended) = late.try_join_next() {
        ended??;
    }
    late.shutdown().await;
    drop(unread);
    Ok(loaded)
}

/// Follows from the beginning, and counts nothing.
async fn come_back(peer: Peer, span: Span) -> anyhow::Result<()> {
    let connection = peer.connect().await?;
    // The measured time begins.
    sleep_until(span.begin).await;
    let mut followed = peer.follow(connection, 1).await?;
    loop {
        followed.next().await?;
    }
}
