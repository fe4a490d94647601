//! Documents on the wire: both forms in, both forms out, and numbers exact.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use syncline::rpc::proto::mutation::Operation;
use syncline::rpc::proto::{Document, DocumentForm, GetRecordRequest, PutOperation, document};

use super::House;
use crate::support::{Client, key, mutation, put, text};

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn fields(fields: impl IntoIterator<Item = (&'static str, Kind)>) -> Struct {
    let fields = fields.into_iter().map(|(name, kind)| (name.to_owned(), value(kind)));
    Struct { fields: fields.collect() }
}

async fn read(client: &Client, form: DocumentForm) -> Document {
    let request =
        GetRecordRequest { key: Some(key("1")), document_form: form.into(), ..Default::default() };
    let record = client.stub.clone().get_record(request).await.unwrap().into_inner().record;
    record.unwrap().document.unwrap()
}

async fn check(client: &Client, sent: document::Form, json: &str, fields: &Struct) {
    let id = uuid::Uuid::new_v4().to_string();
    let document = Some(Document { form: Some(sent) });
    client.mutate(mutation(&id, "1", Operation::Put(PutOperation { document }))).await.unwrap();
    assert_eq!(text(&read(client, DocumentForm::Json).await), json);
    for form in [DocumentForm::Struct, DocumentForm::Unspecified] {
        let document = read(client, form).await;
        assert_eq!(document.form, Some(document::Form::Fields(fields.clone())), "{json}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn either_form_is_accepted_and_either_can_be_read() {
    let house = House::new().await;
    let alice = house.alice().await;
    let list = ListValue { values: vec![value(Kind::NumberValue(1.5)), value(Kind::NullValue(0))] };
    let all = fields([
        ("null", Kind::NullValue(0)),
        ("bool", Kind::BoolValue(false)),
        ("number", Kind::NumberValue(-2.0)),
        ("text", Kind::StringValue("é\u{1f600}\n".into())),
        ("list", Kind::ListValue(list)),
        ("object", Kind::StructValue(fields([("", Kind::NumberValue(1e300))]))),
    ]);
    let json = "{\"bool\":false,\"list\":[1.5,null],\"null\":null,\"number\":-2,\
                \"object\":{\"\":1e+300},\"text\":\"é\u{1f600}\\n\"}";
    check(&alice, document::Form::Fields(all.clone()), json, &all).await;
    check(&alice, document::Form::Json(json.into()), json, &all).await;
    let empty = Struct::default();
    check(&alice, document::Form::Fields(empty.clone()), "{}", &empty).await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn integers_of_64_bits_are_exact_as_json_and_rounded_as_a_struct() {
    let house = House::new().await;
    let alice = house.alice().await;
    for (sent, json, rounded) in [
        ("9007199254740991", "9007199254740991", 9_007_199_254_740_991.0),
        ("9007199254740993", "9007199254740993", 9_007_199_254_740_992.0),
        ("-9223372036854775808", "-9223372036854775808", -9_223_372_036_854_775_808.0),
        ("18446744073709551615", "18446744073709551615", 18_446_744_073_709_551_615.0),
        ("18446744073709551616", "18446744073709552000", 18_446_744_073_709_551_616.0),
        ("0.1", "0.1", 0.1),
        ("-0.0", "0", 0.0),
        ("1e3", "1000", 1_000.0),
        ("5e-324", "5e-324", 5e-324),
    ] {
        let fields = fields([("n", Kind::NumberValue(rounded))]);
        let sent = document::Form::Json(format!("{{\"n\":{sent}}}").into());
        check(&alice, sent, &format!("{{\"n\":{json}}}"), &fields).await;
    }
    house.end().await;
}

/// As deep as allowed, in the form that costs decoders most.
fn nested(levels: usize) -> Struct {
    let inner = fields([("a", Kind::NumberValue(1.0))]);
    (1..levels).fold(inner, |inner, _| fields([("a", Kind::StructValue(inner))]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_32_levels_passes_every_decoder_on_its_way() {
    let house = House::new().await;
    let alice = house.alice().await;
    let json = format!("{}1{}", "{\"a\":".repeat(32), "}".repeat(32));
    check(&alice, document::Form::Fields(nested(32)), &json, &nested(32)).await;
    check(&alice, document::Form::Json(json.clone().into()), &json, &nested(32)).await;
    let stream = crate::support::Stream::open(&alice).await.unwrap();
    stream.subscribe(crate::support::subscribe_frame("s", None)).await;
    let mut follower = crate::support::Follower::default();
    let mut stream = stream;
    follower.follow_on(&mut stream, 2).await.unwrap();
    let change = follower.changes.into_values().next_back().unwrap();
    assert_eq!(change.document.unwrap().form, Some(document::Form::Fields(nested(32))));
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_can_be_queried_as_jsonb() {
    let house = House::new().await;
    let alice = house.alice().await;
    alice.mutate(put("m", "1", r#"{"n":18446744073709551615,"t":"é"}"#)).await.unwrap();
    let mut connection = house.database.connect().await;
    let sql = "select document->>'n', document->>'t' from records";
    let row: (String, String) = sqlx::query_as(sql).fetch_one(&mut connection).await.unwrap();
    assert_eq!(row, ("18446744073709551615".into(), "é".into()));
    house.end().await;
}
