//! The errors of a server whose database is well, or damaged, or slow.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use syncline::rpc::proto::{
    BatchMutateRequest, ChangesSinceRequest, Cursor, GetRecordRequest, GetStatusRequest,
    ListRecordsRequest, MutateRequest, Mutation, RecordKey,
};
use tokio::task::JoinSet;
use tonic::Status;

use super::Table;
use crate::support::raw::{End, Http2, framed, message, mutate_bytes, post};
use crate::support::{Client, Database, House, key, mint_for, mutation, put};

/// The status of a call that must fail.
macro_rules! failed {
    ($client:expr, $method:ident, $request:expr) => {
        $client.stub.clone().$method($request).await.map(|_| ()).unwrap_err()
    };
}

async fn invalid_requests(table: &mut Table, alice: &Client) {
    let mutate = |mutation| MutateRequest { mutation, ..Default::default() };
    let bare = Mutation { id: "m".into(), ..Default::default() };
    for (what, request) in [
        ("Mutate nothing", mutate(None)),
        ("Mutate without id", mutate(Some(put("", "1", "{}")))),
        ("Mutate without key and operation", mutate(Some(bare))),
        ("Mutate with an array", mutate(Some(put("m", "1", "[]")))),
        (
            "Mutate for a device with a space",
            MutateRequest { device: "a b".into(), ..mutate(Some(put("m", "1", "{}"))) },
        ),
        (
            "Mutate with a form that is none",
            MutateRequest { document_form: 9, ..mutate(Some(put("m", "1", "{}"))) },
        ),
    ] {
        table.row(what, &failed!(alice, mutate, request));
    }
    let batch = |mutations| BatchMutateRequest { mutations, atomic: true, ..Default::default() };
    let bad =
        |n: i32| Mutation { base: Some(-1), ..put(&format!("m{n}"), "", "{\"a\":1,\"a\":2}") };
    for (what, request) in [
        ("BatchMutate nothing", batch(Vec::new())),
        ("BatchMutate one id twice", batch(vec![put("m", "1", "{}"), put("m", "1", "{}")])),
        ("BatchMutate two with three faults", batch(vec![bad(0), bad(1)])),
        ("BatchMutate a thousand with faults", batch((0..1_000).map(bad).collect())),
    ] {
        let status = failed!(alice, batch_mutate, request);
        table.row(what, &status);
    }
    let list =
        ListRecordsRequest { page_size: -1, collection: "task".into(), ..Default::default() };
    table.row("ListRecords of -1", &failed!(alice, list_records, list));
    let list = ListRecordsRequest { collection: "a\0b".into(), ..Default::default() };
    table.row("ListRecords of a name with NUL", &failed!(alice, list_records, list));
    let token = "forged".to_owned();
    let list =
        ListRecordsRequest { page_token: token, collection: "task".into(), ..Default::default() };
    table.row("ListRecords by a forged token", &failed!(alice, list_records, list));
    let cursor = Some(Cursor { epoch: String::new(), revision: -1 });
    let since =
        ChangesSinceRequest { cursor, collections: vec![String::new()], ..Default::default() };
    table.row("ChangesSince -1", &failed!(alice, changes_since, since));
    let get = GetRecordRequest { key: Some(RecordKey::default()), ..Default::default() };
    table.row("GetRecord without a name", &failed!(alice, get_record, get));
    let get = GetRecordRequest { key: None, ..Default::default() };
    table.row("GetRecord without a key", &failed!(alice, get_record, get));
}

async fn refused_requests(table: &mut Table, house: &House) {
    let alice = &house.alice;
    let nobody = Client::connect(house.server.address(), "no.good.token").await;
    table.row("a bad token", &failed!(nobody, get_status, GetStatusRequest::default()));
    let expired =
        Client::connect(house.server.address(), &crate::bad_inputs::expired_token()).await;
    table.row("an expired token", &failed!(expired, get_status, GetStatusRequest::default()));
    let foreign = GetStatusRequest { space: "users/bob".into(), ..Default::default() };
    table.row("another's space", &failed!(alice, get_status, foreign));
    let get = |id: &str| GetRecordRequest { key: Some(key(id)), ..Default::default() };
    table.row("a record that never was", &failed!(alice, get_record, get("1")));
    alice.mutate(put("m1", "1", "{}")).await.unwrap();
    let delete = syncline::rpc::proto::mutation::Operation::Delete(Default::default());
    alice.mutate(mutation("m2", "1", delete)).await.unwrap();
    table.row("a deleted record", &failed!(alice, get_record, get("1")));
    let reused = alice.mutate(put("m1", "1", r#"{"n":2}"#)).await.unwrap_err();
    table.row("an id used again", &reused);
    let gap = MutateRequest {
        device: "phone".into(),
        mutation: Some(Mutation { device_sequence: Some(3), ..put("m3", "1", "{}") }),
        ..Default::default()
    };
    table.row("a gap in a queue", &failed!(alice, mutate, gap));
    let epoch = alice.stub.clone().get_status(GetStatusRequest::default()).await.unwrap();
    let epoch = epoch.into_inner().epoch;
    let since = |epoch: &str, revision| ChangesSinceRequest {
        cursor: Some(Cursor { epoch: epoch.into(), revision }),
        ..Default::default()
    };
    table.row("a cursor ahead", &failed!(alice, changes_since, since(&epoch, 3)));
    let other = uuid::Uuid::nil().to_string();
    table.row("a cursor of another epoch", &failed!(alice, changes_since, since(&other, 1)));
    let mut connection = house.database.connect().await;
    connection.execute("update spaces set floor = 2").await.unwrap();
    table.row("an expired cursor", &failed!(alice, changes_since, since(&epoch, 1)));
}

/// Keeps everybody else from writing to any space, until it is dropped.
struct Locked(PgConnection);

impl Locked {
    async fn all(database: &Database) -> Self {
        let mut connection = database.connect().await;
        connection.execute("begin; select * from spaces for update").await.unwrap();
        Self(connection)
    }

    async fn release(mut self) {
        self.0.execute("rollback").await.unwrap();
        self.0.close().await.unwrap();
    }
}

async fn broken_framing(table: &mut Table, house: &House) {
    let client = Http2::connect(house.server.address()).await;
    let valid = mutate_bytes(put("framing", "1", "{}"));
    for (what, body) in [
        ("a message declared as 5 MiB", framed(0, 5 << 20, &valid)),
        ("bytes that are no protobuf", message(&[0xff; 8])),
        ("a message cut short", framed(0, 100, &valid)),
        ("no message", Vec::new()),
    ] {
        let answer = client.call(post("Mutate"), body, End::Said).await.unwrap();
        table.row(what, &answer.status.unwrap());
    }
    let locked = Locked::all(&house.database).await;
    let request = post("Mutate").header("grpc-timeout", "100m");
    let answer = client.call(request, message(&valid), End::Said).await.unwrap();
    table.row("a deadline of 100 ms on a locked space", &answer.status.unwrap());
    locked.release().await;
    // It was taken before the deadline passed, so it is decided all the same.
    let again = house.alice.mutate(put("framing", "1", "{}")).await.unwrap();
    assert_eq!(again.revision, 3);
}

/// 2.9 MiB that are cheap to refuse, as one invalid mutation.
fn heavy(n: usize) -> BatchMutateRequest {
    let mutations = vec![put(&format!("heavy{n}"), "1", &" ".repeat(2_970 << 10))];
    BatchMutateRequest { mutations, ..Default::default() }
}

/// More than may wait, all at once, behind a lock: the first refusal.
async fn overload(house: &House) -> Status {
    let locked = Locked::all(&house.database).await;
    let mut calls = JoinSet::new();
    for n in 0..24 {
        let client = house.alice.clone();
        calls.spawn(async move { client.stub.clone().batch_mutate(heavy(n)).await });
    }
    let first = calls.join_next().await.unwrap().unwrap().unwrap_err();
    locked.release().await;
    let mut refused = 1;
    while let Some(answer) = calls.join_next().await {
        refused += usize::from(answer.unwrap().is_err());
    }
    assert!(refused < 4, "{refused} of 24 were refused");
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_what_the_table_says() {
    let mut table = Table::default();
    let house = House::new().await;
    invalid_requests(&mut table, &house.alice).await;
    refused_requests(&mut table, &house).await;
    broken_framing(&mut table, &house).await;
    table.row("more than may wait", &overload(&house).await);
    // A damaged schema, as a bug of ours would show.
    let mut connection = house.database.connect().await;
    for name in ["changes", "latest"] {
        let sql = format!("alter table {name} rename to {name}_gone");
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    let get = GetRecordRequest { key: Some(key("1")), ..Default::default() };
    table.row("a bug, reading", &failed!(house.alice, get_record, get));
    table.row("a bug, writing", &house.alice.mutate(put("m9", "1", "{}")).await.unwrap_err());
    insta::assert_snapshot!("errors", table.0);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_passes_where_a_short_one_has_ended() {
    let house = House::new().await;
    let address = house.server.address();
    let short = Client::connect(address, &mint_for("alice", Duration::from_secs(60))).await;
    short.mutate(put("m", "1", "{}")).await.unwrap();
    house.server.stop().await;
}
