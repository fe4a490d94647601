//! Whoever takes the client does not get the service, nor the other way round.

use std::collections::BTreeSet;
use std::process::Command;

/// What only the other half needs.
const FOREIGN: &[(&str, &[&str])] = &[
    (
        "client",
        &["clap", "governor", "jsonwebtoken", "prometheus-client", "reqwest", "sqlx-postgres"],
    ),
    ("server", &["indicatif", "libsqlite3-sys", "sqlx-sqlite"]),
];

#[test]
fn neither_half_brings_what_only_the_other_needs() {
    for (feature, foreign) in FOREIGN {
        let ours = packages(feature);
        let brought: Vec<_> = foreign.iter().filter(|it| ours.contains(**it)).collect();
        assert!(brought.is_empty(), "the feature {feature} brings {brought:?}");
    }
    let all = packages("cli");
    let unknown: Vec<_> =
        FOREIGN.iter().flat_map(|it| it.1).filter(|it| !all.contains(**it)).collect();
    assert!(unknown.is_empty(), "nobody needs {unknown:?}: mend the table");
}

/// All packages that the library is made of with a feature.
fn packages(feature: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none"])
        .args(["--no-default-features", "--features", feature])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    tree.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}
