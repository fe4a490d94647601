//! Subscribers: how they are spread over streams and connections, and the load
//! that they follow.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};

use super::bare;
use super::book::Book;
use super::peer::Peer;
use crate::bench::load::{Measured, Span, latencies};
use crate::bench::target::Connection;
use crate::domain::limits;

/// Subscriptions on a stream that is shared.
const SHARED_BY: usize = 100;
/// Streams on a connection, at most: half of what the server allows.
const STREAMS_MAX: usize = 100;
/// Streams that are opened at once.
const GROUP: usize = 100;
/// For everybody to have caught up, or to have received what was written.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many subscribe, and in which shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    subscribers: usize,
    streams: usize,
    connections: usize,
}

impl Shape {
    /// A stream for each, on a connection of its own if there may be so many.
    pub(super) fn apart(subscribers: usize, connections_max: usize) -> Self {
        let on_one = subscribers.div_ceil(connections_max.max(1)).clamp(1, STREAMS_MAX);
        let connections = subscribers.div_ceil(on_one);
        Self { subscribers, streams: subscribers, connections }
    }

    /// A hundred on a stream, and a connection for each stream.
    pub(super) fn shared(subscribers: usize) -> Self {
        let streams = subscribers.div_ceil(SHARED_BY);
        Self { subscribers, streams, connections: streams }
    }

    /// As many on a stream as there may be, so that little of the stream's own and of its
    /// connection's counts.
    pub(super) fn full(subscribers: usize) -> Self {
        let streams = subscribers.div_ceil(limits::STREAM_SUBSCRIPTIONS_MAX);
        Self { subscribers, streams, connections: streams }
    }

    /// As the report calls it.
    pub(super) fn name(self) -> String {
        let Self { subscribers, streams, connections } = self;
        let on = |many: usize, what: &str| {
            let plural = if many == 1 { "" } else { "s" };
            format!("{} {what}{plural}", grouped(many))
        };
        let (all, streams_of) = (on(subscribers, "subscription"), on(streams, "stream"));
        match (self.is_shared(), streams == connections) {
            (true, _) => format!("{all} on {streams_of}"),
            (false, true) => streams_of,
            (false, false) => format!("{streams_of} on {}", on(connections, "connection")),
        }
    }

    /// Whether streams carry several.
    pub(super) fn is_shared(self) -> bool {
        self.streams < self.subscribers
    }

    /// The same for a tenth of them.
    pub(super) fn tenth(self) -> Self {
        let [subscribers, streams, connections] =
            [self.subscribers, self.streams, self.connections].map(|all| all.div_ceil(10));
        Self { subscribers, streams, connections }
    }

    /// How much of it is one subscriber's.
    pub(super) fn share_of(self, amount: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let (amount, subscribers) = (amount as f64, self.subscribers as f64);
        amount / subscribers
    }

    /// How many subscriptions each stream carries.
    fn loads(self) -> impl Iterator<Item = usize> {
        let on_one = self.subscribers.div_ceil(self.streams.max(1));
        (0..self.streams).map(move |it| on_one.min(self.subscribers.saturating_sub(it * on_one)))
    }
}

/// `10000` as `10,000`.
pub(super) fn grouped(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1_000), number % 1_000),
    }
}

/// How fast is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// One writer, so many a second.
    PerSecond(u32),
    /// Four writers, as fast as they can while at most eight writes have not been
    /// delivered to everybody.
    Saturation,
}

impl Pace {
    pub(super) fn name(self) -> String {
        match self {
            Self::PerSecond(writes) => format!("{writes} writes/s"),
            Self::Saturation => "saturated".to_owned(),
        }
    }

    fn writers(self) -> usize {
        match self {
            Self::PerSecond(_) => 1,
            Self::Saturation => 4,
        }
    }

    /// Steady writes stop only before the baseline's queues are full.
    fn undelivered_max(self) -> usize {
        match self {
            Self::PerSecond(_) => bare::QUEUE_MAX,
            Self::Saturation => 8,
        }
    }
}

/// What a load came to.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Events, one for each subscription and write, from the write to its receipt.
    pub(super) delivered: Measured,
    /// The calls that wrote.
    pub(super) written: Measured,
}

impl Loaded {
    /// Takes another span of the same.
    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.delivered.add(&other.delivered)?;
        self.written.add(&other.written)
    }
}

/// Subscribers that have caught up.
#[derive(Debug)]
pub(super) struct Crowd {
    peer: Peer,
    book: Arc<Book>,
    following: JoinSet<anyhow::Result<()>>,
}

impl Crowd {
    /// Opens the streams and waits until all subscriptions have caught up.
    pub(super) async fn open(peer: Peer, shape: Shape) -> anyhow::Result<Self> {
        let book = Arc::new(Book::new(shape.subscribers)?);
        let mut connections = Vec::new();
        for _ in 0..shape.connections {
            connections.push(peer.connect().await?);
        }
        let caught_up = book.caught_up.subscribe();
        let mut crowd = Self { peer, book, following: JoinSet::new() };
        let mut opened = 0;
        // In groups: they are not to come all at once.
        let loads: Vec<_> = shape.loads().zip(connections.iter().cycle()).collect();
        for group in loads.chunks(GROUP) {
            for (subscriptions, connection) in group {
                let (peer, connection) = (crowd.peer.clone(), (*connection).clone());
                let book = Arc::clone(&crowd.book);
                crowd.following.spawn(follow(peer, connection, *subscriptions, book));
                opened += *subscriptions as u64;
            }
            let mut caught_up = caught_up.clone();
            let all = caught_up.wait_for(|caught_up| *caught_up == opened);
            if timeout(PATIENCE, all).await.is_err() {
                crowd.check()?;
                anyhow::bail!("the subscribers did not catch up");
            }
        }
        Ok(crowd)
    }

    /// Writes at this pace, and measures what is delivered in that span.
    pub(super) async fn load(&mut self, pace: Pace, span: Span) -> anyhow::Result<Loaded> {
        let room = Arc::new(Semaphore::new(pace.undelivered_max()));
        let mut writers = JoinSet::new();
        for _ in 0..pace.writers() {
            let connection = self.peer.connect().await?;
            let writer = Writer {
                peer: self.peer.clone(),
                connection,
                book: Arc::clone(&self.book),
                room: Arc::clone(&room),
            };
            writers.spawn(writer.write(pace, span));
        }
        // The time that is measured.
        sleep_until(span.begin).await;
        self.book.begin();
        sleep_until(span.end).await;
        let delivered = self.book.end();
        let (elapsed, latency) = (span.end - span.begin, latencies()?);
        let mut written = Measured { operations: 0, elapsed, latency, cpu: None };
        while let Some(writer) = writers.join_next().await {
            written.latency.add(writer??)?;
        }
        written.operations = written.latency.len();
        let all = u32::try_from(pace.undelivered_max())?;
        if timeout(PATIENCE, room.acquire_many(all)).await.is_err() {
            self.check()?;
            anyhow::bail!("some subscribers were not told of all writes");
        }
        self.check()?;
        Ok(Loaded { delivered, written })
    }

    /// Why a stream has ended, if one has.
    fn check(&mut self) -> anyhow::Result<()> {
        match self.following.try_join_next() {
            Some(ended) => ended?.context("a subscriber ended"),
            None => Ok(()),
        }
    }

    /// Ends the streams.
    pub(super) async fn close(mut self) {
        self.following.shutdown().await;
    }
}

async fn follow(
    peer: Peer,
    connection: Connection,
    subscriptions: usize,
    book: Arc<Book>,
) -> anyhow::Result<()> {
    let mut followed = peer.follow(connection, subscriptions).await?;
    loop {
        book.receive(&followed.next().await?)?;
    }
}

struct Writer {
    peer: Peer,
    connection: Connection,
    book: Arc<Book>,
    room: Arc<Semaphore>,
}

impl Writer {
    /// Writes until the end; the latency of the calls that were sent in the span.
    async fn write(self, pace: Pace, span: Span) -> anyhow::Result<hdrhistogram::Histogram<u64>> {
        let mut latency = latencies()?;
        let mut tick = match pace {
            Pace::PerSecond(writes) => Some(interval(Duration::from_secs(1) / writes)),
            Pace::Saturation => None,
        };
        if let Some(tick) = &mut tick {
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            if let Some(tick) = &mut tick {
                tick.tick().await;
            }
            let room = timeout_at(span.end, Arc::clone(&self.room).acquire_owned()).await;
            // Nobody closes it: this is the end.
            let Ok(Ok(room)) = room else { return Ok(latency) };
            let sent = Instant::now();
            if sent >= span.end {
                return Ok(latency);
            }
            let number = self.book.send(room);
            self.peer.write(self.connection.clone(), number).await?;
            if sent >= span.begin {
                let micros = sent.elapsed().as_micros();
                latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_subscriptions_are_on_some_stream_and_names_say_how() {
        for (shape, connections, name) in [
            (Shape::apart(1, 9_500), 1, "1 stream"),
            (Shape::apart(1_000, 9_500), 1_000, "1,000 streams"),
            (Shape::apart(10_000, 9_500), 5_000, "10,000 streams on 5,000 connections"),
            (Shape::apart(1_000, 10), 10, "1,000 streams on 10 connections"),
            (Shape::apart(1_000, 1), 10, "1,000 streams on 10 connections"),
            (Shape::shared(1_000), 10, "1,000 subscriptions on 10 streams"),
            (Shape::shared(250), 3, "250 subscriptions on 3 streams"),
            (Shape::shared(7), 1, "7 subscriptions on 1 stream"),
        ] {
            assert_eq!((shape.connections, &*shape.name()), (connections, name));
            assert_eq!(shape.loads().sum::<usize>(), shape.subscribers, "{name}");
            assert!(shape.loads().all(|load| load > 0), "{name}");
        }
    }
}
