//! Pages of a record's history: complete, in order, cut by count and by bytes, and
//! what is on them.

use syncline::rpc::proto::{ChangeAction, DocumentForm, ListRecordHistoryRequest, RecordStep};

use super::{House, delete, logged, of, page, pages, patch};
use crate::support::compaction::Compaction;
use crate::support::{put, show, signed, text};

/// Revision, action and paths as a line.
fn line(step: &RecordStep) -> String {
    let change = step.change.as_ref().unwrap();
    let action = match change.action() {
        ChangeAction::Unspecified => panic!("never sent"),
        ChangeAction::Created => "+",
        ChangeAction::Updated => "*",
        ChangeAction::Deleted => "-",
    };
    let known = if step.before_known { "" } else { " ?" };
    format!("{}{action} {}{known}", change.revision, step.changed_paths.join(","))
}

fn lines(steps: &[RecordStep]) -> Vec<String> {
    steps.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_back_to_the_beginning_while_others_write() {
    let house = House::new().await;
    let alice = &house.alice;
    for number in 0..25 {
        alice
            .mutate(put(&format!("a{number}"), "1", &format!(r#"{{"n":{number}}}"#)))
            .await
            .unwrap();
        alice.mutate(put(&format!("b{number}"), "2", "{}")).await.unwrap();
    }
    let expected = logged(alice, "1").await;
    assert_eq!(expected.len(), 25);
    let request = || ListRecordHistoryRequest { page_size: 4, ..of("1") };
    let (mut found, mut count, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let page = page(alice, ListRecordHistoryRequest { page_token, ..request() }).await.unwrap();
        found.extend(page.steps.into_iter().map(|step| step.change.unwrap()));
        count += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
        let meanwhile = match count % 3 {
            0 => delete(&format!("d{count}"), "1"),
            _ => put(&format!("p{count}"), "1", r#"{"late":true}"#),
        };
        alice.mutate(meanwhile).await.unwrap();
    }
    assert_eq!((found, count), (expected, 7));
    let all = pages(alice, ListRecordHistoryRequest { page_size: 1_000, ..of("1") }).await;
    assert_eq!((all.0.len(), all.1), (31, 1));
    // Exactly a page is no more than a page.
    assert_eq!(pages(alice, ListRecordHistoryRequest { page_size: 31, ..of("1") }).await.1, 1);
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_says_what_it_changed_wherever_pages_are_cut() {
    let house = House::new().await;
    let alice = &house.alice;
    for mutation in [
        put("m1", "1", r#"{"a":1,"b":{"c":2,"d":3}}"#),
        patch("m2", "1", r#"{"b":{"c":5},"e":[1]}"#, &["/a"]),
        put("m3", "1", r#"{"b":{"c":5,"d":3},"e":[1]}"#),
        put("m4", "2", r#"{"z":1}"#),
        put("m5", "1", r#"{"e":[1,2],"~/":null}"#),
        delete("m6", "1"),
        put("m7", "1", r#"{"e":[1,2]}"#),
        patch("m8", "1", r#"{"f":{}}"#, &[]),
    ] {
        alice.mutate(mutation).await.unwrap();
    }
    let expected = ["8* /f", "7+ ", "6- ", "5* /b,/e,/~0~1", "3* ", "2* /a,/b/c,/e", "1+ "];
    for page_size in [1, 2, 3, 7, 100] {
        let (steps, count, truncated) =
            pages(alice, ListRecordHistoryRequest { page_size, ..of("1") }).await;
        assert_eq!(lines(&steps), expected, "{page_size}");
        let full = 7_u64.div_ceil(u64::try_from(page_size).unwrap());
        assert_eq!((count, truncated), (full, false), "{page_size}");
    }
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_has_its_document_in_either_form_or_its_checksum() {
    let house = House::new().await;
    let alice = &house.alice;
    alice.mutate_from("desk", put("m1", "1", r#"{"n":1}"#)).await.unwrap();
    alice.mutate_from("phone", put("m2", "1", r#"{"n":2,"m":1}"#)).await.unwrap();
    alice.mutate(delete("m3", "1")).await.unwrap();
    let read = async |form: DocumentForm, without_documents| {
        let document_form = form.into();
        let request = ListRecordHistoryRequest { document_form, without_documents, ..of("1") };
        pages(alice, request).await.0
    };
    let whole = read(DocumentForm::Json, false).await;
    let change = |step: &RecordStep| step.change.clone().unwrap();
    assert_eq!(whole.iter().map(change).collect::<Vec<_>>(), logged(alice, "1").await);
    let first = change(&whole[2]);
    assert_eq!(first.mutation_id, "m1");
    assert_eq!((first.device.as_str(), first.author.as_str()), ("desk", "alice"));
    assert_eq!(text(first.document.as_ref().unwrap()), r#"{"n":1}"#);
    let structs = read(DocumentForm::Struct, false).await;
    let shown = |it: &RecordStep| change(it).document.as_ref().map(text);
    assert_eq!(shown(&structs[1]), Some("struct of 2".into()));
    assert_eq!((shown(&structs[0]), shown(&whole[0])), (None, None));
    for form in [DocumentForm::Json, DocumentForm::Struct] {
        let without = read(form, true).await;
        let stripped = whole.iter().cloned().map(|mut step| {
            step.change.as_mut().unwrap().document = None;
            step
        });
        assert_eq!(without, stripped.collect::<Vec<_>>());
        let checksums: Vec<_> = without.iter().map(|it| change(it).checksum.len()).collect();
        assert_eq!(checksums, [0, 32, 32]);
    }
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_fill_pages_by_their_bytes() {
    let house = House::new().await;
    let alice = &house.alice;
    for number in 0..20 {
        let document = format!(r#"{{"n":{number},"text":"{}"}}"#, "x".repeat(250_000));
        alice.mutate(put(&format!("m{number}"), "1", &document)).await.unwrap();
    }
    let (steps, count, _) = pages(alice, of("1")).await;
    let revisions = |steps: &[RecordStep]| -> Vec<_> {
        steps.iter().map(|step| step.change.as_ref().unwrap().revision).collect()
    };
    let all = |count: i64| (1..=count).rev().collect::<Vec<_>>();
    assert_eq!(revisions(&steps), all(20));
    assert!((4..=7).contains(&count), "{count} pages");
    assert!(steps[..19].iter().all(|step| step.changed_paths == ["/n"]));
    let without = ListRecordHistoryRequest { without_documents: true, ..of("1") };
    assert_eq!(revisions(&pages(alice, without).await.0), all(20));

    // As a Struct a small number takes many bytes: the message is full before the page is.
    for number in 0..70 {
        let document = format!(r#"{{"n":{number},"list":[{}0]}}"#, "0,".repeat(9_000));
        alice.mutate(put(&format!("s{number}"), "2", &document)).await.unwrap();
    }
    let structs =
        ListRecordHistoryRequest { document_form: DocumentForm::Struct.into(), ..of("2") };
    let (steps, count, _) = pages(alice, structs).await;
    assert_eq!(revisions(&steps), (21..=90).rev().collect::<Vec<_>>());
    assert!(steps[..69].iter().all(|step| step.changed_paths == ["/n"]));
    let (_, by_bytes, _) = pages(alice, of("2")).await;
    assert!(count > by_bytes, "{count} pages of structs, {by_bytes} of text");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_compacted_ends_the_history_and_says_so() {
    let house = House::new().await;
    let alice = &house.alice;
    for number in 1..=12 {
        let document = format!(r#"{{"n":{number}}}"#);
        alice.mutate(put(&format!("m{number}"), "1", &document)).await.unwrap();
    }
    alice.mutate(put("o", "2", "{}")).await.unwrap();
    let of_two = |page_token| ListRecordHistoryRequest { page_size: 2, page_token, ..of("1") };
    let at = |revision: i64| async move {
        // The page after this revision, from a token that was told before.
        let all = ListRecordHistoryRequest {
            page_size: i32::try_from(12 - revision + 1).unwrap(),
            ..of("1")
        };
        page(alice, all).await.unwrap().next_page_token
    };
    let (at_five, at_seven, at_eight) = (at(6).await, at(8).await, at(9).await);
    let mut compaction = Compaction::prepare(&house.database).await;
    compaction.raise(13 - 7).await;
    assert_eq!((compaction.floor, compaction.taken_out), (7, 6));

    // 7 is the last one up to the floor, and what it came upon is gone.
    let expected = ["12* /n", "11* /n", "10* /n", "9* /n", "8* /n", "7*  ?"];
    for page_size in [1, 2, 4, 6, 7] {
        let (steps, _, truncated) =
            pages(alice, ListRecordHistoryRequest { page_size, ..of("1") }).await;
        assert_eq!((lines(&steps), truncated), (expected.map(str::to_owned).to_vec(), true));
    }
    // A place that was told before, and is there, or is gone.
    let page_at = async |token: &str| {
        let page = page(alice, of_two(token.to_owned())).await.unwrap();
        (lines(&page.steps).join(" "), page.next_page_token.is_empty(), page.truncated)
    };
    assert_eq!(page_at(&at_eight).await, ("8* /n 7*  ?".into(), true, true));
    assert_eq!(page_at(&at_seven).await, ("7*  ?".into(), true, true));
    assert_eq!(page_at(&at_five).await, (String::new(), true, true));
    let other = pages(alice, of("2")).await;
    assert_eq!((other.0.len(), other.2), (1, false), "nothing of it is gone");
    house.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_histories_are_whole_in_few_pages() {
    let house = House::new().await;
    let alice = &house.alice;
    for batch in 0..3 {
        let write =
            |number| put(&format!("{batch}-{number}"), "1", &format!(r#"{{"n":{number}}}"#));
        let results = alice.batch((0..900).map(write).collect(), false).await.unwrap();
        assert_eq!(show(&results[899]), format!("applied {}", (batch + 1) * 900));
    }
    let request =
        ListRecordHistoryRequest { page_size: i32::MAX, without_documents: true, ..of("1") };
    let (steps, count, truncated) = pages(alice, request).await;
    assert_eq!((steps.len(), count, truncated), (2_700, 3, false));
    let told = steps.iter().map(|step| step.change.as_ref().unwrap().revision);
    assert!(told.eq((1..=signed(2_700)).rev()));
    assert!(steps[..2_699].iter().all(|step| step.changed_paths == ["/n"]));
    house.server.stop().await;
}
