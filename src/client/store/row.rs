//! Rows of the local file to values and back. What this program cannot have written is an
//! error here and nowhere else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::Error;
use super::vault::{Slot, Vault};
use crate::client::edit::Edit;
use crate::client::entry::{Entry, EntryState, Kept};
use crate::client::replica::{Counts, Held, Loading, Local, Place, Told, from_micros};
use crate::domain::{
    CollectionName, DeviceId, Document, Epoch, MutationId, Policy, PolicySet, RecordId, RecordKey,
    Revision, Scope, Sequence, SetPolicy, Space, UserId,
};

/// The columns of a space, as [`place`] reads them.
pub(super) const PLACE: &str = "no, name, scope, loaded, epoch, cursor, complete, last_sequence, \
     last_entry, loading, generation, conflict_cursor, replaced, newest, front, moved, pending, syncing, \
     failed, answered";
/// Those of a record, as [`local`] reads them.
pub(super) const LOCAL: &str = "r.collection, r.id, r.shown, r.dirty, r.revision, r.about, \
     r.checksum, r.server, r.staged, r.generation";
/// Those of an entry, as [`entry`] reads them.
pub(super) const ENTRY: &str = "number, id, collection, record, edit, base, kept, client_micros, \
     schema_version, sequence, sent_sequence, sent_base, state, revision, done, sensitive, trouble";

/// Who wrote a record, and when, as it is stored.
#[derive(Serialize, Deserialize)]
struct About(String, Option<String>, i64, i64, i64, i64);

/// A staged record, as it is stored.
#[derive(Serialize, Deserialize)]
struct Staged {
    revision: i64,
    about: About,
    checksum: Option<[u8; 32]>,
    document: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredKept {
    revision: i64,
    document: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredLoading {
    scope: Option<Vec<String>>,
    epoch: uuid::Uuid,
    revision: i64,
    token: String,
    generation: i64,
    whole: bool,
}

pub(super) fn key(collection: &str, id: &str) -> RecordKey {
    RecordKey { collection: CollectionName::from_stored(collection), id: RecordId::from_stored(id) }
}

pub(super) fn revision(number: i64) -> Result<Revision, Error> {
    Revision::new(number).ok_or_else(|| Error::damaged("a revision is negative"))
}

/// Of a document, or of a collection.
pub(super) fn checksum(bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_wrong| Error::damaged("a checksum is not of 32 bytes"))
}

fn sequence(number: i64) -> Sequence {
    Sequence::new(number).unwrap_or(Sequence::ZERO)
}

fn document(text: String) -> Document {
    Document::from_canonical(text)
}

fn json<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::damaged(error.to_string()))
}

pub(super) fn to_json(value: &impl Serialize) -> String {
    // Plain values with text for keys.
    serde_json::to_string(value).unwrap_or_default()
}

/// The collections of a scope; None = all.
pub(super) fn names(scope: &Scope) -> Option<Vec<String>> {
    match scope {
        Scope::All | Scope::Records(_) => None,
        Scope::Collections(names) => {
            Some(names.iter().map(|name| name.as_str().to_owned()).collect())
        }
    }
}

fn scope(names: Option<Vec<String>>) -> Scope {
    match names {
        None => Scope::All,
        Some(names) => {
            Scope::Collections(names.iter().map(|name| CollectionName::from_stored(name)).collect())
        }
    }
}

pub(super) fn stored_scope(it: &Scope) -> Option<String> {
    names(it).map(|names| to_json(&names))
}

/// With a star for all.
pub(super) fn stored_loaded(it: Option<&Scope>) -> Option<String> {
    it.map(|scope| stored_scope(scope).unwrap_or_else(|| "*".into()))
}

pub(super) fn stored_loading(it: &Loading) -> String {
    to_json(&StoredLoading {
        scope: names(&it.scope),
        epoch: it.epoch.0,
        revision: it.revision.get(),
        token: it.token.clone(),
        generation: it.generation,
        whole: it.whole,
    })
}

/// A space, and its number.
pub(super) fn place(row: &SqliteRow) -> Result<(i64, Place), Error> {
    let name: &str = row.try_get("name")?;
    let space = Space::named(name).map_err(Error::damaged)?;
    let text = |column: &str| row.try_get::<Option<&str>, _>(column);
    let loaded = match text("loaded")? {
        None => None,
        Some("*") => Some(Scope::All),
        Some(names) => Some(scope(Some(json(names)?))),
    };
    let loading = text("loading")?.map(json::<StoredLoading>).transpose()?;
    let loading = loading.map(|it| {
        Ok::<_, Error>(Loading {
            scope: scope(it.scope),
            epoch: Epoch(it.epoch),
            revision: revision(it.revision)?,
            token: it.token,
            generation: it.generation,
            whole: it.whole,
        })
    });
    let epoch = text("epoch")?.map(uuid::Uuid::try_parse).transpose();
    let epoch = epoch.map_err(|error| Error::damaged(error.to_string()))?;
    let place = Place {
        scope: scope(text("scope")?.map(json).transpose()?),
        loaded,
        epoch: epoch.map(Epoch),
        cursor: revision(row.try_get("cursor")?)?,
        complete: revision(row.try_get("complete")?)?,
        last_sequence: sequence(row.try_get("last_sequence")?),
        last_entry: row.try_get("last_entry")?,
        loading: loading.transpose()?,
        generation: row.try_get("generation")?,
        conflict_cursor: row.try_get("conflict_cursor")?,
        replaced: row.try_get::<i64, _>("replaced")? != 0,
        newest: revision(row.try_get("newest")?)?,
        front: row.try_get("front")?,
        moved: row.try_get("moved")?,
        counts: Counts {
            pending: row.try_get("pending")?,
            syncing: row.try_get("syncing")?,
            failed: row.try_get("failed")?,
            answered: row.try_get("answered")?,
        },
        space,
    };
    Ok((row.try_get("no")?, place))
}

fn about(held: &Held) -> About {
    let record = &held.record;
    About(
        record.author.as_str().into(),
        record.device.as_ref().map(|it| it.as_str().into()),
        record.sequence,
        record.micros,
        record.foreign_revision().get(),
        i64::try_from(record.committed_at.unix_timestamp_nanos() / 1_000).unwrap_or(0),
    )
}

fn held(
    key: &RecordKey,
    number: i64,
    about: About,
    checksum: Option<[u8; 32]>,
    document: Option<Document>,
) -> Result<Held, Error> {
    let About(author, device, sequence, micros, foreign, committed) = about;
    let told = Told {
        key: key.clone(),
        revision: revision(number)?,
        document,
        author: UserId::from_stored(&author),
        device: device.map(|it| DeviceId::from_stored(&it)),
        sequence,
        micros,
        foreign: revision(foreign)?,
        committed_at: from_micros(committed),
    };
    Ok(Held { record: told.record(), checksum })
}

/// A record as it is stored.
pub(super) struct LocalRow {
    pub(super) shown: Option<String>,
    pub(super) revision: Option<i64>,
    pub(super) about: Option<String>,
    pub(super) checksum: Option<Vec<u8>>,
    pub(super) server: Option<String>,
    pub(super) staged: Option<String>,
}

/// What is written down of a record: without what must not be.
pub(super) fn local_row(space: i64, key: &RecordKey, local: &Local, vault: &Vault) -> LocalRow {
    let hide = |slot: Slot, document: Option<&Document>| {
        let Some(document) = document else {
            vault.forget(space, slot);
            return None;
        };
        let (open, _) = vault.hide(space, &key.collection, slot, document);
        Some(open.as_str().to_owned())
    };
    let server = local.server.as_ref();
    let server_document = server.and_then(|it| it.record.document.as_ref());
    let staged = local.staged.as_ref().map(|it| {
        let document = hide(Slot::Staged(key.clone()), it.record.document.as_ref());
        let revision = it.revision().get();
        to_json(&Staged { revision, about: about(it), checksum: it.checksum, document })
    });
    let shown = hide(Slot::Shown(key.clone()), local.shown.as_ref());
    let hidden_server = hide(Slot::Server(key.clone()), server_document);
    LocalRow {
        shown,
        revision: server.map(|it| it.revision().get()),
        about: server.map(|it| to_json(&about(it))),
        checksum: server.and_then(|it| it.checksum).map(|it| it.to_vec()),
        server: if local.dirty { hidden_server } else { None },
        staged,
    }
}

pub(super) fn local(
    space: i64,
    row: &SqliteRow,
    vault: &Vault,
) -> Result<(RecordKey, Local), Error> {
    let key = key(row.try_get(0)?, row.try_get(1)?);
    let reveal =
        |slot: Slot, text: String| vault.reveal(space, &key.collection, slot, document(text));
    let shown: Option<String> = row.try_get(2)?;
    let dirty = row.try_get::<i64, _>(3)? != 0;
    let server_text = if dirty { row.try_get(7)? } else { shown.clone() };
    let server = match row.try_get::<Option<i64>, _>(4)? {
        None => None,
        Some(number) => {
            let about = json(row.try_get::<&str, _>(5)?)?;
            let checksum = row.try_get::<Option<&[u8]>, _>(6)?.map(checksum).transpose()?;
            let document = server_text.map(|text| reveal(Slot::Server(key.clone()), text));
            Some(held(&key, number, about, checksum, document)?)
        }
    };
    let staged = row.try_get::<Option<&str>, _>(8)?.map(json::<Staged>).transpose()?;
    let staged = staged.map(|it| {
        let document = it.document.map(|text| reveal(Slot::Staged(key.clone()), text));
        held(&key, it.revision, it.about, it.checksum, document)
    });
    let local = Local {
        server,
        staged: staged.transpose()?,
        shown: shown.map(|text| reveal(Slot::Shown(key.clone()), text)),
        dirty,
        generation: row.try_get(9)?,
    };
    Ok((key, local))
}

/// An entry's edit as it is written down; true if values of it are in memory only.
pub(super) fn stored_edit(space: i64, entry: &Entry, vault: &Vault) -> (String, bool) {
    let slot = Slot::Edit(entry.number);
    let hide =
        |document: &Document| vault.hide(space, &entry.key.collection, slot.clone(), document);
    let (edit, mut hidden) = match &entry.edit {
        Edit::Create(document) => {
            let (open, hidden) = hide(document);
            (Edit::Create(open), hidden)
        }
        Edit::Put(document) => {
            let (open, hidden) = hide(document);
            (Edit::Put(open), hidden)
        }
        Edit::Patch(patch) => {
            let (open, hidden) = hide(&patch.set);
            let mut patch = patch.clone();
            patch.set = open;
            (Edit::Patch(patch), hidden)
        }
        Edit::Delete => (Edit::Delete, false),
    };
    hidden |= entry.incomplete;
    (to_json(&edit), hidden)
}

pub(super) fn stored_kept(space: i64, entry: &Entry, vault: &Vault) -> Option<String> {
    let slot = Slot::Kept(entry.number);
    let Some(kept) = &entry.kept else {
        vault.forget(space, slot);
        return None;
    };
    let document = kept.document.as_ref().map(|document| {
        let (open, _) = vault.hide(space, &entry.key.collection, slot, document);
        open.as_str().to_owned()
    });
    Some(to_json(&StoredKept { revision: kept.revision.get(), document }))
}

pub(super) fn entry(space: i64, row: &SqliteRow, vault: &Vault) -> Result<Entry, Error> {
    let number = row.try_get(0)?;
    let key = key(row.try_get(2)?, row.try_get(3)?);
    let reveal = |slot: Slot, it: Document| vault.reveal(space, &key.collection, slot, it);
    let edit = match row.try_get::<Option<&str>, _>(4)?.map(json::<Edit>).transpose()? {
        Some(Edit::Create(it)) => Edit::Create(reveal(Slot::Edit(number), it)),
        Some(Edit::Put(it)) => Edit::Put(reveal(Slot::Edit(number), it)),
        Some(Edit::Patch(mut patch)) => {
            patch.set = reveal(Slot::Edit(number), patch.set);
            Edit::Patch(patch)
        }
        Some(Edit::Delete) | None => Edit::Delete,
    };
    let kept = row.try_get::<Option<&str>, _>(6)?.map(json::<StoredKept>).transpose()?;
    let kept = kept.map(|it| {
        let document = it.document.map(|text| reveal(Slot::Kept(number), document(text)));
        Ok::<_, Error>(Kept { revision: revision(it.revision)?, document })
    });
    let sent: Option<i64> = row.try_get(10)?;
    let sent = sent.zip(row.try_get::<Option<i64>, _>(11)?);
    let sent = sent.map(|(number, base)| Ok::<_, Error>((sequence(number), revision(base)?)));
    let state: &str = row.try_get(12)?;
    let state = EntryState::from_stored(state);
    let sensitive = row.try_get::<i64, _>(15)? != 0;
    Ok(Entry {
        number,
        id: MutationId::from_stored(row.try_get(1)?),
        edit,
        base: revision(row.try_get(5)?)?,
        kept: kept.transpose()?,
        client_micros: row.try_get(7)?,
        schema_version: row.try_get(8)?,
        sequence: row.try_get::<Option<i64>, _>(9)?.map(sequence),
        sent: sent.transpose()?,
        state: state.ok_or_else(|| Error::damaged("an entry has an unknown state"))?,
        revision: revision(row.try_get(13)?)?,
        done: row.try_get::<i64, _>(14)? != 0,
        incomplete: sensitive && !vault.knows(space, Slot::Edit(number)),
        trouble: row.try_get::<Option<&str>, _>(16)?.map(json).transpose()?,
        key,
    })
}

/// A policy as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredPolicy {
    collection: String,
    version: i64,
    policy: Policy,
}

/// What is foretold follows them, and nothing else: those that a newer version has written, and
/// this one cannot read, are none.
pub(super) fn policies(text: &str) -> PolicySet {
    let mut set = PolicySet::default();
    let stored: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    for stored in stored {
        if let Ok(StoredPolicy { collection, version, policy }) = serde_json::from_value(stored) {
            let collection = CollectionName::from_stored(&collection);
            set.set(Arc::new(SetPolicy { collection, policy, version }));
        }
    }
    set
}

pub(super) fn stored_policies(set: &PolicySet) -> String {
    let policies = set.all().chain(set.others()).map(|it| StoredPolicy {
        collection: it.collection.as_str().to_owned(),
        version: it.version,
        policy: it.policy.clone(),
    });
    to_json(&policies.collect::<Vec<_>>())
}
