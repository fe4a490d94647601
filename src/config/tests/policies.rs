//! Policies in the configuration.

use super::World;

#[test]
fn policies_are_tables_of_the_file() {
    let text = r#"
        [policies."*"]
        strategy = "auto"

        [policies.task]
        strategy = "merge"
        fallback = "last_write_wins"
        conflict_retention_seconds = 3600
        fields = [{ path = "/lines", kind = "union", key_field = "sku" }]
        schema = { properties = { title = { type = "string" } } }
    "#;
    let policies = World::new().config(text).dev("dev").server.policies.0;
    let shown: Vec<_> = policies
        .iter()
        .map(|(name, policy)| format!("{name} {}", serde_json::to_string(policy).unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            r#"* {"strategy":"auto","fallback":"manual","deletes":"by_strategy","mode":"enforced"}"#,
            r#"task {"strategy":"merge","fallback":"last_write_wins","deletes":"by_strategy","mode":"enforced","fields":[{"path":"/lines","kind":"union","key_field":"sku"}],"schema":"{\"properties\":{\"title\":{\"type\":\"string\"}}}","conflict_retention_seconds":3600}"#,
        ]
    );
    for (text, expected) in [
        ("[policies.task]\nstrategy = \"best\"", "policies.task: unknown variant `best`"),
        ("[policies.task]\nstrat = \"merge\"", "policies.task: unknown field `strat`"),
        ("[policies.task]\nfallback = \"server_wins\"", "policies.task.fallback: goes with"),
        ("[policies.task]\nschema = { type = \"x\" }", "is no valid schema at /type"),
        ("[policies.\"\"]\nstrategy = \"merge\"", "the collection \"\""),
        ("policies = 1", "no object of policies"),
    ] {
        let error = World::new().config(text).error("dev");
        assert!(error.contains(":1: `policies`: ") && error.contains(expected), "{error}");
    }
}
