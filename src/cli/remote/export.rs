//! `syncline export`: the living records as JSON Lines, as of one revision. Goes on where it was
//! broken off, because the server's snapshot can be taken up again: whatever is in the file up to
//! the length that is noted beside it is good.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::output::{note, say, written};
use super::place::{self, Attempts, beside};
use super::{Session, failed, progress, usage};
use crate::client::remote::{Fault, json_text};
use crate::config::ExportConfig;
use crate::exit::{Exit, Failure};
use crate::rpc::proto::{
    DocumentForm, GetStatusRequest, Record, SnapshotRequest, SnapshotResponse,
};

/// How far it is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Place {
    space: String,
    collections: Vec<String>,
    /// Where the snapshot goes on; empty = at its beginning.
    token: String,
    /// The length of what is written.
    bytes: u64,
    records: u64,
    /// Where changes follow.
    cursor: String,
}

struct Export<'s> {
    session: &'s Session,
    place: Place,
    /// Where the place is kept; stdout cannot be taken up again.
    beside: Option<PathBuf>,
    sink: Box<dyn Write + Send>,
    bar: ProgressBar,
}

/// What ends it: a failed call may be tried again.
enum Broken {
    Call(Fault),
    Here(Failure),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Here(failure)
    }
}

pub(super) async fn run(session: &Session, config: ExportConfig) -> Result<(), Failure> {
    let is_stdout = config.file == Path::new("-");
    if is_stdout && config.resume {
        return Err(usage("--resume needs a file"));
    }
    let asked =
        Place { space: session.space(), collections: config.collections, ..Place::default() };
    let (place, sink, beside) = if is_stdout {
        let sink: Box<dyn Write + Send> = Box::new(BufWriter::new(io::stdout()));
        (asked, sink, None)
    } else {
        let (place, file) = open(&config.file, config.resume, asked)?;
        let sink: Box<dyn Write + Send> = Box::new(BufWriter::new(file));
        (place, sink, Some(beside(&config.file, ".resume")))
    };
    let bar = progress::bar(total(session, &place).await?, "exporting");
    bar.set_position(place.records);
    let mut export = Export { session, place, beside, sink, bar };
    export.all().await?;
    export.bar.finish_and_clear();
    if let Some(path) = &export.beside {
        place::remove(path)?;
    }
    let Place { records, cursor, .. } = export.place;
    if session.json() && !is_stdout {
        return say(&json!({"records": records, "cursor": cursor}).to_string());
    }
    note(&format!("exported {records} records; changes follow from {cursor}"));
    Ok(())
}

/// The file, cut to what is good in it, and how far it is.
fn open(path: &Path, is_resumed: bool, asked: Place) -> Result<(Place, File), Failure> {
    let beside = beside(path, ".resume");
    let shown = path.display();
    let place = match (place::load::<Place>(&beside)?, is_resumed) {
        (Some(found), true)
            if found.space == asked.space && found.collections == asked.collections =>
        {
            found
        }
        (Some(_), true) => {
            return Err(usage(format!("{shown} was begun with another space or collections")));
        }
        (Some(_), false) => {
            let error = anyhow!("an export to {shown} was broken off");
            let hint =
                format!("--resume goes on with it; remove {} to begin anew", beside.display());
            return Err(Failure::new(Exit::Usage, error).hint(hint));
        }
        (None, true) => return Err(usage(format!("there is no export to {shown} to go on with"))),
        (None, false) => asked,
    };
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let mut file = opened.with_context(|| format!("cannot write {shown}"))?;
    if file.metadata()?.len() < place.bytes {
        return Err(usage(format!("{shown} has lost what was written to it; begin anew")));
    }
    // Noted before the first record: what a killed export leaves never looks whole.
    place::save(&beside, &place)?;
    file.set_len(place.bytes)?;
    file.seek(SeekFrom::End(0))?;
    Ok((place, file))
}

/// For the bar: how many records there are.
async fn total(session: &Session, place: &Place) -> Result<u64, Failure> {
    let request = GetStatusRequest {
        space: session.space(),
        digest: !place.collections.is_empty(),
        digest_collections: place.collections.clone(),
        ..Default::default()
    };
    let answer = session.remote.sync().get_status(request).await;
    let status = answer.map_err(|status| failed("cannot export", status))?.into_inner();
    let records = status.digest.map_or(status.records, |digest| digest.records);
    Ok(u64::try_from(records).unwrap_or_default())
}

impl Export<'_> {
    async fn all(&mut self) -> Result<(), Failure> {
        let mut attempts = Attempts::default();
        loop {
            let before = self.place.records;
            match self.stream().await {
                Ok(()) => return Ok(()),
                Err(Broken::Here(failure)) => return Err(failure),
                Err(Broken::Call(fault)) => {
                    if self.place.records > before {
                        attempts.succeeded();
                    }
                    let waited = attempts.wait(fault, self.place.records > 0).await;
                    waited.map_err(|fault| self.broken_off(fault))?;
                }
            }
        }
    }

    fn broken_off(&self, fault: Fault) -> Failure {
        let is_kept = self.beside.is_some() && fault.is_transient();
        let failure = failed("the export was broken off", fault);
        match is_kept {
            true => failure.hint("the same command with --resume goes on"),
            false => failure,
        }
    }

    async fn stream(&mut self) -> Result<(), Broken> {
        let request = SnapshotRequest {
            space: self.place.space.clone(),
            collections: self.place.collections.clone(),
            resume_token: self.place.token.clone(),
            document_form: DocumentForm::Json.into(),
            ..Default::default()
        };
        let call = |status| Broken::Call(Fault::from(status));
        let answer = self.session.remote.sync().snapshot(request).await;
        let mut pages = answer.map_err(call)?.into_inner();
        while let Some(page) = pages.message().await.map_err(call)? {
            self.take(&page)?;
            if page.last {
                return Ok(());
            }
        }
        let cut = "the stream ended before the snapshot did".to_owned();
        Err(Broken::Call(Fault::of(crate::client::remote::Code::Unavailable, cut)))
    }

    fn take(&mut self, page: &SnapshotResponse) -> Result<(), Failure> {
        let mut text = String::new();
        for record in &page.records {
            text.push_str(&line(record)?);
            text.push('\n');
        }
        written(self.sink.write_all(text.as_bytes()).and_then(|()| self.sink.flush()))?;
        self.place.bytes += u64::try_from(text.len()).unwrap_or_default();
        self.place.records += u64::try_from(page.records.len()).unwrap_or_default();
        self.place.token.clone_from(&page.next_token);
        if let Some(cursor) = &page.cursor {
            self.place.cursor = format!("{}:{}", cursor.epoch, cursor.revision);
        }
        if let Some(path) = self.beside.as_ref().filter(|_| !page.last) {
            place::save(path, &self.place)?;
        }
        self.bar.set_position(self.place.records);
        Ok(())
    }
}

/// The document goes as it comes, with all its digits.
fn line(record: &Record) -> Result<String, Failure> {
    let key = record.key.clone().unwrap_or_default();
    let document = record.document.as_ref().and_then(json_text).unwrap_or("{}");
    let (collection, id) =
        (serde_json::to_string(&key.collection)?, serde_json::to_string(&key.id)?);
    Ok(format!("{{\"collection\":{collection},\"id\":{id},\"document\":{document}}}"))
}
