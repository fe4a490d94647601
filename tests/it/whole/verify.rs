//! `syncline verify` finds any single row that somebody has changed, and `syncline
//! compact` says what it has forgotten.

use std::process::Command;

use sqlx::{AssertSqlSafe, Executor};
use syncline::rpc::proto::Mutation;

use super::random_write;
use crate::support::{Database, Random, TestServer, put, seed};

/// What a command prints, and its exit code.
async fn run(database: &Database, line: &str) -> (String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    command.args(line.split(' ')).env("DATABASE_URL", &database.url).env("SYNCLINE_LOG", "off");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

/// Alice has many records, an open conflict and tombstones; bob has one record.
async fn filled() -> (Database, TestServer) {
    let database = Database::create().await;
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    let mut random = Random(seed());
    for number in 0..100 {
        alice.mutate(random_write(&mut random, number)).await.unwrap();
    }
    for id in ["first", "last"] {
        alice.mutate(put(id, "1", "{\"n\":1}")).await.unwrap();
    }
    let stale = Mutation { base: Some(0), ..put("stale", "1", "{}") };
    assert!(alice.mutate(stale).await.unwrap().conflict.is_some());
    server.client("bob").await.mutate(put("m", "1", "{}")).await.unwrap();
    (database, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_changed_row_is_found() {
    let (database, server) = filled().await;
    let whole = run(&database, "verify").await;
    assert!(whole.0.starts_with("no difference in 2 spaces, ") && whole.1 == 0, "{whole:?}");
    let mut connection = database.connect().await;
    let last = "(select revision from latest where collection = 'task' and id = '1'
        and space_id = (select id from spaces where name = 'users/alice'))";
    let space = "space_id = (select id from spaces where name = 'users/alice')";
    let rows = [
        ("update changes set document = '{\"n\":2}' where $space and revision = $last", "digest"),
        ("update changes set document = '{\"n\": 1}' where $space and revision = $last", "bytes"),
        ("update changes set document = '[1,22]*' where $space and revision = $last", "not one"),
        ("update changes set id = '77' where $space and revision = $last", "is a change of"),
        ("update changes set previous_revision = 0 where $space and revision = $last", "replaced"),
        ("update changes set previous_revision = 200 where $space and revision = $last", "follows"),
        ("delete from changes where $space and revision = $last", "is not there"),
        ("delete from changes where $space and revision = 50", ""),
        ("update latest set deleted = true where $space and revision = $last", "deleted"),
        ("update latest set bytes = 9 where $space and revision = $last", "9 bytes"),
        ("update latest set open_conflicts = 0 where $space and revision = $last", "conflicts"),
        ("delete from latest where $space and revision = $last", ""),
        ("update digests set records = records + 1 where $space and collection = 'task'", "digest"),
        ("update digests set digest = digest + 1 where $space and collection = 'note'", "digest"),
        ("delete from digests where $space and collection = 'task'", "has no digest"),
        ("delete from conflicts where $space", "conflicts"),
        ("update spaces set head = head + 1 where name = 'users/alice'", "head"),
        ("update spaces set head = head - 1 where name = 'users/alice'", "head"),
        ("update spaces set floor = head + 1 where name = 'users/alice'", "floor"),
    ];
    for (tampering, words) in rows {
        let sql = tampering.replace("$space", space).replace("$last", last);
        let kept = ["spaces", "changes", "latest", "digests", "conflicts"];
        for table in kept {
            let sql = format!("create table kept_{table} as select * from {table}");
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        let touched = connection.execute(AssertSqlSafe(sql)).await.unwrap().rows_affected();
        assert_eq!(touched, 1, "{tampering}");
        let (text, code) = run(&database, "verify").await;
        assert_eq!(code, 1, "{tampering}");
        assert!(text.starts_with("users/alice: ") && text.contains(words), "{tampering}: {text}");
        assert_eq!(run(&database, "verify --space users/bob").await.1, 0);
        for table in kept {
            let sql = format!(
                "delete from {table}; insert into {table} select * from kept_{table};
                 drop table kept_{table}"
            );
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        assert_eq!(run(&database, "verify").await, whole, "after {tampering}");
    }
    assert_eq!(run(&database, "verify --space users/carol").await.1, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compact_says_what_it_has_forgotten() {
    let (database, server) = filled().await;
    server.stop().await;
    let line = "compact --log-retention 0s --tombstone-retention 0s --device-wait 0s";
    let (text, code) = run(&database, line).await;
    assert!(text.starts_with("raised the floors of 2 spaces; forgot ") && code == 0, "{text}");
    let (text, _) = run(&database, line).await;
    assert_eq!(
        text,
        "raised the floors of 0 spaces; forgot 0 changes, 0 tombstones, 0 answers and 0 conflicts\n"
    );
    assert_eq!(run(&database, "verify").await.1, 0);
}
