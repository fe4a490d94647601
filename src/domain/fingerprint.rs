//! What a mutation asks for, as 32 bytes: tells a mutation that is sent again
//! from another one under the same id. Stored, so its form never changes.

use sha2::{Digest, Sha256};

use super::{Content, DeviceId, Operation, Sequence};

/// SHA-256 over a mutation's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of valid content. Documents count as canonical text, so both of their
    /// forms on the wire are the same content.
    pub fn of(content: &Content, device: Option<&DeviceId>, sequence: Option<Sequence>) -> Self {
        let mut parts = Parts(Sha256::new());
        parts.add(content.key.collection.as_str().as_bytes());
        parts.add(content.key.id.as_str().as_bytes());
        parts.add(device.map_or("", DeviceId::as_str).as_bytes());
        parts.number(sequence.map(Sequence::get));
        parts.number(content.base.map(super::Revision::get));
        match &content.operation {
            Operation::Create(document) => {
                parts.add(b"create");
                parts.add(document.as_str().as_bytes());
            }
            Operation::Put(document) => {
                parts.add(b"put");
                parts.add(document.as_str().as_bytes());
            }
            Operation::Patch(patch) => {
                parts.add(b"patch");
                parts.add(patch.set.as_str().as_bytes());
                for path in &patch.unset {
                    parts.add(path.to_string().as_bytes());
                }
            }
            Operation::Delete => parts.add(b"delete"),
        }
        parts.finish()
    }

    /// Of content that breaks a rule, from its bytes on the wire.
    pub fn of_invalid(bytes: &[u8]) -> Self {
        let mut parts = Parts(Sha256::new());
        parts.add(b"invalid");
        parts.add(bytes);
        parts.finish()
    }
}

/// Each part goes in behind its length, so that parts cannot run together.
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn number(&mut self, number: Option<i64>) {
        match number {
            None => self.add(b""),
            Some(number) => self.add(&number.to_le_bytes()),
        }
    }

    fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}
