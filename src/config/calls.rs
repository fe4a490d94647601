//! What the single commands that talk to a server are told. Must not know of the server.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::count;

/// `syncline put`.
#[derive(Debug, Args)]
pub struct PutConfig {
    /// The record's collection.
    pub collection: String,
    /// The record's id.
    pub id: String,
    /// The document, a JSON object; - or nothing = from stdin.
    pub document: Option<String>,
    /// Create: refused if the record lives.
    #[arg(long, conflicts_with_all = ["base", "patch", "increment", "unset"])]
    pub if_new: bool,
    /// The revision of the record, or a later one, that you have seen: if it has been written
    /// since, the collection's policy decides.
    #[arg(long, value_name = "REVISION", value_parser = revision)]
    pub base: Option<i64>,
    /// Merge the document into what is there, instead of replacing it.
    #[arg(long)]
    pub patch: bool,
    /// Add a number to a value of what is there, such as /stock=-1.
    #[arg(long, value_name = "/PATH=N", value_parser = increment)]
    pub increment: Vec<Increment>,
    /// Remove a value from what is there, such as /address/city.
    #[arg(long, value_name = "/PATH", value_parser = pointer)]
    pub unset: Vec<String>,
}

/// A number that is added to a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Increment {
    /// The value, as a JSON Pointer.
    pub path: String,
    /// What is added.
    pub by: Number,
}

/// A number, exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// An integer.
    Integer(i64),
    /// Any other.
    Real(f64),
}

/// `syncline get`.
#[derive(Debug, Args)]
pub struct GetConfig {
    /// The record's collection.
    pub collection: String,
    /// The record's id.
    pub id: String,
    /// The record as it was at this revision of the space.
    #[arg(long, value_name = "N", value_parser = revision)]
    pub revision: Option<i64>,
}

/// `syncline ls`.
#[derive(Debug, Args)]
pub struct LsConfig {
    /// The collection whose records are listed; without it, the collections are.
    pub collection: Option<String>,
    /// At most this many; by default all.
    #[arg(long, value_name = "N", value_parser = count::<usize>(u64::MAX))]
    pub limit: Option<usize>,
}

/// `syncline rm`.
#[derive(Debug, Args)]
pub struct RmConfig {
    /// The records' collection.
    pub collection: String,
    /// The records' ids.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// `syncline watch`.
#[derive(Debug, Args)]
pub struct WatchConfig {
    /// Only these collections; by default all.
    #[arg(value_name = "COLLECTION")]
    pub collections: Vec<String>,
    /// Begin with what is there already, and not with what happens from now on.
    #[arg(long, conflicts_with = "cursor")]
    pub from_start: bool,
    /// Begin after this cursor, as `changes` and `watch --json` tell it.
    #[arg(long, value_name = "EPOCH:REVISION", value_parser = cursor)]
    pub cursor: Option<CursorAt>,
}

/// `syncline changes`.
#[derive(Debug, Args)]
pub struct ChangesConfig {
    /// Only these collections; by default all.
    #[arg(value_name = "COLLECTION")]
    pub collections: Vec<String>,
    /// After this cursor; by default from the beginning.
    #[arg(long, value_name = "EPOCH:REVISION", value_parser = cursor)]
    pub since: Option<CursorAt>,
    /// Every step, and not only the last change of each record.
    #[arg(long)]
    pub every_step: bool,
    /// At most this many; by default all.
    #[arg(long, value_name = "N", value_parser = count::<usize>(u64::MAX))]
    pub limit: Option<usize>,
}

/// A place in a space's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CursorAt {
    /// Which history.
    pub epoch: String,
    /// Up to where.
    pub revision: i64,
}

/// `syncline conflicts`.
#[derive(Debug, Args)]
pub struct ConflictsConfig {
    /// Only those of this collection.
    pub collection: Option<String>,
    /// Only those in this state.
    #[arg(long, value_name = "STATE", value_enum, default_value = "open")]
    pub state: State,
}

/// The state of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// Somebody has to decide.
    Open,
    /// It was decided.
    Resolved,
    /// A later write has closed it.
    Superseded,
    /// Whatever it is.
    Any,
}

/// `syncline resolve`.
#[derive(Debug, Args)]
pub struct ResolveConfig {
    /// The conflict.
    pub conflict_id: String,
    /// Keep a side: `mine` is what came and met the conflict, `theirs` the record as it is.
    #[arg(long, value_name = "SIDE", value_enum)]
    #[arg(conflicts_with_all = ["document", "edit", "strategy"])]
    pub keep: Option<Side>,
    /// Write this document, a JSON object; - = from stdin.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["edit", "strategy"])]
    pub document: Option<String>,
    /// Write what you make of a draft in $VISUAL or $EDITOR; an empty file decides nothing.
    #[arg(long, conflicts_with = "strategy")]
    pub edit: bool,
    /// Write what this strategy makes of the sides.
    #[arg(long, value_name = "STRATEGY", value_parser = STRATEGIES)]
    pub strategy: Option<String>,
}

/// What can decide between two sides.
const STRATEGIES: [&str; 8] = [
    "last_write_wins",
    "first_write_wins",
    "highest_version_wins",
    "server_wins",
    "client_wins",
    "merge",
    "additive",
    "auto",
];

/// A side of a conflict, as the one who resolves it says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// The client's: the write that came.
    Mine,
    /// The server's: the record as it is.
    Theirs,
}

/// `syncline import`.
#[derive(Debug, Args)]
pub struct ImportConfig {
    /// File with one record on each line, as {"collection": …, "id": …, "document": …}; - = stdin.
    pub file: PathBuf,
    /// A name for the import: with the same name and lines, nothing is written twice. A file has
    /// one of its own, in FILE.resume.
    #[arg(long, value_name = "NAME", value_parser = import_id)]
    pub id: Option<String>,
}

/// `syncline export`.
#[derive(Debug, Args)]
pub struct ExportConfig {
    /// File to write, one record on each line; it is replaced once all is there. - = stdout.
    pub file: PathBuf,
    /// Go on with an export to this file that was broken off.
    #[arg(long)]
    pub resume: bool,
    /// Only these collections; by default all.
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    pub collections: Vec<String>,
}

fn revision(text: &str) -> Result<i64, &'static str> {
    text.parse().ok().filter(|number| *number >= 0).ok_or("expected a revision, as in 42")
}

fn pointer(text: &str) -> Result<String, &'static str> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err("expected a JSON Pointer, as in /address/city"),
    }
}

fn increment(text: &str) -> Result<Increment, &'static str> {
    let expected = "expected a JSON Pointer and a number, as in /stock=-1";
    let (path, number) = text.rsplit_once('=').ok_or(expected)?;
    let integer = number.parse().ok().map(Number::Integer);
    let real = || number.parse().ok().filter(|real: &f64| real.is_finite()).map(Number::Real);
    let by = integer.or_else(real).ok_or(expected)?;
    Ok(Increment { path: pointer(path)?, by })
}

/// Parses `EPOCH:REVISION`; `0` and `:0` are the beginning.
fn cursor(text: &str) -> Result<CursorAt, &'static str> {
    let (epoch, number) = text.rsplit_once(':').unwrap_or(("", text));
    let expected = "expected EPOCH:REVISION, as `syncline changes` prints it";
    let revision = number.parse().ok().filter(|it: &i64| *it >= 0).ok_or(expected)?;
    if epoch.is_empty() && revision != 0 {
        return Err(expected);
    }
    Ok(CursorAt { epoch: epoch.to_owned(), revision })
}

/// Short enough for a mutation's id with a line's number behind it.
fn import_id(text: &str) -> Result<String, &'static str> {
    let fits = (1..=96).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| text.to_owned()).ok_or("expected 1 to 96 visible ASCII characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn increments_are_a_path_and_a_number() {
        let by = |path: &str, by| Ok(Increment { path: path.into(), by });
        assert_eq!(increment("/a/b=-1"), by("/a/b", Number::Integer(-1)));
        assert_eq!(increment("/a=b=1.5"), by("/a=b", Number::Real(1.5)));
        for bad in ["", "/a", "a=1", "/a=", "/a=x", "/a=inf", "/a=NaN"] {
            assert!(increment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cursors_have_an_epoch_but_for_the_beginning() {
        let at = |epoch: &str, revision| Ok(CursorAt { epoch: epoch.into(), revision });
        assert_eq!(cursor("e:7"), at("e", 7));
        assert_eq!(cursor("0"), at("", 0));
        for bad in ["", "7", "e:", "e:-1", ":7"] {
            assert!(cursor(bad).is_err(), "{bad}");
        }
    }
}
