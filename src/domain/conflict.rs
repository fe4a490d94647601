//! Conflicts: two writes of one record, neither of which knew the other.

use time::OffsetDateTime;

use super::{
    Choice, CollectionName, DeviceId, Document, HistoryEntry, MutationId, Operation, Pointer,
    RecordKey, Revision, Seen, Strategy, UserId, Version, View,
};

/// A conflict, as the log keeps it. Its name is the mutation that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub id: MutationId,
    pub key: RecordKey,
    pub relation: Relation,
    pub strategy: Strategy,
    pub decision: Verdict,
    /// Where both sides changed the same value.
    pub paths: Vec<Pointer>,
    /// Where the record has lost what a side had written.
    pub lost: Vec<Pointer>,
    pub base: Base,
    pub server: Side,
    /// The time of the version that the server's side had claimed.
    pub server_claimed_micros: i64,
    /// Its revision is 0.
    pub client: Side,
    /// 0 = none was set.
    pub policy_version: i64,
    /// The name under which it is set.
    pub policy_collection: Option<CollectionName>,
    pub advisory: bool,
    /// The change that came of it at once; 0 if none did.
    pub result_revision: Revision,
    pub found_at: OffsetDateTime,
    pub closing: Option<Closing>,
    /// The head when it was opened or closed.
    pub revision: Revision,
}

/// Whether a conflict waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictState {
    Open,
    /// It was decided, at once or later.
    Resolved,
    /// A later write that knew both sides has closed it.
    Superseded,
}

impl Conflict {
    /// Does it wait for a decision?
    pub fn state(&self) -> ConflictState {
        match &self.closing {
            None if self.decision == Verdict::Open && !self.advisory => ConflictState::Open,
            None => ConflictState::Resolved,
            Some(closing) => closing.state(),
        }
    }

    /// What its documents have together.
    pub fn document_bytes(&self) -> usize {
        let documents =
            [self.base.document(), self.server.document.as_ref(), self.client.document.as_ref()];
        documents.into_iter().flatten().map(|it| it.as_str().len()).sum()
    }

    /// What the client had made of the record.
    pub fn view(&self) -> View {
        let document = self.client.document.clone();
        View { met: self.met(), at: self.revision, document }
    }

    /// What the next writes of its record need to know of it.
    pub fn as_open(&self) -> OpenConflict {
        let Side { version, device, author, .. } = &self.client;
        let (device, sequence) = (device.clone(), version.sequence);
        OpenConflict {
            id: self.id.clone(),
            client: HistoryEntry { device, sequence, revision: Revision::ZERO },
            author: author.clone(),
            server: self.met(),
        }
    }

    /// The write that the client's side met.
    fn met(&self) -> HistoryEntry {
        let Side { version, revision, device, .. } = &self.server;
        let (device, sequence, revision) = (device.clone(), version.sequence, *revision);
        HistoryEntry { device, sequence, revision }
    }

    /// As it was at first.
    pub fn as_found(&self) -> Self {
        Self { closing: None, ..self.clone() }
    }

    /// The head when it was last opened or closed.
    pub fn moved_at(&self) -> Revision {
        self.closing.as_ref().map_or(self.revision, |closing| closing.revision)
    }
}

/// An open conflict, as far as the next writes of its record need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenConflict {
    pub id: MutationId,
    /// The client's side, whatever its revision would have been.
    pub client: HistoryEntry,
    pub author: UserId,
    /// The server's side.
    pub server: HistoryEntry,
}

impl OpenConflict {
    /// Whether a writer who had seen this knew both sides. Who names no device
    /// is known by their name. A record's history does not tell of the client's
    /// side, which is not in it: only who has learnt from the device how far its
    /// queue went, and so knows no revision, can have seen it.
    pub fn is_superseded(&self, seen: &Seen, author: &UserId, device: Option<&DeviceId>) -> bool {
        let entries = match seen {
            Seen::Revision(_) => &[],
            Seen::Vector(history) => history.entries(),
        };
        let HistoryEntry { device: client, sequence, revision: _ } = &self.client;
        let knew_client = entries
            .iter()
            .filter(|it| it.revision == Revision::ZERO && it.device == *client)
            .any(|it| *sequence > 0 && it.sequence >= *sequence);
        let wrote_client =
            device == client.as_ref() && (device.is_some() || *author == self.author);
        seen.covers(&self.server) && (wrote_client || knew_client)
    }
}

/// How two sides stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Disjoint,
    Overlapping,
    CreateCreate,
    /// The server's side is an update.
    UpdateDelete,
    /// The server's side is a deletion.
    DeleteUpdate,
    DeleteDelete,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Client,
    Server,
    Merged,
    Open,
}

/// The document that the client had seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// None = there was no record.
    Known(Option<Document>),
    /// It is no longer kept.
    Lost,
}

impl Base {
    /// The document, if there was one, and it is still kept.
    pub fn document(&self) -> Option<&Document> {
        match self {
            Self::Known(document) => document.as_ref(),
            Self::Lost => None,
        }
    }
}

/// One side of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// None = a deletion.
    pub document: Option<Document>,
    pub version: Version,
    pub revision: Revision,
    pub author: UserId,
    pub device: Option<DeviceId>,
}

/// How an open conflict was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    pub kind: ClosingKind,
    pub author: UserId,
    pub device: Option<DeviceId>,
    pub mutation_id: MutationId,
    pub revision: Revision,
    pub at: OffsetDateTime,
}

impl Closing {
    /// What it makes of the conflict.
    pub fn state(&self) -> ConflictState {
        match self.kind {
            ClosingKind::Write => ConflictState::Superseded,
            ClosingKind::Client
            | ClosingKind::Server
            | ClosingKind::Document
            | ClosingKind::Strategy => ConflictState::Resolved,
        }
    }
}

/// In which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosingKind {
    Client,
    Server,
    Document,
    Strategy,
    /// A later write that knew both sides.
    Write,
}

impl ClosingKind {
    /// How this operation closes a conflict.
    pub(super) fn of(operation: &Operation) -> Self {
        match operation {
            Operation::Resolve(resolve) => match resolve.choice {
                Choice::Client => Self::Client,
                Choice::Server => Self::Server,
                Choice::Document(_) => Self::Document,
                Choice::Strategy(_) => Self::Strategy,
            },
            _ => Self::Write,
        }
    }
}
