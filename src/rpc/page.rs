//! Builds large messages out of entries that are encoded already, without
//! growing beyond what clients accept.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::encoded::Encoded;
use crate::domain::limits;

/// What a message needs beside its entries: names, cursors, tags and lengths.
const HEADROOM_BYTES: usize = 4 << 10;

/// Gathers entries of field 1.
#[derive(Debug)]
pub(super) struct PageBuilder {
    entries: Vec<Bytes>,
    bytes: usize,
    room_bytes: usize,
}

impl Default for PageBuilder {
    fn default() -> Self {
        Self::beside(0)
    }
}

impl PageBuilder {
    /// For a message that has this much more beside its entries than most have.
    pub(super) fn beside(more_bytes: usize) -> Self {
        let room_bytes = limits::MESSAGE_BYTES_MAX.saturating_sub(HEADROOM_BYTES + more_bytes);
        Self { entries: Vec::new(), bytes: 0, room_bytes }
    }

    /// Takes an entry, unless it would make the message too large. The first
    /// always fits: no entry is larger than a document may be.
    pub(super) fn push(&mut self, entry: &Bytes) -> bool {
        let bytes = self.bytes + entry.len();
        let takes = self.entries.is_empty() || bytes <= self.room_bytes;
        if takes {
            self.entries.push(entry.clone());
            self.bytes += entry.len();
        }
        takes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The message whose other fields `rest` has.
    pub(super) fn finish(self, rest: &impl Message) -> Encoded {
        self.write(BytesMut::new(), rest, rest.encoded_len())
    }

    /// The same as field `tag` of an outer message.
    pub(super) fn finish_in(self, tag: u32, rest: &impl Message) -> Encoded {
        let rest_len = rest.encoded_len();
        let inner = self.bytes + rest_len;
        let mut buffer = BytesMut::with_capacity(inner + 12);
        prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut buffer);
        prost::encoding::encode_varint(inner as u64, &mut buffer);
        self.write(buffer, rest, rest_len)
    }

    fn write(self, mut buffer: BytesMut, rest: &impl Message, rest_len: usize) -> Encoded {
        buffer.reserve(self.bytes + rest_len);
        self.entries.iter().for_each(|entry| buffer.put_slice(entry));
        rest.encode_raw(&mut buffer);
        Encoded(buffer.freeze())
    }
}
