//! What a mutation asks for, as 32 bytes: tells a mutation that is sent again
//! from another one under the same id. Stored, so its form never changes.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Choice, Content, DeviceId, Operation, Resolve, Revision, Seen, Sequence, Transform,
    TransformKind, Undelete, UserId,
};

/// SHA-256 over a mutation's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of valid content. Documents count as canonical text, so both of their
    /// forms on the wire are the same content.
    pub fn of(content: &Content, device: Option<&DeviceId>, sequence: Option<Sequence>) -> Self {
        if let Operation::Resolve(resolve) = &content.operation {
            return Self::of_resolution(resolve, device);
        }
        let mut parts = Parts(Sha256::new());
        parts.add(content.key.collection.as_str().as_bytes());
        parts.add(content.key.id.as_str().as_bytes());
        parts.add(device.map_or("", DeviceId::as_str).as_bytes());
        parts.number(sequence.map(Sequence::get));
        let base = match &content.base {
            Some(Seen::Revision(revision)) => Some(revision.get()),
            Some(Seen::Vector(_)) | None => None,
        };
        parts.number(base);
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
                for transform in &patch.transforms {
                    parts.transform(transform);
                }
            }
            Operation::Delete | Operation::Resolve(_) => parts.add(b"delete"),
        }
        parts.extras(content);
        parts.finish()
    }

    /// Of a resolution: the conflict says which record it is about, and may be
    /// forgotten when the resolution is sent again.
    pub fn of_resolution(resolve: &Resolve, device: Option<&DeviceId>) -> Self {
        let mut parts = Parts(Sha256::new());
        parts.add(device.map_or("", DeviceId::as_str).as_bytes());
        parts.resolve(resolve);
        parts.finish()
    }

    /// Of the replacement of a whole space: of what is asked for, but not of the records,
    /// which come later.
    pub fn of_replacement(
        author: &UserId,
        device: Option<&DeviceId>,
        seen: Option<Revision>,
    ) -> Self {
        let mut parts = Parts(Sha256::new());
        parts.add(b"replace");
        parts.add(author.as_str().as_bytes());
        parts.add(device.map_or("", DeviceId::as_str).as_bytes());
        parts.number(seen.map(Revision::get));
        parts.finish()
    }

    /// Of an undeletion: which document it means is known only as long as the record
    /// is deleted, and it may be sent again when that has been undone.
    pub fn of_undeletion(undelete: &Undelete, device: Option<&DeviceId>) -> Self {
        let mut parts = Parts(Sha256::new());
        parts.add(device.map_or("", DeviceId::as_str).as_bytes());
        parts.add(b"undelete");
        parts.add(undelete.key.collection.as_str().as_bytes());
        parts.add(undelete.key.id.as_str().as_bytes());
        parts.number(undelete.document_at.map(Revision::get));
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

    /// What is only there if it was asked for: without, the parts are those that
    /// they always were. No part before can be one of the names.
    fn extras(&mut self, content: &Content) {
        if let Some(Seen::Vector(history)) = &content.base {
            self.add(b"base_history");
            for entry in history.entries() {
                self.add(entry.device.as_ref().map_or("", DeviceId::as_str).as_bytes());
                self.number(Some(entry.sequence));
                self.number(Some(entry.revision.get()));
            }
        }
        if let Some(micros) = content.client_micros {
            self.add(b"client_time");
            self.number(Some(micros));
        }
    }

    fn transform(&mut self, transform: &Transform) {
        let values = |values: &[Value]| serde_json::to_string(values).unwrap_or_default();
        let (kind, operand) = match &transform.kind {
            TransformKind::Increment(number) => ("increment", number.to_string()),
            TransformKind::Max(number) => ("max", number.to_string()),
            TransformKind::Min(number) => ("min", number.to_string()),
            TransformKind::AppendMissing(list) => ("append_missing", values(list)),
            TransformKind::RemoveAll(list) => ("remove_all", values(list)),
            TransformKind::ServerTime => ("server_time", String::new()),
        };
        self.add(kind.as_bytes());
        self.add(transform.path.to_string().as_bytes());
        self.add(operand.as_bytes());
    }

    fn resolve(&mut self, resolve: &Resolve) {
        self.add(b"resolve");
        self.add(resolve.conflict.as_str().as_bytes());
        self.number(Some(resolve.seen.get()));
        match &resolve.choice {
            Choice::Client => self.add(b"client"),
            Choice::Server => self.add(b"server"),
            Choice::Document(document) => {
                self.add(b"document");
                self.add(document.as_str().as_bytes());
            }
            Choice::Strategy(strategy) => {
                self.add(b"strategy");
                self.add(serde_json::to_string(strategy).unwrap_or_default().as_bytes());
            }
        }
    }

    fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CollectionName, RecordId, RecordKey};

    fn undeletion(collection: &str, id: &str, at: Option<i64>, device: &str) -> String {
        let collection = CollectionName::parse(collection).unwrap();
        let key = RecordKey { collection, id: RecordId::parse(id).unwrap() };
        let document_at = at.and_then(Revision::new);
        let device = DeviceId::parse(device).ok();
        let of = Fingerprint::of_undeletion(&Undelete { key, document_at }, device.as_ref());
        of.0.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn an_undeletion_has_a_form_that_stays_and_every_part_of_it_counts() {
        let all = [
            undeletion("task", "1", None, ""),
            undeletion("task", "1", Some(7), ""),
            undeletion("task", "1", None, "desk"),
            undeletion("task", "2", None, ""),
            undeletion("note", "1", None, ""),
        ];
        assert_eq!(all.join(" "), "94a5c7c1 3f73217c 152abd62 7c7c7f9d 70f38f29");
    }
}
