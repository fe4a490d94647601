//! The commands on a local file, with and without a server.

use std::io::{BufRead, BufReader};

use nix::sys::signal::Signal;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

use super::{Desk, Said};
use crate::support::program::Running;
use crate::support::{put, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn a_local_file_takes_writes_and_gives_them_back_at_once() {
    let desk = Desk::new().await;
    let value = desk.run("put task 1 {\"n\":1} --store a.db --json").await.value();
    assert_eq!((&value["outcome"], &value["revision"]), (&json!("applied"), &json!(1)));
    let said = desk.run("put task 1 --increment /n=2 --store a.db").await;
    assert_eq!(said.good(), "applied  task/1  revision 2\n");
    assert_eq!(desk.house.alice.document("task", "1").await, json!({"n": 3}));
    let value = desk.run("get task 1 --store a.db --json").await.value();
    let expected = json!({"collection": "task", "id": "1", "revision": 2, "document": {"n": 3}});
    assert_eq!(value, expected);

    let offline = "--store a.db --offline";
    desk.run(&format!("put note x {{}} {offline}")).await.good();
    let said = desk.run(&format!("put task 2 {{}} {offline}")).await;
    assert_eq!(said.good(), "queued  task/2\n");
    assert_eq!(desk.run(&format!("rm task 1 {offline}")).await.good(), "queued  task/1\n");
    assert_eq!(desk.run("ls --store a.db").await.good(), "note  1\ntask  1\n");
    assert_eq!(desk.run("ls task --store a.db").await.good(), "2  0  pending  {}\n");
    let said = desk.run("get task 1 --store a.db").await;
    assert!(said.ended(8).contains("not in the local file"), "{said:?}");
    assert_eq!(desk.house.alice.head().await, 2);

    let summary = desk.run("sync --store a.db --json").await.value();
    assert_eq!((&summary["queued"], &summary["parked"]), (&json!(0), &json!(0)), "{summary}");
    assert_eq!(desk.house.alice.head().await, 5);
    let status = desk.run("status --store a.db --json").await.value();
    assert_eq!(status["link"], "online");
    assert_eq!(
        (&status["spaces"][0]["space"], &status["spaces"][0]["pending"]),
        (&json!("users/alice"), &json!(0))
    );
    let text = desk.run("status --store a.db").await.good();
    assert!(text.contains("link       online\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_a_write_waits_and_says_why() {
    let desk = Desk::new().await;
    let said = desk.run("put task 1 {} --store a.db --server http://127.0.0.1:1").await;
    assert!(
        said.stderr.contains("it is sent later: ") && said.stderr.contains("network"),
        "{said:?}"
    );
    assert_eq!(said.good(), "queued  task/1\n");
    let away = "--store a.db --server http://127.0.0.1:1 --wait 300ms";
    let said = desk.run(&format!("put task 2 {{}} {away} --json")).await;
    assert_eq!(said.value()["outcome"], "queued");
    let said = desk.run(&format!("sync {away}")).await;
    assert!(said.ended(6).contains("2 edits wait"), "{said:?}");
    let patient = "--store a.db --server http://127.0.0.1:1 --wait 30s";
    let status = desk.run(&format!("status {patient} --json")).await.value();
    assert_eq!(status["link"], "offline", "{status}");
    assert!(status["problem"]["advice"].as_str().unwrap().contains("network"), "{status}");
    // Nothing is lost: it is sent as soon as it can be.
    desk.run("sync --store a.db").await.good();
    assert_eq!(desk.house.alice.head().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_told_as_soon_as_they_are_on_disk() {
    let desk = Desk::new().await;
    desk.house.alice.mutate(put("m", "taken", "{}")).await.unwrap();
    let lines = [
        r#"{"op":"put","collection":"shop","id":"a","document":{"stock":5,"at":{"x":1}}}"#,
        "",
        r#"{"op":"create","collection":"task","id":"1","document":{"n":1}}"#,
        r#"{"op":"patch","collection":"shop","id":"a","increment":{"/stock":-2},"unset":["/at"]}"#,
        "no edit",
        r#"{"op":"delete","collection":"task","id":"1"}"#,
    ];
    let said = desk.pipe("sync --store a.db --json", &lines.join("\n")).await;
    assert!(said.failure(9)["error"].as_str().unwrap().contains("1 lines were refused"));
    let told = super::values(&said.stdout);
    let numbers: Vec<_> = told.iter().filter_map(|it| it["line"].as_u64()).collect();
    assert_eq!(numbers, [1, 3, 4, 5, 6]);
    assert!(told[3]["error"].as_str().unwrap().contains("expected"), "{told:?}");
    assert_eq!((&told[5]["applied"], &told[5]["queued"]), (&json!(4), &json!(0)), "{told:?}");
    assert_eq!(desk.house.alice.document("shop", "a").await, json!({"stock": 3}));
    let said = desk.pipe("sync --store a.db", "").await;
    assert!(said.stderr.contains("queued 0"), "{said:?}");
    assert_eq!(said.good(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_listed_queued_again_and_given_up() {
    let desk = Desk::new().await;
    let offline = "--store a.db --offline --json";
    // Nobody can tell here that they will be refused.
    let line = r#"{"op":"patch","collection":"task","id":"1","document":{"n":1}}
{"op":"patch","collection":"task","id":"2","document":{"n":1}}"#;
    desk.pipe(&format!("sync {offline}"), line).await.good();
    let said = desk.run("sync --store a.db").await;
    assert!(said.ended(9).contains("2 edits were refused"), "{said:?}");
    let parked = desk.run("parked --store a.db --json").await.values();
    assert_eq!(parked.len(), 2);
    assert_eq!(
        (&parked[0]["id"], &parked[0]["op"], &parked[0]["rejection"]["reason"]),
        (&json!("1"), &json!("patch"), &json!("NOT_FOUND"))
    );
    let (first, second) =
        (parked[0]["edit"].as_str().unwrap(), parked[1]["edit"].as_str().unwrap());
    let text = desk.run("parked --store a.db").await.good();
    assert!(text.starts_with(&format!("{first}  task/1  patch  NOT_FOUND  ")), "{text}");
    desk.house.alice.mutate(put("m", "1", r#"{"a":1}"#)).await.unwrap();
    desk.run("sync --store a.db").await.ended(9);
    let said = desk.run(&format!("retry {first} --store a.db")).await;
    assert_eq!(said.good(), "applied  task/1  revision 2\n");
    assert_eq!(desk.house.alice.document("task", "1").await, json!({"a": 1, "n": 1}));
    let said = desk.run(&format!("discard {second} --store a.db")).await;
    assert_eq!(said.good(), format!("discarded  {second}\n"));
    assert!(desk.run(&format!("discard {second} --store a.db")).await.ended(8).contains("parked"));
    desk.run("sync --store a.db").await.good();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_is_seen_and_decided_from_the_file() {
    let desk = Desk::new().await;
    desk.run("put task 1 {\"n\":1} --store a.db").await.good();
    desk.run("put task 1 {\"n\":2} --store a.db --offline").await.good();
    desk.house.alice.mutate(put("m", "1", r#"{"n":3}"#)).await.unwrap();
    let said = desk.run("put task 1 {\"n\":4} --store a.db").await;
    assert!(said.ended(9).contains("met a conflict"), "{said:?}");
    let open = desk.run("conflicts --store a.db --json").await.values();
    assert_eq!((open.len(), &open[0]["mine"]["document"]), (1, &json!({"n": 4})), "{open:?}");
    let id = open[0]["conflict_id"].as_str().unwrap();
    assert!(desk.run("conflicts --store a.db").await.good().starts_with(id));
    let said = desk.run(&format!("resolve {id} --keep mine --store a.db")).await;
    assert_eq!(said.good(), "resolved  task/1  revision 3\n");
    assert_eq!(desk.house.alice.document("task", "1").await, json!({"n": 4}));
    // The file has heard of it already.
    assert_eq!(desk.run("conflicts --store a.db").await.good(), "");
    let said = desk.run(&format!("resolve {id} --keep theirs --store a.db --json")).await;
    assert!(said.failure(9)["error"].as_str().unwrap().contains("is resolved"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_has_the_same_form_here_and_there() {
    let desk = Desk::new().await;
    let id = super::conflicts::meet(&desk, "1").await;
    desk.run("sync --store a.db").await.good();
    let here = desk.run("conflicts --store a.db --json").await.value();
    let there = desk.run("conflicts --json").await.value();
    let (here, there) = (here.as_object().unwrap(), there.as_object().unwrap());
    assert!(here.len() >= 8, "{here:?}");
    for (name, value) in here {
        assert_eq!(Some(value), there.get(name), "{name}");
    }
    let line = format!("resolve {id} --strategy auto --store a.db --json");
    let value = desk.run(&line).await.value();
    assert_eq!((&value["outcome"], &value["conflict_id"]), (&json!("applied"), &json!(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_follows_the_file_and_syncs_it() {
    let desk = Desk::new().await;
    desk.run("put task old {} --store a.db").await.good();
    let mut command = desk.command(&["watch", "--store", "a.db", "--json"]);
    let mut running = Running::start(&mut command);
    let (lines, mut heard) = tokio::sync::mpsc::channel(1_000);
    let out = BufReader::new(running.stdout());
    std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            lines.blocking_send(serde_json::from_str::<Value>(&line).unwrap()).ok();
        }
    });
    let mut next = async |fits: fn(&Value) -> bool| {
        wait_for("a line", async || heard.try_recv().ok().filter(fits)).await
    };
    next(|it| it["link"] == "online").await;
    desk.house.alice.mutate(put("m1", "new", r#"{"by":"another"}"#)).await.unwrap();
    // The one from before may be told as well, as no longer pending.
    let change = next(|it| it["type"] == "change" && it["id"] == "new").await;
    assert_eq!(change["action"], "updated");
    // Another program writes to the file; this one sends it.
    desk.run("put note 1 {} --store a.db --offline").await.good();
    next(|it| it["collection"] == "note" && it["pending"].is_null()).await;
    assert_eq!(desk.house.alice.head().await, 3);
    let said = desk.run("put note 2 {} --store a.db").await;
    assert_eq!(said.good(), "applied  note/2  revision 4\n");
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_on_a_file_is_told() {
    let desk = Desk::new().await;
    desk.run("put task 1 {} --store a.db --offline").await.good();
    let refused = async |line: &str| -> Said { desk.run(line).await };
    for (line, code, why) in [
        ("sync", 2, "--store"),
        ("parked", 2, "--store"),
        ("put task 1 {} --offline", 2, "--store"),
        ("put task 1 {} --base 1 --store a.db", 2, "--base"),
        ("get task 1 --revision 1 --store a.db", 2, "--revision"),
        ("watch --cursor 0 --store a.db", 2, "--cursor"),
        ("conflicts --state any --store a.db", 2, "--state"),
        ("resolve x --keep mine --store a.db", 8, "CONFLICT_NOT_FOUND"),
        ("resolve x --keep mine --store a.db --offline", 6, "there is no server"),
        ("put task 1 {} --store a.db --user bob", 2, "alice's, not bob's"),
        ("put task 1 [] --store a.db", 2, "no JSON object"),
        ("put task 1 {} --if-new --store a.db", 9, "ALREADY_EXISTS"),
        ("discard x --store a.db", 8, "no such edit"),
        ("get task 1 --store nowhere/a.db", 2, "cannot use nowhere/a.db"),
    ] {
        let said = refused(line).await;
        assert!(said.ended(code).contains(why), "{line}: {said:?}");
    }
}
