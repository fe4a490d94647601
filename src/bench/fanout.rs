//! 1,000 subscribers of one space, on 10 streams of 100 subscriptions, which all
//! follow alike and so share the frames of their stream. First alone, with 100
//! writes a second; then while 64 writers in other spaces write as fast as they
//! can. These writers are measured before and afterwards as well, which shows
//! what being followed costs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::IntoStreamingRequest;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;
use uuid::Uuid;

use super::Bench;
use super::load::{Measured, closed_loop, latencies};
use super::target::{Connection, Stub, put};
use super::write::Writer;
use crate::rpc::proto::subscribe_request::Frame as Out;
use crate::rpc::proto::{DocumentForm, MutateRequest, SubscribeFrame, SubscribeRequest};

const STREAMS: usize = 10;
const SUBSCRIPTIONS: usize = 100;
const WRITERS: usize = 64;
const WRITES_PER_SECOND: u64 = 100;

/// A space with its subscribers and its one writer.
struct Followed {
    state: Arc<State>,
    stop: CancellationToken,
    running: JoinSet<anyhow::Result<()>>,
}

#[derive(Default)]
struct State {
    /// When each write was sent, by its number.
    sent: Mutex<Vec<Instant>>,
    /// How many subscriptions have.
    caught_up: watch::Sender<u64>,
    delivered: AtomicU64,
    latency: Mutex<Option<Histogram<u64>>>,
}

impl Followed {
    async fn start(bench: &Bench) -> anyhow::Result<Self> {
        let user = format!("fanout-{}", Uuid::new_v4().simple());
        let state = Arc::new(State::default());
        *state.latency.lock() = Some(latencies()?);
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        for _ in 0..STREAMS {
            let connection = bench.target.connection_of(&user).await?;
            running.spawn(follow(connection, Arc::clone(&state), stop.clone()));
        }
        let expected = (STREAMS * SUBSCRIPTIONS) as u64;
        let mut caught_up = state.caught_up.subscribe();
        let all = caught_up.wait_for(|caught_up| *caught_up == expected);
        let waited = timeout(Duration::from_secs(30), all).await;
        waited.context("the subscribers did not catch up")??;
        let stub = bench.target.stub_of(&user).await?;
        running.spawn(write(stub, Arc::clone(&state), stop.clone()));
        Ok(Self { state, stop, running })
    }

    /// Forgets what was counted so far.
    fn begin(&self) -> Instant {
        self.state.delivered.store(0, Ordering::Relaxed);
        if let Some(latency) = self.state.latency.lock().as_mut() {
            latency.reset();
        }
        Instant::now()
    }

    fn measured(&self, since: Instant) -> anyhow::Result<Measured> {
        let latency = self.state.latency.lock().clone();
        Ok(Measured {
            operations: self.state.delivered.load(Ordering::Relaxed),
            elapsed: since.elapsed(),
            latency: latency.map_or_else(latencies, Ok)?,
        })
    }

    /// Ends the writer and the streams, with whatever is on its way.
    async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        Ok(())
    }
}

async fn write(mut stub: Stub, state: Arc<State>, stop: CancellationToken) -> anyhow::Result<()> {
    let mut tick = interval(Duration::from_millis(1_000 / WRITES_PER_SECOND));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0.. {
        tokio::select! {
            // Cancel: no call is under way here.
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        state.sent.lock().push(Instant::now());
        let mutation = put(number.to_string(), number);
        stub.mutate(MutateRequest { mutation: Some(mutation), ..Default::default() }).await?;
    }
    Ok(())
}

async fn follow(
    connection: Connection,
    state: Arc<State>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (out, queue) = mpsc::channel(SUBSCRIPTIONS);
    for number in 0..SUBSCRIPTIONS {
        let frame = SubscribeFrame {
            subscription_id: number.to_string(),
            document_form: DocumentForm::Json.into(),
            ..Default::default()
        };
        out.send(SubscribeRequest { frame: Some(Out::Subscribe(frame)) }).await?;
    }
    let mut client = Grpc::new(connection);
    client.ready().await?;
    let requests = ReceiverStream::new(queue).into_streaming_request();
    let path = PathAndQuery::from_static("/syncline.v1.SyncService/Subscribe");
    let codec = ProstCodec::<SubscribeRequest, LeanFrame>::default();
    let mut stream = client.streaming(requests, path, codec).await?.into_inner();
    loop {
        let message = tokio::select! {
            // Cancel: the stream is dropped with whatever was on its way.
            () = stop.cancelled() => return Ok(()),
            message = stream.message() => message?,
        };
        let Some(frame) = message else { anyhow::bail!("the stream ended") };
        anyhow::ensure!(frame.closed.is_none() && frame.resync.is_none(), "ended: {frame:?}");
        if frame.caught_up.is_some() {
            state.caught_up.send_modify(|caught_up| *caught_up += 1);
        }
        let LeanChanges { changes, subscription_ids } = frame.changes.unwrap_or_default();
        // Each subscription is told of each change, if in one frame with others.
        let delivered = changes.len() * subscription_ids.len();
        state.delivered.fetch_add(delivered as u64, Ordering::Relaxed);
        state.note_latency(&changes, subscription_ids.len() as u64);
    }
}

impl State {
    fn note_latency(&self, changes: &[LeanChange], times: u64) {
        let now = Instant::now();
        for change in changes {
            // The space has one writer: its first write is revision 1.
            let number = usize::try_from(change.revision - 1).unwrap_or(usize::MAX);
            let sent = self.sent.lock().get(number).copied().unwrap_or(now);
            let micros = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
            if let Some(latency) = self.latency.lock().as_mut() {
                latency.saturating_record_n(micros, times);
            }
        }
    }
}

/// What a subscriber of the bench decodes of a frame, so that the load generator
/// takes as little as it can of the cores that it shares with the server.
#[derive(Clone, PartialEq, prost::Message)]
struct LeanFrame {
    #[prost(message, optional, tag = "2")]
    changes: Option<LeanChanges>,
    #[prost(message, optional, tag = "3")]
    caught_up: Option<Nothing>,
    #[prost(message, optional, tag = "5")]
    closed: Option<Nothing>,
    #[prost(message, optional, tag = "6")]
    resync: Option<Nothing>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeanChanges {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<LeanChange>,
    #[prost(string, repeated, tag = "2")]
    subscription_ids: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct LeanChange {
    #[prost(int64, tag = "1")]
    revision: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Nothing {}

pub(super) async fn round(bench: &mut Bench) -> anyhow::Result<()> {
    let seconds = bench.plan.seconds;
    let before = closed_loop(Writer::clients(bench, WRITERS, false).await?, seconds).await?;

    let followed = Followed::start(bench).await?;
    let begin = followed.begin();
    // The time that is measured.
    sleep(Duration::from_secs(seconds)).await;
    let alone = followed.measured(begin)?;
    let begin = followed.begin();
    let with = closed_loop(Writer::clients(bench, WRITERS, false).await?, seconds).await?;
    let loaded = followed.measured(begin)?;
    followed.end().await?;
    let after = closed_loop(Writer::clients(bench, WRITERS, false).await?, seconds).await?;

    let report = &mut bench.report;
    let before = report.figure("64 writers, nobody follows", "writes", &before);
    let after = report.figure("the same afterwards", "writes", &after);
    let with = report.figure("64 writers, 1,000 subscribers follow a space", "writes", &with);
    report.figure("delivered to 1,000 subscribers, 100 writes/s", "events", &alone);
    report.figure("the same while the 64 writers write", "events", &loaded);
    report.ratio("writers with fan-out / without", 0.95, with, f64::midpoint(before, after));
    Ok(())
}
