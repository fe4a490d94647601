//! How commands end when something is wrong around them, and what they print where nobody looks.

use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::json;

use super::{Desk, Said, end, piped};
use crate::support::private::blocking;
use crate::support::program::Running;
use crate::support::{mint, put};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_there_is_one_line_and_a_hint() {
    let desk = Desk::new().await;
    let address = {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        free.local_addr().unwrap()
    };
    for line in [
        "get task 1",
        "ls",
        "put task 1 {}",
        "rm task 1",
        "status",
        "changes",
        "watch",
        "conflicts",
        "resolve c --keep mine",
        "export x",
    ] {
        let said = desk.run(&format!("{line} --server http://{address}")).await;
        let text = said.ended(6);
        assert!(text.contains("Connection refused"), "{line}: {said:?}");
        assert_eq!(text.lines().count(), 2, "{line}: {said:?}");
        assert!(text.contains("\nhint: check the address"), "{line}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_missing_or_refused_has_a_code_of_its_own() {
    let desk = Desk::new().await;
    let mut command = desk.command(&["ls"]);
    command.env_remove("SYNCLINE_TOKEN");
    let said = end(command).await;
    assert!(said.ended(7).starts_with("error: there is no token\nhint: "), "{said:?}");
    let said = desk.run("ls --token nonsense").await;
    assert!(said.ended(7).contains("UNAUTHENTICATED"), "{said:?}");
    assert!(!said.stderr.contains("nonsense"), "{said:?}");
    // The flag hides the variable, and the file is read without its line's end.
    desk.write("token", &format!("{}\n", mint("bob")));
    let text = desk.run("status --token-file token").await.good();
    assert!(text.contains("users/bob"), "{text}");
    let said = desk.run("ls --token-file missing").await;
    assert!(said.ended(2).contains("cannot read missing"), "{said:?}");
    // On this machine, that of `dev` is found.
    std::fs::create_dir(desk.path(".syncline")).unwrap();
    desk.write(".syncline/dev.token", &format!("{}\n", mint("dev")));
    let mut command = desk.command(&["status"]);
    command.env_remove("SYNCLINE_TOKEN");
    assert!(end(command).await.good().contains("users/dev"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_flags_are_usage() {
    let desk = Desk::new().await;
    for line in [
        "ls --server localhost:1",
        "put task",
        "changes --since x",
        "get task 1 --revision -1",
        "put task 1 {} --increment stock=1",
        "export - --resume",
        "ls --client-cert x",
    ] {
        let said = desk.run(line).await;
        assert_eq!(said.code, Some(2), "{line}: {said:?}");
        assert!(said.stderr.starts_with("error: "), "{line}: {said:?}");
        assert_eq!(said.stdout, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_gone_is_no_failure() {
    let desk = Desk::new().await;
    let document = format!("{{\"t\":\"{}\"}}", "x".repeat(2_000));
    let mutations = (0..500).map(|n| put(&format!("m{n}"), &n.to_string(), &document)).collect();
    desk.house.alice.batch(mutations, false).await.unwrap();
    for line in [&["ls", "task"][..], &["changes", "--json"], &["export", "-"]] {
        let mut running = Running::start(&mut desk.command(line));
        let (mut stdout, mut first) = (running.stdout(), [0; 1]);
        blocking(move || stdout.read_exact(&mut first).unwrap()).await;
        let said = Said::new(running.end().await);
        assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_piped_has_no_colours() {
    let desk = Desk::new().await;
    for line in [
        r#"put task 1 {"a":"\u001b[31mred"}"#,
        "ls",
        "ls task",
        "get task 1",
        "status",
        "changes",
        "conflicts",
        "doctor",
    ] {
        let said = desk.run(line).await;
        assert!(!said.stdout.contains('\x1b') && !said.stderr.contains('\x1b'), "{said:?}");
        said.good();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_get_completions() {
    let desk = Desk::new().await;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = desk.run(&format!("completions {shell}")).await.good();
        for word in ["conflicts", "doctor", "from-start"] {
            assert!(script.contains(word), "{word} for {shell}");
        }
    }
    assert_eq!(desk.run("completions csh").await.code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writing_command_without_a_reader_does_its_work_and_tells_how_it_went() {
    let desk = Desk::new().await;
    desk.run("put task 1 {}").await.good();
    for (line, code) in [
        ("put task 1 {} --if-new", 9),
        ("rm task nowhere", 8),
        ("rm task 1", 0),
        ("resolve nowhere --keep mine", 8),
        ("doctor --token nonsense", 7),
        ("put task 1 {} --patch --store a.db", 8),
        ("discard nowhere --store a.db", 8),
    ] {
        let words: Vec<_> = line.split_whitespace().collect();
        let mut running = Running::start(&mut desk.command(&words));
        drop(running.stdout());
        let said = Said::new(running.end().await);
        assert_eq!(said.code, Some(code), "{line}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_silent_is_not_there() {
    let desk = Desk::new().await;
    // The system takes connections for it, and nobody says a word.
    let silent_at = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent_at.local_addr().unwrap());
    let silent = async |line: &str| desk.run(&format!("{line} --server {url}")).await;
    let database = format!("postgres://{}/x", silent_at.local_addr().unwrap());
    let examine = format!("doctor --json --database-url {database}");
    let (got, looked, examined) =
        tokio::join!(silent("get task 1"), silent("doctor --json"), desk.run(&examine));
    got.ended(6);
    assert_eq!(examined.code, Some(3), "{examined:?}");
    assert!(examined.stdout.contains("has not answered within 5s"), "{examined:?}");
    assert_eq!(looked.code, Some(6), "{looked:?}");
    assert!(looked.stdout.contains("no answer within 10s"), "{looked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_told_failures_as_json() {
    let desk = Desk::new().await;
    desk.run("put task 1 {} --store a.db").await.good();
    for (line, code, reason) in [
        ("get task 2", 8, json!("RECORD_NOT_FOUND")),
        ("put task 1 {} --if-new", 9, json!("ALREADY_EXISTS")),
        ("put task 1 {} --if-new --store a.db", 9, json!("ALREADY_EXISTS")),
        ("ls --token nonsense", 7, json!("UNAUTHENTICATED")),
        ("put task 1 []", 2, json!(null)),
        ("get task 1 --store nowhere/a.db", 2, json!(null)),
        ("ls --server http://127.0.0.1:1", 6, json!(null)),
    ] {
        let said = desk.run(&format!("{line} --json")).await;
        let failure = said.failure(code);
        assert_eq!(failure["reason"], reason, "{line}: {said:?}");
        assert!(failure["error"].is_string() && failure["violations"].is_array(), "{said:?}");
    }
    let said = desk.run("rm task 2 3 --json").await;
    assert_eq!(said.stderr.lines().count(), 2, "{said:?}");
    assert!(said.failure(8)["error"].as_str().unwrap().contains("task/2"), "the first decides");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_deletion_that_fails_holds_up_no_other() {
    let desk = Desk::new().await;
    desk.run("put task 1 {}").await.good();
    let long = "x".repeat(300);
    let said = desk.run(&format!("rm task {long} nowhere 1")).await;
    assert!(said.ended(9).contains("nowhere was rejected"), "{said:?}");
    assert!(said.stdout.ends_with("applied  task/1  revision 2\n"), "{said:?}");
    let said = desk.run("rm task 1 2 --server http://127.0.0.1:1").await;
    assert!(!said.ended(6).contains("task/2"), "{said:?}");
    // What is no text is no document.
    let mut bytes = br#"{"a":""#.to_vec();
    bytes.extend_from_slice(b"\xff\"}");
    let said = desk.pipe("put task 1", bytes).await;
    assert!(said.ended(2).contains("cannot read stdin"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bash_reads_the_completions() {
    let desk = Desk::new().await;
    let script = desk.run("completions bash").await.good();
    let mut bash = Command::new("bash");
    bash.arg("-n").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = piped(bash, script).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
}
