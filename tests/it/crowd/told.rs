//! What the subscriptions of one stream were told, and whether it joins: ranges
//! without a gap, revisions in order, nothing twice.

use std::collections::HashMap;
use std::time::Duration;

use syncline::rpc::proto::subscribe_response::Frame;
use tokio::time::timeout;

use crate::support::Stream;

/// One subscription's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub cursor: i64,
    /// The revisions that came.
    pub changes: Vec<i64>,
    pub caught_up: bool,
    pub closed: bool,
    /// The topics of events that came.
    pub events: Vec<String>,
}

/// Those of a stream, by their names.
#[derive(Debug, Default)]
pub struct Listener(pub HashMap<String, Told>);

impl Listener {
    pub fn of(&self, id: &str) -> &Told {
        &self.0[id]
    }

    fn at(&mut self, id: &str) -> &mut Told {
        let told = self.0.get_mut(id).expect("a subscription that was begun");
        assert!(!told.closed, "{id} has ended");
        told
    }

    /// Takes in a frame.
    pub fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Subscribed(it) => {
                self.0.insert(it.subscription_id, Told::default());
            }
            Frame::Changes(it) => {
                let revisions: Vec<i64> = it.changes.iter().map(|it| it.revision).collect();
                assert!(revisions.is_sorted_by(|one, next| one < next), "{revisions:?}");
                assert!(revisions.first().is_none_or(|first| *first > it.after));
                assert!(revisions.last().is_none_or(|last| *last <= it.up_to));
                for id in &it.subscription_ids {
                    let told = self.at(id);
                    // One that began at the head is first told where that was.
                    assert_eq!(told.cursor, it.after, "{id}: a gap or an overlap");
                    told.cursor = it.up_to;
                    told.changes.extend(&revisions);
                }
            }
            Frame::CaughtUp(it) => {
                let told = self.at(&it.subscription_id);
                assert!(it.up_to >= told.cursor, "{} went back", it.subscription_id);
                (told.cursor, told.caught_up) = (it.up_to, true);
            }
            Frame::Progress(it) => {
                for at in it.subscriptions {
                    let told = self.at(&at.subscription_id);
                    assert!(at.up_to >= told.cursor, "{} went back", at.subscription_id);
                    told.cursor = at.up_to;
                }
            }
            Frame::Closed(it) => {
                assert_eq!(it.code, 0, "{it:?}");
                self.at(&it.subscription_id).closed = true;
            }
            Frame::Event(it) => self.at(&it.subscription_id).events.push(it.topic),
            other => panic!("the stream was to go on: {other:?}"),
        }
    }

    /// Reads on until that is so, at most 30 s: signs of life alone are not enough.
    pub async fn read_until(&mut self, stream: &mut Stream, done: impl Fn(&Self) -> bool) {
        let reading = async {
            while !done(self) {
                let frame = stream.next().await.expect("the stream goes on");
                self.take(frame.expect("nobody ended the stream"));
            }
        };
        timeout(Duration::from_secs(30), reading).await.expect("it comes to that within 30 s");
    }
}
