//! Whether a database is fit for a server: what its start would insist on, and how much room there
//! is. Changes nothing.

use super::Report;
use crate::exit::Exit;
use crate::store::Fitness;

/// Connections of a server beside those that write and read, see the README.
const OTHER_CONNECTIONS: i64 = 4;
/// Those that read, unless it is told otherwise.
const READ_CONNECTIONS: i64 = 8;
/// Those that write, at least.
const COMMITTERS_MIN: i64 = 2;

pub(super) async fn examine(report: &mut Report, url: &str) {
    let fitness = match Fitness::of(url).await {
        Ok(fitness) => fitness,
        Err(error) => {
            let hint = error.hint().unwrap_or("see the log of PostgreSQL").to_owned();
            let said = format!("{:#}", anyhow::Error::new(error));
            report.fail("database", Exit::Database, said, hint);
            return;
        }
    };
    let problems = fitness.problems(false);
    for problem in &problems {
        let hint = problem.hint().unwrap_or_default().to_owned();
        report.fail("database", Exit::Database, problem.to_string(), hint);
    }
    if problems.is_empty() {
        let settings: Vec<_> =
            fitness.safety.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let version = fitness.version / 10_000;
        let (encoding, settings) = (&fitness.encoding, settings.join(", "));
        report.ok("database", format!("PostgreSQL {version}, {encoding}, {settings}"));
    }
    let (known, applied) = (Fitness::MIGRATIONS, fitness.migrations);
    match applied.cmp(&known) {
        std::cmp::Ordering::Equal => report.ok("migrations", format!("all {known} are applied")),
        std::cmp::Ordering::Less => report.warn(
            "migrations",
            format!("{applied} of {known} are applied"),
            "the next start of a server applies them, and so does `syncline migrate`",
        ),
        std::cmp::Ordering::Greater => report.fail(
            "migrations",
            Exit::Database,
            format!("{applied} are applied, and this program knows only {known}"),
            "use a program that is as new as the one that has migrated the database",
        ),
    }
    connections(report, &fitness);
}

fn connections(report: &mut Report, fitness: &Fitness) {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let committers = i64::try_from(cores / 2).unwrap_or_default().max(COMMITTERS_MIN);
    let need = committers + READ_CONNECTIONS + OTHER_CONNECTIONS;
    let (open, max) = (fitness.connections, fitness.connections_max);
    let said = format!("{open} of {max} are open; a server takes up to {need}");
    match max {
        max if max < need => report.fail(
            "connections",
            Exit::Database,
            said,
            "raise max_connections, or lower --committers and --database-connections",
        ),
        max if max - open < need => report.warn(
            "connections",
            said,
            "there is no room for one more server: raise max_connections",
        ),
        _ => report.ok("connections", said),
    }
}
