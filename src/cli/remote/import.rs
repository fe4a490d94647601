//! `syncline import`: writes the records of JSON Lines. Each line's mutation has an id that follows
//! from the import's and the line's number, so that what is sent again is not written again; how far
//! it is stands beside the file. Must not know how a line is read.

mod lines;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use self::lines::{Line, Lines, Wanted};
use super::output::{note, safe};
use super::place::{self, Attempts, beside};
use super::{Session, failed, incomplete, progress, shown, unusable};
use crate::client::remote::{Code, Fault, document};
use crate::config::ImportConfig;
use crate::exit::{Exit, Failure};
use crate::rpc::proto::mutation::Operation;
use crate::rpc::proto::{
    BatchMutateRequest, GetStatusRequest, Mutation, MutationOutcome, MutationResult, PutOperation,
    RecordKey,
};

/// Small enough that a server that is asked by others as well answers soon.
const BATCH_MUTATIONS_MAX: usize = 200;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How far it is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Place {
    /// What ids of mutations begin with.
    id: String,
    /// As the server names it, which is not the same for another user.
    space: String,
    /// The space's history: another server has another one.
    epoch: String,
    /// Of the file, which must not change meanwhile.
    size: u64,
    /// SHA-256 of what was done of it, in hexadecimal.
    hash: String,
    lines: u64,
    bytes: u64,
    written: u64,
    rejected: u64,
    /// The length of the file of rejected lines.
    rejected_bytes: u64,
}

struct Import<'s> {
    session: &'s Session,
    place: Place,
    /// Where the place is kept, and where rejected lines go; stdin has neither.
    beside: Option<(PathBuf, PathBuf)>,
    attempts: Attempts,
    bar: ProgressBar,
}

type Input = Lines<Box<dyn BufRead + Send>>;

pub(super) async fn run(session: &Session, config: ImportConfig) -> Result<Exit, Failure> {
    let is_stdin = config.file == Path::new("-");
    let id = config.id.clone().unwrap_or_else(|| Uuid::new_v4().simple().to_string());
    let asked = Place { id, ..Place::default() };
    let (place, mut lines, beside): (_, Input, _) = if is_stdin {
        (asked, Lines::new(Box::new(BufReader::new(stdin()))), None)
    } else {
        let shown = config.file.display();
        let opened = File::open(&config.file);
        let file = opened.map_err(|error| unusable(format!("cannot read {shown}"), error))?;
        let status = session.status("cannot import", GetStatusRequest::default()).await?;
        let (space, epoch, size) = (status.space, status.epoch, file.metadata()?.len());
        let asked = Place { space, epoch, size, ..asked };
        let (place, lines, beside) = open(&config.file, file, asked, config.id.is_some())?;
        (place, lines, Some(beside))
    };
    let bar = progress::bar(place.size, "importing");
    let attempts = Attempts::default();
    let mut import = Import { session, place, beside, attempts, bar };
    while import.batch(&mut lines).await? {}
    import.end()
}

/// The lines behind what is done already, and how far that is.
fn open(
    path: &Path,
    file: File,
    asked: Place,
    is_named: bool,
) -> Result<(Place, Input, (PathBuf, PathBuf)), Failure> {
    let (resume, rejected) = (beside(path, ".resume"), beside(path, ".rejected"));
    let found = place::load::<Place>(&resume)?;
    let mut lines: Input = Lines::new(Box::new(BufReader::new(file)));
    let is_same = |found: &Place| {
        (&found.space, &found.epoch, found.size) == (&asked.space, &asked.epoch, asked.size)
            && (!is_named || found.id == asked.id)
    };
    let place = match found {
        Some(found) if is_same(&found) && lines.skip(found.lines)? == found.hash => {
            if found.lines > 0 {
                note(&format!("going on behind line {}", found.lines));
            }
            cut(&rejected, found.rejected_bytes)?;
            found
        }
        // Nobody knows of any line that was written.
        Some(found) if found.lines > 0 => {
            let shown = path.display();
            let error = anyhow!(
                "an import of {shown} was broken off, but of other content, into \
                                 another space or under another name"
            );
            let hint = format!("remove {} to begin anew", resume.display());
            return Err(Failure::new(Exit::Usage, error).hint(hint));
        }
        _ => {
            let place = Place { hash: lines.hash(), ..asked };
            // Before the first write: what is sent has a name that is known afterwards.
            place::save(&resume, &place)?;
            cut(&rejected, 0)?;
            place
        }
    };
    Ok((place, lines, (resume, rejected)))
}

/// Takes away what was added after the place was noted.
fn cut(path: &Path, length: u64) -> Result<(), Failure> {
    if length == 0 {
        std::fs::remove_file(path).ok();
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(path);
    let cut = file.and_then(|file| file.set_len(length));
    Ok(cut.with_context(|| format!("cannot write {}", path.display()))?)
}

impl Import<'_> {
    /// Writes the next lines; whether there were any.
    async fn batch(&mut self, lines: &mut Input) -> Result<bool, Failure> {
        let mut batch: Vec<(Line, Wanted)> = Vec::new();
        let mut bytes = 0;
        let mut bad = Vec::new();
        while batch.len() + bad.len() < BATCH_MUTATIONS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(mut line) = lines.next().context("cannot read the lines")? else { break };
            bytes += line.text.len();
            match std::mem::replace(&mut line.parsed, Err(String::new())) {
                Ok(wanted) => batch.push((line, wanted)),
                Err(why) => bad.push((line, why)),
            }
        }
        let is_end = batch.is_empty() && bad.is_empty();
        bad.extend(self.write(batch).await?);
        bad.sort_by_key(|(line, _)| line.number);
        self.reject(&bad)?;
        (self.place.lines, self.place.bytes) = (lines.number, lines.bytes);
        self.place.hash = lines.hash();
        if let Some((resume, _)) = &self.beside {
            place::save(resume, &self.place)?;
        }
        self.bar.set_position(self.place.bytes);
        Ok(!is_end)
    }

    /// Writes these, and gives back what the server rejects.
    async fn write(&mut self, batch: Vec<(Line, Wanted)>) -> Result<Vec<(Line, String)>, Failure> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mutations: Vec<Mutation> =
            batch.iter().map(|(line, wanted)| self.mutation(line.number, wanted)).collect();
        let mut bad = Vec::new();
        match self.send(&mutations).await? {
            Ok(results) => {
                for ((line, _), result) in batch.into_iter().zip(results) {
                    bad.extend(self.take(&result).map(|why| (line, why)));
                }
            }
            // One of them is to blame, and the others are not to suffer for it.
            Err(_) if mutations.len() > 1 => {
                for ((line, _), mutation) in batch.into_iter().zip(mutations) {
                    match self.send(std::slice::from_ref(&mutation)).await? {
                        Ok(results) => {
                            let result = results.first().ok_or_else(incomplete)?;
                            bad.extend(self.take(result).map(|why| (line, why)));
                        }
                        Err(why) => bad.push((line, why)),
                    }
                }
            }
            Err(why) => bad.extend(batch.into_iter().map(|(line, _)| (line, why.clone()))),
        }
        Ok(bad)
    }

    fn mutation(&self, number: u64, wanted: &Wanted) -> Mutation {
        let key = RecordKey { collection: wanted.collection.clone(), id: wanted.id.clone() };
        let document = Some(document(wanted.document.clone()));
        Mutation {
            id: format!("import:{}:{number}", self.place.id),
            key: Some(key),
            operation: Some(Operation::Put(PutOperation { document })),
            ..Default::default()
        }
    }

    /// The results, or why the server does not take them as they are.
    async fn send(
        &mut self,
        mutations: &[Mutation],
    ) -> Result<Result<Vec<MutationResult>, String>, Failure> {
        loop {
            let request = BatchMutateRequest {
                space: self.session.space(),
                device: self.session.device(),
                mutations: mutations.to_vec(),
                ..Default::default()
            };
            let fault = match self.session.remote.sync().batch_mutate(request).await {
                Ok(answer) => {
                    self.attempts.succeeded();
                    let results = answer.into_inner().results;
                    let is_whole = results.len() == mutations.len();
                    return if is_whole { Ok(Ok(results)) } else { Err(incomplete()) };
                }
                Err(status) => Fault::from(status),
            };
            let is_content = matches!(fault.code, Code::InvalidArgument | Code::OutOfRange)
                || fault.reason == "REQUEST_TOO_LARGE";
            if is_content {
                return Ok(Err(fault.to_string()));
            }
            let has_begun = self.place.lines > 0;
            let waited = self.attempts.wait(fault, has_begun).await;
            waited.map_err(|fault| self.broken_off(fault))?;
        }
    }

    fn broken_off(&self, fault: Fault) -> Failure {
        let is_reused = fault.reason == "MUTATION_ID_REUSED";
        let is_refused = fault.code == Code::Unauthenticated;
        let failure = failed("the import was broken off", fault);
        match &self.beside {
            _ if is_reused => failure.hint("the lines have changed since: take another --id"),
            Some(_) if !is_refused => failure.hint("the same command goes on where it was"),
            None if !is_refused => {
                let id = &self.place.id;
                failure.hint(format!("with --id {id} the same lines are not written twice"))
            }
            _ => failure,
        }
    }

    /// Counts what was written; why it was not, otherwise.
    fn take(&mut self, result: &MutationResult) -> Option<String> {
        match (result.outcome(), &result.rejection) {
            (MutationOutcome::Rejected, Some(it)) => {
                Some(format!("{} ({})", it.message, shown::rejection_reason(it.reason())))
            }
            (MutationOutcome::Conflict, _) => Some("it met a conflict".to_owned()),
            _ => {
                self.place.written += 1;
                None
            }
        }
    }

    /// Tells of lines that were not written, and keeps them.
    fn reject(&mut self, bad: &[(Line, String)]) -> Result<(), Failure> {
        let mut kept = Vec::new();
        for (line, why) in bad {
            match self.session.json() {
                true => self.session.out.say_json(&json!({"line": line.number, "error": why}))?,
                false => self.bar.suspend(|| note(&format!("line {}: {}", line.number, safe(why)))),
            }
            kept.extend_from_slice(line.text.trim_ascii_end());
            kept.push(b'\n');
        }
        self.place.rejected += u64::try_from(bad.len()).unwrap_or_default();
        if let Some((_, rejected)) = self.beside.as_ref().filter(|_| !kept.is_empty()) {
            let file = OpenOptions::new().create(true).append(true).open(rejected);
            let written = file.and_then(|mut file| file.write_all(&kept));
            written.with_context(|| format!("cannot write {}", rejected.display()))?;
            self.place.rejected_bytes += u64::try_from(kept.len()).unwrap_or_default();
        }
        Ok(())
    }

    fn end(self) -> Result<Exit, Failure> {
        self.bar.finish_and_clear();
        let Place { id, written, rejected, .. } = self.place;
        if let Some((resume, _)) = &self.beside {
            place::remove(resume)?;
        }
        if self.session.json() {
            let value = json!({"written": written, "rejected": rejected, "id": id});
            self.session.out.say_json(&value)?;
        } else {
            note(&format!("imported {written} records"));
        }
        if rejected == 0 {
            return Ok(Exit::Success);
        }
        let lines = if rejected == 1 { "1 line was" } else { &format!("{rejected} lines were") };
        let failure = Failure::new(Exit::Refused, anyhow!("{lines} not imported"));
        Err(match &self.beside {
            Some((_, path)) => failure.hint(format!("mend {} and import that", path.display())),
            None => failure,
        })
    }
}
