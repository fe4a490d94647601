//! `syncline export`: the living records as JSON Lines, as of one revision. Goes on where it was
//! broken off, because the server's snapshot can be taken up again: whatever is in FILE.part up to
//! the length that is noted beside it is good. FILE itself is replaced at the end, by what is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::output::{note, written};
use super::place::{self, Attempts, beside};
use super::{Session, failed, progress, unusable, usage};
use crate::client::remote::{Fault, json_text};
use crate::config::ExportConfig;
use crate::exit::{Exit, Failure};
use crate::rpc::proto::{
    DocumentForm, GetStatusRequest, Record, SnapshotRequest, SnapshotResponse,
};

/// How far it is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Place {
    /// As the server names it, which is not the same for another user.
    space: String,
    epoch: String,
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
    /// None = stdout, which cannot be taken up again.
    target: Option<Target>,
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
    let target = (!is_stdout).then(|| Target::of(&config.file));
    // What is wrong here is told before the server is asked, and what is there stays until it is.
    let begun = target.as_ref().map(|it| it.begun(config.resume)).transpose()?.flatten();
    let (asked, total) = asked(session, config.collections).await?;
    let (place, sink): (Place, Box<dyn Write + Send>) = match &target {
        None => (asked, Box::new(BufWriter::new(io::stdout()))),
        Some(target) => {
            let (place, file) = target.open(begun, asked)?;
            (place, Box::new(BufWriter::new(file)))
        }
    };
    let bar = progress::bar(total, "exporting");
    bar.set_position(place.records);
    let mut export = Export { session, place, target, sink, bar };
    export.all().await?;
    export.bar.finish_and_clear();
    if let Some(target) = &export.target {
        target.finish()?;
    }
    let Place { records, cursor, .. } = export.place;
    let value = json!({"records": records, "cursor": cursor});
    match (session.json(), is_stdout) {
        (true, false) => return session.out.say_json(&value),
        // The records are on stdout.
        (true, true) => note(&value.to_string()),
        (false, _) => note(&format!("exported {records} records; changes follow from {cursor}")),
    }
    Ok(())
}

/// What is to be exported, as the server names it, and how many records that are, for the bar.
async fn asked(session: &Session, collections: Vec<String>) -> Result<(Place, u64), Failure> {
    let request = GetStatusRequest {
        digest: !collections.is_empty(),
        digest_collections: collections.clone(),
        ..Default::default()
    };
    let status = session.status("cannot export", request).await?;
    let records = status.digest.map_or(status.records, |digest| digest.records);
    let (space, epoch) = (status.space, status.epoch);
    let place = Place { space, epoch, collections, ..Place::default() };
    Ok((place, u64::try_from(records).unwrap_or_default()))
}

/// The files of an export: what is written goes to FILE.part, with the place beside it, and takes
/// the place of FILE once it is whole.
struct Target {
    file: PathBuf,
    part: PathBuf,
    resume: PathBuf,
    /// Something like a terminal or a pipe has no parts.
    is_plain: bool,
}

impl Target {
    fn of(file: &Path) -> Self {
        let is_plain = fs::metadata(file).map_or(true, |it| it.is_file());
        // The file is replaced, and not the link to it.
        let place = match fs::read_link(file).and_then(|_| fs::canonicalize(file)) {
            Ok(place) => place,
            Err(_) => file.to_owned(),
        };
        let part = if is_plain { beside(&place, ".part") } else { place.clone() };
        Self { part, resume: beside(&place, ".resume"), file: place, is_plain }
    }

    /// How far one that was broken off is; None if it is to begin anew.
    fn begun(&self, is_resumed: bool) -> Result<Option<Place>, Failure> {
        let shown = self.file.display();
        match (place::load::<Place>(&self.resume)?, is_resumed) {
            (Some(_), false) => {
                let error = anyhow!("an export to {shown} was broken off");
                let resume = self.resume.display();
                let hint = format!("--resume goes on with it; remove {resume} to begin anew");
                Err(Failure::new(Exit::Usage, error).hint(hint))
            }
            (None, true) => Err(usage(format!("there is no export to {shown} to go on with"))),
            (found, _) => Ok(found),
        }
    }

    /// The file to write to, cut to what is good in it, and how far it is.
    fn open(&self, begun: Option<Place>, asked: Place) -> Result<(Place, File), Failure> {
        let shown = self.file.display();
        let place = match begun {
            Some(found) if found.is_of(&asked) => found,
            Some(_) => {
                let error = anyhow!("{shown} was begun with another space or collections");
                let hint = format!("remove {} to begin anew", self.resume.display());
                return Err(Failure::new(Exit::Usage, error).hint(hint));
            }
            None => asked,
        };
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(self.is_plain).truncate(false).open(&self.part);
        let unusable = |error| unusable(format!("cannot write {shown}"), error);
        let mut file = opened.map_err(unusable)?;
        if self.is_plain {
            if file.metadata()?.len() < place.bytes {
                let part = self.part.display();
                return Err(usage(format!("{part} has lost what was written to it"))
                    .hint(format!("remove {} to begin anew", self.resume.display())));
            }
            // Noted before the first record: one that was broken off is known as such.
            place::save(&self.resume, &place)?;
            file.set_len(place.bytes)?;
            file.seek(SeekFrom::End(0))?;
        }
        Ok((place, file))
    }

    /// Only what is whole, and on disk, takes the place of what was there.
    fn finish(&self) -> Result<(), Failure> {
        if !self.is_plain {
            return Ok(());
        }
        let renamed = File::open(&self.part)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.part, &self.file));
        renamed.with_context(|| format!("cannot write {}", self.file.display()))?;
        place::remove(&self.resume)
    }
}

impl Place {
    /// Whether it is what is asked for: the same records of the same history.
    fn is_of(&self, asked: &Self) -> bool {
        (&self.space, &self.epoch, &self.collections)
            == (&asked.space, &asked.epoch, &asked.collections)
    }
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
        let is_kept = self.target.as_ref().is_some_and(|it| it.is_plain) && fault.is_transient();
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
        if let Some(target) = self.target.as_ref().filter(|it| it.is_plain && !page.last) {
            place::save(&target.resume, &self.place)?;
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
