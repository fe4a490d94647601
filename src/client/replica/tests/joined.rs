//! What two edits that become one lead to, whatever somebody else has written between them.

use super::*;

/// What the server has in the end if another device writes between two edits of one.
fn between(strategy: Strategy, edits: [&Edit; 2], theirs: &Edit, joined: bool) -> Option<String> {
    let policies = policies(strategy);
    let mut server = Server::new(&policies);
    let mut devices = ["phone", "laptop"].map(|name| Device::new(name, &policies));
    devices[0].edit("1", put(&json!({"a": 0, "b": 0, "n": 10}))).unwrap();
    devices[0].push(&mut server, 1);
    for device in &mut devices {
        device.load(&server, true);
    }
    let [phone, laptop] = &mut devices;
    laptop.edits = 14;
    laptop.edit("1", theirs.clone()).unwrap();
    laptop.push(&mut server, 1);
    for (at, edit, version) in [(10, edits[0], 0), (20, edits[1], i64::from(!joined))] {
        let id = MutationId::parse(&format!("phone-{at}")).unwrap();
        phone.replica.enqueue(id, &key("1"), edit.clone(), at, version).unwrap();
    }
    let waiting = phone.replica.entries().filter(|it| it.state.is_open()).count();
    assert!(joined || waiting == 2);
    phone.push(&mut server, 10);
    let record = server.state.records().next()?;
    record.document.as_ref().map(|it| it.as_str().to_owned())
}

#[test]
fn edits_that_are_joined_end_as_they_would_have_one_by_one() {
    let set = |fields: Value| Edit::Patch(Patch::merge(fields).unwrap());
    let edits = [
        put(&json!({"a": 1, "n": 1})),
        put(&json!({"a": 2, "n": 99})),
        put(&json!({"b": 1})),
        set(json!({"a": 3})),
        set(json!({"a": 4})),
        set(json!({"a": 4, "b": 4})),
        increment(1),
        increment(2),
        Edit::Delete,
    ];
    let mut compared = 0;
    for (first, second) in edits.iter().flat_map(|it| edits.iter().map(move |other| (it, other))) {
        if first.then(second).is_none() {
            continue;
        }
        for theirs in &edits {
            for strategy in STRATEGIES {
                let [apart, joined] =
                    [false, true].map(|joined| between(strategy, [first, second], theirs, joined));
                let what = format!("{strategy:?}: {first:?}, {second:?}; {theirs:?} between");
                assert_eq!(joined, apart, "{what}");
                compared += 1;
            }
        }
    }
    assert!(compared > 500, "{compared}");
}
