//! One space, and who follows it: what is delivered to how many subscribers, how
//! late and at what cost, beside a bare tonic loop (`bare`) that is followed by the
//! same clients (`peer`, `crowd`) over the same connections in the same process.
//! Events have as many bytes on both sides. A subscriber has a stream of its own,
//! on a connection of its own if file descriptors allow; or a hundred
//! subscriptions share a stream. Then one frame of ours serves all subscriptions
//! of the stream, where the loop sends a frame to each, and what is counted is the
//! subscriptions that were told.
//!
//! First at a steady pace, then as fast as at most eight undelivered writes allow
//! (`crowd`). A latency is the time from a write's call to the receipt of its
//! event, so ours has the durable commit in it, and the loop's has nothing. What an
//! event takes of the processor is the whole process's, clients included and
//! PostgreSQL not; it varies less than the rest while others use the machine.
//!
//! Beside that: what 64 writers in other spaces lose by it; and in `bench fanout`
//! only, the memory of idle subscribers (`memory`) and what a reader who does not
//! read and one who is far behind do to the others (`bad`).

mod bad;
mod bare;
mod book;
mod crowd;
mod lean;
mod memory;
mod peer;

use anyhow::Context;
use tokio::time::{Duration, timeout};
use uuid::Uuid;

use super::Bench;
use super::load::{Measured, Span, closed_loop};
use super::report::Expected;
use super::target::{Bearer, Target, put};
use super::write::Writer;
use crate::config::BenchKind;
use crate::rpc::proto::subscribe_request::Frame as Request;
use crate::rpc::proto::subscribe_response::Frame;
use crate::rpc::proto::{
    DocumentForm, MutateRequest, SubscribeFrame, SubscribeRequest, SubscribeResponse,
};
use bare::BareServer;
use crowd::{Crowd, Loaded, Pace, Shape};
use peer::{Peer, Side};

pub(super) use memory::host;

const WRITERS: usize = 64;
/// A pace that a thousand subscribers can be told of.
const STEADY: Pace = Pace::PerSecond(100);
/// Fewer subscriptions on shared streams take less than what a process's memory varies by.
const MEASURABLE: usize = 10_000;
/// The number of subscribers that the expectations are about.
const PROMISED: usize = 1_000;

pub(super) async fn round(bench: &mut Bench, number: u32) -> anyhow::Result<()> {
    let all = bench.plan.kind == BenchKind::All;
    let sizes = match &*bench.plan.subscribers {
        [] if all => vec![PROMISED],
        [] => vec![1, 100, 1_000, 10_000],
        given => given.to_vec(),
    };
    let bare = BareServer::start(sample(&bench.target).await?).await?;
    for &subscribers in &sizes {
        let apart = Shape::apart(subscribers, bench.connections_max);
        compare(bench, &bare, number, subscribers, apart).await?;
        // A single one is the same in both shapes.
        if subscribers > 1 {
            compare(bench, &bare, number, subscribers, Shape::shared(subscribers)).await?;
        }
    }
    drop(bare);
    let largest = sizes.iter().copied().max().unwrap_or(PROMISED);
    others(bench, largest.min(PROMISED)).await?;
    if !all {
        bad::round(bench, number, largest.min(PROMISED)).await?;
        memory::round(bench, number, largest, largest.max(MEASURABLE)).await?;
    }
    Ok(())
}

/// A frame of ours with one change of the usual document.
async fn sample(target: &Target) -> anyhow::Result<SubscribeResponse> {
    let mut stub = target.stub_of(&user()).await?;
    let frame = SubscribeFrame {
        subscription_id: "0".into(),
        document_form: DocumentForm::Json.into(),
        ..SubscribeFrame::default()
    };
    // The server goes on after what it was asked, until nobody reads.
    let requests = tokio_stream::once(SubscribeRequest { frame: Some(Request::Subscribe(frame)) });
    let mut stream = stub.subscribe(requests).await?.into_inner();
    let mutation = Some(put("0000000000".into(), 0));
    stub.mutate(MutateRequest { mutation, ..MutateRequest::default() }).await?;
    let changes = async {
        while let Some(frame) = stream.message().await? {
            if let Some(Frame::Changes(_)) = frame.frame {
                return Ok(frame);
            }
        }
        anyhow::bail!("the stream ended")
    };
    timeout(Duration::from_secs(30), changes).await.context("no event came")?
}

/// A user whose space is new.
fn user() -> String {
    format!("fanout-{}", Uuid::new_v4().simple())
}

/// Our server, by a new user.
fn ours(target: &Target) -> anyhow::Result<Peer> {
    let bearer = Bearer::new(&target.token_of(&user())?)?;
    Ok(Peer { side: Side::Ours, uri: target.uri().to_owned(), bearer, cursor: None })
}

/// Both sides in one shape, first steadily and then at saturation.
async fn compare(
    bench: &mut Bench,
    bare: &BareServer,
    round: u32,
    subscribers: usize,
    shape: Shape,
) -> anyhow::Result<()> {
    let steady = if subscribers > PROMISED { Pace::PerSecond(10) } else { STEADY };
    let ours = ours(&bench.target)?;
    let bare = Peer { side: Side::Bare, uri: bare.uri.clone(), ..ours.clone() };
    let mut figures = [[(0.0, 0.0, 0.0); 2]; 2];
    let mut peers = [ours, bare];
    if round.is_multiple_of(2) {
        peers.reverse();
    }
    for peer in peers {
        let side = peer.side;
        let mut crowd = Crowd::open(peer, shape).await?;
        for (index, pace) in [steady, Pace::Saturation].into_iter().enumerate() {
            let loaded = crowd.load(pace, Span::of(bench.plan.seconds)).await?;
            let name = figure_name(side, shape, pace);
            let rate = bench.report.figure(name, "events", &loaded.delivered);
            let p99 = loaded.delivered.micros_at(0.99);
            if let Some(figure) = figures.get_mut(index).and_then(|it| it.get_mut(side as usize)) {
                let cpu = loaded.delivered.cpu_micros().unwrap_or_default();
                *figure = (rate, p99, cpu);
            }
        }
        crowd.close().await;
    }
    let [[ours, bare], [ours_max, bare_max]] = figures;
    let (p99, rate) = match (subscribers == PROMISED, shape.is_shared()) {
        (true, false) => (Expected::AtMost(1.3), Expected::AtLeast(0.6)),
        (true, true) => (Expected::Nothing, Expected::AtLeast(0.35)),
        (false, _) => (Expected::Nothing, Expected::Nothing),
    };
    let shape = shape.name();
    bench.report.ratio(format!("p99, {shape}, {}", steady.name()), p99, ours.1, bare.1);
    let saturated = format!("events/s, {shape}, {}", Pace::Saturation.name());
    bench.report.ratio(saturated, rate, ours_max.0, bare_max.0);
    let cpu = format!("CPU an event, {shape}, {}", steady.name());
    bench.report.ratio(cpu, Expected::Nothing, ours.2, bare.2);
    Ok(())
}

fn figure_name(side: Side, shape: Shape, pace: Pace) -> String {
    let (shared, shape, pace) = (shape.is_shared(), shape.name(), pace.name());
    match (side, shared) {
        (Side::Ours, true) => format!("{shape}, shared frames, {pace}"),
        (Side::Ours, false) => format!("{shape}, {pace}"),
        (Side::Bare, true) => format!("bare: {shape}, a frame each, {pace}"),
        (Side::Bare, false) => format!("bare: {shape}, {pace}"),
    }
}

/// Writers in other spaces while a space that is written steadily is followed, and
/// before and after that, while it is written just so and nobody follows.
async fn others(bench: &mut Bench, subscribers: usize) -> anyhow::Result<()> {
    let shape = Shape::shared(subscribers);
    let (before, _) = beside(bench, Shape::shared(0)).await?;
    let (with, loaded) = beside(bench, shape).await?;
    let (after, _) = beside(bench, Shape::shared(0)).await?;

    let (report, shape) = (&mut bench.report, shape.name());
    let before = report.figure("64 writers, nobody follows", "writes", &before);
    let after = report.figure("the same afterwards", "writes", &after);
    let with = report.figure(format!("64 writers beside {shape}"), "writes", &with);
    let name = format!("{shape} beside 64 writers, {}", STEADY.name());
    report.figure(name, "events", &loaded.delivered);
    let without = f64::midpoint(before, after);
    report.ratio("64 writers with fan-out / without", Expected::AtLeast(0.95), with, without);
    Ok(())
}

/// The writers, and what is delivered beside them.
async fn beside(bench: &Bench, shape: Shape) -> anyhow::Result<(Measured, Loaded)> {
    let seconds = bench.plan.seconds;
    let mut crowd = Crowd::open(ours(&bench.target)?, shape).await?;
    let writers = Writer::clients(bench, WRITERS, false).await?;
    let (writers, loaded) =
        tokio::join!(closed_loop(writers, seconds), crowd.load(STEADY, Span::of(seconds)));
    crowd.close().await;
    Ok((writers?, loaded?))
}
