//! `syncline bench`: that it still measures, not how fast. Its baselines write the
//! same tables by themselves, and stood still once when those had changed.

use std::process::Command;

fn measures(kind: &str, further: &[&str]) -> serde_json::Value {
    let bench = Command::new(env!("CARGO_BIN_EXE_syncline"))
        .args(["bench", kind, "--dev", "--seconds", "1", "--rounds", "1", "--json"])
        .args(further)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&bench.stderr);
    assert!(bench.status.success(), "{kind}: {errors}");
    let report: serde_json::Value = serde_json::from_slice(&bench.stdout).unwrap();
    assert!(report.to_string().contains("ratio"), "{kind}: {report}");
    report
}

#[test]
fn every_kind_measures() {
    for kind in ["write", "batch", "catchup", "conflict"] {
        measures(kind, &[]);
    }
}

#[test]
fn the_client_is_measured_beside_its_own_statements() {
    let report = measures("client", &["--records", "300"]);
    for figure in [
        "get by id, of 300, 4 at once",
        "put, on disk, 64 at once",
        "first load of 300 records",
        "drain of 300 queued edits",
    ] {
        let rate = report["figures"][figure]["per_second"].as_f64();
        assert!(rate.is_some_and(|rate| rate > 0.0), "{figure}: {report}");
    }
    let memory = &report["ratios"]["memory of an open client, MiB"]["median"];
    assert!(memory.as_f64().is_some_and(|mib| mib > 0.0), "{report}");
}

#[test]
fn fanout_is_measured_beside_a_bare_loop() {
    let report = measures("fanout", &["--subscribers", "10"]);
    for figure in
        ["10 streams, saturated", "bare: 10 subscriptions on 1 stream, a frame each, saturated"]
    {
        let delivered = report["figures"][figure]["per_second"].as_f64();
        assert!(delivered.is_some_and(|events| events > 0.0), "{figure}: {report}");
    }
    let memory = &report["ratios"]["memory, 10 streams on 1 connection, idle"];
    assert_eq!((&memory["is_expected_to_be"], &memory["expected"]), (&"<=".into(), &2.0.into()));
}
