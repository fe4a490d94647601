//! What an older server has written is there after the migration, with what newer
//! ones need to know of it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, Executor, PgConnection, SqlSafeStr};
use syncline::clock::Clock;
use syncline::domain::{CollectionName, Digest, Document, RecordId, RecordKey, Space, UserId};
use syncline::rpc::proto::{Mutation, MutationOutcome};

use crate::support::{Database, TestServer, json, put, wait_for};

/// Two devices have written record 1, and one of them has deleted record 2.
const WRITTEN: &str = "
    insert into changes (space_id, revision, collection, id, action, document, previous_revision,
        author, device, mutation_id, fingerprint, committed_at)
    select s.id, v.revision, 'task', v.record, v.action, v.document, v.previous, 'alice', v.device,
        'm' || v.revision, '\\x00', '2026-01-31 12:00:00+00'
    from spaces s, (values
        (1, '1', 1, '{\"n\":1}', 0, 'desk'),
        (2, '1', 2, '{\"n\":2}', 1, 'phone'),
        (3, '2', 1, '{}', 0, null),
        (4, '2', 3, null, 3, 'desk')
    ) v (revision, record, action, document, previous, device);
    insert into latest (space_id, collection, id, revision, foreign_revision, deleted, bytes)
    select s.id, 'task', v.record, v.revision, v.other, v.deleted, 7
    from spaces s, (values ('1', 2, 1, false), ('2', 4, 3, true))
        v (record, revision, other, deleted);
    update spaces set head = 4";

/// A database as an older server left it, after so many migrations, with alice's space.
async fn old(database: &Database, migrations: usize) -> PgConnection {
    let mut old = database.connect().await;
    let mut files: Vec<_> = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let migration = |(version, file): (i64, &PathBuf)| {
        let sql = AssertSqlSafe(fs::read_to_string(file).unwrap()).into_sql_str();
        Migration::new(version, "".into(), MigrationType::Simple, sql, false)
    };
    let known = (1..).zip(&files).take(migrations).map(migration);
    Migrator::with_migrations(known.collect()).run(&mut old).await.unwrap();
    let space = Space::private(&UserId::parse("alice").unwrap());
    sqlx::query("insert into spaces (id, name, epoch) values ($1, $2, gen_random_uuid())")
        .bind(space.id.0)
        .bind(space.name())
        .execute(&mut old)
        .await
        .unwrap();
    old
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_server_wrote_has_versions_and_a_history() {
    let database = Database::unmigrated().await;
    old(&database, 1).await.execute(WRITTEN).await.unwrap();
    assert_eq!(database.store().await.migrate().await.unwrap(), 9);

    // What it wrote is old.
    let server = TestServer::start_with(&database, Clock::system(), |config| {
        config.retention.log_retention = Duration::from_hours(24 * 36_500);
    });
    let server = server.await;
    let alice = server.client("alice").await;
    let request = syncline::rpc::proto::GetStatusRequest { digest: true, ..Default::default() };
    let status = alice.stub.clone().get_status(request).await.unwrap().into_inner();
    let key = RecordKey {
        collection: CollectionName::parse("task").unwrap(),
        id: RecordId::parse("1").unwrap(),
    };
    let digest = Digest::of(&key, &Document::from_json(b"{\"n\":2}").unwrap());
    let told = status.digest.unwrap();
    assert_eq!((told.records, told.digest.to_vec()), (1, digest.to_bytes().to_vec()));
    let request = syncline::rpc::proto::ChangesSinceRequest {
        every_step: true,
        ..syncline::rpc::proto::ChangesSinceRequest::default()
    };
    let changes = alice.stub.clone().changes_since(request).await.unwrap().into_inner().changes;
    let shown: Vec<_> = changes
        .iter()
        .map(|it| {
            let history = it.history.iter().map(|it| format!("{}:{}", it.device, it.revision));
            let history = history.collect::<Vec<_>>().join(" ");
            format!("{} after {} by {history}", it.version, it.parents.join(" "))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "1769860800000001-desk-0 after  by desk:1",
            "1769860800000002-phone-0 after 1769860800000001-desk-0 by :1 phone:2",
            "1769860800000003--0 after  by :3",
            "1769860800000004-desk-0 after 1769860800000003--0 by :3 desk:4",
        ]
    );
    // Whoever wrote last does not conflict with itself, whoever wrote before does.
    let based =
        |id: &str, record: &str, base| Mutation { base: Some(base), ..put(id, record, "{}") };
    for (device, mutation, expected) in [
        ("tablet", based("t", "1", 1), MutationOutcome::Conflict),
        ("phone", based("p", "1", 1), MutationOutcome::Applied),
        ("tablet", based("u", "2", 3), MutationOutcome::Conflict),
        ("desk", based("d", "2", 3), MutationOutcome::Applied),
    ] {
        let name = mutation.id.clone();
        let result = alice.mutate_from(device, mutation).await.unwrap();
        assert_eq!(result.outcome(), expected, "{name}");
        if let Some(conflict) = result.conflict {
            let base = if name == "t" { json(r#"{"n":1}"#) } else { json("{}") };
            assert_eq!((conflict.base, conflict.base_known), (base, true));
        }
    }
    server.stop().await;
}

/// One entry has been tried, and its lane is not due yet; the other one is behind it.
const ENQUEUED: &str = "
    insert into queue (space_id, mutation_id, number, device, author, payload, fingerprint, state,
        attempts, reason, message, enqueued_at, updated_at)
    select s.id, v.id, nextval('queue_numbers'), 'phone', 'alice', v.payload, sha256(v.payload), 1,
        v.attempts, v.reason, v.reason, now(), now()
    from spaces s, (values ('a', $1::bytea, 1, 'SYNC_FAILED'), ('b', $2::bytea, 0, null))
        v (id, payload, attempts, reason);";
const LANE: &str = "insert into lanes (space_id, device, due_at, enqueued)
    select id, 'phone', now() + interval '1 second', 2 from spaces";

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_server_had_enqueued_is_applied() {
    let database = Database::unmigrated().await;
    let mut connection = old(&database, 7).await;
    let payload = |id: &str, text: &str| put(id, "1", text).encode_to_vec();
    let query = sqlx::query(ENQUEUED).bind(payload("a", "{}")).bind(payload("b", "{\"n\":1}"));
    query.execute(&mut connection).await.unwrap();
    connection.execute(LANE).await.unwrap();
    assert_eq!(database.store().await.migrate().await.unwrap(), 3);
    let server = TestServer::start(&database).await;
    let alice = server.client("alice").await;
    wait_for("both to be applied", async || (alice.head().await == 2).then_some(())).await;
    assert_eq!(alice.task("1").await.unwrap(), "{\"n\":1}");
    server.stop().await;
}

/// In a private space and a shared one; of one device nothing is in the log any more.
const SEQUENCED: &str = "
    insert into spaces (id, name, epoch, title, head) values
        ('00000000-0000-4000-8000-000000000001', 'spaces/shared', gen_random_uuid(), 'Shared', 2);
    insert into changes (space_id, revision, collection, id, action, document, previous_revision,
        author, device, mutation_id, fingerprint, committed_at, micros, sequence)
    select s.id, v.revision, 'task', v.id, 1, '{}', 0, v.author, 'phone', v.id, '\\x00', now(), 1, 1
    from spaces s, (values (1, 'a', 'carol'), (2, 'b', 'bob')) v (revision, id, author)
    where s.name = 'spaces/shared';
    insert into devices (space_id, device, sequence, updated_at)
    select id, 'phone', 5, now() from spaces;
    insert into devices (space_id, device, sequence, updated_at)
    select id, 'desk', 7, now() from spaces where name = 'spaces/shared';
    insert into acknowledgements (space_id, author, device, revision, updated_at)
    select space_id, 'carol', device, 1, now() from devices where device = 'desk';";

#[tokio::test(flavor = "multi_thread")]
async fn devices_belong_to_who_wrote_with_them_last() {
    let database = Database::unmigrated().await;
    let mut connection = old(&database, 9).await;
    connection.execute(SEQUENCED).await.unwrap();
    assert_eq!(database.store().await.migrate().await.unwrap(), 1);
    let sql = "select d.author || ' ' || d.sequence from devices d order by 1";
    let devices: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
    assert_eq!(devices, ["alice 5", "bob 5", "carol 7"]);
}
