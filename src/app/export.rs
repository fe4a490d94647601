//! Taking everything out of a space, or of what is a user's, and taking it away.

use std::sync::Arc;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::places::Place;
use super::{App, Error, Outlet, PageSize, Produced, Snapshot};
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

/// Parts of an export: whole lines, each with its end.
pub type Parts = Produced<String, Error>;

impl App {
    /// Begins to take everything out; that it was is noted before anything is read.
    pub async fn export(self: &Arc<Self>, caller: &Caller, whole: Whole) -> Result<Parts, Error> {
        let place = self.exports.try_take(caller.really()).ok_or(Error::Overloaded)?;
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
            let mut noter = store.noter().await?;
            noter.note(noted, &entry, now).await?;
            noter.close().await
        })
        .await?;
        let (app, caller) = (Arc::clone(self), caller.clone());
        Ok(Produced::begin(&self.tasks, "export", move |outlet| {
            let out = Out { outlet, text: String::new(), lines: 0 };
            let export = Export { app, caller, whole, began: now, out, _place: place };
            export.run(title)
        }))
    }

    /// Erases a space, or a user; the server's audit log alone knows that it was. A client
    /// that comes back finds another epoch, or no space. Cancel safe: it goes on.
    pub async fn erase(&self, caller: &Caller, whole: Whole) -> Result<Erased, Error> {
        let (store, now, space) = (self.store.clone(), self.clock.now_to_store(), whole.space());
        let (noted, acks) = (Arc::clone(&self.noted), Arc::clone(&self.acks));
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
                self.detached(async move {
                    // What is still to be written would come after it.
                    let (_noting, _acks) = (noted.pause(&user).await, acks.pause(&user).await);
                    let erased = store.erase_user(&user, &pseudonym, &entry, now).await;
                    noted.forget(&user);
                    acks.forget(&user);
                    erased
                })
                .await?
            }
        };
        for (space, user) in &erased.left {
            self.access_changed(*space, user);
        }
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
    outlet: Outlet<String>,
    text: String,
    lines: u64,
}

impl Out {
    async fn line(&mut self, line: &str) -> Result<(), Error> {
        self.text.push_str(line);
        self.text.push('\n');
        self.lines += 1;
        if self.text.len() < PART_BYTES { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let part = std::mem::take(&mut self.text);
        if part.is_empty() { Ok(()) } else { self.outlet.send(part).await }
    }
}

struct Export {
    app: Arc<App>,
    caller: Caller,
    whole: Whole,
    began: OffsetDateTime,
    out: Out,
    _place: Place,
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
        self.out.line(&head.to_string()).await?;
        self.records(snapshot).await?;
        for section in Section::OF_SPACE {
            self.section(section, &space, None).await?;
        }
        for section in Section::OF_USER.into_iter().filter(|_| user.is_some()) {
            self.section(section, &space, user.as_ref()).await?;
        }
        let end = json!({ "type": "end", "lines": self.out.lines });
        self.out.line(&end.to_string()).await?;
        self.out.flush().await
    }

    /// Whether the caller may still have it.
    async fn still(&self) -> Result<(), Error> {
        let space = self.whole.space();
        self.app.access(&self.caller, space.name(), Right::Admin).await.map(drop)
    }

    /// The state, as of one revision.
    async fn records(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        let size = PageSize {
            entries_max: limits::PAGE_ENTRIES_MAX,
            bytes_max: limits::PAGE_DOCUMENT_BYTES_MAX,
        };
        let mut after: Option<SnapshotPlace> = None;
        loop {
            self.still().await?;
            let page = self.app.snapshot_page(snapshot.clone(), after, size).await?;
            for record in &page.records {
                self.out.line(&record_line(record)).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// One kind of lines.
    async fn section(
        &mut self,
        section: Section,
        space: &Space,
        user: Option<&UserId>,
    ) -> Result<(), Error> {
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
                self.out.line(line).await?;
            }
            match next {
                Some(next) => after = next,
                None => return Ok(()),
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
