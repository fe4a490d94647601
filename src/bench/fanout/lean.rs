//! What a subscriber of the bench decodes of a frame, from either server: no more
//! than which writes it tells of and how many subscriptions, so that the load
//! generator takes as little as it can of the cores that it shares with them.

use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, message, skip_field};

/// A `SubscribeResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LeanFrame {
    #[prost(message, optional, tag = "2")]
    pub(super) changes: Option<LeanChanges>,
    #[prost(message, optional, tag = "3")]
    pub(super) caught_up: Option<Nothing>,
    #[prost(message, optional, tag = "5")]
    pub(super) closed: Option<Nothing>,
    #[prost(message, optional, tag = "6")]
    pub(super) resync: Option<Nothing>,
}

/// A `ChangesFrame`. Its subscriptions are counted, not read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LeanChanges {
    changes: Vec<LeanChange>,
    pub(super) subscriptions: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeanChange {
    #[prost(message, optional, tag = "2")]
    key: Option<LeanKey>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeanKey {
    #[prost(string, tag = "2")]
    id: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Nothing {}

impl LeanChanges {
    /// The numbers of the writes, which are the ids of their records.
    pub(super) fn numbers(&self) -> impl Iterator<Item = Option<usize>> {
        self.changes.iter().map(|change| change.key.as_ref()?.id.parse().ok())
    }
}

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
            _ => {
                self.subscriptions += u64::from(tag == 2);
                skip_field(wire_type, tag, buffer, context)
            }
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::rpc::proto::subscribe_response::Frame;
    use crate::rpc::proto::{Change, ChangesFrame, RecordKey, SubscribeResponse};

    #[test]
    fn the_lean_frame_has_the_writes_and_counts_the_subscriptions() {
        let change = |id: &str| Change {
            revision: 9,
            key: Some(RecordKey { collection: "task".into(), id: id.into() }),
            ..Change::default()
        };
        let frame = ChangesFrame {
            changes: vec![change("0000000012"), change("13"), change("other")],
            subscription_ids: vec!["a".into(), "b".into()],
            ..ChangesFrame::default()
        };
        let whole = SubscribeResponse { frame: Some(Frame::Changes(frame)) };
        let lean = LeanFrame::decode(whole.encode_to_vec().as_slice()).unwrap();
        let changes = lean.changes.unwrap();
        assert_eq!(changes.numbers().collect::<Vec<_>>(), [Some(12), Some(13), None]);
        assert_eq!(changes.subscriptions, 2);
        assert_eq!((lean.caught_up, lean.closed, lean.resync), (None, None, None));
    }
}
