//! `sync`: lines from stdin, whatever is in them and whoever stops it, and how it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Stdio};

use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::{Desk, Said};
use crate::support::private::blocking;
use crate::support::program::Running;
use crate::support::{mint, put};

/// So many edits, each of a record of its own.
fn edits(count: usize) -> String {
    let line = |n| {
        format!("{{\"op\":\"put\",\"collection\":\"task\",\"id\":\"{n}\",\"document\":{{}}}}\n")
    };
    (0..count).map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_are_written_whether_somebody_reads_what_is_said_or_not() {
    let desk = Desk::new().await;
    for (more, code) in [("", 0), ("no edit\n", 9)] {
        let mut command = desk.command(&["sync", "--store", "a.db", "--offline"]);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        drop(running.stdout());
        running.type_in(format!("{}{more}", edits(2_000)));
        let said = Said::new(running.end().await);
        assert_eq!(said.code, Some(code), "{said:?}");
        assert_eq!(desk.run("ls --store a.db").await.good(), "task  2000\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_no_text_is_told_and_the_others_are_written() {
    let desk = Desk::new().await;
    let mut lines = edits(1).into_bytes();
    lines.extend_from_slice(b"{\"op\":\"\xff\"}\r\n");
    lines.extend_from_slice(edits(2).as_bytes());
    let said = desk.pipe("sync --store a.db --offline --json", lines).await;
    assert!(said.failure(9)["error"].as_str().unwrap().contains("1 lines were refused"));
    let told = super::values(&said.stdout);
    let numbers: Vec<_> = told.iter().filter_map(|it| it["line"].as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3, 4], "{told:?}");
    assert!(told[1]["error"].as_str().unwrap().contains("UTF-8"), "{told:?}");
    assert_eq!(desk.run("ls --store a.db").await.good(), "task  2\n");
}

/// Stopped while stdin is open, once one edit is told.
async fn stopped(desk: &Desk, arguments: &[&str], signal: Signal) -> (Said, String) {
    let mut command = desk.command(&["sync", "--store", "a.db"]);
    let mut running = Running::start(command.args(arguments).stdin(Stdio::piped()));
    let mut stdin: ChildStdin = running.stdin();
    stdin.write_all(edits(1).as_bytes()).unwrap();
    let mut lines = BufReader::new(running.stdout());
    let told = blocking(move || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    })
    .await;
    running.signal(signal);
    let said = Said::new(running.end().await);
    // Nobody else ends it.
    drop(stdin);
    (said, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signal_stops_it_while_it_reads() {
    let desk = Desk::new().await;
    let (said, told) = stopped(&desk, &["--offline"], Signal::SIGINT).await;
    assert!(told.ends_with("  line 1\n"), "{told}");
    assert_eq!(said.code, Some(0), "{said:?}");
    let away = ["--server", "http://127.0.0.1:1"];
    let (said, _) = stopped(&desk, &away, Signal::SIGTERM).await;
    assert!(said.ended(6).contains("stopped; 1 edits wait"), "{said:?}");
    assert_eq!(desk.run("ls --store a.db").await.good(), "task  1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_met_a_conflict_is_no_success() {
    let desk = Desk::new().await;
    desk.run("put task 0 {\"n\":1} --store a.db").await.good();
    desk.run("put task 0 {\"n\":2} --store a.db --offline").await.good();
    desk.house.alice.mutate(put("m", "0", r#"{"n":3}"#)).await.unwrap();
    let line = r#"{"op":"patch","collection":"task","id":"0","document":{"n":4}}"#;
    let said = desk.pipe("sync --store a.db --json", line).await;
    assert!(said.failure(9)["error"].as_str().unwrap().contains("met a conflict"), "{said:?}");
    let told: Vec<Value> = super::values(&said.stdout);
    assert_eq!(told.last().unwrap()["conflict"], 1, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_so_and_does_not_wait() {
    let desk = Desk::new().await;
    let said = desk.pipe("sync --store b.db --space users/bob", edits(1)).await;
    said.ended(9);
    let token = format!("{}x", mint("alice"));
    let said = desk.pipe(&format!("sync --store a.db --json --token {token}"), edits(1)).await;
    let failure = said.failure(7);
    assert!(failure["error"].as_str().unwrap().starts_with("1 edits wait: "), "{failure}");
    assert!(failure["hint"].as_str().unwrap().contains("token"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_problem_is_told_once() {
    let desk = Desk::new().await;
    let line = "sync --store a.db --server http://127.0.0.1:1 --wait 4s";
    let said = desk.pipe(line, edits(1)).await;
    let notes = said.ended(6).lines().filter(|it| it.contains("check the network")).count();
    assert_eq!(notes, 1, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_with_edits_is_told_to_programs() {
    let desk = Desk::new().await;
    let lines = (1..=2).map(|n| {
        format!("{{\"op\":\"patch\",\"collection\":\"task\",\"id\":\"{n}\",\"document\":{{}}}}\n")
    });
    desk.pipe("sync --store a.db", lines.collect::<String>()).await.ended(9);
    desk.house.alice.mutate(put("m", "1", "{}")).await.unwrap();
    desk.run("sync --store a.db").await.ended(9);
    let parked = desk.run("parked --store a.db --json").await.values();
    let edit = |at: usize| parked[at]["edit"].as_str().unwrap();
    let said = desk.run(&format!("retry {} nowhere --store a.db --json", edit(0))).await;
    // The first that fails decides, and the others are tried.
    assert!(said.failure(8)["error"].as_str().unwrap().contains("nowhere"), "{said:?}");
    let value = &super::values(&said.stdout)[0];
    assert_eq!((&value["outcome"], &value["id"]), (&json!("applied"), &json!("1")), "{said:?}");
    let said = desk.run(&format!("discard nowhere {} --store a.db --json", edit(1))).await;
    said.failure(8);
    let expected = json!({"edit": edit(1), "outcome": "discarded"});
    assert_eq!(super::values(&said.stdout), [expected]);
    desk.run("put note 1 {} --store a.db").await.good();
    let value = desk.run("rm note 1 --store a.db --json").await.value();
    assert_eq!(value["outcome"], "applied");
}
