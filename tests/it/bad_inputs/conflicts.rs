//! Requests to ConflictService that make no sense, name nothing, or forge.

use syncline::rpc::proto::resolve_conflict_request::Resolution;
use syncline::rpc::proto::{
    Document, GetConflictRequest, KeepClient, ListConflictsRequest, Mutation,
    ResolveConflictRequest, Strategy,
};

use super::House;
use crate::support::{describe, put};

fn resolve(
    mutation: &str,
    conflict: &str,
    resolution: Option<Resolution>,
) -> ResolveConflictRequest {
    ResolveConflictRequest {
        mutation_id: mutation.into(),
        conflict_id: conflict.into(),
        seen_revision: 1,
        resolution,
        ..ResolveConflictRequest::default()
    }
}

/// A space with the open conflict "late".
async fn meeting() -> House {
    let house = House::new().await;
    for (id, device) in [("first", "desk"), ("late", "phone")] {
        let write = Mutation { base: Some(0), ..put(id, "1", &format!(r#"{{"{device}":1}}"#)) };
        house.alice.mutate_from(device, write).await.unwrap();
    }
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_about_conflicts_keep_their_rules() {
    let house = meeting().await;
    let all = ListConflictsRequest::default;
    let long = "x".repeat(200);
    for (row, request, field) in [
        ("an unknown state", ListConflictsRequest { state: 99, ..all() }, "state"),
        ("a negative page", ListConflictsRequest { page_size: -1, ..all() }, "page_size"),
        ("a forged token", ListConflictsRequest { page_token: "?".into(), ..all() }, "page_token"),
        ("an id alone", ListConflictsRequest { record_id: "1".into(), ..all() }, "record_id"),
        ("no collection", ListConflictsRequest { collection: "a\0".into(), ..all() }, "collection"),
        ("a long device", ListConflictsRequest { device: long.clone(), ..all() }, "device"),
        ("an unknown form", ListConflictsRequest { document_form: 9, ..all() }, "document_form"),
        (
            "all at once",
            ListConflictsRequest { state: 99, page_size: -1, ..all() },
            "state page_size",
        ),
    ] {
        let status = house.alice.conflicts.clone().list_conflicts(request).await.unwrap_err();
        let expected = format!("InvalidArgument VALIDATION_ERROR {field}");
        house.check(row, &describe(&status), &expected).await;
    }
    let huge = ListConflictsRequest { page_size: i32::MAX, ..all() };
    let page = house.alice.conflicts.clone().list_conflicts(huge).await.unwrap().into_inner();
    assert_eq!(page.conflicts.len(), 1);
    for (row, id, expected) in [
        ("no id", "", "InvalidArgument VALIDATION_ERROR conflict_id"),
        ("NUL in an id", "a\0", "InvalidArgument VALIDATION_ERROR conflict_id"),
        ("a write that met nothing", "first", "NotFound CONFLICT_NOT_FOUND"),
        ("nothing of this name", "';drop-table--conflicts", "NotFound CONFLICT_NOT_FOUND"),
    ] {
        let request = GetConflictRequest { conflict_id: id.into(), ..Default::default() };
        let status = house.alice.conflicts.clone().get_conflict(request).await.unwrap_err();
        house.check(row, &describe(&status), expected).await;
    }
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resolutions_keep_their_rules() {
    let house = meeting().await;
    let keep = || Some(Resolution::KeepClient(KeepClient {}));
    let by = |strategy: i32| resolve("r", "late", Some(Resolution::Strategy(strategy)));
    let manual = Strategy::Manual.into();
    let empty = Resolution::Document(Document::default());
    let seen =
        |seen_revision| ResolveConflictRequest { seen_revision, ..resolve("r", "late", keep()) };
    for (row, request, expected) in [
        ("no resolution", resolve("r", "late", None), "VALIDATION_ERROR resolution"),
        ("no strategy", by(0), "VALIDATION_ERROR strategy"),
        ("none that decides", by(manual), "VALIDATION_ERROR strategy"),
        ("an unknown strategy", by(99), "VALIDATION_ERROR strategy"),
        ("no document", resolve("r", "late", Some(empty)), "VALIDATION_ERROR document"),
        ("a negative revision", seen(-1), "VALIDATION_ERROR seen_revision"),
        ("no mutation id", resolve("", "late", keep()), "VALIDATION_ERROR mutation_id"),
        ("no conflict", resolve("r", "", keep()), "VALIDATION_ERROR conflict_id"),
    ] {
        let status = house.alice.conflicts.clone().resolve_conflict(request).await.unwrap_err();
        house.check(row, &describe(&status), &format!("InvalidArgument {expected}")).await;
    }
    for (row, request, expected) in [
        ("nothing of this name", resolve("r", "none", keep()), "NotFound CONFLICT_NOT_FOUND"),
        (
            "the id of a write",
            resolve("first", "late", keep()),
            "FailedPrecondition MUTATION_ID_REUSED index=0 mutation_id=first",
        ),
    ] {
        let status = house.alice.conflicts.clone().resolve_conflict(request).await.unwrap_err();
        house.check(row, &describe(&status), expected).await;
    }
    let request = GetConflictRequest { conflict_id: "late".into(), ..Default::default() };
    let late = house.alice.conflicts.clone().get_conflict(request).await.unwrap().into_inner();
    assert_eq!(late.conflict.unwrap().closing, None);
    house.end().await;
}
