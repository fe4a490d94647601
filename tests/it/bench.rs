//! `syncline bench`: that it still measures, not how fast. Its baselines write the
//! same tables by themselves, and stood still once when those had changed.

use std::process::Command;

#[test]
fn every_kind_measures() {
    for kind in ["write", "batch", "catchup", "conflict"] {
        let bench = Command::new(env!("CARGO_BIN_EXE_syncline"))
            .args(["bench", kind, "--dev", "--seconds", "1", "--rounds", "1", "--json"])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&bench.stderr);
        assert!(bench.status.success(), "{kind}: {errors}");
        let report: serde_json::Value = serde_json::from_slice(&bench.stdout).unwrap();
        assert!(report.to_string().contains("ratio"), "{kind}: {report}");
    }
}
