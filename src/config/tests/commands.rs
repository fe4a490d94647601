//! The smaller commands.

use std::time::Duration;

use super::{DATABASE, NAMES, World, secret};
use crate::config::{BenchKind, BenchTarget, Command};
use crate::domain::Retention;

#[test]
fn migrate_and_bench_take_their_own() {
    let world = World::new();
    assert!(matches!(
        world.load(&format!("migrate {DATABASE}")),
        Ok(Command::Migrate(config)) if config.database_url.expose().ends_with("/sync")
    ));
    let bench = |line: &str| match world.load(line).unwrap() {
        Command::Bench(config) => config,
        other => panic!("not bench: {other:?}"),
    };
    let config = bench("bench fanout --seconds 1 --rounds 2 --json");
    assert_eq!(
        (config.plan.kind, config.plan.seconds, config.plan.rounds),
        (BenchKind::Fanout, 1, 2)
    );
    assert!(config.plan.json && matches!(config.target, BenchTarget::Dev));
    let remote = format!("bench all --target http://h:1 --jwt-secret {} {NAMES}", secret());
    let config = bench(&remote);
    assert!(matches!(config.target, BenchTarget::Remote { uri, .. } if uri == "http://h:1"));
    assert!(world.error(&format!("{remote} --dev")).contains("cannot be used with"));
    // The client has no TLS: it would speak, and send its tokens, in the clear.
    let error = world.error("bench all --target https://h:1");
    assert!(error.contains("expected http://host:port; there is no TLS here"), "{error}");
    assert!(world.error("bench").contains("<KIND>"));
}

#[test]
fn compact_and_verify_take_a_database() {
    let world = World::new();
    let error = world.error("compact");
    assert!(error.contains("database-url"), "{error}");
    let Ok(Command::Compact(config)) =
        world.load(&format!("compact {DATABASE} --log-retention 7d --device-wait 0s"))
    else {
        panic!("not compact")
    };
    let day = Duration::from_hours(24);
    let expected = Retention { log: 7 * day, tombstones: 90 * day, device_wait: Duration::ZERO };
    assert_eq!(config.retention, expected);
    let Ok(Command::Verify(config)) = world.load(&format!("verify {DATABASE} --space users/a"))
    else {
        panic!("not verify")
    };
    assert_eq!(config.space.as_deref(), Some("users/a"));
    let error = world.error("dev --compaction-interval 1ms");
    assert!(error.contains("must be 10ms to 24h"), "{error}");
}
