//! Subscriptions of one stream that want the same and are at the same place are
//! told together; each of them is still told everything, once and in order.

use std::collections::{BTreeMap, BTreeSet};

use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{Cursor, DocumentForm, Mutation, RecordKey, SubscribeFrame};
use tokio::task::JoinSet;

use super::{House, send};
use crate::support::history::Log;
use crate::support::seen::{Seen, View};
use crate::support::{Random, Stream, put, scale, seed, signed};

/// The subscriptions of a stream, each with its own memory.
struct Many {
    stream: Stream,
    seen: BTreeMap<String, Seen>,
    /// Frames that were for more than one.
    shared: usize,
}

impl Many {
    async fn subscribe(&mut self, id: String, seen: Seen, form: DocumentForm) {
        let cursor = Cursor { epoch: seen.epoch.clone(), revision: seen.cursor };
        let frame = SubscribeFrame {
            subscription_id: id.clone(),
            cursor: (seen.cursor > 0).then_some(cursor),
            collections: seen.view.collections.clone(),
            device: seen.view.not_by.clone().unwrap_or_default(),
            document_form: form.into(),
            ..Default::default()
        };
        self.stream.subscribe(frame).await;
        self.seen.insert(id, seen);
    }

    /// Ends a subscription, if it is open, and takes in what comes before its end.
    async fn unsubscribe(&mut self, id: String) {
        if !self.seen.contains_key(&id) {
            return;
        }
        self.stream.unsubscribe(&id).await;
        while self.seen.contains_key(&id) {
            self.next().await;
        }
    }

    /// Takes a frame in; the subscriptions that it was for.
    async fn next(&mut self) -> Vec<String> {
        let frame = self.stream.frame().await;
        let ids = match &frame {
            Frame::Subscribed(it) => vec![it.subscription_id.clone()],
            Frame::CaughtUp(it) => vec![it.subscription_id.clone()],
            Frame::Changes(it) => it.subscription_ids.clone(),
            Frame::Closed(it) => {
                self.seen.remove(&it.subscription_id).unwrap();
                return Vec::new();
            }
            other => panic!("{other:?}"),
        };
        self.shared += usize::from(ids.len() > 1);
        for id in &ids {
            self.seen.get_mut(id).unwrap().take(frame.clone()).unwrap();
        }
        ids
    }

    async fn catch_up(&mut self) {
        while self.seen.values().any(|seen| seen.caught_up == 0) {
            self.next().await;
        }
    }
}

fn of_collection(collection: &str, mutation: Mutation) -> Mutation {
    let id = mutation.key.unwrap().id;
    Mutation { key: Some(RecordKey { collection: collection.into(), id }), ..mutation }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_followed_alike_comes_once() {
    let house = House::new().await;
    let alice = house.alice().await;
    send(&alice, "", put("m1", "1", "{}")).await.unwrap();
    let stream = Stream::open(&alice).await.unwrap();
    let mut many = Many { stream, seen: BTreeMap::new(), shared: 0 };
    let tasks = View { collections: vec!["task".into()], ..View::default() };
    let not_phone = View { not_by: Some("phone".into()), ..View::default() };
    for (id, view, form) in [
        ("all-1", View::default(), DocumentForm::Json),
        ("tasks", tasks, DocumentForm::Json),
        ("all-2", View::default(), DocumentForm::Json),
        ("not-phone", not_phone, DocumentForm::Json),
        ("fields", View::default(), DocumentForm::Struct),
        ("all-3", View::default(), DocumentForm::Json),
    ] {
        many.subscribe(id.into(), Seen::new(view), form).await;
    }
    many.catch_up().await;
    let mut expect = async |frames: &[&[&str]]| {
        let mut got = BTreeSet::new();
        for _ in 0..frames.len() {
            got.insert(many.next().await);
        }
        let expected = frames.iter().map(|ids| ids.iter().map(ToString::to_string).collect());
        assert_eq!(got, expected.collect());
    };
    send(&alice, "phone", put("m2", "2", "{}")).await.unwrap();
    expect(&[&["all-1", "all-2", "all-3"], &["tasks"], &["fields"]]).await;
    send(&alice, "", of_collection("note", put("m3", "3", "{}"))).await.unwrap();
    expect(&[&["all-1", "all-2", "all-3"], &["fields"], &["not-phone"]]).await;
    let told = |id: &str| many.seen[id].changes.keys().copied().collect::<Vec<_>>();
    assert_eq!(told("all-3"), [1, 2, 3]);
    assert_eq!(told("tasks"), [1, 2]);
    assert_eq!(told("not-phone"), [1, 3]);
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_come_and_go_each_miss_nothing() {
    let house = House::new().await;
    let alice = house.alice().await;
    let mut random = Random(seed());
    let views = [
        View::default(),
        View { collections: vec!["task".into()], ..View::default() },
        View { not_by: Some("phone".into()), ..View::default() },
        View { collections: vec!["note".into()], not_by: Some("phone".into()), ..View::default() },
    ];
    let stream = Stream::open(&alice).await.unwrap();
    let mut many = Many { stream, seen: BTreeMap::new(), shared: 0 };
    let writes = 200 * scale();
    let mut writer = JoinSet::new();
    {
        let (alice, mut random) = (alice.clone(), Random(random.next()));
        writer.spawn(async move {
            for number in 0..writes {
                let device = ["phone", "laptop"][usize::from(random.below(2) == 1)];
                let collection = ["task", "note"][usize::from(random.below(2) == 1)];
                let write = put(&format!("m{number}"), &random.below(30).to_string(), "{}");
                send(&alice, device, of_collection(collection, write)).await.unwrap();
            }
        });
    }
    for number in 0..60 {
        let view = views[usize::try_from(random.below(4)).unwrap()].clone();
        // Some begin where another is; most from the beginning.
        let like = many.seen.values().nth(usize::try_from(random.below(60)).unwrap());
        let like = like.filter(|it| it.view.collections == view.collections);
        let like = like.filter(|it| it.view.not_by == view.not_by).cloned();
        let seen = like.unwrap_or_else(|| Seen::new(view));
        let seen = Seen { caught_up: 0, ..seen };
        many.subscribe(number.to_string(), seen, DocumentForm::Json).await;
        for _ in 0..random.below(8) {
            many.next().await;
        }
        if number % 5 == 4 {
            many.unsubscribe(random.below(number + 1).to_string()).await;
        }
    }
    many.catch_up().await;
    writer.join_all().await;
    // A last change that passes every filter: who was told of it was told of all.
    let last = signed(usize::try_from(writes).unwrap()) + 2;
    for (number, collection) in [(1, "note"), (2, "task")] {
        let write = put(&format!("last-{number}"), "last", "{}");
        send(&alice, "laptop", of_collection(collection, write)).await.unwrap();
    }
    let all_told = |many: &Many| {
        let end = |seen: &Seen| last - i64::from(seen.view.collections == ["note"]);
        many.seen.values().all(|seen| seen.cursor >= end(seen))
    };
    while !all_told(&many) {
        many.next().await;
    }
    assert!(many.shared > 0, "none went together");
    let log = Log::read(&mut house.database.connect().await, "alice").await;
    log.check().unwrap();
    for (id, seen) in &mut many.seen {
        // What came last may not have passed; progress would say so.
        seen.cursor = seen.cursor.max(log.head);
        seen.check(&log).unwrap_or_else(|error| panic!("{id}: {error}"));
    }
    house.end().await;
}
