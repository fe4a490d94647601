//! Taking everything out of a space, or of what is a user's, and taking it away.

use std::sync::Arc;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use uuid::Uuid;

use super::{App, Error, PageSize, Snapshot};
use crate::domain::{
    Actor, AuditAction, AuditEntry, Caller, Epoch, Record, Right, Scope, Space, UserId, limits,
};
use crate::hub::{Hint, Refresh};
use crate::store::{Erased, ExportPlace, Section, SharedSpace, SnapshotPlace};

/// The form of lines that this program writes and reads.
pub const EXPORT_FORMAT: u64 = 1;

/// Whose everything is taken out, or away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    Space(Space),
    User(UserId),
}

impl Whole {
    /// The space that is taken as a whole.
    pub fn space(&self) -> Space {
        match self {
            Self::Space(space) => space.clone(),
            Self::User(user) => Space::private(user),
        }
    }
}

/// Lines that wait to be sent, in parts of about this much.
const PART_BYTES: usize = 256 << 10;
const PARTS_WAITING: usize = 1;

/// Parts of an export: whole lines, each with its end.
pub type Parts = mpsc::Receiver<Result<String, Error>>;

impl App {
    /// Begins to take everything out; that it was is noted before anything is read.
    pub async fn export(self: &Arc<Self>, caller: &Caller, whole: Whole) -> Result<Parts, Error> {
        let room = Arc::clone(&self.exports).try_acquire_owned();
        let room = room.map_err(|_full| Error::Overloaded)?;
        let space = whole.space();
        let entry = match &whole {
            Whole::Space(_) => AuditEntry::new(AuditAction::SpaceExported, caller.audited()),
            Whole::User(user) => {
                AuditEntry::new(AuditAction::UserExported, caller.audited()).about(user.clone())
            }
        };
        let (store, now, noted) = (self.store.clone(), self.clock.now_to_store(), space.id);
        let title = match space.is_shared() {
            true => Some(self.shared_space(caller, space.clone()).await?),
            false => None,
        };
        self.detached(async move {
            store.create_spaces(&[&space]).await?;
            store.note(&[(noted, entry)], now).await
        })
        .await?;
        let (sender, parts) = mpsc::channel(PARTS_WAITING);
        let export = Export {
            app: Arc::clone(self),
            caller: caller.clone(),
            whole,
            began: now,
            out: Out { sender: sender.clone(), text: String::new(), lines: 0 },
            _room: room,
        };
        drop(self.tasks.spawn("export", async move {
            // Cancel safe: nothing that is read is changed.
            if let Err(error) = export.run(title).await {
                let _gone = sender.send(Err(error)).await;
            }
        }));
        Ok(parts)
    }

    /// Erases a space, or a user; the server's audit log alone knows that it was. A client
    /// that comes back finds another epoch, or no space. Cancel safe: it goes on.
    pub async fn erase(&self, caller: &Caller, whole: Whole) -> Result<Erased, Error> {
        let (store, now, space) = (self.store.clone(), self.clock.now_to_store(), whole.space());
        let erased = match whole {
            Whole::Space(space) => {
                let by = audited_erasure(caller, &space);
                let entry = AuditEntry::new(AuditAction::SpaceErased, by);
                let entry = entry.with("space_id", space.id.to_string());
                self.detached(async move { store.erase_space(&space, &entry, now).await }).await?
            }
            Whole::User(user) => {
                let by = audited_erasure(caller, &space);
                let entry = AuditEntry::new(AuditAction::UserErased, by);
                let entry = entry.with("space_id", space.id.to_string());
                let pseudonym = format!("erased-{}", Uuid::new_v4().simple());
                self.detached(async move { store.erase_user(&user, &pseudonym, &entry, now).await })
                    .await?
            }
        };
        // Other replicas find that it is gone when they poll the heads.
        let gone = Refresh { epoch: Epoch(Uuid::nil()), at: Hint::default(), changes: None };
        self.hub.refresh(space.id, gone);
        Ok(erased)
    }
}

/// Who erased it, unless that is whose trace it was to take.
fn audited_erasure(caller: &Caller, space: &Space) -> Actor {
    let Actor { user, acted_for } = caller.audited();
    let stays = |user: &UserId| !space.is_of(user);
    Actor { user: user.filter(stays), acted_for: acted_for.filter(stays) }
}

/// What is sent.
struct Out {
    sender: mpsc::Sender<Result<String, Error>>,
    text: String,
    lines: u64,
}

impl Out {
    /// False once nobody reads any more.
    async fn line(&mut self, line: &str) -> bool {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines += 1;
        self.text.len() < PART_BYTES || self.flush().await
    }

    async fn flush(&mut self) -> bool {
        let part = std::mem::take(&mut self.text);
        part.is_empty() || self.sender.send(Ok(part)).await.is_ok()
    }
}

struct Export {
    app: Arc<App>,
    caller: Caller,
    whole: Whole,
    began: OffsetDateTime,
    out: Out,
    _room: OwnedSemaphorePermit,
}

impl Export {
    async fn run(mut self, shared: Option<SharedSpace>) -> Result<(), Error> {
        let space = self.whole.space();
        let snapshot = self.app.snapshot_now(space.clone(), Scope::All).await?;
        let time = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
        let user = match &self.whole {
            Whole::User(user) => Some(user.clone()),
            Whole::Space(_) => None,
        };
        let head = json!({
            "type": "export",
            "format": EXPORT_FORMAT,
            "space": space.name(),
            "title": shared.map(|it| it.title),
            "user": user.as_ref().map(UserId::as_str),
            "epoch": snapshot.epoch.to_string(),
            "revision": snapshot.at.get(),
            "exported_at": time(self.began),
        });
        if !self.out.line(&head.to_string()).await || !self.records(snapshot).await? {
            return Ok(());
        }
        for section in Section::OF_SPACE {
            if !self.section(section, &space, None).await? {
                return Ok(());
            }
        }
        for section in Section::OF_USER.into_iter().filter(|_| user.is_some()) {
            if !self.section(section, &space, user.as_ref()).await? {
                return Ok(());
            }
        }
        let end = json!({ "type": "end", "lines": self.out.lines });
        self.out.line(&end.to_string()).await;
        self.out.flush().await;
        Ok(())
    }

    /// Whether the caller may still have it.
    async fn still(&self) -> Result<(), Error> {
        let space = self.whole.space();
        self.app.access(&self.caller, space.name(), Right::Admin).await.map(drop)
    }

    /// The state, as of one revision. False once nobody reads any more.
    async fn records(&mut self, snapshot: Snapshot) -> Result<bool, Error> {
        let size = PageSize {
            entries_max: limits::PAGE_ENTRIES_MAX,
            bytes_max: limits::PAGE_DOCUMENT_BYTES_MAX,
        };
        let mut after: Option<SnapshotPlace> = None;
        loop {
            self.still().await?;
            let page = self.app.snapshot_page(snapshot.clone(), after, size).await?;
            for record in &page.records {
                if !self.out.line(&record_line(record)).await {
                    return Ok(false);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(true);
            }
        }
    }

    /// One kind of lines. False once nobody reads any more.
    async fn section(
        &mut self,
        section: Section,
        space: &Space,
        user: Option<&UserId>,
    ) -> Result<bool, Error> {
        let mut after = ExportPlace::default();
        loop {
            self.still().await?;
            let (store, began) = (self.app.store.clone(), self.began);
            let (id, user) = (space.id, user.cloned());
            let read = self.app.detached(async move {
                store.export(section, (id, user.as_ref()), &after, began).await
            });
            let (lines, next) = read.await?;
            for line in &lines {
                if !self.out.line(line).await {
                    return Ok(false);
                }
            }
            match next {
                Some(next) => after = next,
                None => return Ok(true),
            }
        }
    }
}

/// A living record. Its document goes in as it is, so that no number loses a digit.
fn record_line(record: &Record) -> String {
    let line = json!({
        "type": "record",
        "collection": record.key.collection.as_str(),
        "id": record.key.id.as_str(),
        "revision": record.revision.get(),
        "version": record.version().to_string(),
    });
    let mut line = line.to_string();
    line.pop();
    let document = record.document.as_ref().map_or("null", |document| document.as_str());
    line.push_str(",\"document\":");
    line.push_str(document);
    line.push('}');
    line
}
