//! `conflicts` and `resolve`: a conflict is found, shown, and settled in each way.

use std::os::unix::fs::PermissionsExt;

use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::{Desk, Said, piped, values};

/// Two writes of a record that do not know each other; the conflict's id.
pub(super) async fn meet(desk: &Desk, id: &str) -> String {
    let base = desk.run(&format!(r#"put task {id} {{"a":1,"b":1}} --json"#)).await.value();
    let base = base["revision"].as_i64().unwrap();
    let theirs = format!(r#"put task {id} {{"a":2,"b":1,"t":1}} --base {base} --device laptop"#);
    desk.run(&theirs).await.good();
    let mine = format!(r#"put task {id} {{"a":3,"b":2}} --base {base} --device phone --json"#);
    let said = desk.run(&mine).await;
    let failure = said.failure(9);
    assert_eq!(failure["error"], "the write met a conflict, and changed nothing");
    assert!(failure["hint"].as_str().unwrap().starts_with("syncline resolve "), "{said:?}");
    let value = values(&said.stdout).remove(0);
    assert_eq!(value["outcome"], "conflict");
    value["conflict"]["conflict_id"].as_str().unwrap().to_owned()
}

pub(super) async fn document(desk: &Desk, id: &str) -> Value {
    desk.run(&format!("get task {id} --json")).await.value()["document"].take()
}

/// An editor that does this with the file in `$1`.
fn editor(desk: &Desk, script: &str) -> String {
    desk.write("editor", &format!("#!/bin/sh\n{script}\n"));
    let path = desk.path("editor");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn edit(desk: &Desk, conflict: &str, script: &str, typed: &str) -> Said {
    let mut command = desk.command(&["resolve", conflict, "--edit"]);
    // Drafts that are kept go with the desk.
    command.env("TMPDIR", desk.folder.path());
    command.env_remove("VISUAL").env("EDITOR", editor(desk, script));
    piped(command, typed).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_listed_and_a_side_is_kept() {
    let desk = Desk::new().await;
    let (one, two) = (meet(&desk, "1").await, meet(&desk, "2").await);
    let listed = desk.run("conflicts").await.good();
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert!(
        lines[0].starts_with(&two) && lines[0].contains("task/2") && lines[0].ends_with("/a"),
        "{listed}"
    );
    let value = desk.run("conflicts task --state open --json").await.values().remove(1);
    assert_eq!((&value["conflict_id"], &value["state"]), (&json!(one), &json!("open")));
    assert_eq!(value["theirs"]["document"], json!({"a": 2, "b": 1, "t": 1}));
    assert_eq!(value["mine"]["document"], json!({"a": 3, "b": 2}));

    let text = desk.run(&format!("resolve {one} --keep mine")).await.good();
    assert!(text.starts_with("resolved  task/1  revision "), "{text}");
    assert_eq!(document(&desk, "1").await, json!({"a": 3, "b": 2}));
    let value = desk.run(&format!("resolve {two} --keep theirs --json")).await.value();
    assert_eq!((&value["outcome"], &value["conflict_id"]), (&json!("applied"), &json!(two)));
    assert_eq!(document(&desk, "2").await, json!({"a": 2, "b": 1, "t": 1}));
    assert_eq!(desk.run("conflicts").await.good(), "");
    assert_eq!(desk.run("conflicts --state resolved").await.good().lines().count(), 2);

    let said = desk.run(&format!("resolve {one} --keep mine")).await;
    assert!(said.ended(9).contains("the conflict is resolved"), "{said:?}");
    let said = desk.run("resolve nowhere --keep mine").await;
    assert!(said.ended(8).contains("CONFLICT_NOT_FOUND"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_or_a_strategy_decides() {
    let desk = Desk::new().await;
    let (one, two) = (meet(&desk, "1").await, meet(&desk, "2").await);
    let said = desk.pipe(&format!("resolve {one} --document -"), r#"{"own":true}"#).await;
    said.good();
    assert_eq!(document(&desk, "1").await, json!({"own": true}));
    let said = desk.run(&format!("resolve {two} --strategy merge")).await;
    assert!(said.ended(9).contains("error: the resolution was rejected"), "{said:?}");
    desk.run(&format!("resolve {two} --strategy auto")).await.good();
    assert_eq!(document(&desk, "2").await, json!({"a": 3, "b": 2, "t": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_is_edited_until_it_is_a_document() {
    let desk = Desk::new().await;
    let conflict = meet(&desk, "1").await;
    // Left as it is, or emptied, it decides nothing.
    for script in ["cp \"$1\" draft; echo of the editor", "sed -i -e '/^[^\\/]/d' \"$1\""] {
        let said = edit(&desk, &conflict, script, "").await;
        assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
        assert!(said.stderr.contains("nothing was decided"), "{said:?}");
        assert!(!said.stderr.contains("edit again"), "{said:?}");
    }
    // There are marks in it, and nobody wants to edit again.
    let said = edit(&desk, &conflict, "echo >> \"$1\"", "").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("a mark is left"), "{said:?}");
    assert!(said.stderr.contains("the conflict stays open"), "{said:?}");
    assert!(said.stderr.contains("what you have made of it is in "), "{said:?}");
    // Without the marks a value is there several times: which one is meant?
    let script = "sed -i -e '/^[<|=>]\\{7\\}/d' \"$1\"";
    let said = edit(&desk, &conflict, script, "n\n").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("at /a: ") && said.stderr.contains("twice at line "), "{said:?}");
    let draft = desk.read("draft");
    let marked = "<<<<<<< theirs\n  \"a\": 2,\n||||||| base\n  \"a\": 1,\n=======\n  \"a\": 3,\n\
                  >>>>>>> mine\n  \"b\": 2,\n  \"t\": 1,\n}\n";
    assert!(draft.ends_with(marked), "{draft}");
    assert!(draft.starts_with(&format!("// Conflict {conflict} of task/1\n")), "{draft}");
    // First wrong, then mended.
    let script = "if [ -e twice ]; then sed -i -e '/^<<<<<<</,/^=======/d' -e '/^>>>>>>>/d' \
                  -e '/^oops/d' \"$1\"\nelse touch twice; echo oops >> \"$1\"; fi";
    let said = edit(&desk, &conflict, script, "y\n").await;
    assert!(said.stderr.contains("edit again? [Y/n]"), "{said:?}");
    assert!(said.good().starts_with("resolved  task/1"));
    assert_eq!(document(&desk, "1").await, json!({"a": 3, "b": 2, "t": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_changes_meanwhile_is_told() {
    let desk = Desk::new().await;
    let conflict = meet(&desk, "1").await;
    let program = env!("CARGO_BIN_EXE_syncline");
    // Somebody else writes while the editor is open.
    let script = format!("{program} put task 1 '{{\"late\":true}}' >&2; echo '{{}}' > \"$1\"");
    let said = edit(&desk, &conflict, &script, "").await;
    assert!(said.ended(9).contains("RECORD_CHANGED"), "{said:?}");
    assert!(said.stderr.contains("hint: "), "{said:?}");
    assert_eq!(document(&desk, "1").await, json!({"late": true}));
    // What was made of it is not lost.
    let kept =
        said.stderr.lines().find_map(|it| it.strip_prefix("what you have made of it is in "));
    let kept = kept.unwrap();
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "{}\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editor_that_fails_decides_nothing() {
    let desk = Desk::new().await;
    let conflict = meet(&desk, "1").await;
    let said = edit(&desk, &conflict, "echo '{}' > \"$1\"; exit 3", "").await;
    assert!(said.ended(1).contains("exit status: 3"), "{said:?}");
    assert_eq!(desk.run("conflicts").await.good().lines().count(), 1);
    assert_eq!(document(&desk, "1").await, json!({"a": 2, "b": 1, "t": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_nobody_is_asked() {
    let desk = Desk::new().await;
    let conflict = meet(&desk, "1").await;
    let said = desk.run(&format!("resolve {conflict}")).await;
    assert!(said.ended(2).contains("nobody can be asked: say --keep"), "{said:?}");
}
