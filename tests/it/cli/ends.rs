//! How commands end when something is wrong around them, and what they print where nobody looks.

use std::io::Read;
use std::process::Stdio;

use super::{Desk, end};
use crate::support::private::blocking;
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
        let mut child = desk.command(line).stdout(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 1];
        let (code, stderr) = blocking(move || {
            child.stdout.take().unwrap().read_exact(&mut first).unwrap();
            let output = child.wait_with_output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        })
        .await;
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{line:?}");
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
