//! `put`, `get`, `ls`, `rm` and `status`, for people and for programs.

use pretty_assertions::assert_eq;
use serde_json::json;

use super::Desk;
use crate::support::put;

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_put_got_listed_and_removed() {
    let desk = Desk::new().await;
    let said = desk.run(r#"put task 1 {"title":"x","n":9007199254740993}"#).await;
    assert_eq!((said.good().as_str()), "applied  task/1  revision 1\n");
    let said = desk.pipe("put task 2 - --json --device phone", r#"{"title": "from stdin"}"#).await;
    let mut value = said.value();
    assert!(value["mutation_id"].take().is_string());
    let expected = json!({"outcome": "applied", "revision": 2, "collection": "task", "id": "2",
        "mutation_id": null});
    assert_eq!(value, expected);

    let said = desk.run("get task 1").await;
    assert!(said.stderr.starts_with("task/1  revision 1  by alice  20"), "{said:?}");
    assert_eq!(said.good(), "{\n  \"n\": 9007199254740993,\n  \"title\": \"x\"\n}\n");
    let value = desk.run("get task 2 --json").await.value();
    assert_eq!(value["document"], json!({"title": "from stdin"}));
    assert_eq!((&value["device"], &value["revision"]), (&json!("phone"), &json!(2)));

    assert_eq!(desk.run("ls").await.good(), "task  2\n");
    let value = desk.run("ls --json").await.value();
    assert_eq!(value, json!({"collection": "task", "records": 2}));
    let listed = desk.run("ls task").await.good();
    let rows: Vec<Vec<&str>> = listed.lines().map(|it| it.split("  ").collect()).collect();
    assert_eq!((rows.len(), rows[0][0], rows[1][0]), (2, "1", "2"), "{listed}");
    let at = |line: &str| line.find("20").unwrap();
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(at(lines[0]), at(lines[1]), "aligned: {listed}");
    let listed = desk.run("ls task --json --limit 1").await.values();
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &json!("1")));

    assert_eq!(desk.run("rm task 1").await.good(), "applied  task/1  revision 3\n");
    assert_eq!(desk.run("rm task 2 --json").await.value()["outcome"], "applied");
    assert_eq!(desk.run("ls").await.good(), "");
    // As it was.
    assert_eq!(desk.run("get task 2 --revision 2 --json").await.value()["revision"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_to_the_last_record() {
    let desk = Desk::new().await;
    for batch in 0..3 {
        let put = |n: i32| put(&format!("m{n}"), &format!("{n:04}"), "{}");
        let mutations = (batch * 700..(batch + 1) * 700).map(put).collect();
        desk.house.alice.batch(mutations, false).await.unwrap();
    }
    let listed = desk.run("ls task --json").await.values();
    assert_eq!(listed.len(), 2_100);
    assert_eq!(listed[2_099]["id"], "2099");
    assert_eq!(desk.run("ls task --limit 1500").await.good().lines().count(), 1_500);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_record_are_changed() {
    let desk = Desk::new().await;
    desk.run(r#"put shop a {"stock":5,"at":{"city":"x","street":"y"},"price":1.5}"#).await.good();
    desk.run("put shop a --increment /stock=-2 --increment /price=0.25").await.good();
    desk.run("put shop a --unset /at/city").await.good();
    desk.run(r#"put shop a {"at":{"zip":1}} --patch"#).await.good();
    let document = desk.run("get shop a --json").await.value()["document"].take();
    assert_eq!(document, json!({"stock": 3, "price": 1.75, "at": {"street": "y", "zip": 1}}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_ends_with_a_code_of_its_own() {
    let desk = Desk::new().await;
    desk.run("put task 1 {}").await.good();
    let said = desk.run("put task 1 {} --if-new").await;
    assert!(said.ended(9).contains("ALREADY_EXISTS"), "{said:?}");
    assert!(said.stderr.contains("\nhint: leave out --if-new"), "{said:?}");
    assert_eq!(said.stdout, "rejected  task/1  ALREADY_EXISTS\n");
    let said = desk.run("put task 1 {} --if-new --json").await;
    assert_eq!(super::values(&said.stdout)[0]["rejection"]["reason"], "ALREADY_EXISTS");

    let said = desk.run("rm task 1 2 3").await;
    assert!(said.ended(8).contains("error: the deletion of task/2 was rejected"), "{said:?}");
    assert!(said.stderr.contains("error: the deletion of task/3 was rejected"), "{said:?}");
    assert_eq!(said.stdout.lines().count(), 3, "{said:?}");
    let said = desk.run("get task 1").await;
    assert!(said.ended(8).starts_with("error: cannot read task/1: "), "{said:?}");
    let said = desk.run("get task 1 --space users/bob").await;
    assert!(said.ended(8).contains("SPACE_NOT_FOUND"), "{said:?}");
    let bad = "x".repeat(200);
    let said = desk.run(&format!("put {bad} 1 {{}}")).await;
    assert!(said.ended(9).contains("collection"), "{said:?}");
    let said = desk.run("put task 1 {} --patch").await;
    assert!(said.ended(8).contains("NOT_FOUND"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_none_are_told_before_they_are_sent() {
    let desk = Desk::new().await;
    for (document, why) in [("[1]", "no JSON object"), ("{", "EOF"), ("nonsense", "expected")] {
        let said = desk.run(&format!("put task 1 {document}")).await;
        let text = said.ended(2);
        assert!(text.starts_with("error: the document is not usable: "), "{said:?}");
        assert!(text.contains(why) && text.contains("\nhint: "), "{said:?}");
    }
    let said = desk.pipe("put task 1", "").await;
    assert!(said.ended(2).contains("not usable"), "{said:?}");
    assert_eq!(desk.house.alice.head().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_tells_of_the_space_and_the_limits() {
    let desk = Desk::new().await;
    desk.run(r#"put task 1 {"a":1}"#).await.good();
    let text = desk.run("status").await.good();
    for expected in ["space  ", "users/alice\n", "head  ", "records  ", "message bytes  "] {
        assert!(text.contains(expected), "{expected:?} in {text}");
    }
    let column = text.lines().next().unwrap().find("users/alice").unwrap();
    assert!(text.lines().all(|it| it.as_bytes()[column - 1] == b' '), "aligned: {text}");
    let value = desk.run("status --json --device phone").await.value();
    assert_eq!(
        (&value["head"], &value["records"], &value["bytes"]),
        (&json!(1), &json!(1), &json!(7))
    );
    assert_eq!(value["limits"]["batch_mutations"], 1_000);
    assert_eq!(value["device_sequence"], 0);
}
