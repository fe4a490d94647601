//! Rows 71 and 74: names, strange ones and forbidden ones.

use syncline::rpc::proto::{
    ChangesSinceRequest, GetRecordRequest, GetStatusRequest, ListRecordsRequest, MutateRequest,
    Mutation, RecordKey,
};

use super::House;
use crate::support::{describe, put};

const INVALID: &str = "InvalidArgument VALIDATION_ERROR";

fn of(collection: &str, id: &str) -> RecordKey {
    RecordKey { collection: collection.into(), id: id.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn forbidden_names_are_refused_by_field() {
    let house = House::new().await;
    let (long, longer) = ("x".repeat(129), "x".repeat(257));
    let collection = format!("{INVALID} mutation.key.collection");
    let id = format!("{INVALID} mutation.key.id");
    let both = format!("{collection} mutation.key.id");
    for (row, key, expected) in [
        ("71 collection with NUL", of("a\0b", "1"), &collection),
        ("71 collection with a newline", of("a\nb", "1"), &collection),
        ("71 collection with C1 controls", of("a\u{85}b", "1"), &collection),
        ("71 collection of 129 bytes", of(&long, "1"), &collection),
        ("71 no collection", of("", "1"), &collection),
        ("71 id with NUL", of("task", "\0"), &id),
        ("71 id with DEL", of("task", "\u{7f}"), &id),
        ("71 no id", of("task", ""), &id),
        ("71 neither", of("", ""), &both),
        ("74 id of 257 bytes", of("task", &longer), &id),
        ("74 id in NFD", of("task", "e\u{301}"), &id),
        ("74 collection in NFD", of("e\u{301}", "1"), &collection),
    ] {
        let mutation = Mutation { key: Some(key), ..put("m", "", "{}") };
        let status = house.alice.mutate(mutation).await.unwrap_err();
        house.check(row, &describe(&status), expected).await;
    }
    house.unchanged("71, 74").await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_names_are_data() {
    let house = House::new().await;
    let longest = "x".repeat(256);
    for (n, id) in [
        "'; drop table records; --",
        "\" or 1=1",
        "$1",
        "%s%n",
        "../../etc/passwd",
        "<script>",
        "\\",
        " ",
        "e\u{323}\u{302}x\u{200b}".trim_start_matches("e\u{323}\u{302}"),
        "\u{e9}",
        "\u{202e}abc",
        "\u{1f468}\u{200d}\u{1f469}",
        &longest,
    ]
    .into_iter()
    .enumerate()
    {
        let collection = id.get(..id.len().min(100)).unwrap();
        let key = of(collection, id);
        let mutation = Mutation { key: Some(key.clone()), ..put(&format!("m{n}"), "", "{}") };
        house.alice.mutate(mutation).await.unwrap();
        let mut stub = house.alice.stub.clone();
        let get = GetRecordRequest { key: Some(key.clone()), ..Default::default() };
        let record = stub.get_record(get).await.unwrap().into_inner().record.unwrap();
        assert_eq!(record.key, Some(key.clone()), "row 71: {id:?}");
        let list = ListRecordsRequest { collection: collection.into(), ..Default::default() };
        let page = stub.list_records(list).await.unwrap().into_inner();
        assert_eq!(page.records.len(), 1, "row 71: {id:?}");
        let collections = vec![collection.to_owned()];
        let since = ChangesSinceRequest { collections, ..Default::default() };
        let page = stub.changes_since(since).await.unwrap().into_inner();
        assert_eq!(page.changes[0].key, Some(key), "row 71: {id:?}");
        house.survives("71").await;
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_and_filters_keep_their_rules() {
    let house = House::new().await;
    let mut stub = house.alice.stub.clone();
    let device = format!("{INVALID} device");
    for name in ["a b", "\0", "é", "a\n", &"x".repeat(65)] {
        let mutation = Some(put("m", "1", "{}"));
        let request = MutateRequest { device: name.into(), mutation, ..Default::default() };
        let status = stub.mutate(request).await.unwrap_err();
        house.check("71 a device", &describe(&status), &device).await;
        let request = GetStatusRequest { device: name.into(), ..Default::default() };
        let status = stub.get_status(request).await.unwrap_err();
        house.check("71 a device's status", &describe(&status), &device).await;
    }
    for (row, collections, expected) in [
        ("71 a filter with NUL", vec!["task".to_owned(), "\0".into()], "collections[1]"),
        ("71 a filter of 101", vec!["task".to_owned(); 101], "collections"),
    ] {
        let request = ChangesSinceRequest { collections, ..Default::default() };
        let status = stub.changes_since(request).await.unwrap_err();
        house.check(row, &describe(&status), &format!("{INVALID} {expected}")).await;
    }
    let space = "x".repeat(100_000);
    let request = GetStatusRequest { space, ..Default::default() };
    let status = stub.get_status(request).await.unwrap_err();
    house.check("71 a space's name", &describe(&status), "NotFound SPACE_NOT_FOUND").await;
    house.unchanged("71").await;
    house.end().await;
}
