//! Rows 72 and 73: documents that PostgreSQL, a double or a decoder could not
//! hold. Refused before any SQL, alone as well as in a batch.

use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::{
    BatchMutateRequest, BatchMutateResponse, Document, Mutation, PutOperation, document,
};

use super::House;
use crate::support::raw::{End, Http2, message, post};
use crate::support::{describe, mutation, put, show};

/// As text, or as fields where text cannot say it.
fn rows() -> Vec<(&'static str, document::Form)> {
    let json = |bytes: &[u8]| document::Form::Json(bytes.to_vec().into());
    let text = |text: &str| json(text.as_bytes());
    let kind = |kind| {
        let value = Value { kind };
        document::Form::Fields(Struct { fields: [("a".to_owned(), value)].into() })
    };
    let number = |number| kind(Some(Kind::NumberValue(number)));
    let nested = |open: &str, close: &str, levels| {
        text(&format!("{}1{}", open.repeat(levels), close.repeat(levels)))
    };
    let lists = format!("{{\"a\":{}{}}}", "[".repeat(32), "]".repeat(32));
    let keys: Vec<_> = (0..10_001).map(|n| format!("\"{n}\":1")).collect();
    let no_kind = ListValue { values: vec![Value { kind: None }] };
    vec![
        ("72 U+0000 escaped", text(r#"{"a":"\u0000"}"#)),
        ("72 U+0000 raw", json(b"{\"a\":\"\0\"}")),
        ("72 U+0000 in a key", text(r#"{"a\u0000b":1}"#)),
        ("72 U+0000 in a field", kind(Some(Kind::StringValue("\0".into())))),
        ("72 high surrogate alone", text(r#"{"a":"\ud800"}"#)),
        ("72 low surrogate alone", text(r#"{"a":"\udc00x"}"#)),
        ("72 1e131071", text(r#"{"a":1e131071}"#)),
        ("72 1e309", text(r#"{"a":-1e309}"#)),
        ("72 10^5 digits", text(&format!("{{\"a\":{}}}", "9".repeat(100_000)))),
        ("72 NaN as text", text(r#"{"a":NaN}"#)),
        ("72 NaN", number(f64::NAN)),
        ("72 infinity", number(f64::INFINITY)),
        ("72 minus infinity", number(f64::NEG_INFINITY)),
        ("72 a value without kind", kind(None)),
        ("72 a value without kind in a list", kind(Some(Kind::ListValue(no_kind)))),
        ("72 no UTF-8", json(b"{\"a\":\"\xff\xfe\"}")),
        ("72 a byte order mark", json(b"\xef\xbb\xbf{}")),
        ("72 not an object", text("[]")),
        ("72 nothing", text("")),
        ("72 two objects", text("{}{}")),
        ("72 a comment", text("{/**/}")),
        ("72 a comma too many", text(r#"{"a":1,}"#)),
        ("73 33 levels", nested("{\"a\":", "}", 33)),
        ("73 33 levels of lists", text(&lists)),
        ("73 100,000 levels", nested("{\"a\":", "}", 100_000)),
        ("73 100,000 lists", text(&"[".repeat(100_000))),
        ("73 more than 256 KiB", text(&format!("{{\"a\":\"{}\"}}", "x".repeat(256 << 10)))),
        ("73 more than 2 MiB", text(&format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20)))),
        ("73 10,001 keys", text(&format!("{{{}}}", keys.join(",")))),
        ("73 a key twice", text(r#"{"a":1,"a":1}"#)),
        ("73 a key twice, once escaped", text(r#"{"a":1,"\u0061":1}"#)),
    ]
}

fn put_form(id: &str, form: document::Form) -> Mutation {
    let document = Some(Document { form: Some(form) });
    mutation(id, "1", Operation::Put(PutOperation { document }))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_document_is_refused_alone_and_rejected_in_a_batch() {
    let house = House::new().await;
    let expected = "InvalidArgument VALIDATION_ERROR mutation.put.document";
    for (n, (row, form)) in rows().into_iter().enumerate() {
        let mutation = put_form(&format!("m{n}"), form);
        let status = house.alice.mutate(mutation.clone()).await.unwrap_err();
        house.check(row, &describe(&status), expected).await;
        assert!(status.message().len() < 1_000, "row {row}: {}", status.message());
        let results = house.alice.batch(vec![mutation.clone()], false).await.unwrap();
        let rejected = "rejected INVALID mutation.put.document";
        house.check(row, &show(&results[0]), rejected).await;
        let again = house.alice.batch(vec![mutation], false).await.unwrap();
        assert_eq!(show(&again[0]), format!("{rejected} replayed"), "row {row}");
    }
    house.unchanged("72, 73").await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_document_at_all_is_refused() {
    let house = House::new().await;
    let put = |document| mutation("m", "1", Operation::Put(PutOperation { document }));
    for (row, document) in
        [("72 no document", None), ("72 a document without form", Some(Document::default()))]
    {
        let status = house.alice.mutate(put(document)).await.unwrap_err();
        let expected = "InvalidArgument VALIDATION_ERROR mutation.put.document";
        house.check(row, &describe(&status), expected).await;
    }
    house.unchanged("72").await;
    house.end().await;
}

/// A batch of a thousand faults under keys that grow when a path spells them.
fn faults_that_grow() -> BatchMutateRequest {
    let text = format!("{{\"{}\":\"\\u0000\"}}", "~".repeat(2_900));
    let mutations = (0..1_000).map(|n| put(&format!("m{n}"), "1", &text)).collect();
    BatchMutateRequest { mutations, ..Default::default() }
}

/// Escaped, the paths once made an answer that was larger than a message may be.
#[tokio::test(flavor = "multi_thread")]
async fn answers_about_long_paths_fit_into_a_message() {
    let house = House::new().await;
    let client = Http2::connect(house.server.address()).await;
    let body = message(&faults_that_grow().encode_to_vec());
    assert!(body.len() <= 3 << 20);
    let answer = client.call(post("BatchMutate"), body, End::Said).await.unwrap();
    house.check("73 paths that grow", &answer.words(), "Ok").await;
    let results = BatchMutateResponse::decode(&answer.body[5..]).unwrap().results;
    assert_eq!(results.len(), 1_000);
    let expected = "rejected INVALID mutation.put.document";
    assert!(results.iter().all(|result| show(result) == expected));
    house.end().await;
}

const REPLAYED: &str = "rejected INVALID mutation.put.document replayed";

/// PostgreSQL stores no U+0000, so the answer must not hold one in the first place.
#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_is_replayed_as_it_was_whatever_its_path_holds() {
    let house = House::new().await;
    let mutation = || put("m", "1", r#"{"a\u0000b":1}"#);
    let first = house.alice.batch(vec![mutation()], false).await.unwrap();
    let again = house.alice.batch(vec![mutation()], false).await.unwrap();
    let violations = |results: &[syncline::rpc::proto::MutationResult]| {
        results[0].rejection.as_ref().unwrap().violations.clone()
    };
    house.check("72 a replayed path", &show(&again[0]), REPLAYED).await;
    assert_eq!(violations(&again), violations(&first));
    assert!(!violations(&first)[0].description.contains('\0'));
    house.end().await;
}
