//! The commands that talk to a server, as somebody types them: what they print, where, and how they
//! end. Each is a process of its own, against a real server.

mod conflicts;
mod doctor;
mod ends;
mod files;
mod follow;
mod records;
mod store;
mod sync;
mod terminal;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::program::{Running, syncline};
use crate::support::{House, mint};

/// What a command has said, and its exit code.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// What it has printed, if it has ended well.
    #[track_caller]
    fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The JSON values that it has printed, one on each line, if it has ended well.
    #[track_caller]
    fn values(self) -> Vec<Value> {
        values(&self.good())
    }

    #[track_caller]
    fn value(self) -> Value {
        let mut values = self.values();
        assert_eq!(values.len(), 1, "{values:?}");
        values.remove(0)
    }

    /// The failure that it has told as JSON, if it has ended in this way.
    #[track_caller]
    fn failure(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        let value: Value = serde_json::from_str(last).unwrap();
        assert_eq!(value["exit"], code, "{self:?}");
        value
    }

    /// What it has said on stderr, if it has ended in this way.
    #[track_caller]
    fn ended(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(
            self.stderr.starts_with("error: ") || self.stderr.contains("\nerror: "),
            "{self:?}"
        );
        &self.stderr
    }
}

#[track_caller]
fn values(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Somebody at a terminal of alice's, in a folder of their own.
struct Desk {
    house: House,
    folder: TempDir,
}

impl Desk {
    async fn new() -> Self {
        Self { house: House::new().await, folder: tempfile::tempdir().unwrap() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.house.server.address())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The program with alice's token.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = syncline();
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("SYNCLINE_SERVER", self.url())
            .env("SYNCLINE_TOKEN", mint("alice"));
        command
    }

    /// Types a line; words are between spaces.
    async fn run(&self, line: &str) -> Said {
        let words: Vec<_> = line.split_whitespace().collect();
        end(self.command(&words)).await
    }

    /// With something on stdin.
    async fn pipe(&self, line: &str, stdin: impl AsRef<[u8]>) -> Said {
        let words: Vec<_> = line.split_whitespace().collect();
        piped(self.command(&words), stdin).await
    }
}

/// Runs it to its end.
async fn end(mut command: Command) -> Said {
    Said::new(Running::start(&mut command).end().await)
}

async fn piped(mut command: Command, stdin: impl AsRef<[u8]>) -> Said {
    let mut running = Running::start(command.stdin(Stdio::piped()));
    running.type_in(stdin);
    Said::new(running.end().await)
}
