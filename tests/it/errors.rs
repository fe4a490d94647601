//! Every error that the contract knows, provoked over a real socket: the table
//! of codes, reasons and details is a snapshot, and no message shows what is
//! inside the server.

mod away;
mod past;
mod rows;

use std::fmt::Write as _;

use tonic::Status;
use tonic_types::StatusExt;

use crate::support::describe;

/// What must never reach a client.
const INSIDE: [&str; 22] = [
    "sqlx",
    "select",
    "insert",
    "update ",
    "from unnest",
    "spaces",
    "records ",
    "changes ",
    "answers",
    "devices",
    "relation",
    "column",
    "postgres",
    "pgbouncer",
    "src/",
    "/tmp",
    "/var",
    ".sock",
    ".rs:",
    "panicked",
    "tokio",
    "hyper",
];
/// Words of the contract that look like it.
const ALLOWED: [&str; 3] = ["the changes after the cursor", "the changes after", "see GetStatus"];

/// The rows of the table: what was done, and the status that it met.
#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, what: &str, status: &Status) {
        check(what, status);
        let mut line = describe(status);
        line.push_str(" | ");
        line.push_str(status.message());
        writeln!(self.0, "{what}\n    {}", mask(&line)).unwrap();
    }
}

/// What holds for every status.
fn check(what: &str, status: &Status) {
    assert_ne!(status.code(), tonic::Code::Unknown, "{what}: {status:?}");
    assert!(status.details().len() < 4 << 10, "{what}: {} bytes", status.details().len());
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{what} has no reason: {status:?}"));
    assert_eq!(info.domain, "syncline.v1", "{what}");
    let mut message = status.message().to_lowercase();
    for allowed in ALLOWED {
        message = message.replace(&allowed.to_lowercase(), "");
    }
    for inside in INSIDE {
        assert!(!message.contains(inside), "{what} shows {inside:?}: {}", status.message());
    }
}

/// Hides what differs from run to run: every UUID, with or without hyphens.
fn mask(line: &str) -> String {
    let hex = |word: &str| word.chars().all(|it| it.is_ascii_hexdigit() || it == '-');
    let id = |word: &str| (32..=36).contains(&word.len()) && hex(word);
    let words = line.split(' ').map(|word| match word.split_once('=') {
        Some((key, value)) if id(value) => format!("{key}=<id>"),
        _ if id(word) => "<id>".to_owned(),
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}
