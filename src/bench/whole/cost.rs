//! What compaction and digests take from writers: the same load with and without, on the
//! same database, several times in each round, in both orders.

use std::time::Duration;

use crate::bench::Bench;
use crate::bench::load::{Measured, closed_loop};
use crate::bench::report::Expected;
use crate::bench::target::{Beside, Target};
use crate::bench::write::{CLIENTS, Writer};

/// Records that each client writes again and again, where something is to be compacted.
const AGAIN: u64 = 100;

/// Writes of 64 clients in one space or in many, with digests and without.
pub(super) async fn of_digests(bench: &mut Bench) -> anyhow::Result<()> {
    let seconds = bench.plan.seconds;
    let with = bench.target.beside(|_config| {}).await?;
    let without = bench.target.beside(|config| config.without_digests = true).await?;
    for (one_space, name) in [(true, "one space"), (false, "a space each")] {
        let mut sums: [Option<Measured>; 2] = [None, None];
        for which in [0, 1, 1, 0, 1, 0, 0, 1] {
            let server = if which == 0 { &with } else { &without };
            // The two kinds do not share spaces: without, digests would be wrong.
            let first = 2_000_000 + 1_000 * which;
            let clients = clients(&bench.target, server, first, one_space).await?;
            add(sums.get_mut(which), closed_loop(clients, seconds).await?)?;
        }
        let [Some(with), Some(without)] = sums else { anyhow::bail!("nothing was measured") };
        let with = bench.report.figure(format!("Mutate, {name}, with digests"), "writes", &with);
        let figure = format!("baseline: Mutate, {name}, without digests");
        let without = bench.report.figure(figure, "writes", &without);
        let ratio = format!("Mutate with digests / without, {name}");
        bench.report.ratio(ratio, Expected::AtLeast(0.95), with, without);
    }
    with.stop().await;
    without.stop().await;
    Ok(())
}

/// Writes that leave something to compact, with a server beside that compacts all the
/// time, and without.
pub(super) async fn of_compaction(bench: &mut Bench) -> anyhow::Result<()> {
    let seconds = bench.plan.seconds;
    let writing = bench.target.beside(|_config| {}).await?;
    let mut sums: [Option<Measured>; 2] = [None, None];
    for which in [0, 1, 1, 0] {
        let compacting = match which {
            0 => Some(bench.target.beside(compacts).await?),
            _ => None,
        };
        let clients = clients(&bench.target, &writing, 3_000_000, false).await?;
        let clients = clients.into_iter().map(|client| client.again(AGAIN)).collect();
        add(sums.get_mut(which), closed_loop(clients, seconds).await?)?;
        if let Some(compacting) = compacting {
            compacting.stop().await;
        }
    }
    let [Some(with), Some(without)] = sums else { anyhow::bail!("nothing was measured") };
    let with = bench.report.figure("Mutate while the log is compacted", "writes", &with);
    let without = bench.report.figure("baseline: Mutate without that", "writes", &without);
    let name = "Mutate while the log is compacted / without";
    bench.report.ratio(name, Expected::AtLeast(0.9), with, without);
    writing.stop().await;
    Ok(())
}

/// Whatever can be compacted is, at once.
fn compacts(config: &mut crate::config::ServerConfig) {
    config.retention.log_retention = Duration::ZERO;
    config.retention.tombstone_retention = Duration::ZERO;
    config.retention.device_wait = Duration::ZERO;
    config.compaction_interval = Duration::from_millis(10);
}

async fn clients(
    target: &Target,
    server: &Beside,
    first: usize,
    one_space: bool,
) -> anyhow::Result<Vec<Writer>> {
    let mut clients = Vec::new();
    for name in 0..CLIENTS {
        let user = if one_space { first } else { first + 1 + name };
        clients.push(Writer::new(server.stub(target, user).await?, name));
    }
    Ok(clients)
}

fn add(sum: Option<&mut Option<Measured>>, more: Measured) -> anyhow::Result<()> {
    match sum {
        Some(Some(sum)) => sum.add(&more),
        Some(none) => {
            *none = Some(more);
            Ok(())
        }
        None => Ok(()),
    }
}
