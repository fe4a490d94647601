//! Builds large messages out of entries that are encoded already, without
//! growing beyond what clients accept.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::encoded::Encoded;
use crate::domain::limits;

/// What a message needs beside its entries: names, cursors, tags and lengths.
const HEADROOM_BYTES: usize = 4 << 10;

/// Gathers entries of field 1.
#[derive(Debug, Default)]
pub(super) struct PageBuilder {
    entries: BytesMut,
    count: usize,
}

impl PageBuilder {
    /// Takes an entry, unless it would make the message too large. The first
    /// always fits: no entry is larger than a document may be.
    pub(super) fn push(&mut self, entry: &Bytes) -> bool {
        let bytes = self.entries.len() + entry.len() + HEADROOM_BYTES;
        let takes = self.count == 0 || bytes <= limits::MESSAGE_BYTES_MAX;
        if takes {
            self.entries.put_slice(entry);
            self.count += 1;
        }
        takes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The message whose other fields `rest` has.
    pub(super) fn finish(self, rest: &impl Message) -> Encoded {
        let mut bytes = self.entries;
        bytes.reserve(rest.encoded_len());
        bytes.put_slice(&rest.encode_to_vec());
        Encoded(bytes.freeze())
    }

    /// The same as field `tag` of an outer message.
    pub(super) fn finish_in(self, tag: u32, rest: &impl Message) -> Encoded {
        let rest = rest.encode_to_vec();
        let mut bytes = BytesMut::with_capacity(self.entries.len() + rest.len() + 12);
        prost::encoding::encode_key(tag, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint((self.entries.len() + rest.len()) as u64, &mut bytes);
        bytes.put_slice(&self.entries);
        bytes.put_slice(&rest);
        Encoded(bytes.freeze())
    }
}
