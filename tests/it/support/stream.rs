//! Subscribe streams: raw, and followed with all promises checked.

use std::collections::BTreeMap;
use std::time::Duration;

use syncline::rpc::proto::subscribe_request::Frame as Out;
use syncline::rpc::proto::subscribe_response::Frame;
use syncline::rpc::proto::{
    Change, Cursor, SubscribeFrame, SubscribeRequest, SubscribeResponse, UnsubscribeFrame,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Client;

/// An open Subscribe stream.
#[derive(Debug)]
pub struct Stream {
    out: mpsc::Sender<SubscribeRequest>,
    inbound: Streaming<SubscribeResponse>,
}

/// A subscription to the caller's own space, from a cursor.
pub fn subscribe_frame(id: &str, cursor: Option<Cursor>) -> SubscribeFrame {
    SubscribeFrame { subscription_id: id.into(), cursor, ..Default::default() }
}

impl Stream {
    pub async fn open(client: &Client) -> Result<Self, Status> {
        let (out, queue) = mpsc::channel(16);
        let inbound = client.stub.clone().subscribe(ReceiverStream::new(queue)).await?.into_inner();
        Ok(Self { out, inbound })
    }

    pub async fn send(&self, frame: Out) {
        assert!(self.offer(frame).await, "the stream has ended");
    }

    /// The same on a stream that may have ended; false if it has.
    pub async fn offer(&self, frame: Out) -> bool {
        self.out.send(SubscribeRequest { frame: Some(frame) }).await.is_ok()
    }

    pub async fn subscribe(&self, frame: SubscribeFrame) {
        self.send(Out::Subscribe(frame)).await;
    }

    pub async fn unsubscribe(&self, id: &str) {
        self.send(Out::Unsubscribe(UnsubscribeFrame { subscription_id: id.into() })).await;
    }

    /// The next frame, or the stream's end.
    pub async fn next(&mut self) -> Result<Option<Frame>, Status> {
        let next = timeout(Duration::from_secs(30), self.inbound.message()).await;
        let message = next.expect("a frame comes within 30 s")?;
        Ok(message.map(|message| message.frame.expect("a frame is never empty")))
    }

    /// The next frame that is not progress.
    pub async fn frame(&mut self) -> Frame {
        let next = async {
            loop {
                match self.next().await.expect("the stream goes on") {
                    Some(Frame::Progress(_)) => {}
                    Some(frame) => return frame,
                    None => panic!("the stream ended"),
                }
            }
        };
        timeout(Duration::from_secs(30), next).await.expect("a frame comes within 30 s")
    }
}

/// Follows one subscription on one stream and checks what is promised: ranges
/// without gaps, revisions in order, nothing twice.
#[derive(Debug, Default)]
pub struct Follower {
    pub epoch: String,
    pub cursor: i64,
    /// Every change that came, by revision.
    pub changes: BTreeMap<i64, Change>,
    pub caught_up: u64,
}

impl Follower {
    /// Takes a frame in.
    pub fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Subscribed(frame) => {
                assert!(self.epoch.is_empty() || self.epoch == frame.epoch);
                self.epoch = frame.epoch;
            }
            Frame::Changes(frame) => {
                assert_eq!(frame.after, self.cursor, "a gap or an overlap");
                assert!(frame.up_to > frame.after, "a range is never empty");
                let mut last = frame.after;
                for change in frame.changes {
                    assert!(change.revision > last, "out of order");
                    assert!(change.revision <= frame.up_to, "beyond its range");
                    last = change.revision;
                    let before = self.changes.insert(last, change);
                    assert!(before.is_none(), "revision {last} came twice");
                }
                self.cursor = frame.up_to;
            }
            Frame::CaughtUp(frame) => {
                assert!(frame.up_to >= self.cursor, "caught_up is behind");
                self.cursor = frame.up_to;
                self.caught_up += 1;
            }
            Frame::Progress(frame) => {
                for at in frame.subscriptions {
                    assert!(at.up_to >= self.cursor && at.head >= at.up_to, "progress lies");
                    self.cursor = at.up_to;
                }
            }
            Frame::Conflict(_) | Frame::Mutated(_) | Frame::Event(_) => {}
            other => panic!("ended: {other:?}"),
        }
    }

    /// Follows an open stream up to a revision.
    pub async fn follow_on(&mut self, stream: &mut Stream, up_to: i64) -> Result<(), Status> {
        while self.cursor < up_to {
            match stream.next().await? {
                Some(frame) => self.take(frame),
                None => return Err(Status::unavailable("the stream ended")),
            }
        }
        Ok(())
    }
}
