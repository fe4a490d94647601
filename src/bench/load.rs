//! Closed-loop load: clients that each send the next request when the last one
//! is answered.

use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What a load did.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Operations, as the work counts them.
    pub(super) operations: u64,
    pub(super) elapsed: Duration,
    /// Latency of one request, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// What this process computed meanwhile, if that says something.
    pub(super) cpu: Option<Duration>,
}

impl Measured {
    /// Takes another span of the same.
    pub(super) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.operations += other.operations;
        self.elapsed += other.elapsed;
        self.latency.add(&other.latency)?;
        self.cpu = self.cpu.zip(other.cpu).map(|(cpu, more)| cpu + more);
        Ok(())
    }

    pub(super) fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let operations = self.operations as f64;
        operations / self.elapsed.as_secs_f64()
    }

    /// The share of one operation in that.
    pub(super) fn cpu_micros(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let operations = self.operations.max(1) as f64;
        self.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / operations)
    }

    pub(super) fn micros_at(&self, quantile: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let micros = self.latency.value_at_quantile(quantile) as f64;
        micros
    }
}

/// When to count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

impl Span {
    /// So many seconds, after a warm-up of a tenth of them, at most half a second.
    pub(super) fn of(seconds: u64) -> Self {
        let length = Duration::from_secs(seconds);
        let begin = Instant::now() + (length / 10).min(Duration::from_millis(500));
        Self { begin, end: begin + length }
    }
}

/// Runs each client's work in a loop, and counts what the work says that it did
/// between the end of the warm-up and the end.
pub(super) async fn closed_loop<W>(clients: Vec<W>, seconds: u64) -> anyhow::Result<Measured>
where
    W: Work + Send + 'static,
{
    let Span { begin, end } = Span::of(seconds);
    let mut running = JoinSet::new();
    for mut client in clients {
        running.spawn(async move {
            let mut latency = latencies()?;
            let mut operations = 0;
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return anyhow::Ok((operations, latency));
                }
                let done = client.work().await?;
                let answered = Instant::now();
                if sent >= begin && answered <= end {
                    operations += done;
                    let micros = answered.duration_since(sent).as_micros();
                    latency.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
                }
            }
        });
    }
    let (elapsed, latency) = (end - begin, latencies()?);
    let mut total = Measured { operations: 0, elapsed, latency, cpu: None };
    while let Some(client) = running.join_next().await {
        let (operations, latency) = client??;
        total.operations += operations;
        total.latency.add(latency)?;
    }
    sleep_until(end).await;
    Ok(total)
}

/// An empty histogram, from a microsecond to a minute.
pub(super) fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// One client's loop.
pub(super) trait Work {
    /// Sends one request and waits for its answer; how many operations it was.
    fn work(&mut self) -> impl Future<Output = anyhow::Result<u64>> + Send;
}
