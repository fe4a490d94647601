//! `import` and `export`: there and back again, whatever breaks off in between.

use std::path::Path;

use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::{Desk, Said, values};
use crate::support::program::Running;
use crate::support::proxy::{Fault, Proxy, Target};
use crate::support::{mint, wait_for};

/// More than a double can hold, for all digits to be seen.
const FIRST_NUMBER: u64 = 9_007_199_254_740_993;

/// As many lines, in the order of their ids.
fn lines(count: usize, more: &str) -> String {
    let line = |n: usize| {
        let big = FIRST_NUMBER + u64::try_from(n).unwrap();
        format!(
            "{{\"collection\":\"{}\",\"id\":\"{n:05}\",\"document\":{{\"n\":{big},\"t\":\"{more}\"}}}}\n",
            if n < count / 2 { "a" } else { "b" }
        )
    };
    (0..count).map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_is_exported_as_it_was() {
    let desk = Desk::new().await;
    let text = lines(3_000, "ü");
    desk.write("in.jsonl", &text);
    let value = desk.run("import in.jsonl --json").await.value();
    assert_eq!((&value["written"], &value["rejected"]), (&json!(3_000), &json!(0)));
    assert!(!desk.path("in.jsonl.resume").exists() && !desk.path("in.jsonl.rejected").exists());
    let said = desk.run("export out.jsonl").await;
    assert!(said.stderr.starts_with("exported 3000 records; changes follow from "), "{said:?}");
    assert_eq!(said.good(), "");
    assert!(desk.read("out.jsonl") == text, "the same bytes");
    assert!(!desk.path("out.jsonl.resume").exists());
    let part = desk.run("export - --collections b").await.good();
    assert!(part == text.lines().skip(1_500).map(|it| format!("{it}\n")).collect::<String>());
    let value = desk.run("export out.jsonl --collections a,b --json").await.value();
    assert_eq!(value["records"], 3_000);
    // What `ls` prints can be imported as well.
    let listed = desk.run("ls a --json").await.good();
    let said = desk.pipe("import - --space users/alice", &listed).await;
    assert!(said.stderr.contains("imported 1500 records"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_told_and_kept_while_the_others_are_written() {
    let desk = Desk::new().await;
    let long = "x".repeat(300);
    let text = format!(
        "{{\"collection\":\"a\",\"id\":\"1\",\"document\":{{}}}}\noops\n\n\
         {{\"collection\":\"a\",\"id\":\"{long}\",\"document\":{{}}}}\n\
         {{\"collection\":\"a\",\"id\":\"2\",\"document\":{{\"k\":1,\"k\":2}}}}\n\
         {{\"collection\":\"a\",\"id\":\"3\",\"document\":[]}}\n\
         {{\"collection\":\"a\",\"id\":\"4\",\"document\":{{}}}}"
    );
    desk.write("in.jsonl", &text);
    let said = desk.run("import in.jsonl").await;
    let told = said.ended(9);
    let numbers: Vec<_> =
        told.lines().filter_map(|it| it.strip_prefix("line ")?.split(':').next()).collect();
    assert_eq!(numbers, ["2", "4", "5", "6"], "{told}");
    assert!(
        told.contains("imported 2 records\nerror: 4 lines were not imported\nhint: mend "),
        "{told}"
    );
    let rejected = desk.read("in.jsonl.rejected");
    let original: Vec<_> = text.lines().collect();
    assert_eq!(
        rejected.lines().collect::<Vec<_>>(),
        [original[1], original[3], original[4], original[5]]
    );
    assert_eq!(desk.run("ls").await.good(), "a  2\n");
    assert!(!desk.path("in.jsonl.resume").exists());
}

/// Runs until that holds, then kill -9.
async fn killed(
    desk: &Desk,
    arguments: &[&str],
    url: &str,
    until: impl AsyncFnMut() -> Option<()>,
) {
    let running = Running::start(desk.command(arguments).env("SYNCLINE_SERVER", url));
    wait_for("it is in the middle", until).await;
    running.signal(Signal::SIGKILL);
    assert_eq!(running.end().await.status.code(), None, "it was in the middle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_import_goes_on_and_writes_nothing_twice() {
    let desk = Desk::new().await;
    let count = 3_000;
    let text = lines(count, "x").replacen('\n', "\noops\n", 1);
    desk.write("in.jsonl", &text);
    let proxy = Proxy::start(Target::Tcp(desk.house.server.address())).await;
    // The server gets a batch, and its answer does not come back: these are the last words of some.
    for n in [1_598, 1_798, 1_998] {
        proxy.arm(Fault::SilenceAfter(format!("{},\"t\":\"x\"}}", FIRST_NUMBER + n)));
    }
    let url = format!("http://{}", proxy.address());
    let alice = &desk.house.alice;
    let noted = || {
        let text = std::fs::read(desk.path("in.jsonl.resume")).ok()?;
        serde_json::from_slice::<Value>(&text).ok()?["lines"].as_i64()
    };
    killed(&desk, &["import", "in.jsonl"], &url, async || {
        let ahead = proxy.fired() > 0 && alice.head().await > noted()? + 100;
        ahead.then_some(())
    })
    .await;

    let said = desk.run("import in.jsonl --json").await;
    said.failure(9);
    assert!(said.stderr.starts_with("going on behind line "), "{said:?}");
    let value: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((&value["written"], &value["rejected"]), (&json!(count), &json!(1)));
    assert_eq!(desk.read("in.jsonl.rejected"), "oops\n");
    assert_eq!(alice.head().await, i64::try_from(count).unwrap(), "nothing was written twice");
    assert!(!desk.path("in.jsonl.resume").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_from_stdin_is_known_by_its_name() {
    let desk = Desk::new().await;
    let text = lines(300, "x");
    let run =
        async || desk.pipe("import - --id mine --json", &text).await.value()["written"].take();
    assert_eq!((run().await, run().await), (json!(300), json!(300)));
    assert_eq!(desk.house.alice.head().await, 300, "the second had no effect");
    let said = desk.pipe("import - --id mine", &lines(300, "y")).await;
    assert!(said.ended(9).contains("MUTATION_ID_REUSED"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_has_not_begun_leaves_nothing() {
    let desk = Desk::new().await;
    desk.write("in.jsonl", &lines(10, "x"));
    let said = desk.run("import in.jsonl --server http://127.0.0.1:1").await;
    said.ended(6);
    assert!(!desk.path("in.jsonl.resume").exists(), "nothing has begun");
    let said: Said = desk.run("import missing.jsonl").await;
    assert!(said.ended(2).contains("cannot read missing.jsonl"), "{said:?}");
}

/// An import of this text that was broken off behind its first batch.
async fn broken_off(desk: &Desk, text: &str) -> Proxy {
    desk.write("in.jsonl", text);
    let proxy = Proxy::start(Target::Tcp(desk.house.server.address())).await;
    proxy.arm(Fault::SilenceAfter(format!("{},\"t\":\"x\"}}", FIRST_NUMBER + 399)));
    let url = format!("http://{}", proxy.address());
    let noted = || {
        let text = std::fs::read(desk.path("in.jsonl.resume")).ok()?;
        serde_json::from_slice::<Value>(&text).ok()?["lines"].as_i64()
    };
    killed(desk, &["import", "in.jsonl"], &url, async || {
        (proxy.fired() > 0 && noted()? == 200).then_some(())
    })
    .await;
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_does_not_go_on_elsewhere_or_with_other_lines() {
    let desk = Desk::new().await;
    let text = lines(600, "x");
    broken_off(&desk, &text).await;
    let place = desk.read("in.jsonl.resume");
    let refused = async |line: &str| {
        let said = desk.run(line).await;
        let why = "was broken off, but of other content, into another space";
        assert!(said.ended(2).contains(why), "{line}: {said:?}");
        assert!(said.stderr.contains("hint: remove "), "{said:?}");
        assert_eq!(desk.read("in.jsonl.resume"), place);
    };
    // Another user's own space, and another server.
    refused(&format!("import in.jsonl --token {}", mint("bob"))).await;
    let other = Desk::new().await;
    refused(&format!("import in.jsonl --server {}", other.url())).await;
    // As long, and something else in what was done.
    desk.write("in.jsonl", &text.replacen(":\"x\"", ":\"y\"", 1));
    refused("import in.jsonl").await;
    desk.write("in.jsonl", &text);
    let value = desk.run("import in.jsonl --json").await.value();
    assert_eq!(value["written"], 600);
    assert_eq!(desk.house.alice.head().await, 600, "nothing was written twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_which_nothing_is_known_to_be_written_begins_anew() {
    let desk = Desk::new().await;
    desk.write("in.jsonl", &lines(10, "x"));
    let place = json!({"id": "old", "space": "users/bob", "epoch": "e", "size": 1, "hash": "",
        "lines": 0, "bytes": 0, "written": 0, "rejected": 0, "rejected_bytes": 0});
    desk.write("in.jsonl.resume", &place.to_string());
    let value = desk.run("import in.jsonl --json").await.value();
    assert_eq!(value["written"], 10);
    assert_ne!(value["id"], "old");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_not_imported_are_told_to_programs() {
    let desk = Desk::new().await;
    let said = desk.pipe("import - --json", &format!("oops\n{}", lines(1, "x"))).await;
    assert!(said.failure(9)["error"].as_str().unwrap().contains("1 line was"), "{said:?}");
    let told = values(&said.stdout);
    assert_eq!((told.len(), &told[0]["line"], &told[1]["written"]), (2, &json!(1), &json!(1)));
    assert!(told[0]["error"].as_str().unwrap().contains("expected"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_fails_leaves_the_old_file() {
    let desk = Desk::new().await;
    desk.write("out.jsonl", "of yesterday\n");
    for (more, code) in [("--server http://127.0.0.1:1", 6), ("--token nonsense", 7)] {
        let said = desk.run(&format!("export out.jsonl {more}")).await;
        said.ended(code);
        assert_eq!(desk.read("out.jsonl"), "of yesterday\n");
        assert!(!desk.path("out.jsonl.resume").exists());
    }
    desk.run("put a 1 {}").await.good();
    desk.run("export out.jsonl").await.good();
    assert_eq!(desk.read("out.jsonl").lines().count(), 1);
    assert!(!desk.path("out.jsonl.part").exists() && !desk.path("out.jsonl.resume").exists());
    let said = desk.run("export nowhere/out.jsonl").await;
    assert!(said.ended(2).contains("cannot write nowhere/out.jsonl"), "{said:?}");
    // What is no file is written to as it is.
    desk.run("export /dev/null").await.good();
    let said = desk.run("export - --json").await;
    let value: Value = serde_json::from_str(said.stderr.trim_end()).unwrap();
    assert_eq!(value["records"], 1);
    assert_eq!(said.good().lines().count(), 1);
}

fn has_token(path: &Path) -> Option<()> {
    let text = std::fs::read(path).ok()?;
    let place: Value = serde_json::from_slice(&text).ok()?;
    (place["token"] != "").then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_export_goes_on_where_it_was() {
    let desk = Desk::new().await;
    let text = lines(3_000, &"x".repeat(4_000));
    desk.pipe("import -", &text).await.good();
    let proxy = Proxy::start(Target::Tcp(desk.house.server.address())).await;
    // Slow enough to be seen in the middle.
    proxy.delay(std::time::Duration::from_millis(4));
    let url = format!("http://{}", proxy.address());
    let resume = desk.path("out.jsonl.resume");
    desk.write("out.jsonl", "of yesterday\n");
    killed(&desk, &["export", "out.jsonl"], &url, async || has_token(&resume)).await;
    assert!(desk.read("out.jsonl.part").len() < text.len());
    assert_eq!(desk.read("out.jsonl"), "of yesterday\n");
    // What was written beyond what was noted is written again.
    std::fs::OpenOptions::new()
        .append(true)
        .open(desk.path("out.jsonl.part"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"half a li"))
        .unwrap();
    // Later writes are not in it: it is as of one revision.
    desk.run("put a zzz {}").await.good();
    let said = desk.run("export out.jsonl").await;
    assert!(said.ended(2).contains("an export to out.jsonl was broken off"), "{said:?}");
    let said = desk.run("export out.jsonl --resume --collections a").await;
    assert!(said.ended(2).contains("another space or collections"), "{said:?}");
    let value = desk.run("export out.jsonl --resume --json").await.value();
    assert_eq!(value["records"], 3_000);
    assert!(desk.read("out.jsonl") == text, "the same bytes");
    let said = desk.run("export out.jsonl --resume").await;
    assert!(said.ended(2).contains("there is no export to out.jsonl to go on with"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_survives_a_cut_by_itself() {
    let desk = Desk::new().await;
    let text = lines(2_000, &"x".repeat(4_000));
    desk.pipe("import -", &text).await.good();
    let proxy = Proxy::start(Target::Tcp(desk.house.server.address())).await;
    proxy.arm(Fault::CutAnswerAfter(7 << 20));
    let exported = desk.run(&format!("export - --server http://{}", proxy.address())).await.good();
    assert_eq!(proxy.fired(), 1);
    assert!(exported == text, "the same bytes");
}
