//! A history that is replaced, and sequences that were or were not used.

use super::*;

/// A device that has synced a record, and a server with another history of as many changes.
fn replaced(before: &Value, after: Option<&Value>) -> (Server, Device) {
    let policies = policies(Strategy::Merge);
    let (mut server, mut device) = (Server::new(&policies), Device::new("phone", &policies));
    device.load(&server, true);
    device.edit("1", put(before)).unwrap();
    device.push(&mut server, 1);
    device.pull(&server);
    let mut other = Server::new(&policies);
    let mut laptop = Device::new("laptop", &policies);
    laptop.load(&other, true);
    laptop.edit(if after.is_some() { "1" } else { "2" }, put(after.unwrap_or(before))).unwrap();
    laptop.push(&mut other, 1);
    other.epoch = Epoch(uuid::Uuid::from_u128(1));
    (other, device)
}

/// The device learns of it, and loads the new state.
fn follows(device: &mut Device, server: &Server) {
    device.replica.adopt(server.epoch);
    // Which has never heard of it.
    device.replica.number_anew(Sequence::ZERO);
    device.load(server, true);
    device.replica.go_on();
}

#[test]
fn a_queue_goes_on_in_a_new_history_where_the_record_is_what_it_was() {
    let before = json!({"n": 1, "a": 1});
    let (mut server, mut device) = replaced(&before, Some(&before));
    device.edit("1", increment(2)).unwrap();
    follows(&mut device, &server);
    let entry = device.replica.entries().last().unwrap();
    assert_eq!(entry.base, server.state.head());
    device.push(&mut server, 1);
    device.pull(&server);
    assert_eq!(device.shown()[&key("1")].as_str(), r#"{"a":1,"n":3}"#);
}

#[test]
fn what_others_wrote_in_a_new_history_was_not_seen() {
    // As many revisions as in the old one: numbers of the two are not compared.
    let (mut server, mut device) = replaced(&json!({"n": 1}), Some(&json!({"n": 9})));
    device.edit("1", put(&json!({"n": 2}))).unwrap();
    follows(&mut device, &server);
    assert_eq!(device.replica.entries().last().unwrap().base, Revision::ZERO);
    device.push(&mut server, 1);
    let states: Vec<_> = device.replica.entries().map(|it| it.state).collect();
    assert_eq!(states.last(), Some(&EntryState::Conflict));
    assert_eq!(device.shown()[&key("1")].as_str(), r#"{"n":9}"#);
}

#[test]
fn what_is_not_in_a_new_history_waits_for_the_app() {
    let (server, mut device) = replaced(&json!({"n": 1}), None);
    device.edit("1", increment(1)).unwrap();
    follows(&mut device, &server);
    let entry = device.replica.entries().last().unwrap();
    let reason = entry.trouble.as_ref().map(|trouble| trouble.reason.as_str());
    assert_eq!((entry.state, reason), (EntryState::Failed, Some("RECORD_GONE")));
}

#[test]
fn a_snapshot_of_the_same_history_is_no_new_one() {
    let policies = policies(Strategy::Merge);
    let (mut server, mut devices) =
        (Server::new(&policies), ["phone", "laptop"].map(|name| Device::new(name, &policies)));
    devices[0].edit("1", put(&json!({"a": 1, "b": 1}))).unwrap();
    devices[0].push(&mut server, 1);
    let [phone, laptop] = &mut devices;
    for device in [&mut *phone, &mut *laptop] {
        device.replica.adopt(server.epoch);
        device.load(&server, true);
        device.replica.go_on();
    }
    laptop.edit("1", Edit::Patch(Patch::new().set("/b", 2).unwrap())).unwrap();
    laptop.push(&mut server, 1);
    // It was based on what was there, and others have changed something else since.
    phone.edit("1", Edit::Patch(Patch::new().set("/a", 2).unwrap())).unwrap();
    phone.replica.place.loaded = None;
    phone.load(&server, true);
    phone.replica.go_on();
    assert!(phone.replica.entries().last().unwrap().base > Revision::ZERO);
    phone.push(&mut server, 1);
    phone.pull(&server);
    assert_eq!(phone.shown()[&key("1")].as_str(), r#"{"a":2,"b":2}"#);
}

#[test]
fn what_the_server_has_lost_is_taken_back() {
    let policies = policies(Strategy::Merge);
    let (mut server, mut device) = (Server::new(&policies), Device::new("phone", &policies));
    device.load(&server, true);
    device.edit("1", put(&json!({"n": 1}))).unwrap();
    device.push(&mut server, 1);
    device.pull(&server);
    // As after a failover to a copy that lacks the last commits.
    let server = Server::new(&policies);
    device.edit("1", increment(1)).unwrap();
    device.edit("2", put(&json!({}))).unwrap();
    device.replica.distrust();
    device.replica.number_anew(Sequence::ZERO);
    device.load(&server, true);
    device.replica.go_on();
    assert_eq!(device.shown().into_keys().collect::<Vec<_>>(), [key("2")]);
    let open: Vec<_> = device.replica.entries().filter(|it| it.state.is_open()).collect();
    assert_eq!((open.len(), open[0].base), (1, Revision::ZERO));
}

#[test]
fn what_was_decided_has_used_its_sequence() {
    let policies = policies(Strategy::Merge);
    let (server, mut device) = (Server::new(&policies), Device::new("phone", &policies));
    device.load(&server, true);
    for id in ["1", "2", "3"] {
        device.edit(id, put(&json!({}))).unwrap();
    }
    let sequences = |batch: &[Entry]| -> Vec<i64> {
        batch.iter().map(|entry| entry.sequence.unwrap().get()).collect()
    };
    assert_eq!(sequences(&device.replica.take(10, 1 << 20)), [1, 2, 3]);
    let trouble = Trouble::new("OUTCOME_UNKNOWN", "it was decided");
    device.replica.fail_front(&trouble, true);
    assert_eq!(sequences(&device.replica.take(10, 1 << 20)), [2, 3]);
    device.replica.fail_front(&trouble, false);
    assert_eq!(sequences(&device.replica.take(10, 1 << 20)), [2]);
    assert_eq!(device.replica.place.last_sequence.get(), 2);
}

#[test]
fn what_is_not_loaded_is_not_ahead() {
    let policies = policies(Strategy::Merge);
    let mut device = Device::new("phone", &policies);
    let later = Revision::new(9).unwrap();
    device.replica.advance(later);
    assert_eq!(device.replica.place.complete, Revision::ZERO);
    device.load(&Server::new(&policies), true);
    device.replica.advance(later);
    assert_eq!(device.replica.place.complete, later);
}

#[test]
fn what_came_of_a_wider_choice_is_not_kept() {
    let policies = policies(Strategy::Merge);
    let (mut server, mut devices) =
        (Server::new(&policies), ["phone", "laptop"].map(|name| Device::new(name, &policies)));
    let [phone, laptop] = &mut devices;
    phone.load(&server, true);
    laptop.edit("1", put(&json!({"n": 1}))).unwrap();
    laptop.push(&mut server, 1);
    phone.replica.place.scope = Scope::Collections(vec![CollectionName::parse("note").unwrap()]);
    phone.pull(&server);
    assert_eq!(phone.shown(), BTreeMap::new());
    assert_eq!(phone.replica.place.cursor, server.state.head());
}
