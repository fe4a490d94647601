//! What subscribers of a space tell each other without having it stored.

use time::OffsetDateTime;

use super::{DeviceId, Document, UserId};

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about: visible ASCII.
    pub topic: String,
    pub document: Option<Document>,
    pub author: UserId,
    pub device: Option<DeviceId>,
    pub published_at: OffsetDateTime,
}

impl Event {
    /// Memory that it holds, about.
    pub fn size_bytes(&self) -> usize {
        let document = self.document.as_ref().map_or(0, |document| document.as_str().len());
        size_of::<Self>() + self.topic.len() + document
    }
}
