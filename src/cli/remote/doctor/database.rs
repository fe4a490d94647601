//! Whether a database is fit for a server: what its start would insist on, and how much room there
//! is. Changes nothing.

use std::cmp::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::Report;
use super::finding::Finding;
use crate::exit::Exit;
use crate::store::Fitness;

/// For all that is asked; a person waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Connections of a server beside those that write and read, see the README.
const OTHER_CONNECTIONS: i64 = 4;
/// Those that read, unless it is told otherwise.
const READ_CONNECTIONS: i64 = 8;
/// Those that write, at least.
const COMMITTERS_MIN: i64 = 2;

pub(super) async fn examine(report: &mut Report, url: &str) {
    let fitness = match timeout(ANSWER_WITHIN, Fitness::of(url)).await {
        Ok(Ok(fitness)) => fitness,
        Err(_elapsed) => {
            let said = format!("it has not answered within {ANSWER_WITHIN:?}");
            let hint = "check the host and the port, that no firewall is between, and that \
                        PostgreSQL has connections left";
            return report.fail("database", Exit::Database, said, hint);
        }
        Ok(Err(error)) => {
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
    report.add("migrations", &migrations(fitness.migrations));
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    report.add("connections", &connections(&fitness, cores));
}

fn migrations(applied: usize) -> Finding {
    let known = Fitness::MIGRATIONS;
    match applied.cmp(&known) {
        Ordering::Equal => Finding::Ok(format!("all {known} are applied")),
        Ordering::Less => Finding::Warn(
            format!("{applied} of {known} are applied"),
            "the next start of a server applies them, and so does `syncline migrate`".into(),
        ),
        Ordering::Greater => Finding::Fail(
            Exit::Database,
            format!("{applied} are applied, and this program knows only {known}"),
            "use a program that is as new as the one that has migrated the database".into(),
        ),
    }
}

fn connections(fitness: &Fitness, cores: usize) -> Finding {
    let committers = i64::try_from(cores / 2).unwrap_or_default().max(COMMITTERS_MIN);
    let need = committers + READ_CONNECTIONS + OTHER_CONNECTIONS;
    let (open, max) = (fitness.connections, fitness.connections_max);
    let said = format!("{open} of {max} are open; a server takes up to {need}");
    match max {
        max if max < need => Finding::Fail(
            Exit::Database,
            said,
            "raise max_connections, or lower --committers and --database-connections".into(),
        ),
        max if max - open < need => Finding::Warn(
            said,
            "there is no room for one more server: raise max_connections".into(),
        ),
        _ => Finding::Ok(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_that_lack_are_applied_and_those_of_others_are_too_many() {
        let known = Fitness::MIGRATIONS;
        assert!(matches!(migrations(known), Finding::Ok(_)));
        assert!(matches!(migrations(known - 1), Finding::Warn(..)));
        assert!(matches!(migrations(known + 1), Finding::Fail(Exit::Database, ..)));
    }

    #[test]
    fn a_server_needs_room_for_its_connections() {
        let of = |open, connections_max| {
            let safety = ["fsync", "full_page_writes", "synchronous_commit"];
            let fitness = Fitness {
                version: 160_004,
                encoding: "UTF8".into(),
                safety: safety.map(|name| (name, "on".into())),
                connections_max,
                connections: open,
                migrations: 0,
            };
            connections(&fitness, 8)
        };
        // Four committers, eight that read, four others.
        assert!(matches!(of(84, 100), Finding::Ok(_)));
        assert!(matches!(of(85, 100), Finding::Warn(..)));
        assert!(matches!(of(0, 15), Finding::Fail(Exit::Database, ..)));
    }
}
