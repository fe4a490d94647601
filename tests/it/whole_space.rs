//! Everything of a space or a user: taken out, put in again, taken away without a trace.

mod bounds;
mod traces;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sqlx::{PgConnection, Row};
use syncline::clock::Clock;
use syncline::rpc::proto::import_space_request::Part;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    BatchMutateRequest, ChangesSinceRequest, CreateSpaceRequest, Cursor, EnqueueRequest,
    EraseSpaceRequest, EraseUserRequest, ExportSpaceRequest, ExportUserRequest, GetStatusRequest,
    ImportSpaceBegin, ImportSpaceRequest, ImportSpaceResponse, Mutation, RecordKey, Role,
    SetMemberRequest, SubscribeFrame,
};
use tonic::{Request, Status, Streaming};

use crate::support::{
    Client, Database, Stream, TestServer, describe, mint_granted, put, subscribe_frame, wait_for,
};

/// Stands in whatever is to be erased.
const CANARY: &str = "canary7";

struct House {
    database: Database,
    server: TestServer,
    /// Whose everything it is; her name is a canary.
    canary: Client,
    bob: Client,
    /// Of the canary, with bob.
    space: String,
}

fn put_of(collection: &str, id: &str, record: &str, text: &str) -> Mutation {
    let key = RecordKey { collection: collection.into(), id: record.into() };
    Mutation { key: Some(key), ..put(id, record, text) }
}

async fn write(client: &Client, space: &str, device: &str, mutations: Vec<Mutation>) {
    let (space, device) = (space.to_owned(), device.to_owned());
    let request = BatchMutateRequest { space, device, mutations, ..Default::default() };
    client.stub.clone().batch_mutate(request).await.unwrap();
}

impl House {
    /// All kinds of rows, with a canary in each place that a client fills.
    async fn new() -> Self {
        let database = Database::create().await;
        let server = TestServer::start(&database).await;
        let canary = server.client(CANARY).await;
        let bob = server.client("bob").await;
        let create = CreateSpaceRequest {
            request_id: "r".into(),
            title: format!("The {CANARY}"),
            ..Default::default()
        };
        let created = canary.spaces.clone().create_space(create).await.unwrap().into_inner();
        let space = created.space.unwrap().space;
        let set = SetMemberRequest {
            space: space.clone(),
            user: "bob".into(),
            role: Role::Admin.into(),
            collections: Vec::new(),
        };
        canary.spaces.clone().set_member(set).await.unwrap();
        let house = Self { database, server, canary, bob, space };
        for space in ["", house.space.as_str()] {
            house.fill(&house.canary, space).await;
        }
        house
    }

    async fn fill(&self, client: &Client, space: &str) {
        let device = format!("{CANARY}-phone");
        let id = |name: &str| format!("{CANARY}-{name}");
        let document = format!(r#"{{"text":"{CANARY}","large":12345678901234567890,"x":1.50}}"#);
        let sequenced =
            |mutation: Mutation, number| Mutation { device_sequence: Some(number), ..mutation };
        let first = put_of(&id("notes"), &id("m1"), &id("1"), &document);
        let second = put_of(&id("notes"), &id("m2"), &id("1"), r#"{"text":"second"}"#);
        let kept = put_of("task", &id("m3"), "kept", &document);
        let mutations = vec![sequenced(first, 1), sequenced(second, 2), sequenced(kept, 3)];
        write(client, space, &device, mutations).await;
        // A conflict, an answer that no change stands for, an entry in the queue.
        let stale =
            Mutation { base: Some(0), ..put_of(&id("notes"), &id("m4"), &id("1"), &document) };
        write(client, space, &format!("{CANARY}-desk"), vec![stale]).await;
        let enqueue = EnqueueRequest {
            space: space.into(),
            device: device.clone(),
            mutations: vec![Mutation {
                base: Some(0),
                ..put_of(&id("notes"), &id("m5"), &id("1"), &document)
            }],
        };
        client.queue.clone().enqueue(enqueue).await.unwrap();
        let mut connection = self.database.connect().await;
        wait_for("the queue to be dealt with", async || {
            let sql = "select count(*) from queue where state = 1";
            let waits: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
            (waits == 0).then_some(())
        })
        .await;
        let mut stream = Stream::open(client).await.unwrap();
        let frame = SubscribeFrame { space: space.into(), device, ..subscribe_frame("s", None) };
        stream.subscribe(frame).await;
        let up_to = loop {
            if let Frame::CaughtUp(frame) = stream.frame().await {
                break frame.up_to;
            }
        };
        let ack = syncline::rpc::proto::AckFrame { subscription_id: "s".into(), revision: up_to };
        stream.send(syncline::rpc::proto::subscribe_request::Frame::Ack(ack)).await;
        wait_for("the acknowledgement", async || {
            let sql = "select count(*) from acknowledgements a join spaces s on s.id = a.space_id
                where s.name = $1 and a.revision = $2";
            let name = if space.is_empty() { format!("users/{CANARY}") } else { space.to_owned() };
            let query = sqlx::query_scalar(sql).bind(name).bind(up_to);
            let count: i64 = query.fetch_one(&mut connection).await.unwrap();
            (count == 1).then_some(())
        })
        .await;
    }
}

/// Where the canary is: in which tables, and how often.
async fn found(connection: &mut PgConnection, what: &str) -> BTreeMap<String, i64> {
    let sql = "select tablename from pg_tables where schemaname = 'public' order by tablename";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *connection).await.unwrap();
    assert!(tables.len() > 15, "{tables:?}");
    let mut found = BTreeMap::new();
    for table in tables {
        // Bytes stand as hexadecimal digits in a row's text.
        let hex: String = what.bytes().map(|byte| format!("{byte:02x}")).collect();
        let sql = format!(
            "select count(*) from \"{table}\" t where t::text like '%{what}%' or t::text like '%{hex}%'"
        );
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql));
        let count: i64 = query.fetch_one(&mut *connection).await.unwrap();
        if count > 0 {
            found.insert(table, count);
        }
    }
    found
}

/// All parts of an export, whatever the messages are.
async fn whole_text<M>(mut parts: Streaming<M>, lines: fn(M) -> Bytes) -> Result<String, Status> {
    let mut text = String::new();
    while let Some(part) = parts.message().await? {
        let lines = lines(part);
        assert!(lines.ends_with(b"\n"));
        text.push_str(str::from_utf8(&lines).unwrap());
    }
    Ok(text)
}

async fn exported_text(client: &Client, space: &str) -> Result<String, Status> {
    let request = ExportSpaceRequest { space: space.into() };
    let parts = client.spaces.clone().export_space(request).await?.into_inner();
    whole_text(parts, |part| part.lines).await
}

async fn exported_user(client: &Client) -> Vec<Value> {
    let request = ExportUserRequest::default();
    let parts = client.spaces.clone().export_user(request).await.unwrap().into_inner();
    lines(&whole_text(parts, |part| part.lines).await.unwrap())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn counts(lines: &[Value]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line["type"].as_str().unwrap()).or_default() += 1;
    }
    counts
}

async fn import(
    client: &Client,
    (space, id): (&str, &str),
    text: &str,
) -> Result<ImportSpaceResponse, Status> {
    let begin = ImportSpaceBegin { space: space.into(), id: id.into(), with_members: true };
    let mut parts = vec![Part::Begin(begin)];
    // Cut between lines, wherever.
    let lines: Vec<_> = text.lines().collect();
    parts.extend(lines.chunks(3).map(|some| Part::Lines(some.join("\n").into())));
    let parts = parts.into_iter().map(|part| ImportSpaceRequest { part: Some(part) });
    let request = Request::new(tokio_stream::iter(parts));
    Ok(client.spaces.clone().import_space(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_has_everything_and_can_be_read_back() {
    let house = House::new().await;
    let lines = lines(&exported_text(&house.canary, &house.space).await.unwrap());
    let expected = BTreeMap::from([
        ("export", 1),
        ("record", 2),
        ("member", 2),
        ("change", 4),
        ("conflict", 1),
        ("answer", 1),
        ("device", 1),
        ("acknowledgement", 1),
        ("queued", 1),
        ("audit", 3),
        ("end", 1),
    ]);
    assert_eq!(counts(&lines), expected);
    assert_eq!(lines[0]["space"], house.space);
    assert_eq!(lines.last().unwrap()["lines"], lines.len() - 1);
    let audit = lines.iter().rfind(|it| it["type"] == "audit").unwrap();
    assert_eq!((&audit["action"], &audit["actor"]), (&"space_exported".into(), &CANARY.into()));
    // No number loses a digit.
    let text = exported_text(&house.canary, &house.space).await.unwrap();
    let exact = format!(r#"{{"large":12345678901234567890,"text":"{CANARY}","x":1.5}}"#);
    let of = |kind: &str| {
        let lines = text.lines().filter(|line| line.contains(&format!("\"{kind}\"")));
        lines.filter(|line| line.contains(&exact)).count()
    };
    assert_eq!((of("record"), of("change"), of("conflict")), (2, 3, 1), "{text}");

    // Read back into another space, of which carol is the admin.
    let carol = house.server.client("carol").await;
    let create =
        CreateSpaceRequest { request_id: "r".into(), title: "Copy".into(), ..Default::default() };
    let copy = carol.spaces.clone().create_space(create).await.unwrap().into_inner();
    let copy = copy.space.unwrap().space;
    write(&carol, &copy, "", vec![put("old", "old", "{}")]).await;
    let imported = import(&carol, (&copy, "i1"), &text).await.unwrap();
    assert_eq!((imported.created, imported.deleted, imported.members), (2, 1, 2));
    let again = import(&carol, (&copy, "i2"), &text).await.unwrap();
    assert_eq!((again.created, again.unchanged), (0, 2));
    let digest = async |client: &Client, space: &str| {
        let request = GetStatusRequest { space: space.into(), digest: true, ..Default::default() };
        client.stub.clone().get_status(request).await.unwrap().into_inner().digest.unwrap()
    };
    let (original, copied) =
        (digest(&house.canary, &house.space).await, digest(&house.bob, &copy).await);
    assert_eq!(original.digest, copied.digest);

    for (broken, expected) in [
        (text.lines().skip(1).collect::<Vec<_>>().join("\n"), "lines[0]"),
        (text.lines().take(4).collect::<Vec<_>>().join("\n"), "lines"),
        (text.replacen("\"format\":1", "\"format\":2", 1), "lines[0]"),
        (text.replacen("\"document\":{", "\"document\":[{", 1), "lines[1]"),
    ] {
        let status = import(&carol, (&copy, "broken"), &broken).await.unwrap_err();
        assert_eq!(describe(&status), format!("InvalidArgument VALIDATION_ERROR {expected}"));
    }
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_takes_out_what_is_kept_of_them_everywhere() {
    let house = House::new().await;
    let lines = exported_user(&house.canary).await;
    let counts = counts(&lines);
    for (kind, count) in [("record", 2), ("membership", 1), ("written", 4), ("mention", 2)] {
        assert_eq!(counts.get(kind), Some(&count), "{kind}: {counts:?}");
    }
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_is_in_no_table_and_returning_clients_are_told() {
    let house = House::new().await;
    let mut connection = house.database.connect().await;
    let before = found(&mut connection, CANARY).await;
    for table in
        ["latest", "changes", "answers", "devices", "conflicts", "queue", "acknowledgements"]
    {
        assert!(before.contains_key(table), "the canary is not in {table}: {before:?}");
    }
    // The server's log has entries that name her.
    let token = mint_granted(CANARY, &["policies"], Duration::from_hours(1), &Clock::system());
    let setter = Client::connect(house.server.address(), &token).await;
    let policy = syncline::rpc::proto::Policy { collection: "task".into(), ..Default::default() };
    setter.set_policy(policy).await.unwrap();
    let epoch = async |space: &str| {
        let request = GetStatusRequest { space: space.into(), ..Default::default() };
        let status = house.canary.stub.clone().get_status(request).await?.into_inner();
        Ok::<_, Status>((status.epoch, status.head))
    };
    let (old_epoch, head) = epoch("").await.unwrap();
    let replica = TestServer::start(&house.database).await;
    let elsewhere = replica.client(CANARY).await;
    let mut stream = Stream::open(&elsewhere).await.unwrap();
    stream.subscribe(subscribe_frame("own", None)).await;
    while !matches!(stream.frame().await, Frame::CaughtUp(_)) {}

    let confirm = |confirm: &str| EraseUserRequest { user: String::new(), confirm: confirm.into() };
    let mut stub = house.canary.spaces.clone();
    let status = stub.erase_user(confirm("bob")).await.unwrap_err();
    assert_eq!(describe(&status), "InvalidArgument VALIDATION_ERROR confirm");
    let erased = stub.erase_user(confirm(CANARY)).await.unwrap().into_inner();
    assert_eq!((erased.records, erased.changes, erased.memberships), (2, 4, 1));
    assert!(erased.spaces_without_admin.is_empty(), "bob is one");
    // Her stream at another replica is told.
    loop {
        match stream.frame().await {
            Frame::ResyncRequired(frame) => {
                assert_ne!(frame.epoch, old_epoch);
                break;
            }
            Frame::Access(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // What the shared space holds stays, by nobody who has a name.
    let left = found(&mut connection, &format!("\"{CANARY}\"")).await;
    let named = [
        "select count(*) from changes where author = $1 or actor = $1",
        "select count(*) from conflicts where author = $1 or server_author = $1",
        "select count(*) from queue where author = $1 or actor = $1",
        "select count(*) from acknowledgements where author = $1",
        "select count(*) from devices where author = $1",
        "select count(*) from members where user_id = $1 or granted_by = $1",
        "select count(*) from policies where author = $1",
        "select count(*) from audit where actor = $1 or subject = $1 or details like '%\"' || $1 || '\"%'",
    ];
    for sql in named {
        let count: i64 =
            sqlx::query_scalar(sql).bind(CANARY).fetch_one(&mut connection).await.unwrap();
        assert_eq!(count, 0, "{sql}; {left:?}");
    }
    // A cursor of before is told.
    let cursor = Some(Cursor { epoch: old_epoch.clone(), revision: head });
    let since = ChangesSinceRequest { cursor, ..Default::default() };
    let status = house.canary.stub.clone().changes_since(since).await.unwrap_err();
    assert!(describe(&status).starts_with("FailedPrecondition EPOCH_CHANGED"), "{status:?}");
    assert_eq!(epoch("").await.unwrap().1, 0);

    nothing_is_left_of_the_shared_space_either(&house).await;
    replica.stop().await;
    house.server.stop().await;
}

/// The shared space goes as well: then nothing is left at all.
async fn nothing_is_left_of_the_shared_space_either(house: &House) {
    let mut connection = house.database.connect().await;
    let erase = EraseSpaceRequest { space: house.space.clone(), confirm: house.space.clone() };
    house.bob.spaces.clone().erase_space(erase).await.unwrap();
    let sql = "delete from spaces where name = 'users/' || $1";
    sqlx::query(sql).bind(CANARY).execute(&mut connection).await.unwrap();
    assert_eq!(found(&mut connection, CANARY).await, BTreeMap::new());
    let request = GetStatusRequest { space: house.space.clone(), ..Default::default() };
    let status = house.bob.stub.clone().get_status(request).await.unwrap_err();
    assert_eq!(describe(&status), "NotFound SPACE_NOT_FOUND");
    // The fact is kept, and the log holds together.
    let sql = "select action, actor from audit order by number desc limit 2";
    let facts = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
    let facts: Vec<(String, Option<String>)> =
        facts.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [("space_erased".into(), Some("bob".into())), ("user_erased".into(), None)];
    assert_eq!(facts, expected);
    let verified = house.database.store().await.verify(None).await.unwrap();
    assert!(verified.is_ok(), "{verified:?}");
}

/// A table that is added later must be thought of.
#[tokio::test(flavor = "multi_thread")]
async fn every_table_of_spaces_is_erased() {
    let database = Database::create().await;
    let mut connection = database.connect().await;
    let sql = "select table_name::text from information_schema.columns c
        join pg_tables t on t.tablename = c.table_name and t.schemaname = 'public'
        where column_name = 'space_id' order by 1";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
    let source = include_str!("../../src/store/erase.rs");
    for table in tables {
        // It names nobody, and tells other replicas what to forget.
        let erased = table == "access_changes"
            || source.contains(&format!("delete from {table} where space_id = $1"));
        assert!(erased, "{table} is not erased with its space");
    }
}
