//! Sensitive values are taken out before anything is written, and put back when it is read.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::vault::{Slot, Vault};
use crate::client::edit::{Edit, Patch};
use crate::domain::{CollectionName, Document, Pointer, RecordId, RecordKey};

fn document(value: &Value) -> Document {
    Document::from_json(value.to_string().as_bytes()).unwrap()
}

fn collection() -> CollectionName {
    CollectionName::parse("card").unwrap()
}

fn vault(paths: &[&str]) -> Vault {
    let paths = paths.iter().map(|path| Pointer::parse(path).unwrap()).collect();
    Vault::new(HashMap::from([(collection(), paths)])).staging()
}

fn slot(id: &str) -> Slot {
    Slot::Shown(RecordKey { collection: collection(), id: RecordId::parse(id).unwrap() })
}

#[test]
fn what_is_hidden_comes_back_as_long_as_it_is_remembered() {
    let vault = vault(&["/number", "/owner/pin", "/owner/code"]);
    for (whole, open) in [
        (json!({"a": 1}), json!({"a": 1})),
        (json!({"a": 1, "number": "4929"}), json!({"a": 1})),
        (
            json!({"owner": {"name": "x", "pin": 1, "code": [2]}, "number": null}),
            json!({"owner": {"name": "x"}}),
        ),
        (json!({"owner": {"pin": 1}}), json!({"owner": {}})),
        (json!({"owner": "nobody"}), json!({"owner": "nobody"})),
    ] {
        let (hidden, is_hidden) = vault.hide(1, &collection(), slot("1"), &document(&whole));
        assert_eq!(hidden, document(&open));
        assert_eq!(is_hidden, whole != open);
        let told = vault.reveal(1, &collection(), slot("1"), hidden.clone());
        assert_eq!(told, document(&whole));
        // Another record, or the same in another space, knows nothing of it.
        assert_eq!(vault.reveal(1, &collection(), slot("2"), hidden.clone()), hidden);
        assert_eq!(vault.reveal(2, &collection(), slot("1"), hidden.clone()), hidden);
        vault.forget(1, slot("1"));
        assert_eq!(vault.reveal(1, &collection(), slot("1"), hidden.clone()), hidden);
    }
}

#[test]
fn what_is_not_written_in_the_end_was_never_hidden() {
    let reader = Vault::new(HashMap::from([(
        collection(),
        vec![Pointer::parse("/owner/pin").unwrap(), Pointer::parse("/owner").unwrap()],
    )]));
    let vault = reader.staging();
    let whole = document(&json!({"owner": {"pin": 1, "name": "x"}}));
    let hide = || vault.hide(1, &collection(), slot("1"), &whole).0;
    let open = hide();
    // What lies within another goes with that.
    assert_eq!(open, document(&json!({})));
    let read = |by: &Vault| by.reveal(1, &collection(), slot("1"), open.clone());
    // Until it is on disk only the writer knows it.
    assert_eq!((read(&vault), read(&reader)), (whole.clone(), open.clone()));
    vault.take_back(HashMap::new());
    assert_eq!((read(&vault), read(&reader)), (open.clone(), open.clone()));
    hide();
    let before = vault.settle();
    assert_eq!(read(&reader), whole);
    vault.take_back(before);
    assert_eq!((read(&vault), read(&reader)), (open.clone(), open.clone()));
    hide();
    vault.settle();
    vault.forget(1, slot("1"));
    assert_eq!((read(&vault), read(&reader)), (open.clone(), whole.clone()));
    vault.take_back(HashMap::new());
    assert_eq!((read(&vault), read(&reader)), (whole.clone(), whole.clone()));
}

#[test]
fn other_collections_are_left_alone() {
    let (vault, other) = (vault(&["/number"]), CollectionName::parse("task").unwrap());
    let whole = document(&json!({"number": 1}));
    assert_eq!(vault.hide(1, &other, slot("1"), &whole), (whole.clone(), false));
    assert!(!vault.is_sensitive(&other, &Edit::Put(whole)));
}

#[test]
fn an_edit_is_known_to_be_sensitive() {
    let vault = vault(&["/owner/pin"]);
    let is = |edit: &Edit| vault.is_sensitive(&collection(), edit);
    assert!(is(&Edit::Put(document(&json!({"owner": {"pin": 1}})))));
    assert!(!is(&Edit::Create(document(&json!({"owner": {"name": "x"}})))));
    assert!(is(&Edit::Patch(Patch::merge(json!({"owner": {"pin": 1}})).unwrap())));
    assert!(is(&Edit::Patch(Patch::new().increment("/owner", 1).unwrap())));
    assert!(is(&Edit::Patch(Patch::new().increment("/owner/pin/digit", 1).unwrap())));
    assert!(!is(&Edit::Patch(Patch::new().increment("/count", 1).unwrap())));
    assert!(!is(&Edit::Delete));
}
