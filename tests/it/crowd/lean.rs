//! Subscribers that cost little: they decode no more of a frame than it takes to see
//! that everything comes, once and in order.

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_varint, int64, message, skip_field};
use syncline::rpc::proto::subscribe_request::Frame;
use syncline::rpc::proto::{SubscribeFrame, SubscribeRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

/// A `SubscribeResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeanFrame {
    #[prost(message, optional, tag = "2")]
    pub changes: Option<LeanChanges>,
    #[prost(message, optional, tag = "3")]
    pub caught_up: Option<LeanCaughtUp>,
    #[prost(message, optional, tag = "5")]
    pub closed: Option<Nothing>,
    #[prost(message, optional, tag = "6")]
    pub resync: Option<Nothing>,
    #[prost(message, optional, tag = "12")]
    pub going_away: Option<Nothing>,
}

/// A `ChangesFrame`; the names of the subscriptions are numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeanChanges {
    pub changes: Vec<LeanChange>,
    pub subscriptions: Vec<usize>,
    pub after: i64,
    pub up_to: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LeanChange {
    #[prost(int64, tag = "1")]
    pub revision: i64,
    #[prost(message, optional, tag = "2")]
    pub key: Option<LeanKey>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LeanKey {
    #[prost(string, tag = "2")]
    pub id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LeanCaughtUp {
    #[prost(string, tag = "1")]
    pub subscription_id: String,
    #[prost(int64, tag = "2")]
    pub up_to: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Nothing {}

impl prost::Message for LeanChanges {
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => message::merge_repeated(wire_type, &mut self.changes, buffer, context),
            2 => {
                let digits = usize::try_from(decode_varint(buffer)?).unwrap();
                let number =
                    (0..digits).fold(0, |it, _| 10 * it + usize::from(buffer.get_u8() - b'0'));
                self.subscriptions.push(number);
                Ok(())
            }
            3 => int64::merge(wire_type, &mut self.after, buffer, context),
            4 => int64::merge(wire_type, &mut self.up_to, buffer, context),
            _ => skip_field(wire_type, tag, buffer, context),
        }
    }

    /// It is only received.
    fn encode_raw(&self, _buffer: &mut impl BufMut) {}

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A stream, and where its subscriptions are. Every change passes their filters and
/// is of a record of its own, so that each of them has every revision.
#[derive(Debug)]
pub struct LeanStream {
    frames: Streaming<LeanFrame>,
    /// The client goes on holding its side open.
    _requests: mpsc::Sender<SubscribeRequest>,
    /// None until it has caught up, or been told of something.
    pub cursors: Vec<Option<i64>>,
}

impl LeanStream {
    /// Begins subscriptions that are all like this one, but for their names.
    pub async fn open(
        channel: Channel,
        token: &str,
        like: &SubscribeFrame,
        subscriptions: usize,
    ) -> Self {
        let (requests, queue) = mpsc::channel(subscriptions);
        for number in 0..subscriptions {
            let frame = SubscribeFrame { subscription_id: number.to_string(), ..like.clone() };
            let frame = SubscribeRequest { frame: Some(Frame::Subscribe(frame)) };
            requests.try_send(frame).unwrap();
        }
        let mut client = Grpc::new(channel);
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/syncline.v1.SyncService/Subscribe");
        let codec = ProstCodec::<SubscribeRequest, LeanFrame>::default();
        let mut request = Request::new(ReceiverStream::new(queue));
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let frames = client.streaming(request, path, codec).await.unwrap().into_inner();
        // Who begins at the head is told where that is; all others begin at zero.
        let begin = like.start == 0 && like.cursor.is_none();
        Self { frames, _requests: requests, cursors: vec![begin.then_some(0); subscriptions] }
    }

    /// The place of the subscription that is least far.
    pub fn reached(&self) -> i64 {
        self.cursors.iter().map(|it| it.unwrap_or(-1)).min().unwrap_or(-1)
    }

    /// Takes in the next frame; its changes, and for how many subscriptions they came.
    pub async fn next(&mut self) -> (Vec<LeanChange>, usize) {
        let frame = self.frames.message().await.unwrap().expect("the stream goes on");
        let ended = (frame.closed, frame.resync, frame.going_away);
        assert_eq!(ended, (None, None, None), "it ended");
        if let Some(caught_up) = frame.caught_up {
            let number: usize = caught_up.subscription_id.parse().unwrap();
            let cursor = &mut self.cursors[number];
            assert!(cursor.is_none_or(|at| at == caught_up.up_to), "a gap before {caught_up:?}");
            *cursor = Some(caught_up.up_to);
        }
        let Some(LeanChanges { changes, subscriptions, after, up_to }) = frame.changes else {
            return (Vec::new(), 0);
        };
        let revisions = changes.iter().map(|it| it.revision);
        assert!(revisions.eq(after + 1..=up_to), "not all of ({after}, {up_to}]: {changes:?}");
        for number in &subscriptions {
            let cursor = &mut self.cursors[*number];
            assert_eq!(*cursor, Some(after), "a gap or an overlap of {number}");
            *cursor = Some(up_to);
        }
        (changes, subscriptions.len())
    }

    /// Reads on until all are so far.
    pub async fn read_to(&mut self, revision: i64) {
        while self.reached() < revision {
            self.next().await;
        }
    }
}
