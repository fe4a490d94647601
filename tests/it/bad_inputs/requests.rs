//! Rows 59 to 70, 76 and 77: requests whose parts do not fit together.

use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::subscribe_request::Frame::Subscribe;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    ChangesSinceRequest, CreateOperation, Cursor, DeleteOperation, DocumentForm, GetRecordRequest,
    ListRecordsRequest, MutateRequest, Mutation, PatchOperation, SubscribeRequest,
};
use tonic::Status;

use super::House;
use crate::support::{describe, json, key, mutation, put, show, subscribe_frame};

const INVALID: &str = "InvalidArgument VALIDATION_ERROR";

/// All results on one line, or the status.
fn line(answer: Result<Vec<syncline::rpc::proto::MutationResult>, Status>) -> String {
    match answer {
        Ok(results) => results.iter().map(show).collect::<Vec<_>>().join(", "),
        Err(status) => describe(&status),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_counted_and_their_ids_compared() {
    let house = House::new().await;
    let many = |n: i32| (0..n).map(|n| put(&format!("m{n}"), "1", "{}")).collect::<Vec<_>>();
    for (row, batch, expected) in [
        ("59 empty", many(0), format!("{INVALID} mutations")),
        ("59 too many", many(1_001), format!("{INVALID} mutations")),
        ("61 one id twice", vec![put("m", "1", "{}"); 2], format!("{INVALID} mutations[1].id")),
        ("60 one record twice", many(2), "applied 1, applied 2".into()),
    ] {
        let seen = line(house.alice.batch(batch, false).await);
        house.check(row, &seen, &expected).await;
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutation_ids_and_bases_keep_their_rules() {
    let house = House::new().await;
    house.alice.mutate(put("first", "1", r#"{"n":1}"#)).await.unwrap();
    house.alice.mutate(put("second", "1", r#"{"n":2}"#)).await.unwrap();
    let delete = |task: &str| mutation("m", task, Operation::Delete(DeleteOperation {}));
    let set = json("{}");
    let patch = || Operation::Patch(PatchOperation { set: set.clone(), ..Default::default() });
    let create = |task: &str| {
        mutation("c", task, Operation::Create(CreateOperation { document: json("{}") }))
    };
    let based = |mutation: Mutation, base| Mutation { base: Some(base), ..mutation };
    let id = format!("{INVALID} mutation.id");
    let base = format!("{INVALID} mutation.base");
    let reused = "FailedPrecondition MUTATION_ID_REUSED index=0 mutation_id=first";
    for (row, mutation, expected) in [
        ("62 no id", put("", "1", "{}"), id.as_str()),
        ("62 id of 129 bytes", put(&"x".repeat(129), "1", "{}"), &id),
        ("62 id with a space", put("a b", "1", "{}"), &id),
        ("62 id that is not ASCII", put("é", "1", "{}"), &id),
        ("62 id with NUL", put("a\0", "1", "{}"), &id),
        ("63 id used for another document", put("first", "1", "{}"), reused),
        ("65 stale base", based(put("stale", "1", "{}"), 1), "conflict 2 struct of 1"),
        ("66 negative base", based(put("negative", "1", "{}"), -1), &base),
        ("66 least base", based(put("least", "1", "{}"), i64::MIN), &base),
        ("66 base ahead", based(put("ahead", "1", "{}"), 3), "rejected INVALID mutation.base"),
        (
            "66 greatest base",
            based(put("greatest", "1", "{}"), i64::MAX),
            "rejected INVALID mutation.base",
        ),
        ("66 base on a create", based(create("2"), 2), "applied 3"),
        ("67 delete of nothing", delete("9"), "rejected NOT_FOUND"),
        ("67 patch of nothing", mutation("p", "9", patch()), "rejected NOT_FOUND"),
    ] {
        let answer = house.alice.mutate(mutation).await.map(|result| vec![result]);
        house.check(row, &line(answer), expected).await;
    }
    let gone = Mutation { id: "gone".into(), ..delete("1") };
    house.alice.mutate(gone).await.unwrap();
    for (row, operation) in [
        ("67 delete of a tombstone", Operation::Delete(DeleteOperation {})),
        ("67 patch of a tombstone", patch()),
    ] {
        let result = house.alice.mutate(mutation(&row.replace(' ', "-"), "1", operation)).await;
        let result = result.unwrap();
        house.check(row, &show(&result), "rejected NOT_FOUND").await;
        let message = result.rejection.unwrap().message;
        let expected = "the record was deleted; use create or put to make it anew";
        assert_eq!(message, expected, "row {row}");
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_and_pages_keep_their_rules() {
    let house = House::new().await;
    house.alice.mutate(put("m", "1", "{}")).await.unwrap();
    let read = async |cursor: Option<Cursor>, page_size| {
        let request = ChangesSinceRequest { cursor, page_size, ..Default::default() };
        match house.alice.stub.clone().changes_since(request).await {
            Ok(page) => format!("{} changes", page.into_inner().changes.len()),
            // The space's epoch is another one each time.
            Err(status) => {
                let words = describe(&status);
                let masked = words.split(' ').filter(|word| !word.starts_with("epoch="));
                masked.collect::<Vec<_>>().join(" ")
            }
        }
    };
    let at = |epoch: &str, revision| Some(Cursor { epoch: epoch.into(), revision });
    let beginning = ChangesSinceRequest::default();
    let page = house.alice.stub.clone().changes_since(beginning).await.unwrap().into_inner();
    let epoch = page.cursor.unwrap().epoch;
    let other = "00000000-0000-4000-8000-000000000000";
    for (row, cursor, expected) in [
        ("68 since -1", at(&epoch, -1), format!("{INVALID} cursor.revision")),
        ("68 since the least", at("", i64::MIN), format!("{INVALID} cursor.revision cursor.epoch")),
        (
            "68 since the greatest",
            at(&epoch, i64::MAX),
            "FailedPrecondition CURSOR_AHEAD floor=0 head=1".into(),
        ),
        ("69 other epoch", at(other, 1), "FailedPrecondition EPOCH_CHANGED floor=0 head=1".into()),
        ("69 no epoch", at("", 1), format!("{INVALID} cursor.epoch")),
        ("69 an epoch that is none", at("'; --", 1), format!("{INVALID} cursor.epoch")),
    ] {
        house.check(row, &read(cursor, 0).await, &expected).await;
    }
    for (row, size, expected) in [
        ("70 page of 0", 0, "1 changes".to_owned()),
        ("70 page of 10^9", 1_000_000_000, "1 changes".into()),
        ("70 page of -1", -1, format!("{INVALID} page_size")),
        ("70 page of the least", i32::MIN, format!("{INVALID} page_size")),
    ] {
        house.check(row, &read(None, size).await, &expected).await;
    }
    let mut connection = house.database.connect().await;
    sqlx::query("update spaces set head = 9, floor = 5").execute(&mut connection).await.unwrap();
    let seen = read(at(&epoch, 4), 0).await;
    let expected = "FailedPrecondition CURSOR_EXPIRED floor=5 head=9";
    assert_eq!(seen, expected, "row 69 below the floor");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_enum_values_are_not_the_default() {
    let house = House::new().await;
    let form = 99;
    assert!(DocumentForm::try_from(form).is_err());
    let mut stub = house.alice.stub.clone();
    let field = format!("{INVALID} document_form");
    let mutation = Some(put("m", "1", "{}"));
    let mutate = MutateRequest { mutation, document_form: form, ..Default::default() };
    let get = GetRecordRequest { key: Some(key("1")), document_form: form, ..Default::default() };
    let collection = "task".to_owned();
    let list = ListRecordsRequest { collection, document_form: form, ..Default::default() };
    let since = ChangesSinceRequest { document_form: form, ..Default::default() };
    for (row, status) in [
        ("76 Mutate", stub.mutate(mutate).await.unwrap_err()),
        ("76 GetRecord", stub.get_record(get).await.unwrap_err()),
        ("76 ListRecords", stub.list_records(list).await.unwrap_err()),
        ("76 ChangesSince", stub.changes_since(since).await.unwrap_err()),
    ] {
        house.check(row, &describe(&status), &field).await;
    }
    house.unchanged("76").await;
    house.end().await;
}

/// What ends a stream after these frames.
async fn ends(house: &House, frames: Vec<SubscribeRequest>) -> String {
    let frames = tokio_stream::StreamExt::chain(
        tokio_stream::iter(frames),
        tokio_stream::pending::<SubscribeRequest>(),
    );
    let mut answers = house.alice.stub.clone().subscribe(frames).await.unwrap().into_inner();
    loop {
        match answers.message().await {
            Ok(Some(_frame)) => {}
            Ok(None) => return "end".into(),
            Err(status) => return describe(&status),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_make_no_sense_end_the_stream() {
    let house = House::new().await;
    let named = |id: &str| SubscribeRequest { frame: Some(Subscribe(subscribe_frame(id, None))) };
    let id = format!("{INVALID} subscribe.subscription_id");
    for (row, frames, expected) in [
        ("77 the same name twice", vec![named("s"), named("s")], id.clone()),
        ("77 no name", vec![named("")], id.clone()),
        (
            "77 a frame without content",
            vec![SubscribeRequest::default()],
            format!("{INVALID} frame"),
        ),
    ] {
        let seen = ends(&house, frames).await;
        house.check(row, &seen, &expected).await;
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_a_thousand_subscriptions_and_no_more() {
    let house = House::new().await;
    let frames = (0..1_001).map(|n| {
        let frame = Subscribe(subscribe_frame(&format!("s{n}"), None));
        SubscribeRequest { frame: Some(frame) }
    });
    let frames = tokio_stream::StreamExt::chain(
        tokio_stream::iter(frames),
        tokio_stream::pending::<SubscribeRequest>(),
    );
    let mut answers = house.alice.stub.clone().subscribe(frames).await.unwrap().into_inner();
    let mut begun = 0;
    let closed = loop {
        match answers.message().await.unwrap().unwrap().frame.unwrap() {
            Frame::Subscribed(_) => begun += 1,
            Frame::CaughtUp(_) | Frame::Progress(_) => {}
            Frame::Closed(closed) => break closed,
            other => panic!("row 77: {other:?}"),
        }
    };
    assert_eq!((begun, closed.subscription_id.as_str()), (1_000, "s1000"), "row 77");
    let seen = format!("{} {}", closed.code, closed.reason);
    house.check("77 too many subscriptions", &seen, "8 TOO_MANY_SUBSCRIPTIONS").await;
    house.end().await;
}
